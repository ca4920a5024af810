"""Whether two sets of runs differ by more than the noise between them."""

import math
import warnings
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """Difference of two mean accuracies and its 95 % confidence interval, in percentage points."""

    points: float
    low: float
    high: float

    @property
    def more_than_noise(self):
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    def __str__(self):
        interval = f"{self.points:+.2f} points (95 % interval {self.low:+.2f} to {self.high:+.2f})"
        if self.more_than_noise:
            return f"{interval}: more than the noise between runs"
        return f"{interval}: inside the noise between runs"


def difference(before, after):
    """Mean of `after` minus mean of `before`, accuracies as fractions, two runs or more each.

    The interval is Welch's (1947), which does not assume equal spreads. Raises ValueError for a single run.
    """
    from scipy.stats import ttest_ind  # here, because it takes a second

    if min(len(before), len(after)) < 2:
        raise ValueError("One run says nothing about the noise between runs: two or more are needed on both sides.")
    before, after = ([100 * accuracy for accuracy in accuracies] for accuracies in (before, after))
    points = sum(after) / len(after) - sum(before) / len(before)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of runs that hardly differ: their interval is just narrow
        interval = ttest_ind(after, before, equal_var=False).confidence_interval(0.95)
    low, high = (points if math.isnan(end) else float(end) for end in interval)  # no spread at all: no interval
    return Difference(points, low, high)
