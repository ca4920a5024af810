"""Checks for the exercises of session 10: each says in one line what is right, or what to look at again."""

import functools
import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

from common import checking, data, plots, train, utils
from common.checking import call, choice, describe, number, numbers, require, tensor
from common.lr_finder import endless, find_lr
from common.model import ConvBlock


def block(FreeBlock):  # noqa: N803  a class has such a name
    """Exercise 1: a residual block whose shortcut has no parameters."""
    generator = torch.Generator().manual_seed(0)
    for channels, stride in ((4, 1), (4, 2)):
        where = f"FreeBlock({channels}, {stride})"
        made = call("FreeBlock", FreeBlock, channels, stride)
        right_kind = isinstance(made, nn.Module) and isinstance(getattr(made, "path", None), nn.Module)
        require(right_kind, f"{where} must be a module with a `path`; it is {describe(made)}.")
        x = torch.randn(2, channels, 7, 7, generator=generator)
        made.eval()
        before = x.clone()
        with torch.no_grad():
            y = call(where, made.forward, x)
            path = made.path(before)
            require(torch.equal(x, before), f"{where} changes its input. Others may need it still: make something new.")
            if isinstance(y, torch.Tensor) and y.shape != path.shape:
                require(
                    False,
                    f"{where} gives {tuple(y.shape[1:])}, its path {tuple(path.shape[1:])}: bring x into that shape.",
                )
            y = tensor(f"{where}(x)", y, path.shape)
            few = before[:, :, ::stride, ::stride]
            more = (stride - 1) * channels
            shortcut = F.pad(few, (0, 0, 0, 0, 0, more))

            def gives(other, y=y):
                return torch.allclose(y, other, atol=1e-5)

            if gives((path + shortcut).relu()):
                continue
            slips = {
                "negative numbers come out: ReLU stands behind the sum.": path + shortcut,
                "ReLU stands behind the sum, not before it: a path may also take away.": path.relu() + shortcut,
                "this is the path alone. Where is what goes around it?": path.relu(),
                "the new maps of zeros belong behind the old maps, not before them.": (
                    path + F.pad(few, (0, 0, 0, 0, more, 0))
                ).relu(),
                "the old maps are there twice. The new maps of the shortcut are to be zeros.": (
                    path + few.repeat(1, stride, 1, 1)
                ).relu(),
            }
            for sentence, other in slips.items():
                require(not gives(other), f"{where}: {sentence}")
            require(
                False, f"{where} has the right shape and other numbers: what is at the first point of its shortcut?"
            )
    blocks = nn.Sequential(*[FreeBlock(4, 1) for _ in range(30)])
    with torch.no_grad():
        for module in blocks:
            for values in module.path.parameters():
                values.zero_()
        apart = float((blocks(x.relu()) - x.relu()).abs().max())
    print(
        f"Right. Thirty of them in a row, all weights 0, change maps behind a ReLU by {apart:g}. To learn from there, "
        "only the last factor of each path may be 0: through zeros everywhere no gradient comes."
    )


def small_network():
    """A small network for the digits, always with the same first weights."""
    utils.set_seed(0)
    return nn.Sequential(
        nn.AvgPool2d(2),  # 1 x 14 x 14: these digits have no finer strokes
        ConvBlock(1, 8, padding=1),
        nn.MaxPool2d(2),
        ConvBlock(8, 16, padding=1),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(144, 10),
    )


def _loader(batch_size=64, shuffled_labels=False):
    """Batches of the digits, or of digits whose labels were mixed up."""
    digits = data.load("digits")
    images, labels = digits.train
    if shuffled_labels:
        labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    return data.Loader(data.Split(images, labels), batch_size, digits.mean, digits.std, shuffle=True)


def _sgd(network, lr):
    return torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9)


