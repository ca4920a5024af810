"""Checks for the exercises of session 6: each says in one line what is right, or what to look at again."""

import copy
import functools

import torch
from torch import nn

from common import checking, data, train, utils
from common.checking import NotYet, call, describe, number, require, tensor
from common.model import ConvBlock, under_10k

BUDGET, ASKED, EPOCHS = 8000, 0.9, 5  # of exercise 3


def counts(wide, narrow, five, two_threes, split, norm):
    """Exercise 1: how many numbers training changes in six small parts of networks."""
    layers = {
        "wide": nn.Conv2d(32, 64, 3, bias=False),
        "narrow": nn.Conv2d(32, 64, 1, bias=False),
        "five": nn.Conv2d(32, 32, 5, bias=False),
        "two_threes": nn.Sequential(nn.Conv2d(32, 32, 3, bias=False), nn.Conv2d(32, 32, 3, bias=False)),
        "split": nn.Sequential(nn.Conv2d(32, 32, 3, groups=32, bias=False), nn.Conv2d(32, 64, 1, bias=False)),
        "norm": nn.BatchNorm2d(64),
    }
    answers = {"wide": wide, "narrow": narrow, "five": five, "two_threes": two_threes, "split": split, "norm": norm}
    for name, answer in answers.items():
        right, answer = utils.count_parameters(layers[name]), number(name, answer)
        require(
            answer == right, f"`{name}` has not {answer:,.0f} parameters: {_miscounted(name, layers[name], answer)}."
        )
    print(
        f"Right. Two 3 x 3 see as much as one 5 x 5 for {two_threes / five:.0%} of its parameters; and in two pieces "
        f"a 3 x 3 costs {split / wide:.0%} of what it costs whole."
    )


def _miscounted(name, layers, answer):
    """What seems to have been forgotten or counted twice."""
    if name == "norm":
        if answer == 256:
            return "mean and variance of each map are measured; the optimiser does not change them"
        return "each map is multiplied by one number, and one number is added to it"
    convolutions = [layer for layer in layers.modules() if isinstance(layer, nn.Conv2d)]
    last = convolutions[-1]
    maps_out = sum(layer.out_channels for layer in convolutions)
    right = utils.count_parameters(layers)
    if answer == right + maps_out:
        return "a bias for each map was counted, and these have none"
    if name == "split" and answer == 9 * 32 * 32 + 32 * 64:
        return "in its first part a kernel looks at one map only, not at all 32"
    if name == "split" and answer == 9 * 32 * 64 + 32 * 64:
        return "its first part has one kernel of 3 x 3 for each of the 32 maps, and no more"
    if answer * last.in_channels == right:
        return f"each of the {last.out_channels} kernels reaches through all {last.in_channels} maps that come in"
    if answer * last.kernel_size[0] in (right, right / last.kernel_size[0]) and last.kernel_size[0] > 1:
        return "a kernel has rows and columns"
    if name == "two_threes" and answer * 2 == right:
        return "there are two of them"
    return "take the numbers of one kernel, through all maps that it looks at, times the number of kernels"


