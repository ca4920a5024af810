"""Checks for the exercises of session 4: each says in one line what is right, or what to look at again."""

import torch
from torch import nn

from common import checking, data, train, utils
from common.checking import agrees, call, describe, number, require, tensor
from common.model import ConvBlock


def heads(last_width, connected_head, averaging_head):
    """Exercise 1: the width of the last maps and the parameters of two heads, for images of 56 x 56."""
    width, answer = number("last_width", last_width), number("connected_head", connected_head)
    averaging = number("averaging_head", averaging_head)
    require(
        width != 8, "`last_width` is 8: it does not double, because the convolutions take the same 2 pixels as before."
    )
    right = _behind_pool(_behind_pool(56))
    agrees("`last_width`", width, right, "follow the width through the six layers, one by one")
    features = 16 * right**2
    first, second = features * 96, 96 * 10
    require(answer not in (first, first + 96), "`connected_head`: the head has two layers; you counted one.")
    require(
        answer not in (first + second, first + second + 96, first + second + 10), "`connected_head`: the biases count."
    )
    require(answer == first + second + 106, "`connected_head`: its first layer sees each point of all 16 maps.")
    places = (features * 10, features * 10 + 10)
    require(
        averaging not in places, "`averaging_head`: behind averaging it knows no places, only one number for each map."
    )
    require(averaging != 160, "`averaging_head`: biases count, too.")
    require(averaging == 16 * 10 + 10, "`averaging_head`: 16 numbers go in, 10 come out.")
    print(f"Right: {answer:,.0f} against {averaging:g}, and the {averaging:g} would do for images of any size.")


def _behind_pool(width):
    """The width behind two convolutions of 3 x 3 and a pool of 2."""
    return (width - 4) // 2


def folding(fold):
    """Exercise 2: a function from a head behind Flatten to one behind global average pooling."""
    head = nn.Linear(4 * 9, 5)
    small = call("fold", fold, head, 4)
    fits = isinstance(small, nn.Linear) and small.weight.shape == (5, 4) and small.bias is not None
    require(fits, f"`fold` must give an nn.Linear(4, 5) for 4 maps and 5 classes; it gives {describe(small)}.")
    right, other = head.weight.unflatten(1, (4, 9)).sum(dim=2), head.weight.unflatten(1, (9, 4)).sum(dim=1)
    half = (
        "the weights are those of a mean: but the mean of a map counts once, and in the large head each place counts."
    )
    require(not _alike(small.weight, right / 9), half)
    mixed = _alike(small.weight, other) or _alike(small.weight, other / 9)
    require(not mixed, "you put weights of different maps together: Flatten puts the places of one map side by side.")
    require(
        _alike(small.weight, right), "the weights do not give the same scores for maps that are the same everywhere."
    )
    require(
        _alike(small.bias, head.bias), "the weights are right. The bias of the new layer is not that of the old one."
    )
    print(
        "Right. Test digits: a trained head of 2,570 {:.0%}, folded into 170 {:.0%}, trained on {:.0%}.".format(
            *_folded(fold)
        )
    )


def _folded(fold):
    """Test accuracy of a small network with a fully connected head, with that head folded, and trained on."""
    train_loader, test_loader = data.loaders(data.load("digits"), 64)
    utils.set_seed(0)
    layers = [ConvBlock(1, 8, stride=2), ConvBlock(8, 16, stride=2), ConvBlock(16, 16)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10))
    _train(network, train_loader)
    before = train.evaluate(network, test_loader)["accuracy"]
    network = nn.Sequential(*layers, nn.AvgPool2d(4), nn.Flatten(), fold(network[-1], 16))
    after = train.evaluate(network, test_loader)["accuracy"]
    _train(network, train_loader)
    return before, after, train.evaluate(network, test_loader)["accuracy"]


def _train(network, train_loader, epochs=4):
    optimizer, schedule = train.one_cycle(network, train_loader, 0.1, epochs)
    train.fit(network, train_loader, None, optimizer, epochs=epochs, schedule=schedule, log=lambda line: None)


def _alike(first, second):
    return torch.allclose(first, second, atol=1e-5)


def own_dropout(dropout):
    """Exercise 3: a function that does what nn.Dropout does, in training and in evaluation."""
    x = 1 + torch.rand(100, 10, 100, generator=torch.Generator().manual_seed(0))
    name, p = "dropout(x, p, training)", 0.2
    trained = tensor(name, call("dropout", dropout, x.clone(), p, True), x.shape)
    evaluated = tensor(name, call("dropout", dropout, x.clone(), p, False), x.shape)
    zeros = (trained == 0).double()
    require(zeros.any(), "in training nothing becomes zero: are the two modes the wrong way round?")
    rows = zeros.mean(dim=(1, 2))
    alone = rows.min() > 0 and rows.max() < 1
    require(alone, "whole rows become zero, or none of a row: each number is left or not by itself.")
    require(abs(zeros.mean() - 0.8) > 0.02, "with p = 0.2 most become zero: p is the probability of a zero.")
    require(abs(zeros.mean() - p) < 0.02, f"with p = 0.2 in training, {zeros.mean():.0%} are zero.")
    require(
        not _alike(evaluated, (1 - p) * x), "you scale at test time. That works, but here it is to be done in training."
    )
    require(_alike(evaluated, x), "in evaluation each number must pass as it is.")
    left = trained[trained != 0] / x[trained != 0]
    require(
        not _alike(left, torch.ones_like(left)),
        "in training the mean falls by a fifth: make those that are left larger.",
    )
    require(
        _alike(left, torch.full_like(left, 1 / (1 - p))), f"those that are left are multiplied by {left.mean():.3g}."
    )
    again = tensor(name, call("dropout", dropout, x.clone(), p, True), x.shape)
    require(not torch.equal(trained, again), "two calls zero the same numbers: draw them anew each time.")
    print("Right: the same as nn.Dropout, which does nothing at all in evaluation.")


def spread(half_in_training, fifth_in_training, half_in_evaluation):
    """Exercise 4: the standard deviation of ones behind nn.Dropout."""
    half, fifth = number("half_in_training", half_in_training), number("fifth_in_training", fifth_in_training)
    evaluation = number("half_in_evaluation", half_in_evaluation)
    require(evaluation == 0, "`half_in_evaluation`: in evaluation dropout lets everything pass, and ones stay ones.")
    for name, value, p in [("half_in_training", half, 0.5), ("fifth_in_training", fifth, 0.2)]:
        right = (p / (1 - p)) ** 0.5
        require(value != 0, f"`{name}` is 0, but zeros and larger numbers come out.")
        require(
            abs(value - (p * (1 - p)) ** 0.5) > 0.01, f"`{name}` counts zeros and ones: what is left is made larger."
        )
        squared = abs(value - right**2) < 0.01 and abs(value - right) > 0.01
        require(not squared, f"`{name}` is the variance: its square root is asked for.")
        agrees(f"`{name}`", value, right, "think which two numbers come out, and how often each", apart=0.02)
    print("Right. So batch norm behind dropout learns a spread in training that is not there in evaluation.")


def dropout_worth(prediction, without, with_dropout, effect):
    """Exercise 5: a prediction, accuracies of at least five seeds each way, and their compare.Difference."""
    outcome = checking.experiment(prediction, "without", without, "with_dropout", with_dropout, effect)
    slow = (
        " In six epochs a small network has no time to overfit, and dropout slows it down." if effect.high < 0 else ""
    )
    print(f"Right: {outcome}.{slow}")
