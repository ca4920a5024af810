"""Differences between sets of runs, against the textbook's formula and a simulation."""

import math
import random
import statistics

import pytest
from scipy import stats

from common.compare import difference


def test_the_interval_is_welchs():
    before, after = [0.9938, 0.9941, 0.9945], [0.9950, 0.9956, 0.9951, 0.9957, 0.9949]
    found = difference(before, after)
    variances = [statistics.variance(values) / len(values) for values in (before, after)]
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 2 + variances[1] ** 2 / 4)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(variances))
    points = statistics.mean(after) - statistics.mean(before)
    assert found.points == pytest.approx(100 * points)
    assert (found.low, found.high) == pytest.approx((100 * (points - half), 100 * (points + half)))


def test_without_a_true_difference_one_pair_in_twenty_is_said_to_differ():
    generator = random.Random(0)
    found = [
        difference(*([generator.gauss(0.99, spread) for _ in range(5)] for spread in (0.001, 0.002)))
        for _ in range(1000)
    ]
    assert 0.03 < sum(one.low > 0 or one.high < 0 for one in found) / len(found) < 0.07


def test_the_sentence_says_which_side_of_the_noise_it_is_on():
    assert str(difference([0.5, 0.51], [0.9, 0.91])).endswith("more than the noise between runs")
    assert str(difference([0.9, 0.91], [0.5, 0.51])).endswith("more than the noise between runs")
    assert str(difference([0.5, 0.6], [0.5, 0.61])).endswith("inside the noise between runs")
    assert str(difference([0.5, 0.5], [0.5, 0.5])).startswith("+0.00 points (95 % interval +0.00 to +0.00)")


def test_a_single_run_is_not_compared():
    with pytest.raises(ValueError, match="One run says nothing"):
        difference([0.5], [0.6, 0.7])
