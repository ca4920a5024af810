"""Many trainings at once: small networks that differ in their seed are trained side by side, as one wide network.

A small network in small batches keeps a processor waiting for the next small operation. Side by side, S networks make
operations S times as large: their channels lie next to each other, and a convolution with S groups shows each network
its own channels only. So nothing mixes, and each network learns what it would have learned alone.

The smaller the batches, the more this saves. With large ones the time goes into the numbers themselves, and those of
many networks no longer fit into the processor's cache: then train a few seeds at a time, or one.
"""

import copy
import math
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from common.train import History, accuracy, check_untrained

# Layers that treat each group of channels by itself once their weights are concatenated.
BY_CHANNEL = (nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.ReLU, nn.Flatten, nn.MaxPool2d, nn.AvgPool2d)


def fit_many(setup, seeds, optimise, *, epochs):
    """Train a network for each seed, all at once; returns the networks and their Histories, in the order of `seeds`.

    `setup(seed)` makes a network, a Sequential of the usual layers, and its training loader, and seeds what they need.
    `optimise(network, loader)` returns optimiser and schedule, or None for the latter, as train.one_cycle does. It is
    called once, for the wide network, so the optimiser must treat each number by itself, as SGD and Adam do.

    On a CPU each network and history is, within rounding, that of train.fit() right after `setup`, dropout included.
    A History has the columns "epoch", "lr", "train_loss", "train_accuracy"; to measure, use train.evaluate(). Seconds
    are split evenly. The images stay on the loaders' device. Raises TypeError for a layer that cannot be put side by
    side, ValueError for a network that was already trained or loaders of unequal length, and ArithmeticError if a loss
    is no longer finite.
    """
    networks, loaders, generators = [], [], []
    for seed in seeds:
        network, loader = setup(seed)
        check_untrained(network)
        networks.append(network)
        loaders.append(loader)
        generators.append(torch.Generator().set_state(torch.get_rng_state()))  # alone, dropout would go on with these
    if len({(len(loader.targets), loader.batch_size) for loader in loaders}) > 1:
        raise ValueError("All loaders need the same number of images and the same batch size.")
    wide = side_by_side(networks, generators).train().to(memory_format=torch.channels_last)  # fast for many groups
    optimizer, schedule = optimise(wide, loaders[0])
    histories = [History() for _ in networks]
    for epoch in range(1, epochs + 1):
        lr = optimizer.param_groups[0]["lr"]
        started = time.perf_counter()
        losses, accuracies = train_epoch(wide, loaders, optimizer, schedule)
        if schedule and not isinstance(schedule, OneCycleLR):
            schedule.step()
        seconds = (time.perf_counter() - started) / len(networks)
        for seed, history, loss, share in zip(seeds, histories, losses, accuracies, strict=True):
            if not math.isfinite(loss):
                raise ArithmeticError(f"The loss of seed {seed} is {loss} in epoch {epoch}: try a smaller rate.")
            history.epochs.append({"epoch": epoch, "lr": lr, "train_loss": loss, "train_accuracy": share})
            history.seconds["train"] += seconds
    take_apart(wide, networks)
    for network in networks:
        network.was_trained = True
    return networks, histories


def train_epoch(wide, loaders, optimizer, schedule):
    """One pass of each network over its loader. Returns losses and accuracies, lists with one number per network."""
    losses = accuracies = 0
    for batches in zip(*loaders, strict=True):
        images = torch.cat([images for images, _ in batches], dim=1)  # (N, S * C, H, W)
        targets = torch.stack([targets for _, targets in batches], dim=1)  # (N, S)
        outputs = wide(images.contiguous(memory_format=torch.channels_last))  # (N, S * classes)
        logits = outputs.unflatten(1, (len(loaders), -1)).transpose(1, 2)  # (N, classes, S)
        each = F.cross_entropy(logits, targets, reduction="none")  # (N, S)
        optimizer.zero_grad()
        each.mean(dim=0).sum().backward()  # the sum: no network's gradient depends on how many there are
        optimizer.step()
        if isinstance(schedule, OneCycleLR):
            schedule.step()
        losses += each.detach().sum(dim=0)
        accuracies += accuracy(logits.detach(), targets).sum(dim=0)
    images = len(loaders[0].targets)
    return (losses / images).tolist(), (accuracies / images).tolist()


def side_by_side(layers, generators):
    """One layer that does for S networks at once what `layers`, the same layer of each network, do alone.

    It maps (N, S * C, H, W), the first network's channels first, to (N, S * C', H', W'); vectors likewise.
    """
    first = layers[0]
    if isinstance(first, nn.Sequential):
        return nn.Sequential(*[side_by_side(parts, generators) for parts in zip(*layers, strict=True)])
    if isinstance(first, nn.Dropout):
        return ManyDropout(first.p, generators)
    if isinstance(first, nn.Linear):
        wide = ManyLinear(first.in_features, first.out_features, first.bias is not None)
    elif isinstance(first, nn.Softmax):
        wide = ManySoftmax(first, len(layers))
    elif isinstance(first, BY_CHANNEL):
        wide = copy.deepcopy(first)
    else:
        raise TypeError(f"{type(first).__name__} cannot be put side by side.")
    if isinstance(first, nn.Conv2d):
        wide.groups *= len(layers)
    for name, _ in first.named_parameters():
        setattr(wide, name, nn.Parameter(torch.cat([getattr(layer, name).detach() for layer in layers])))
    for name, buffer in first.named_buffers():
        if buffer.dim():  # a single number, such as the count of batches, is the same for all
            setattr(wide, name, torch.cat([getattr(layer, name) for layer in layers]))
    return wide


def take_apart(wide, networks):
    """Give each network its part of the wide network's weights and statistics."""
    for number, network in enumerate(networks):
        parts = {k: v.chunk(len(networks))[number] if v.dim() else v for k, v in wide.state_dict().items()}
        network.load_state_dict(parts)


class ManyLinear(nn.Linear):
    """S fully connected layers, each on its part of the features: (N, S * in) to (N, S * out)."""

    def forward(self, x):
        x = x.unflatten(1, (-1, self.in_features)).permute(1, 2, 0)  # (S, in, N)
        weight = self.weight.unflatten(0, (-1, self.out_features))  # (S, out, in), not turned: its gradient is large
        y = (weight @ x).permute(2, 0, 1).flatten(1)  # (N, S * out)
        return y if self.bias is None else y + self.bias


class ManySoftmax(nn.Module):
    """Softmax of each network's outputs: (N, S * classes) to the same."""

    def __init__(self, softmax, count):
        super().__init__()
        self.softmax, self.count = softmax, count

    def forward(self, x):
        return torch.cat([self.softmax(part) for part in x.chunk(self.count, dim=1)], dim=1)


class ManyDropout(nn.Module):
    """Dropout whose zeros come from each network's own random numbers."""

    def __init__(self, p, generators):
        super().__init__()
        self.p, self.generators = p, generators

    def forward(self, x):
        if not self.training:
            return x
        shape = (len(x), x.shape[1] // len(self.generators), *x.shape[2:])
        kept = [torch.empty(shape, dtype=x.dtype).bernoulli_(1 - self.p, generator=g) for g in self.generators]
        return x * torch.cat(kept, dim=1).to(x.device) / (1 - self.p)
