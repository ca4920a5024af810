"""Smaller measurements, each in a process of its own; prints {what: seconds} as JSON. Started by speed.py.

Competitors take turns, and each figure is the smallest of several: the one that other processes disturbed least.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml

from common import data, model, train, utils
from common.grad_cam import grad_cam, heat_maps
from common.lr_finder import find_lr
from common.many import fit_many


def fastest(functions, repeats):
    """Seconds of each function {name: function}, the smallest of `repeats` after one to warm up."""
    seconds = dict.fromkeys(functions, float("inf"))
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            if repeat:
                seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds


def heat_maps_of_25(quick):
    """25 Grad-CAM maps of ResNet-18 (width 16) with 32 x 32 pixels, by the course, captum and grad-cam."""
    from captum.attr import LayerAttribution, LayerGradCam
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    utils.set_seed(0)
    net, images, labels = model.resnet18(16).eval(), torch.randn(25, 3, 32, 32), torch.arange(25) % 10
    layer = net[8]
    captum, targets = LayerGradCam(net, layer), [ClassifierOutputTarget(int(label)) for label in labels]
    functions = {
        "ours": lambda: heat_maps(grad_cam(net, layer, images, labels), (32, 32)),
        "captum": lambda: LayerAttribution.interpolate(
            captum.attribute(images, labels, relu_attributions=True), (32, 32), "bilinear"
        ),
        "grad-cam": lambda: GradCAM(net, [layer])(images, targets),
    }
    return fastest(functions, 2 if quick else 10)


def lr_search_of_100(quick):
    """100 steps of the learning-rate finder with s06's network, batch 64, by the course and torch-lr-finder."""
    from torch_lr_finder import LRFinder

    digits, steps = data.load("digits"), 10 if quick else 100
    net = model.under_10k()
    batches = data.loaders(digits, 64)[0]
    images = data.normalise(digits, digits.train.images)
    tensors = torch.utils.data.TensorDataset(images, digits.train.labels)  # it takes nothing but a DataLoader
    dataloader = torch.utils.data.DataLoader(tensors, 64, shuffle=True)

    def optimizer():
        return torch.optim.SGD(net.parameters(), lr=1e-5)

    def theirs():
        finder = LRFinder(net, optimizer(), torch.nn.CrossEntropyLoss())
        finder.range_test(dataloader, end_lr=0.1, num_iter=steps)  # low enough that both make all their steps
        finder.reset()

    functions = {
        "ours": lambda: find_lr(net, batches, optimizer(), lo=1e-5, hi=0.1, steps=steps),
        "torch-lr-finder": theirs,
    }
    return fastest(functions, 1 if quick else 3)


def many_seeds(network, batch_size, optimise, quick):
    """16 trainings of 128 images for 4 epochs, one after the other and side by side."""
    digits, seeds, epochs = data.load("digits"), range(16), 2 if quick else 4
    few = data.Split(digits.train.images[:128], digits.train.labels[:128])
    digits, augment = data.with_splits(digits, few, digits.test, digits.classes), data.Augment(10, 2, 0.1)

    def setup(seed):
        utils.set_seed(seed)
        return network(), data.loaders(digits, batch_size, augment, seed)[0]

    def singly():
        for seed in seeds:
            net, batches = setup(seed)
            optimizer, schedule = optimise(net, batches, epochs)
            train.fit(net, batches, None, optimizer, epochs=epochs, schedule=schedule, log=lambda line: None)

    def side_by_side():
        fit_many(setup, seeds, lambda net, batches: optimise(net, batches, epochs), epochs=epochs)

    return fastest({"16 single": singly, "16 side by side": side_by_side}, 1 if quick else 3)


def adam(net, batches, epochs):
    return torch.optim.Adam(net.parameters(), 0.001, fused=True), None


def one_cycle(net, batches, epochs):
    return train.one_cycle(net, batches, 0.1, epochs)


def quick_session(quick):
    """Where a quick session, s06, spends its time, from the times of its cells that papermill notes."""
    import papermill

    started = time.perf_counter()
    folder = utils.ROOT / "sessions" / "s06_under_10k"
    parameters = yaml.safe_load((folder / "quick.yaml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as out:
        notebook = papermill.execute_notebook(
            folder / "session.ipynb", Path(out) / "out.ipynb", parameters, cwd=folder, progress_bar=False
        )
    wall = time.perf_counter() - started
    spent = dict.fromkeys(["imports", "data", "training", "plots and tables", "other cells"], 0.0)
    for cell in notebook.cells:
        spent[phase_of(cell)] += cell.metadata.get("papermill", {}).get("duration") or 0.0
    return {**spent, "kernel start and saving": wall - sum(spent.values())}


def phase_of(cell):
    """What a cell of a session does."""
    for code, phase in (("import Run", "imports"), ("data.load(", "data"), ("train.fit(", "training")):
        if code in cell.source:
            return phase
    return "plots and tables" if "show" in cell.metadata.get("tags", []) else "other cells"


PARTS = {
    "25 Grad-CAM maps": heat_maps_of_25,
    "100 steps of the LR finder": lr_search_of_100,
    "16 seeds, s05, batch 8": lambda quick: many_seeds(lambda: model.zero_one_or_neither(10), 8, adam, quick),
    "16 seeds, s06, batch 8": lambda quick: many_seeds(model.under_10k, 8, one_cycle, quick),
    "16 seeds, s06, batch 64": lambda quick: many_seeds(model.under_10k, 64, one_cycle, quick),
    "a quick session, s06": quick_session,
}


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    torch.set_num_threads(arguments["threads"])
    print(json.dumps(PARTS[arguments["part"]](arguments["quick"])))
