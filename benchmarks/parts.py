"""Smaller measurements, each in a process of its own with one thread; prints {what: seconds} as JSON.

Started by speed.py. Competitors take turns, and each figure is the smallest of several: the one that other processes
disturbed least. Only quick sessions and first epochs are measured once.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import timeit
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml

from common import data, model, train, utils
from common.grad_cam import grad_cam, heat_maps
from common.lr_finder import find_lr
from common.many import fit_many
from course.sessions import all_sessions, find_session


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


def heat_maps_of_25():
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
    return fastest(functions, 10)


def lr_search_of_100():
    """100 steps of the learning-rate finder with s06's network, batch 64, by the course and torch-lr-finder."""
    from torch_lr_finder import LRFinder

    digits, steps = data.load("digits"), 100
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
    return fastest(functions, 3)


def many_seeds(network, batch_size, optimise):
    """16 trainings of 128 images for 4 epochs: one after the other, all side by side, and four at a time."""
    digits, seeds, epochs = data.load("digits"), range(16), 4
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

    def side_by_side(count):
        for first in range(0, len(seeds), count):
            some = seeds[first : first + count]
            fit_many(setup, some, lambda net, batches: optimise(net, batches, epochs), epochs=epochs)

    ways = {"16 single": singly, "16 side by side": lambda: side_by_side(16), "4 times 4": lambda: side_by_side(4)}
    return fastest(ways, 3)


def adam(net, batches, epochs):
    return torch.optim.Adam(net.parameters(), 0.001, fused=True), None


def one_cycle(net, batches, epochs):
    return train.one_cycle(net, batches, 0.1, epochs)


def an_epoch_of_1437_digits():
    """An epoch of s06 with batches of 64, as the course trains, and in ways that were tried beside it."""
    batches = data.loaders(data.load("digits"), 64)[0]
    cache = tempfile.TemporaryDirectory()  # an empty one: what torch.compile made before counts too
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache.name

    def epoch(fused=False, compiled=False, bfloat16=False, layout=torch.contiguous_format):
        utils.set_seed(0)
        net = model.under_10k().to(memory_format=layout)
        optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, nesterov=True, fused=fused)
        trained = torch.compile(net) if compiled else net
        return lambda: train.train_epoch(trained, batches, optimizer, bfloat16=bfloat16)

    compiled, as_it_is = epoch(compiled=True), epoch()

    def with_two_threads():
        torch.set_num_threads(2)
        as_it_is()
        torch.set_num_threads(1)

    started = time.perf_counter()
    compiled()
    first = {"torch.compile, first epoch": time.perf_counter() - started}
    ways = {
        "as it is": as_it_is,
        "two threads": with_two_threads,
        "fused optimiser": epoch(fused=True),
        "bfloat16": epoch(bfloat16=True),
        "channels last": epoch(layout=torch.channels_last),
        "torch.compile": compiled,
    }
    return {**fastest(ways, 5), **first}


def ten_steps_of_a_resnet():
    """Ten steps of ResNet-18 (width 16), batch 128, in the usual layout of memory and in that of session 10."""
    images, labels = torch.randn(128, 3, 32, 32), torch.arange(128) % 10

    def steps(layout):
        utils.set_seed(0)
        net = model.resnet18(16).to(memory_format=layout)
        optimizer = torch.optim.SGD(net.parameters(), 0.01)

        def ten():
            for _ in range(10):
                optimizer.zero_grad()
                F.cross_entropy(net(images), labels).backward()
                optimizer.step()

        return ten

    layouts = {"usual layout": torch.contiguous_format, "channels last, as in session 10": torch.channels_last}
    return fastest({name: steps(layout) for name, layout in layouts.items()}, 3)


def quick_session():
    """Where a quick session, s06, spends its time, from the times of its cells that papermill notes."""
    import papermill

    started = time.perf_counter()
    session = find_session("s06")
    with tempfile.TemporaryDirectory() as out:
        notebook = papermill.execute_notebook(
            session.path, Path(out) / "out.ipynb", session.quick, cwd=session.folder, progress_bar=False
        )
    wall = time.perf_counter() - started
    spent = dict.fromkeys(["imports", "data", "training", "plots and tables", "other cells"], 0.0)
    for cell in notebook.cells:
        spent[phase_of(cell)] += cell.metadata.get("papermill", {}).get("duration") or 0.0
    return {**spent, "kernel start and saving": wall - sum(spent.values())}


def quick_course():
    """All quick sessions by `make run`, and without Snakemake and pages: by papermill itself, and by course.engine."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as out:
        clone = Path(out) / "clone"
        subprocess.run(["git", "clone", "--quiet", utils.ROOT, clone], check=True)
        environment = {**os.environ, "PYTHONPATH": str(clone)}
        run = partial(subprocess.run, cwd=clone, env=environment, capture_output=True, check=True)

        def execute(session, program):
            paths = [str(session.path.relative_to(utils.ROOT)), f"{out}/{program}-{session.name}.ipynb"]
            options = ["--parameters_yaml", yaml.safe_dump(session.quick), "--no-progress-bar"]
            run([sys.executable, "-m", program, *paths, *options])

        def execute_all(program):
            with ThreadPoolExecutor(cores) as pool:
                list(pool.map(partial(execute, program=program), all_sessions()))

        ways = {
            "papermill": lambda: execute_all("papermill"),
            "course.engine": lambda: execute_all("course.engine"),
            "make run": lambda: run(["snakemake", "--cores", str(cores), "quick"]),
        }
        return {name: timeit.timeit(way, number=1) for name, way in ways.items()}


def phase_of(cell):
    """What a cell of a session does."""
    for code, phase in (("import Run", "imports"), ("data.load(", "data"), ("train.fit(", "training")):
        if code in cell.source:
            return phase
    return "plots and tables" if "show" in cell.metadata.get("tags", []) else "other cells"


PARTS = {
    "25 Grad-CAM maps": heat_maps_of_25,
    "100 steps of the LR finder": lr_search_of_100,
    "16 seeds, s05, batch 8": lambda: many_seeds(lambda: model.fully_connected_head(10), 8, adam),
    "16 seeds, s06, batch 8": lambda: many_seeds(model.under_10k, 8, one_cycle),
    "16 seeds, s06, batch 64": lambda: many_seeds(model.under_10k, 64, one_cycle),
    "an epoch of 1,437 digits, s06, batch 64": an_epoch_of_1437_digits,
    "10 steps of ResNet-18, width 16, batch 128": ten_steps_of_a_resnet,
    "a quick session, s06": quick_session,
    "the quick course": quick_course,
}


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"  # for the kernel of the quick session
    torch.set_num_threads(1)
    print(json.dumps(PARTS[json.loads(sys.argv[1])["part"]]()))
