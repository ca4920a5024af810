"""Session 10 makes many decisions by itself: none may depend on the test images."""

import dataclasses

import pytest
import torch

from common import data
from course import notebooks
from course.sessions import find_session


def run_notebook(test_labels, digits):
    """Execute the deciding cells of session 10 on a few images with the given test labels; returns their namespace.

    The training labels are random too, so that the held-out loss soon stops falling and the rate has to be reduced.
    """
    session = find_session("s10_resnet_lr_finder")
    notebook = session.notebook
    chosen = session.quick | {
        "plateau_epochs": 24,
        "width": 2,
        "batch_size": 16,
        "search_steps": 20,
        "device": "cpu",
    }
    random_labels = torch.randint(10, (100,), generator=torch.Generator().manual_seed(0))
    small = dataclasses.replace(
        digits,
        train=data.Split(digits.train.images[:100, :, ::2, ::2], random_labels),
        test=data.Split(digits.test.images[:50, :, ::2, ::2], test_labels),
    )
    parameters = notebooks.find_cell(notebook, "parameters").source
    injected = "# Parameters\n" + "\n".join(f"{name} = {value!r}" for name, value in chosen.items())
    namespace = {"In": [parameters, injected]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda name, root: small)
        for cell in notebook.cells:
            if cell.cell_type == "code" and not notebooks.tags(cell) & notebooks.NOT_DECIDING:
                exec(compile(cell.source, cell.id, "exec"), namespace)
    return namespace


@pytest.fixture(scope="module")
def runs(digits):
    """Two runs, with the true and with random test labels."""
    true = digits.test.labels[:50]
    random = torch.randint(10, true.shape, generator=torch.Generator().manual_seed(1))
    return [run_notebook(labels, digits) for labels in (true, random)]


def test_random_test_labels_change_no_choice(runs):
    """Suggested and used rates, their schedules, losses and weights are the same to the bit."""
    one, other = runs
    names = ["rate by train loss", "rate by held-out loss", "OneCycle"]
    assert list(one["histories"]) == list(other["histories"]) == names
    assert one["searches"] == other["searches"]
    assert one["suggestions"] == other["suggestions"]
    assert one["rates"] == other["rates"]
    for name in names:
        assert one["histories"][name].epochs != other["histories"][name].epochs  # the test accuracies
        assert list(map(decided, one["histories"][name].epochs)) == list(map(decided, other["histories"][name].epochs))
        for key, weights in one["models"][name].state_dict().items():
            assert torch.equal(weights, other["models"][name].state_dict()[key]), (name, key)
    for name in names[:2]:
        assert len(set(one["histories"][name]["lr"])) > 1, "no rate was reduced: the test would show nothing"


def decided(row):
    """A row of a history without its test results."""
    return {name: value for name, value in row.items() if name not in ("test_loss", "test_accuracy")}


def test_the_held_out_images_are_neither_learned_nor_test_images(runs):
    photos, rest, held_out = (runs[0][name] for name in ("photos", "rest", "held_out"))
    assert len(rest.labels) + len(held_out.labels) == len(photos.train.labels) == 100
    known = {image.numpy().tobytes() for image in rest.images}
    asked = {image.numpy().tobytes() for image in photos.test.images}
    assert not known & {image.numpy().tobytes() for image in held_out.images}
    assert not asked & {image.numpy().tobytes() for image in held_out.images}
