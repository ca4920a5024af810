"""Checks for the exercises of session 5: each says in one line what is right, or what to look at again."""

import copy
import functools
import math

import torch
import torch.nn.functional as F
from torch import nn

from common import checking, data, train, utils
from common.checking import call, choice, number, numbers, require, tensor
from common.grad_cam import activations_and_gradients, grad_cam
from common.model import fully_connected_head

LAYER = 2  # the second convolution, whose maps are explained


@functools.cache
def example():
    """The network of the lesson, trained on 100 of the digits, and the normalised test images (360, 1, 28, 28)."""
    digits = data.zero_one_or_neither(data.load("digits"))
    few = data.Split(digits.train.images[:100], digits.train.labels[:100])
    utils.set_seed(0)
    network = fully_connected_head()
    loader = data.loaders(data.with_splits(digits, few, digits.test, digits.classes), 8)[0]
    train.fit(network, loader, None, torch.optim.Adam(network.parameters(), 0.001), epochs=10, log=lambda line: None)
    return network.eval(), data.normalise(digits, digits.test.images)


def _surest():
    """The network and the image (1, 1, 28, 28) that it is surest to be a zero."""
    network, images = example()
    with torch.no_grad():
        chosen = network(images).softmax(dim=1)[:, 1].argmax()
    return network, images[chosen, None]


def _with_last(change):
    """A copy of the network whose last layer is changed."""
    network = copy.deepcopy(_surest()[0])
    with torch.no_grad():
        change(network[-1])
    return network


CHANGES = {
    "constant": lambda: _with_last(lambda last: last.bias.add_(100)),
    "doubled": lambda: _with_last(lambda last: (last.weight.mul_(2), last.bias.mul_(2))),
    "negative": lambda: _with_last(lambda last: (last.weight.neg_(), last.bias.neg_())),
    "probability": lambda: nn.Sequential(*_surest()[0], nn.Softmax(dim=1)),
}
OUTCOMES = ("same", "twice", "faint", "elsewhere")
THINK = {
    "constant": "the map is made of slopes: how the score follows the activations. What does a constant add to it?",
    "doubled": "the map is made of slopes, and the activations stay as they are. What becomes of the slope of 2 · S?",
    "negative": "each weight of a map changes its sign, and then ReLU comes. What passes through ReLU now?",
    "probability": "the network is sure. How much does a probability near 1 still rise when its score does?",
}


def changes(constant, doubled, negative, probability):
    """Exercise 1: what becomes of a map when the score changes; held against what grad_cam gives."""
    answers = {"constant": constant, "doubled": doubled, "negative": negative, "probability": probability}
    for name, answer in answers.items():
        choice(name, answer, OUTCOMES)
    network, image = _surest()
    zero = torch.tensor([1])
    before = grad_cam(network, network[LAYER], image, zero)
    for name, answer in answers.items():
        changed = CHANGES[name]()
        after = grad_cam(changed, changed[LAYER], image, zero)
        require(answer == _outcome(before, after), f"`{name}` is not '{answer}', grad_cam says: {THINK[name]}")
    share = float(after.max() / before.max())
    print(f"Right, grad_cam gives the same. That sure, a probability leaves the map {share:.1%} of its brightness.")


def _outcome(before, after):
    """What became of a map, one of OUTCOMES."""
    if torch.allclose(before, after, rtol=1e-3, atol=1e-6):
        return "same"
    if torch.allclose(2 * before, after, rtol=1e-3, atol=1e-6):
        return "twice"
    return "elsewhere" if not ((before > 0) & (after > 0)).any() else "faint"


