"""One training in a process of its own, by one of four loops; prints what it took as JSON. Started by speed.py.

All loops train the same network with the same optimiser, schedule, batch size and changes of the images, and measure
on the test images after each epoch. They differ in how batches are made and in what the loop does at each step.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from search import AUGMENTATIONS, LIGHT, WEAK

from common import data, model, speedrun, train, utils


class Task(NamedTuple):
    """What is trained, and how: the same for all loops."""

    dataset: str
    network: Callable
    batch_size: int
    lr: float  # the peak learning rate
    augment: data.Augment
    target: float  # the accuracy whose time is measured
    whole: int = 0  # epochs of a record of session 11, of which a few are measured
    channels_last: bool = False  # only the course's loop does this, and the next
    bfloat16: bool = False
    filter_lr: float | None = None  # where the filters follow orthogonal gradients, as in the hour of session 11


def hour():
    """The large network of session 11, its first layer fixed; which filters that has does not change the time."""
    network = model.under_an_hour()
    network[0].weight.requires_grad_(False)
    return network


CROP, MIRROR = data.Augment(crop_padding=2), data.Augment(crop_padding=2, flip=True)
TASKS = {
    "digits": Task("digits", model.under_10k, 64, 0.1, CROP, 0.9),
    "mnist": Task("mnist", model.under_10k, 64, 0.1, CROP, 0.994),
    "cifar10": Task("cifar10", lambda: model.resnet18(16), 128, 0.2, MIRROR, 0.88, 0, True),
    "minute": Task("mnist", model.under_a_minute, 128, 0.1, AUGMENTATIONS[LIGHT], 0.994, 8, True),
    "hour": Task("cifar10", hour, 512, 0.5, MIRROR, 0.94, 18, True, utils.has_bfloat16(utils.choose_device()), 0.08),
}
SESSION_6 = Task("mnist", model.under_10k, 64, 0.1, AUGMENTATIONS[WEAK], 0.994, 20)


class Pictures(torch.utils.data.Dataset):
    """A Split as torchvision's data sets hand it out: one PIL image at a time, changed by `transform`."""

    def __init__(self, split, transform):
        images = split.images.permute(0, 2, 3, 1)  # (N, H, W, C)
        self.images = (images[..., 0] if images.shape[3] == 1 else images).numpy()
        self.labels, self.transform = split.labels.tolist(), transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, number):
        from PIL import Image

        return self.transform(Image.fromarray(self.images[number])), self.labels[number]


def data_loaders(dataset, task, workers):
    """PyTorch's DataLoaders with torchvision's transforms of PIL images, for training and for testing."""
    from torchvision import transforms

    size, augment = tuple(dataset.train.images.shape[2:]), task.augment
    to_tensor = [transforms.ToTensor(), transforms.Normalize(dataset.mean, dataset.std)]
    changes = []
    if augment.rotate:
        shift = [augment.shift / side for side in reversed(size)]
        changes.append(transforms.RandomAffine(augment.rotate, shift, (1 - augment.scale, 1 + augment.scale)))
    if augment.crop_padding:
        changes.append(transforms.RandomCrop(size, padding=augment.crop_padding))
    if augment.flip:
        changes.append(transforms.RandomHorizontalFlip())
    train_split = Pictures(dataset.train, transforms.Compose([*changes, *to_tensor]))
    test_split = Pictures(dataset.test, transforms.Compose(to_tensor))
    options = {"num_workers": workers, "pin_memory": torch.cuda.is_available()}
    shuffled = torch.utils.data.DataLoader(train_split, task.batch_size, shuffle=True, **options)
    return shuffled, torch.utils.data.DataLoader(test_split, 1000, **options)


def one_cycle(net, batches, task, epochs):
    """The optimiser and schedule of a task."""
    if task.filter_lr:
        return speedrun.one_cycle(net, batches, task.lr, epochs, 1e-3, task.filter_lr)
    return train.one_cycle(net, batches, task.lr, epochs)