def searched(range_test):
    """Exercise 2: rates and losses of a range test, held against common/lr_finder.py."""
    lo, hi, steps, own = 1e-3, 0.1, 15, 0.05
    network = small_network()
    search = find_lr(network, _loader(), _sgd(network, lo), lo=lo, hi=hi, steps=steps)
    batches = list(itertools.islice(endless(_loader()), steps))
    answer = call("range_test", range_test, network, _sgd(network, own), batches, lo, hi)
    pair = isinstance(answer, list | tuple) and len(answer) == 2
    require(pair, f"`range_test` must return two lists, rates and losses; it returns {describe(answer)}.")
    rates, losses = numbers("rates", answer[0], steps), numbers("losses", answer[1], steps)

    def same(some, others):
        return all(math.isclose(one, other, rel_tol=1e-3) for one, other in zip(some, others, strict=True))

    def grown(first, last):
        return [lo * (hi / lo) ** (first + (last - first) * step / (steps - 1)) for step in range(steps)]

    require(
        not same(rates, [lo + (hi - lo) * step / (steps - 1) for step in range(steps)]),
        "these rates grow by the same amount at each step, so nearly all of them are large. Let them grow by a factor.",
    )
    one_less = "from the first rate to the last there is one step fewer than there are batches"
    require(not same(rates, grown(0, 1 - 1 / steps)), f"the last rate is {rates[-1]:.3g} and not `hi`: {one_less}.")
    require(not same(rates, grown(1 / steps, 1)), f"the first rate is {rates[0]:.3g} and not `lo`: {one_less}.")
    require(
        same(rates, search.rates),
        f"the rates go from {rates[0]:.3g} over {rates[1]:.3g} to {rates[-1]:.3g}: expected are {lo:g} first, {hi:g} "
        "last, and the same factor from each to the next.",
    )
    if same(losses, search.losses):
        return print(
            f"Right: the losses of find_lr, from {losses[0]:.2f} to {losses[-1]:.2f}. It does one thing more: it puts "
            "all back. Your network has learned meanwhile, so a second test would see another curve."
        )
    slips = {
        "these are losses after the steps. A batch is judged before the network has learned from it.": (
            {"rates": rates, "after": True}
        ),
        "the rate of each step is the one before it: set it first, then make the step.": {"rates": [own, *rates[:-1]]},
        "the optimiser keeps the rate that it was made with: a rate must be put into it at each step.": (
            {"rates": [own] * steps}
        ),
        "the gradients of all batches pile up: begin each with none.": {"rates": rates, "piled": True},
        "no step is made: the losses are those of a network that stands still.": {"rates": [0.0] * steps},
    }
    for sentence, slip in slips.items():
        require(not same(losses, _losses(batches, **slip)), sentence)
    require(
        False,
        f"the rates are right; the losses begin with {losses[0]:.4f} and {losses[1]:.4f}, those of find_lr with "
        f"{search.losses[0]:.4f} and {search.losses[1]:.4f}.",
    )