def explained(explain):
    """Exercise 2: Grad-CAM of a layer of a Sequential, held against common/grad_cam.py."""
    network, images = example()
    with torch.no_grad():
        predicted = network(images).argmax(dim=1)
    zeros, ones = images[predicted == 1], images[predicted == 2]
    images = torch.cat([zeros[:6], zeros[:6]])
    classes = torch.tensor([1] * 6 + [0] * 6)  # what it takes for a zero, explained as a zero and as neither
    predicted = torch.ones_like(classes)
    right = grad_cam(network, network[LAYER], images, classes)
    maps = call("explain", explain, network, LAYER, images, classes)
    if isinstance(maps, torch.Tensor) and maps.shape == (12, 32, 14, 14):
        require(False, "each image has 32 maps still: weigh them and add them up, so that one is left.")
    maps = tensor("explain(network, 2, images, classes)", maps, right.shape).detach()

    def gives(other):
        return bool(((maps - other).abs().amax(dim=(1, 2)) <= 1e-3 * other.abs().amax(dim=(1, 2))).all())

    if gives(right):
        empty = int((grad_cam(network, network[LAYER], ones).amax(dim=(1, 2)) == 0).sum())
        return print(
            f"Right, and without a hook. Now try it on the {len(ones)} images that are taken for a one: {empty} of "
            "them have an empty map. An empty map does not mean that the answer is wrong."
        )
    require(
        not gives(grad_cam(network, network[LAYER], images, predicted)),
        "these are the maps of the classes that the network predicts. Explain those in `classes`, asked or not.",
    )
    with_softmax = nn.Sequential(*network, nn.Softmax(dim=1))
    require(
        not gives(grad_cam(with_softmax, with_softmax[LAYER], images, classes)),
        "this is the slope of the probability. Grad-CAM takes the score before softmax.",
    )
    activations, gradients = activations_and_gradients(network, network[LAYER], images, classes)
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    require(not gives((weights * activations).sum(dim=1)), "some points are negative: they speak against the class.")
    require(
        not gives((gradients * activations).sum(dim=1).relu()),
        "here each point has a weight of its own. In Grad-CAM a map of the layer has one weight for all its points.",
    )
    require(maps.any(), "your maps are black everywhere. For each image take the score of its own class alone.")
    ratio = float(maps.norm() / right.norm())
    require(
        not gives(ratio * right),
        f"the right picture, but {ratio:.4g} times as bright: look at how the gradients of 14 x 14 points become one "
        "weight, how the maps become one, and how the scores become one number.",
    )
    require(
        False,
        "these are other maps than Grad-CAM's. First see that each image brings one score, that of its own "
        "class; then weigh each map of the layer, add them up, and apply ReLU.",
    )


def floors(floor, log_classes):
    """Exercise 3: the lowest cross-entropy that bounded outputs allow."""
    for classes, low, high in ((3, 0, 1), (10, 0, 1), (3, -1, 1), (10, 0, 10)):
        outputs = torch.full((1, classes), float(low))
        outputs[0, 0] = high
        right = float(F.cross_entropy(outputs, torch.tensor([0])))
        where = f"floor({classes}, {low}, {high})"
        answer = number(where, call("floor", floor, classes, low, high))

        def gives(other, answer=answer):
            return math.isclose(answer, other, rel_tol=1e-3, abs_tol=1e-6)

        hint = "put the best outputs that there are into cross-entropy, and work out what it gives"
        if gives(math.log(classes)):
            hint = "that is the loss of a network that knows nothing, all outputs alike"
        elif gives(float(F.cross_entropy(-outputs, torch.tensor([0])))):
            hint = "that is the highest loss, not the lowest: the right class has to have the largest output"
        elif gives(math.log1p(math.exp(low - high))):
            hint = f"that is the floor of two classes, here {classes - 1} other outputs are in the sum"
        elif gives(math.log1p((classes - 1) / math.e)):
            hint = "that is the floor of outputs from 0 to 1, here they have other limits"
        elif gives(math.exp(-right)):
            hint = "that is the probability of the right class, the loss comes from it"
        require(gives(right), f"{where} is {answer:.4g}, and cannot be: {hint}.")
    for position, count in enumerate(numbers("log_classes", log_classes, 3)):
        end = (0.3133, 1.4612, 3.6225)[position]
        sure = f"a network of {count:g} classes that ends in softmax"
        require(count >= 2, f"log {position + 1}: {sure} does not exist.")
        limit = math.log1p((count - 1) / math.e)
        require(abs(limit - end) < 0.002, f"log {position + 1} ends at {end}, but {sure} has its floor at {limit:.4f}.")
    free = math.log1p(9 * math.exp(-10))
    print(
        f"Right. Outputs from 0 to 10 have a floor of {free:.4f}: it is the narrow range that hurts, not the softmax."
    )


def more_steps(prediction, batches_of_64, batches_of_8, effect, verdict):
    """Exercise 4: what small batches alone are worth with 100 images."""
    outcome = checking.experiment(prediction, "batches_of_64", batches_of_64, "batches_of_8", batches_of_8, effect)
    checking.verdict(effect, verdict)
    print(f"Right: {outcome}. The 100 images were the same: there were 13 steps an epoch, not 2.")
