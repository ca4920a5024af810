"""The learning-rate range test: train some steps with a growing rate, and see where the loss falls and explodes.

Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3.
"""

import copy
import math
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from common.train import answer, evaluate
from common.utils import modes_kept


@dataclass
class Search:
    """What a range test saw, one number per step: the rate, its loss, and the smoothed loss."""

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)
    end: str = "all steps done"  # why it ended

    def suggestions(self):
        """Three rates that one may read off the smoothed loss over log(rate), {name: rate}.

        Raises ValueError for a search of one step or none.
        """
        if len(self.rates) < 2:
            raise ValueError(f"Nothing to read off a search that ended at once ({self.end}): begin with a lower rate.")
        return {
            "steepest": self.rates[steepest(self.rates, self.smoothed)],
            "valley": self.rates[valley(self.smoothed)],
            "minimum / 10": self.rates[int(np.argmin(self.smoothed))] / 10,
        }


def find_lr(
    model,
    loader,
    optimizer,
    *,
    lo=1e-5,
    hi=10.0,
    steps=100,
    linear=False,
    held_out=None,
    loss=F.cross_entropy,
    smoothing=0.9,
):
    """Train for up to `steps` batches of `loader` with rates from `lo` to `hi`, put everything back, return a Search.

    The rates grow by a constant factor, or with `linear` by a constant amount. The loss of a step is that of its batch
    before the step, or where there is a loader `held_out` that of its images after the step. `loss` takes the model's
    outputs and the targets; `smoothing` is the weight of the past in the smoothed loss, 0 for none. The search ends
    early where the smoothed loss passes four times its lowest, or where the loss is no longer finite.

    Model, optimiser, random numbers and modes are afterwards as they were, to the bit, even after an error; a scheduler
    is not stepped. Raises ValueError for rates or steps that make no search.
    """
    if not (0 < lo < hi < math.inf and steps > 1 and 0 <= smoothing < 1):
        raise ValueError("A search needs rates with 0 < lo < hi, two steps or more, and a smoothing from 0 to below 1.")
    search, average = Search(), 0.0
    batches = endless(loader)
    with kept(model, optimizer, loader):
        for step in range(steps):
            done = step / (steps - 1)  # 0 to 1
            rate = lo + (hi - lo) * done if linear else lo * (hi / lo) ** done
            value = train_step(model, next(batches), optimizer, rate, loss)
            if held_out:
                value = evaluate(model, held_out, loss, metrics={})["loss"]
            if not math.isfinite(value):
                search.end = f"the loss was {value} at a rate of {rate:.2g}"
                break
            # a_t = b a_(t-1) + (1 - b) loss_t starts at 0; to divide by 1 - b^t takes that bias away (Kingma & Ba 2015)
            average = smoothing * average + (1 - smoothing) * value
            search.rates.append(rate)
            search.losses.append(value)
            search.smoothed.append(average / (1 - smoothing ** (step + 1)))
            if search.smoothed[-1] > 4 * min(search.smoothed):
                search.end = f"the loss exploded at a rate of {rate:.2g}"
                break
    return search


def train_step(model, batch, optimizer, rate, loss):
    """One step with a learning rate; returns the loss of the batch before it."""
    inputs, targets = batch
    for group in optimizer.param_groups:
        group["lr"] = rate
    model.train()
    batch_loss = loss(answer(model, inputs), targets)
    optimizer.zero_grad()
    batch_loss.backward()
    optimizer.step()
    return float(batch_loss.detach())


def steepest(rates, losses):
    """Number of the step where the loss falls fastest on its way down: the lowest d loss / d log(rate).

    The first tenth is left out: its means are over few losses. So is all after the lowest loss, where the steps are
    too long and the loss jumps about.
    """
    slopes = np.gradient(losses, np.log(rates))
    first, lowest = len(losses) // 10, int(np.argmin(losses))
    return first + int(np.argmin(slopes[first : max(first, lowest) + 1]))


def valley(losses):
    """Number of the step in the middle of the longest fall, as in fastai's rule of this name.

    A fall is a series of steps, not always neighbours, each with a lower loss than the one before it.
    """
    falls = []  # for each step, the longest fall that ends there
    for step, value in enumerate(losses):
        higher = [fall for fall in falls if losses[fall[-1]] > value]
        falls.append([*max(higher, key=len, default=[]), step])
    longest = max(falls, key=len)
    return longest[len(longest) // 2]


def endless(loader):
    """The batches of a loader, again and again."""
    while True:
        yield from loader


@contextmanager
def kept(model, optimizer, loader):
    """After the block, put everything that training changes back to what it was."""
    tensors = [*model.parameters(), *model.buffers()]
    values = [tensor.detach().clone() for tensor in tensors]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    state = copy.deepcopy(optimizer.state_dict())
    cpu, gpus, batches = torch.get_rng_state(), torch.cuda.get_rng_state_all(), loader.generator.get_state()
    model.zero_grad(set_to_none=True)  # the gradients kept above are not added to
    try:
        with modes_kept(model):
            yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        optimizer.load_state_dict(state)
        torch.set_rng_state(cpu)
        torch.cuda.set_rng_state_all(gpus)
        loader.generator.set_state(batches)
