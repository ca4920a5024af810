"""Checks for the exercises of session 7: each says in one line what is right, or what to look at again."""

import copy
import functools
import math

import torch
import torch.nn.functional as F
from torch import nn

from common import checking, data, train, utils
from common.checking import call, choice, number, require, tensor
from common.model import ConvBlock

THINK = {
    "relu_max": "of all numbers of a map, which one gets through? Does ReLU change which of them is the largest?",
    "relu_average": "take the numbers 1 and -1, and work out both ways.",
    "norm_average": "batch norm is one factor and one shift there. What is the mean of numbers that were so changed?",
    "norm_max": "batch norm is one factor and one shift there. What if the factor is negative?",
    "point_average": "such a convolution adds up maps, each times a number. What if the mean of each map came first?",
    "point_max": "such a convolution subtracts maps, too. Is the largest difference that of the largest numbers?",
}


def swaps(relu_max, relu_average, norm_average, norm_max, point_average, point_max):
    """Exercise 1: which two layers may change places; held against what the layers give."""
    answers = {"relu_max": relu_max, "relu_average": relu_average, "norm_average": norm_average}
    answers |= {"norm_max": norm_max, "point_average": point_average, "point_max": point_max}
    for name, answer in answers.items():
        choice(name, answer, ("same", "different"))
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(4, 6, 7, 7, generator=generator)
    norm = nn.BatchNorm2d(6).eval()
    norm.weight.data, norm.running_mean = torch.randn(2, 6, generator=generator)
    point = nn.Conv2d(6, 10, kernel_size=1)
    pairs = {"relu": nn.ReLU(), "norm": norm, "point": point}
    pools = {"max": nn.MaxPool2d(7), "average": nn.AvgPool2d(7)}
    for name, answer in answers.items():
        layer, pool = (kind[part] for kind, part in zip((pairs, pools), name.split("_"), strict=True))
        with torch.no_grad():
            apart = float((pool(layer(maps)) - layer(pool(maps))).abs().max())
        require(
            answer == ("same" if apart < 1e-5 else "different"), f"`{name}` is not '{answer}'. Think: {THINK[name]}"
        )
    print(
        "Right. So a 1 x 1 convolution belongs behind the average: it gives the same scores, and computes them at one "
        "place instead of at 49."
    )


@functools.cache
def _digits():
    """The digits, and the first 640 of their training images."""
    digits = data.load("digits")
    return digits, data.Split(digits.train.images[:640], digits.train.labels[:640])


def _network():
    """A small network with dropout, always with the same first weights."""
    utils.set_seed(0)
    return nn.Sequential(
        nn.AvgPool2d(2),
        ConvBlock(1, 8, padding=1, dropout=0.2),
        nn.MaxPool2d(2),
        ConvBlock(8, 16, padding=1, dropout=0.2),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(144, 10),
    )


class _Watch(torch.optim.SGD):
    """An optimiser that moves nothing, and writes down how long the gradient of each step is."""

    def __init__(self, network):
        super().__init__(network.parameters(), lr=0)
        self.lengths = []

    def step(self, closure=None):
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        self.lengths.append(math.hypot(*(float(gradient.norm()) for gradient in gradients)))
        super().step(closure)


def _losses(train_epoch):
    """The mean losses of four epochs."""
    network = _network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    return [
        number("the loss of an epoch", call("train_epoch", train_epoch, network, _digits()[1], optimizer))
        for _ in range(4)
    ]


def _lengths(train_epoch):
    """How long the gradient is in each step of an epoch in which the weights stand still."""
    network = _network()
    watch = _Watch(network)
    call("train_epoch", train_epoch, network, _digits()[1], watch)
    return watch.lengths


def _measured(measure):
    """What `measure` says about one network and the same images, three times; and what it should say."""
    network = copy.deepcopy(_trained())
    shares = [number("what `measure` returns", call("measure", measure, network, _digits()[0].test)) for _ in range(3)]
    return shares, train.evaluate(network, data.loaders(_digits()[0], 64)[1])["accuracy"]


@functools.cache
def _trained():
    network, (digits, few) = _network(), _digits()
    loader = data.Loader(few, 64, digits.mean, digits.std, shuffle=True)
    train.fit(network, loader, None, torch.optim.SGD(network.parameters(), 0.1), epochs=4, log=lambda line: None)
    return network


def show_symptoms(train_epoch, measure):
    """Print what can be measured from outside on two functions of a training script."""
    losses, lengths, (shares, _) = _losses(train_epoch), _lengths(train_epoch), _measured(measure)
    print("1. mean loss of four epochs, rate 0.05:", ", ".join(f"{loss:.2f}" for loss in losses))
    print("2. length of the gradient, step by step, rate 0:", ", ".join(f"{length:.1f}" for length in lengths))
    print("3. one trained network, measured three times:", ", ".join(f"{share:.1%}" for share in shares))


