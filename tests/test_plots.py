"""Plots show what scikit-learn counts."""

import math
import re

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, recall_score

from common import plots, report
from common.train import History

CLASSES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def answered():
    """Labels (N,) and logits (N, 4) for 60 images; there is none of class d, but it is an answer."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, (60,), generator=generator), torch.randn(60, 4, generator=generator)


def test_the_confusion_matrix_matches_scikit_learn(answered):
    labels, logits = answered
    expected = confusion_matrix(labels, logits.argmax(dim=1), labels=range(4))
    figure, alt = plots.confusion_matrix(labels, logits, CLASSES)
    axes = figure.axes[0]
    shown = {text.get_position(): int(text.get_text()) for text in axes.texts}
    cells = {(answer, label): expected[label, answer] for label in range(4) for answer in range(4)}
    assert shown == {cell: images for cell, images in cells.items() if images}  # zeros are left blank
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("answer", "class")
    assert [text.get_text() for text in axes.get_yticklabels()] == list(CLASSES)
    mistakes = {f"{CLASSES[i]} as {CLASSES[j]} ({expected[i, j]} times)" for i in range(4) for j in range(4) if i != j}
    most = alt.removeprefix("Confusion matrix. Most frequent mistakes: ").removesuffix(".").split("), ")
    assert {f"{mistake.removesuffix(')')})" for mistake in most} <= mistakes
    times = sorted((expected[i, j] for i in range(4) for j in range(4) if i != j), reverse=True)[:3]
    assert [int(re.search(r"\((\d+) times", mistake)[1]) for mistake in most] == times


def test_the_accuracy_of_each_class_is_its_recall(answered):
    labels, logits = answered
    accuracies = report.accuracy_per_class(labels, logits, CLASSES)
    recalls = recall_score(labels, logits.argmax(dim=1), labels=range(3), average=None)
    assert list(accuracies.values())[:3] == pytest.approx(recalls)
    assert math.isnan(accuracies["d"])


def test_maps_are_described_by_their_mass_and_likeness():
    even = torch.ones(8, 8)
    middle = torch.zeros(8, 8)
    middle[2:6, 2:6] = 1
    corner = torch.zeros(8, 8)
    corner[:2, :2] = 1
    where, alike = report.about_maps(torch.stack([torch.stack([middle, even + middle]), torch.stack([middle, corner])]))
    true, predicted = 100 * (16 + 32) / (16 + 80), 100 * 16 / (16 + 4)
    assert f"holds {true:.0f} %" in where
    assert f"{predicted:.0f} % of that for the predicted class" in where
    correlation = np.corrcoef(middle.flatten(), corner.flatten())[0, 1]
    assert f"from {correlation:.2f} to 1.00" in alike
    assert "empty" in report.about_maps(torch.zeros(2, 3, 8, 8))[0]


def test_a_paired_difference_is_that_of_the_images_one_by_one():
    generator = torch.Generator().manual_seed(0)
    before, after = (torch.rand(400, generator=generator) < share for share in (0.8, 0.9))
    each = 100 * (after.double() - before.double())
    points, error = float(each.mean()), float(each.std(correction=0)) / math.sqrt(400)
    said = report.paired_difference(("A", "B"), before, after)
    assert f"{points:+.2f} ± {error:.2f} points" in said
    assert "That is more than" in said and points > 2 * error


def test_an_analysis_judges_target_best_epoch_and_gap():
    history = History([{"epoch": 1, "test_accuracy": 0.9}, {"epoch": 2, "test_accuracy": 0.8}])
    result, best, gap = report.analysis(history, 0.85, 100, 0.9)
    assert "80.00% after epoch 2, 20 of 100 test images wrong: missed" in result
    assert "Epoch 1 had 90.00%" in best
    assert "+10.00 points is more than twice the standard error of the test accuracy (4.00 points)" in gap
    gap = report.analysis(history, 0.85, 100, 0.9, train_images=20)[2]
    assert "not more than twice the standard error of the gap itself (9.80 points): with 20 training images" in gap


def test_the_share_of_heat_maps_on_strokes_is_counted():
    images = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    images[:, 0, 0] = 255  # a stroke along the upper edge: a quarter of the image
    maps = torch.zeros(2, 2, 4, 4)
    maps[:, 0] = 1  # the same everywhere
    maps[0, 1, 0, 0], maps[0, 1, 3, 3] = 3, 1
    cover, even, spots = report.on_strokes(images, torch.tensor([0, 1]), ("a", "b"), maps)
    assert cover["images of a"] == even["images of a"] == "25%"
    assert (spots["images of a"], spots["images of b"]) == ("75%", "all are empty")
    spots = report.on_strokes(images, torch.tensor([0, 0]), ("a", "b"), maps)[2]
    assert spots["images of a"] == "75% (50% are empty)"
