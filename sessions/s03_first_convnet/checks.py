"""Checks for the exercises of session 3: each says in one line what is right, or what to look at again."""

import copy
from collections import Counter

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from common import checking, data, train, utils
from common.checking import agrees, call, number, numbers, require, tensor
from common.model import ConvBlock

PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "mv", "dot")  # of matrices and vectors, as torch calls them inside
# The networks of exercise 1: kernel, stride and padding of each layer.
CONV, POOL, STRIDED, LAST = (5, 1, 0), (2, 2, 0), (3, 2, 1), (3, 1, 0)
NETWORKS = {"early": [CONV, POOL, STRIDED, LAST], "late": [CONV, STRIDED, LAST, POOL]}
EVALUATES = (
    "your network computes its scores in evaluation mode: dropout drops nothing, and batch norm does not look at the "
    "batch. Its mode must be the right one before it sees the images."
)


def sizes(early_sizes, early_fields, late_sizes, late_fields):
    """Exercise 1: width and receptive field of each layer, four numbers each."""
    answers = {"early": (early_sizes, early_fields), "late": (late_sizes, late_fields)}
    for network, (widths, fields) in answers.items():
        _check_widths(network, numbers(f"{network}_sizes", widths, 4))
        _check_fields(network, numbers(f"{network}_fields", fields, 4))
    places = {name: [int(width) ** 2 for width in widths] for name, (widths, _) in answers.items()}
    print(
        "Right. Behind the early pool each layer sees more and computes at fewer places: the strided convolution at "
        f"{places['early'][2]} instead of {places['late'][1]}, the last one at {places['early'][3]} instead of "
        f"{places['late'][2]}."
    )


def _check_widths(network, widths):
    before = 28
    for position, ((kernel, stride, padding), width) in enumerate(zip(NETWORKS[network], widths, strict=True), start=1):
        right = (before + 2 * padding - kernel) // stride + 1
        hint = "lay the kernel on the first pixels and count how often it can move on by its stride"
        if padding and width == (before - kernel) // stride + 1:
            hint = "padding adds pixels on both sides of the image"
        agrees(f"size of layer {position} of `{network}`", width, right, hint)
        before = right


def _check_fields(network, fields):
    field, jump = 1, 1
    for position, ((kernel, stride, _), answer) in enumerate(zip(NETWORKS[network], fields, strict=True), start=1):
        right = field + (kernel - 1) * jump
        hint = "a layer adds (kernel - 1) times the distance, in pixels of the image, between neighbours of its input"
        if answer == field + kernel - 1:
            hint = "neighbours of its input lie further apart than one pixel, because a layer before it strides"
        elif answer == field + (kernel - 1) * jump * stride:
            hint = "a layer's own stride widens only the fields behind it"
        if network == "late" and fields[1:] == _fields("early")[1:]:
            hint = "these are the numbers of `early`, but in `late` the pool comes last"
        agrees(f"field of layer {position} of `{network}`", answer, right, hint)
        field, jump = right, jump * stride


def _fields(network):
    fields, jump = [1], 1
    for kernel, stride, _ in NETWORKS[network]:
        fields.append(fields[-1] + (kernel - 1) * jump)
        jump *= stride
    return fields[1:]


class Operations(TorchDispatchMode):
    """Counts, while it is on, what torch carries out: whatever a function calls, a product ends as one of PRODUCTS."""

    def __init__(self):
        super().__init__()
        self.count = Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count[operation.overloadpacket.__name__] += 1
        return operation(*args, **(kwargs or {}))