def mended(train_epoch, measure):
    """Exercise 2: the script has none of its three symptoms any more."""
    shares, right = _measured(measure)
    lengths = _lengths(train_epoch)
    require(lengths, "`train_epoch` never calls optimizer.step().")
    require(
        max(lengths) > 0, "when the optimiser makes its step, the gradients are gone: look at the order of the lines."
    )
    losses = _losses(train_epoch)
    require(
        losses[-1] < 1.7,
        f"symptom 1 is still there: after four epochs the loss is {losses[-1]:.2f}, and a network that knows "
        "nothing has ln 10 = 2.30. Print the first image of a batch and its label.",
    )
    growth = lengths[-1] / lengths[0]
    require(
        growth < 4,
        f"symptom 2 is still there: though no weight moves, the gradient of the last batch is {growth:.0f} times as "
        "long as that of the first. What does backward() do with the gradients that are there already?",
    )
    said = ", ".join(f"{share:.1%}" for share in shares)
    require(
        len(set(shares)) == 1,
        f"symptom 3 is still there: one network, the same images, and {said}. Which layers behave differently while "
        "a network learns?",
    )
    require(abs(shares[0] - right) < 1e-6, f"`measure` says {said}, but {right:.1%} of the images are recognised.")
    network = copy.deepcopy(_trained()).train()
    call("measure", measure, network, _digits()[0].test)
    call("train_epoch", train_epoch, network, _digits()[1], _Watch(network))
    require(
        network.training, "an epoch must begin with a network that learns: `measure` has left it in evaluation mode."
    )
    piled = _losses(_with_piled_gradients)[-1]
    print(
        f"Right. The loss after four epochs is {losses[-1]:.2f}; with gradients that pile up it was {piled:.2f}. That "
        "bug looked like progress: for one epoch it is a momentum of 1, which nobody chose."
    )


def _with_piled_gradients(network, split, optimizer):
    """One epoch that is right but for the second bug."""
    network.train()
    optimizer.zero_grad()
    total = 0.0
    for chosen in torch.randperm(len(split.labels)).split(64):
        loss = F.cross_entropy(network(data.normalise(_digits()[0], split.images[chosen])), split.labels[chosen])
        loss.backward()
        optimizer.step()
        total += loss.item() * len(chosen)
    return total / len(split.labels)


def ways(uses):
    """Exercise 3: in how many ways each pixel reaches the sum of the last map."""
    counted = {}
    for convolutions, padding in ((1, 0), (2, 0), (2, 1), (5, 0), (5, 1)):
        where = f"uses({convolutions}, {padding})"
        answer = call("uses", uses, convolutions, padding)
        if isinstance(answer, torch.Tensor) and answer.dim() == 4 and answer.shape[:2] == (1, 1):
            answer = answer[0, 0]
        small = 28 - 2 * convolutions
        if isinstance(answer, torch.Tensor) and not padding and answer.shape == (small, small):
            require(False, f"{where} is one number for each point of the last map. Turn round: one for each pixel.")
        answer = tensor(where, answer, (28, 28)).detach().double()
        right = _ways(convolutions, padding)
        size = 2 * convolutions + 1
        outputs = F.conv_transpose2d(
            torch.ones(1, 1, *(28 - (1 - padding) * (size - 1),) * 2, dtype=torch.double),
            torch.ones(1, 1, size, size, dtype=torch.double),
            padding=padding * convolutions,
        )[0, 0]
        hint = "follow one pixel: count the outputs of the first layer that see it, and for each those of the next"
        if torch.allclose(answer, outputs):
            hint = "that is the number of outputs that see the pixel. But it has several ways to each of them"
        elif convolutions > 1 and torch.allclose(answer, _ways(1, padding)):
            hint = "that is one convolution, here are several"
        elif padding and torch.allclose(answer, _ways(convolutions, 0)):
            hint = "that is without padding"
        require(
            torch.allclose(answer, right),
            f"your {where} is {answer[0, 0]:g} in the corner and {answer[14, 14]:g} inside, which is not right yet: "
            f"{hint}.",
        )
        counted[convolutions, padding] = right
    corner, inside = counted[5, 0][0, 0], counted[5, 0][14, 14]
    padded = counted[5, 1][0, 0]
    print(
        f"Right. Through five layers the corner has {corner:.0f} way, a pixel inside {inside:,.0f}. With padding the "
        f"corner has {padded:,.0f}; inside there are still {inside / padded:.1f} times as many."
    )


def _ways(convolutions, padding):
    """Ways from each pixel (28, 28) through the convolutions: those along a row times those along a column."""
    line = torch.ones(1, 1, 28 if padding else 28 - 2 * convolutions, dtype=torch.double)
    for _ in range(convolutions):
        line = F.conv_transpose1d(line, torch.ones(1, 1, 3, dtype=torch.double), padding=padding)
    return line[0].T * line[0]


def padding(prediction, unpadded, padded, effect, verdict):
    """Exercise 4: what padding brings on the digits."""
    outcome = checking.experiment(prediction, "unpadded", unpadded, "padded", padded, effect)
    checking.verdict(effect, verdict)
    print(f"Right: {outcome}. Both have the same weights to learn: what do the last layers average?")