def _losses(batches, rates, after=False, piled=False):
    """Losses of a range test with a slip in it."""
    network = small_network()
    optimizer, losses = _sgd(network, 0.0), []
    for (images, targets), rate in zip(batches, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        if not piled:
            optimizer.zero_grad()
        loss = F.cross_entropy(network(images), targets)
        loss.backward()
        optimizer.step()
        seen = F.cross_entropy(network(images), targets) if after else loss
        losses.append(seen.item())
    return losses


@functools.cache
def _tests():
    """Four range tests {letter: Search}, each with a story of its own."""
    digits_known = small_network()
    loader = _loader()
    optimizer, schedule = train.one_cycle(digits_known, loader, 0.1, 4)
    train.fit(digits_known, loader, None, optimizer, epochs=4, schedule=schedule, log=lambda line: None)
    setups = {
        "A": (small_network(), _loader(shuffled_labels=True)),
        "B": (small_network(), _loader(batch_size=4)),
        "C": (digits_known, _loader()),
        "D": (small_network(), _loader()),
    }
    return {
        letter: find_lr(network, batches, _sgd(network, 1e-4), lo=1e-4, hi=10, steps=60)
        for letter, (network, batches) in setups.items()
    }


def show_tests():
    """Show the four range tests side by side, without their stories."""
    from matplotlib.figure import Figure  # here, because it takes a second

    figure = Figure(figsize=(14, 3.2), layout="constrained")
    texts = []
    for axes, (letter, search) in zip(figure.subplots(1, 4, sharey=True), _tests().items(), strict=True):
        axes.plot(search.rates, search.losses, color="lightgray", label="loss")
        axes.plot(search.rates, search.smoothed, color="black", label="smoothed")
        axes.set(title=letter, xscale="log", xlabel="learning rate", xlim=(1e-4, 10), ylim=(0, 4))
        points = [f"{search.smoothed[step]:.2f} at {search.rates[step]:.2g}" for step in range(0, len(search.rates), 8)]
        texts.append(f"{letter}: smoothed loss {', '.join(points)}, {search.end}")
    axes.legend()
    plots.show("range_tests", figure, f"Four range tests. {'. '.join(texts)}.")


STORIES = {"fresh": "D", "trained": "C", "shuffled": "A", "tiny": "B"}
LOOK = {
    "fresh": "a new network begins near ln 10 = 2.30, and a good rate takes the loss well below that.",
    "trained": "this network has hardly anything to learn: where must its curve begin, and where alone can it go?",
    "shuffled": "if the labels have nothing to do with the images, how low can the loss come in one pass?",
    "tiny": "a batch of four may be easy or hard by chance: look at the grey line.",
}


def stories(fresh, trained, shuffled, tiny):
    """Exercise 3: which of the four range tests is which."""
    answers = {"fresh": fresh, "trained": trained, "shuffled": shuffled, "tiny": tiny}
    for name, answer in answers.items():
        choice(name, answer, tuple("ABCD"))
    for name, answer in answers.items():
        require(answer == STORIES[name], f"`{name}` is not plot {answer}: {LOOK[name]}")
    best, fresh_end, trained_end = min(_tests()["D"].smoothed), _tests()["D"].rates[-1], _tests()["C"].rates[-1]
    print(
        f"Right. The new network's loss falls to {best:.2f} and explodes at {fresh_end:.2g}; the trained one's has "
        f"only a way up, and explodes at {trained_end:.2g} already. Who trains a network further tests that network."
    )


def chosen(rate):
    """Exercise 4: a rate that does better than a tenth of it and than ten times as much."""
    rate = number("rate", rate)
    require(0 < rate < 100, f"no training has a rate of {rate:g}: read it off the axis below plot D.")
    losses = {factor: _loss_after_two_epochs(rate * factor) for factor in (0.1, 1, 10)}
    seen = ", ".join(f"{loss:.3g} with {rate * factor:.2g}" for factor, loss in losses.items())
    best = min(losses, key=losses.get)
    hint = "the plot still falls at higher rates" if best == 10 else "the plot has turned, or is about to"
    require(best == 1, f"the loss after two epochs is {seen}. Yours is the middle one: {hint}.")
    rules = ", ".join(f"{name} {value:.2g}" for name, value in _tests()["D"].suggestions().items())
    print(
        f"Right: the loss after two epochs is {seen}. The rules of the lesson say {rules}: try whether each would pass."
    )


def _loss_after_two_epochs(rate):
    """Training loss of the second epoch; infinite if the training breaks."""
    network = small_network()
    try:
        history = train.fit(network, _loader(), None, _sgd(network, rate), epochs=2, log=lambda line: None)
    except ArithmeticError:
        return math.inf
    return history["train_loss"][-1]


def shortcuts(prediction, plain, residual, effect, verdict):
    """Exercise 5: what shortcuts are worth in a deep network."""
    outcome = checking.experiment(prediction, "plain", plain, "residual", residual, effect)
    checking.verdict(effect, verdict)
    print(f"Right: {outcome}. Now with two blocks, and with twelve: what does depth do to each of them?")