def folded(fold):
    """Exercise 2: a convolution that does what a convolution and the batch norm behind it did."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    for bias in (False, True):
        conv = nn.Conv2d(6, 6, 3, stride=2, padding=1, bias=bias)
        norm = nn.BatchNorm2d(6).eval()
        with torch.no_grad():
            for values in (*conv.parameters(), *norm.parameters(), norm.running_mean):
                values.copy_(draw(*values.shape) / 3)
            norm.running_var.uniform_(0.5, 2, generator=generator)
            norm.running_var[0] = 1e-3  # a map that is nearly always the same: here eps counts
            images = draw(4, 6, 9, 9)
            _check_folded(fold, conv, norm, images)
    network = _measured()
    convolutions = nn.Sequential(*network)
    for position, layer in enumerate(network):
        if isinstance(layer, ConvBlock) and len(layer) > 1:
            with torch.no_grad():
                folded = call("fold", fold, layer[0], layer[1])
            convolutions[position] = nn.Sequential(folded, *list(layer)[2:])
    with torch.no_grad():
        images = draw(8, 1, 28, 28)
        apart = float((convolutions(images) - network(images)).abs().max())
    require(apart < 1e-5, f"one pair is right, but the whole network of the lesson differs by up to {apart:.2g}.")
    before, after = (sum(p.numel() for p in (*n.parameters(), *n.buffers())) for n in (network, convolutions))
    layers = sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())
    print(
        f"Right. Folded so, the lesson's network loses {layers} layers and keeps {after:,} of its {before:,} numbers; "
        f"its scores differ by {apart:.1g} at most."
    )


def _check_folded(fold, conv, norm, images):
    """One pair of layers; the usual slips are told by the maps that they make."""
    weights = copy.deepcopy((conv.state_dict(), norm.state_dict()))
    new = call("fold", fold, conv, norm)
    require(isinstance(new, nn.Conv2d), f"`fold` must return an nn.Conv2d; it returns {describe(new)}.")
    states = zip(weights, (conv.state_dict(), norm.state_dict()), strict=True)
    untouched = all(torch.equal(old[key], now[key]) for old, now in states for key in old)
    require(untouched, "`fold` changes the layers that it is given: make a new convolution and leave them as they are.")
    right = norm(conv(images)).detach()
    maps = call("fold(conv, norm)", new, images)
    if maps.shape != right.shape:
        old, now = (tuple(layer.shape[1:]) for layer in (right, maps))
        require(False, f"maps of {old} have become {now}: take over kernel size, stride and padding.")
    maps = tensor("fold(conv, norm)(images)", maps, right.shape).detach()
    if torch.allclose(maps, right, rtol=1e-5, atol=1e-5):
        return

    per_map = (None, slice(None), None, None)
    deviation = (norm.running_var + norm.eps).sqrt()[per_map]
    mean, gamma, beta = (values[per_map] for values in (norm.running_mean, norm.weight, norm.bias))
    own = 0 if conv.bias is None else conv.bias[per_map]
    plain = conv(images) - own  # without the convolution's own bias

    def gives(other):
        return torch.allclose(maps, other, rtol=1e-4, atol=1e-4)

    slips = {
        "eps belongs under the root: to what does batch norm add it?": (
            (plain + own - mean) / (norm.running_var.sqrt() + norm.eps)[per_map] * gamma + beta
        ),
        "the variance of a map may be nearly 0: what does batch norm add to it before it takes the root?": (
            (plain + own - mean) / norm.running_var.sqrt()[per_map] * gamma + beta
        ),
        "batch norm divides by the standard deviation, not by the variance.": (
            (plain + own - mean) / deviation**2 * gamma + beta
        ),
        "the mean is still missing: what becomes of it, once all is one convolution?": (
            (plain + own) / deviation * gamma + beta
        ),
        "the mean went into the new bias as it is, but batch norm divides it and multiplies it, too.": (
            (plain + own) / deviation * gamma + beta - mean
        ),
        "beta is still missing.": (plain + own - mean) / deviation * gamma,
        "the convolution may have a bias of its own.": (plain - mean) / deviation * gamma + beta,
        "the old bias is added as it is, but batch norm changes it, too.": (
            (plain - mean) / deviation * gamma + beta + own
        ),
    }
    for sentence, other in slips.items():
        require(not gives(other), sentence)
    scale = (norm.weight / deviation.flatten())[None, :, None, None]
    turned = nn.functional.conv2d(images, conv.weight * scale, new.bias, conv.stride, conv.padding)
    require(not gives(turned), "a map that comes *out* has one factor. Which dimension of the weights is that?")
    apart = float((maps - right).abs().max())
    require(
        False,
        f"the shape is right, the maps differ by up to {apart:.2g}: write batch norm as one factor and one shift.",
    )


@functools.cache
def _measured():
    """The untrained network of the lesson, whose batch norm has measured the digits."""
    utils.set_seed(0)
    network = under_10k()
    loader = data.loaders(data.load("digits"), 64)[0]
    with torch.no_grad():
        for images, _ in loader:
            network(images)
    return network.eval()


def own_network(build):
    """Exercise 3: a network within the budget, trained here for five epochs."""
    utils.set_seed(0)
    network = call("build", build)
    require(isinstance(network, nn.Module), f"`build` must return a network; it returns {describe(network)}.")
    with torch.no_grad():
        scores = call("build()", network.eval(), torch.randn(4, 1, 28, 28))
    count = _check_budget(network)
    _check_scores(scores)
    train_loader, test_loader = data.loaders(data.load("digits"), 64)
    optimizer, schedule = train.one_cycle(network, train_loader, 0.1, EPOCHS)
    options = {"epochs": EPOCHS, "schedule": schedule, "log": lambda line: None}
    try:
        history = train.fit(network, train_loader, test_loader, optimizer, **options)
    except Exception as error:  # of a network that works on four images and not on batches, or whose loss explodes
        raise NotYet(f"the training stops: {type(error).__name__}: {error}") from None
    learned, accuracy = history["train_accuracy"][-1], history["test_accuracy"][-1]
    hint = "which of its layers sees a whole digit? utils.receptive_field tells"
    if not any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()):
        hint = "at this rate five epochs are enough only with batch norm behind the convolutions"
    require(
        accuracy >= ASKED,
        f"{count:,} parameters, {learned:.1%} of the training and {accuracy:.1%} of the test images: "
        f"{ASKED:.0%} is asked for. Something to look at: {hint}.",
    )
    print(f"Right: {accuracy:.1%} of the test images with {count:,} parameters. With how few is it still {ASKED:.0%}?")


def _check_budget(network):
    """The number of parameters; raises NotYet for too many, and names the layer with most of them."""
    count = utils.count_parameters(network)
    largest = max((layer for layer in network.modules() if not list(layer.children())), key=utils.count_parameters)
    require(
        count < BUDGET,
        f"{count:,} parameters are too many; {utils.count_parameters(largest):,} stand in one layer: {largest}.",
    )
    require(count > 0, "there is nothing in this network that could learn.")
    return count


def _check_scores(scores):
    """Raise NotYet unless these are ten scores for each of four images, and neither probabilities nor cut off at 0."""
    if isinstance(scores, torch.Tensor) and scores.dim() == 4 and scores.shape[:2] == (4, 10):
        height, width = scores.shape[2:]
        points = height == width == 1
        require(points, f"the scores are ten maps of {height}x{width}: an average pool makes points of them.")
        require(False, "the scores are ten maps of one point each: nn.Flatten makes a row of them.")
    tensor("build()(images)", scores, (4, 10))
    sure = torch.allclose(scores.sum(dim=1), torch.ones(4)) and scores.min() >= 0
    require(not sure, "the outputs add up to 1. Cross-entropy applies softmax itself: end with the scores.")
    require(scores.min() < 0, "no score is negative. ReLU is for the layers before the last: a score may go below 0.")


def pieces(prediction, whole, in_pieces, effect, verdict):
    """Exercise 4: what it costs to filter and to mix in two layers."""
    outcome = checking.experiment(prediction, "whole", whole, "in_pieces", in_pieces, effect)
    checking.verdict(effect, verdict)
    print(
        f"Right: {outcome}. In pieces it has a quarter of the parameters, and needs longer to learn: try more epochs."
    )