def convolution(convolve):
    """Exercise 2: a function that does what nn.Conv2d does, by one matrix product."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 7, 9, generator=generator)
    weight = torch.randn(4, 3, 3, 3, generator=generator)
    right = F.conv2d(images, weight)
    with Operations() as operations:
        maps = call("convolve", convolve, images, weight)
    if isinstance(maps, torch.Tensor) and maps.shape == right.permute(0, 2, 3, 1).shape:
        require(False, "the kernels are the last dimension of your maps: bring them behind N, where channels stand.")
    maps = tensor("convolve(images, weight)", maps, right.shape)
    flipped = torch.allclose(maps, F.conv2d(images, weight.flip(2, 3)), atol=1e-4)
    require(
        not flipped,
        "your kernels are turned upside down and left to right. That is the convolution of mathematics; "
        "nn.Conv2d lays its kernels on the image as they are.",
    )
    cut = right.flatten(2).transpose(1, 2).reshape(right.shape)
    require(
        not torch.allclose(maps, cut, atol=1e-4),
        "the numbers are right and stand in the wrong places: behind the product the kernels come last, and reshape "
        "or view only cuts the row of numbers anew. Bring the kernels behind N first.",
    )
    close = torch.allclose(maps, right, atol=1e-4)
    require(
        close,
        "the shape is right and the numbers are not: channel, row and column of a patch must be flattened "
        "in the same order on both sides of the product.",
    )
    _check_one_product(operations.count)
    wide = torch.randn(5, 3, 2, 4, generator=generator)
    try:
        right = F.conv2d(images, wide)
        fits = torch.allclose(tensor("maps", convolve(images, wide), right.shape), right, atol=1e-4)
    except Exception:
        fits = False
    require(fits, "right for kernels of 3 x 3. Try it with a kernel that is not square.")
    print("Right: the same numbers as nn.Conv2d. Inside it is often such a product, too.")


def _check_one_product(count):
    """Raise NotYet unless torch has multiplied matrices once, and called no convolution of its own."""
    require(not count["convolution"], "right numbers, but from torch's own convolution: here you build one yourself.")
    products = sum(count[name] for name in PRODUCTS)
    require(products > 0, "right numbers, but torch has seen no matrix product: multiply all patches at once, with @.")
    require(
        products == 1, f"right numbers, but by {products} products: lay all patches into one matrix, and multiply once."
    )


def training_step(train_step):
    """Exercise 3: a function that moves a network's weights as one step of train.fit does."""
    digits = data.load("digits")
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.BatchNorm1d(10))
    twin = copy.deepcopy(network)
    optimizer, twins_optimizer = (torch.optim.SGD(each.parameters(), lr=0.01) for each in (network, twin))
    modes, gradients = [], []  # was the network in training mode when it saw images? Were there gradients at a step?
    network[2].register_forward_pre_hook(lambda norm, _: modes.append(norm.training))
    optimizer.register_step_pre_hook(lambda *_: gradients.append(network[1].weight.grad is not None))
    for number_of_step, (images, targets) in zip((1, 2), data.loaders(digits, 64)[0], strict=False):
        network.eval()  # as after an evaluation
        before = network[1].weight.detach().clone()
        loss = call("train_step", train_step, network, optimizer, images, targets)
        scores = _train_step(twin, twins_optimizer, images, targets)
        require(all(modes), EVALUATES)
        _check_loss(loss, scores, targets)
        _check_weights(network[1].weight, before, twin[1].weight, number_of_step, gradients)
    good, bad = _train(train_step, digits), _train(_add_gradients_and_step, digits)
    print(
        f"Right. Four epochs of your steps recognise {good:.0%} of the test digits; without zero_grad it is {bad:.0%}."
    )


def _check_loss(loss, scores, targets):
    if isinstance(loss, torch.Tensor):
        require(not loss.requires_grad, "your loss is a tensor that keeps all that was computed for it in memory.")
    loss = number("train_step(...)", loss)
    twice = F.cross_entropy(scores.softmax(dim=1), targets).item()
    require(abs(loss - twice) > 1e-4, "cross_entropy has the softmax in it: it takes the scores as they are.")
    right = F.cross_entropy(scores, targets).item()
    require(abs(loss - right) < 1e-4, f"the loss is {loss:.4f}; the mean cross-entropy before the step is {right:.4f}.")


def _check_weights(weight, before, right, number_of_step, gradients):
    if torch.equal(weight, before):
        has_gradients = weight.grad is not None and bool(weight.grad.any())
        too_early = has_gradients and gradients == [False]
        require(not too_early, "there were no gradients yet when the optimiser made its step: look at the order.")
        require(has_gradients, "the optimiser finds no gradients: compute new ones after old ones are deleted.")
        require(False, "the gradients are there, and no weight has moved: that is the optimiser's work.")
    close = torch.allclose(weight, right, atol=1e-6)
    adds = "the first step is right, but the second step moves the weights by the gradients of both batches."
    require(close or number_of_step == 1, adds)
    require(close, "the weights have moved, but not by the learning rate times the gradient of the loss.")