def plain_loop(net, dataset, task, epochs, device, workers):
    """The loop of the public examples: a DataLoader, and the loss read at every step."""
    batches, tests = data_loaders(dataset, task, workers)
    optimizer, schedule = one_cycle(net, batches, task, epochs)
    rows = []
    for _ in range(epochs):
        started, waited, losses = time.perf_counter(), 0.0, 0.0
        net.train()
        before = started
        for images, labels in batches:
            waited += time.perf_counter() - before
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = F.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses += loss.item()
            before = time.perf_counter()
        trained = time.perf_counter()
        net.eval()
        right = 0
        with torch.no_grad():
            for images, labels in tests:
                right += (net(images.to(device)).argmax(dim=1) == labels.to(device)).sum().item()
        row = {"train": trained - started, "data": waited, "eval": time.perf_counter() - trained}
        rows.append({**row, "accuracy": right / len(dataset.test.labels)})
    return rows


def example(*arguments):
    """The loop of PyTorch's example for MNIST: images are read by the process that trains."""
    return plain_loop(*arguments, workers=0)


def workers(*arguments):
    """The loop of usual training scripts for CIFAR: two worker processes prepare images."""
    return plain_loop(*arguments, workers=2)


def lightning(net, dataset, task, epochs, device):
    """PyTorch Lightning's Trainer on the same DataLoaders with two workers, without logger, bar and checkpoints."""
    from lightning_module import fit

    batches, tests = data_loaders(dataset, task, workers=2)
    optimizer, schedule = one_cycle(net, batches, task, epochs)
    return fit(net, batches, tests, optimizer, schedule, epochs, device)


class TimedLoader(data.Loader):
    """The course's loader, which notes how long it takes to make batches."""

    seconds = 0.0

    def batch(self, chosen):
        started = time.perf_counter()
        made = super().batch(chosen)
        self.seconds += time.perf_counter() - started
        return made


def ours(net, dataset, task, epochs, device):
    """The course's loader and train.fit()."""
    options = {"mean": dataset.mean, "std": dataset.std, "device": device}
    seed = torch.initial_seed()  # the DataLoaders' order depends on it too
    batches = TimedLoader(dataset.train, task.batch_size, augment=task.augment, shuffle=True, seed=seed, **options)
    if task.channels_last:
        net.to(memory_format=torch.channels_last)
    tests = data.Loader(dataset.test, 1000, **options)
    optimizer, schedule = one_cycle(net, batches, task, epochs)
    options = {"epochs": epochs, "schedule": schedule, "bfloat16": task.bfloat16}
    history = train.fit(net, batches, tests, optimizer, log=lambda line: None, **options)
    seconds = {**history.seconds, "data": batches.seconds}
    mean = {name: value / epochs for name, value in seconds.items()}  # fit() adds its seconds up over the epochs
    return [{**mean, "accuracy": accuracy} for accuracy in history["test_accuracy"]]


def main(loop, task, seed, epochs, threads, spawned):
    """Train once and print the result; `spawned` is the time at which the process was started."""
    torch.set_num_threads(threads)
    task = SESSION_6 if loop == "session_6" else TASKS[task]
    train_by = {"example": example, "workers": workers, "lightning": lightning}.get(loop, ours)
    dataset = data.load(task.dataset)
    device = utils.choose_device()
    utils.set_seed(seed)
    net = task.network().to(device)
    rows = train_by(net, dataset, task, epochs, device)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MiB; Linux counts in KiB
    outside = time.time() - spawned - sum(row["train"] + row["eval"] for row in rows)
    reached = [number for number, row in enumerate(rows, 1) if row["accuracy"] >= task.target]
    to_target = sum(row["train"] for row in rows[: reached[0]]) if reached else None
    result = {"loop": loop, "seed": seed, "outside": outside, "memory": memory, "target": task.target}
    result |= {"to_target": to_target, "accuracy": rows[-1]["accuracy"], "epochs": rows}
    result |= {"whole": task.whole} if task.whole else {}
    print(json.dumps({**result, "dataset": dataset.name, "device": utils.device_name(device)}))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