def _train_step(network, optimizer, images, targets):
    optimizer.zero_grad()
    return _add_gradients_and_step(network, optimizer, images, targets)


def _add_gradients_and_step(network, optimizer, images, targets):
    scores = network(images)
    F.cross_entropy(scores, targets).backward()
    optimizer.step()
    return scores.detach()


def _train(train_step, digits):
    """Test accuracy of a small network after four epochs with such steps."""
    train_loader, test_loader = data.loaders(digits, 64)
    utils.set_seed(0)
    layers = [ConvBlock(1, 8, stride=2), ConvBlock(8, 16, stride=2), ConvBlock(16, 16)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(4):
        for images, targets in train_loader:
            train_step(network, optimizer, images, targets)
    return train.evaluate(network, test_loader)["accuracy"]


def scrambled(scramble):
    """Exercise 4: a function that puts the pixels of all images in the same random order."""
    numbered = torch.arange(784).view(1, 1, 28, 28).expand(3, 2, 28, 28)  # each pixel knows where it comes from
    numbered = numbered + 1000 * torch.arange(6).view(3, 2, 1, 1)  # and to which channel of which image it belongs
    images = numbered.clone()
    mixed = tensor("scramble(images)", call("scramble", scramble, images), numbered.shape).clone()
    unchanged = torch.equal(images, numbered)
    require(
        unchanged, "you write into the images that you are given, and spoil them for all that comes: make new ones."
    )
    again = tensor("scramble(images)", call("scramble", scramble, numbered.clone()), numbered.shape)
    require((mixed // 2000 == numbered // 2000).all(), "pixels have come into another image: each image keeps its own.")
    require(
        (mixed // 1000 == numbered // 1000).all(),
        "pixels have come into another channel: each channel of an image keeps its own.",
    )
    order = mixed % 1000
    complete = torch.equal(order.flatten(2).sort().values, numbered.flatten(2) % 1000)
    require(complete, "some pixels are lost and others are there twice: put them in another order, no more.")
    require((order == order[:1]).all(), "each image has an order of its own, so there is nothing to learn from them.")
    require((order == order[:, :1]).all(), "the channels of an image must all have the same order.")
    require(torch.equal(mixed, again), "the second call takes another order: the test images would get another one.")
    fewer = tensor("scramble(images)", call("scramble", scramble, numbered[:2].clone()), numbered[:2].shape)
    alone = "two images get another order than three: the test set has fewer images, and would get an order of its own."
    require(torch.equal(mixed[:2], fewer), alone)
    neighbours = (order[0, 0].diff(dim=1).abs() == 1).sum() + (order[0, 0].diff(dim=0).abs() == 28).sum()
    neighbours += (order[0, 0].diff(dim=1).abs() == 28).sum() + (order[0, 0].diff(dim=0).abs() == 1).sum()
    require(neighbours < 50, "some pixels are still beside their old neighbours: mix rows and columns together.")
    print("Right: every pixel is still there, and hardly one beside an old neighbour.")


def neighbours(prediction, plain, mixed, effect):
    """Exercise 5: a prediction, test accuracies of at least five seeds each way, and their compare.Difference."""
    points = number("prediction", prediction)
    slip = "`prediction` is in percentage points, and"
    require(not 0 < abs(points) < 1, f"{slip} {points:g} looks like a fraction: a fall from 90 % to 80 % is -10.")
    require(points <= 60, f"{slip} {points:g} looks like an accuracy: predict by how much it changes.")
    outcome = checking.experiment(prediction, "plain", plain, "mixed", mixed, effect)
    require(effect.points > 0, "scrambling changes much here: is `plain` the one with the pixels in place?")
    print(f"Right: {outcome}. A window of 7 x 7 holds a bit of a stroke; scrambled, a sample of the whole image.")
