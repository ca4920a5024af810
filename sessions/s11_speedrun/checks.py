"""Checks for the exercises of session 11: each says in one line what is right, or what to look at again."""

import copy
import functools
import json

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from common import checking, data, utils
from common.checking import agrees, call, choice, describe, number, require, tensor
from common.model import ConvBlock, under_10k, under_a_minute


def operations(network, inputs, backward=False):
    """How many operations a network needs for these inputs, forwards, or forwards and backwards."""
    with FlopCounterMode(display=False) as counter:
        outputs = network(inputs)
        if backward:
            outputs.sum().backward()
    return counter.get_total_flops()


def costs(first, second, point, backward, most_parameters, most_operations, at_most):
    """Exercise 1: operations of a few layers, forwards and backwards, and where most of them are."""
    layers = {
        "first": (nn.Conv2d(1, 8, 3, bias=False), first, 28),
        "second": (nn.Conv2d(8, 16, 3, padding=1, bias=False), second, 13),
        "point": (nn.Conv2d(16, 12, 1, bias=False), point, 10),
    }
    for name, (layer, answer, width) in layers.items():
        answer, right = number(name, answer), operations(layer, torch.zeros(1, layer.in_channels, width, width))
        if answer != right:
            require(False, f"`{name}` has not {answer:,.0f} operations: {_miscounted(layer, width, answer)}.")
    _check_backward(backward, layers["second"][0])

    parameters, counts = _parts()
    found = [number("most_parameters", most_parameters), number("most_operations", most_operations)]
    right = [of.index(max(of)) + 1 for of in (parameters, counts)]
    require(found != [place - 1 for place in right], "both are one too low: the first layer has the number 1.")
    for what, of, place, layer in zip(("parameters", "operations"), (parameters, counts), right, found, strict=True):
        fits = layer in range(1, len(of) + 1)
        require(fits, f"`most_{what}` must be the number of a layer, from 1 to {len(of)}; it is {layer:g}.")
        share = f"layer {layer:g} has {of[int(layer) - 1] / sum(of):.0%} of all {what}"
        hint = "how many places have its maps?" if layer == right[0] else "another one has more."
        require(layer == place, f"`most_{what}`: {share}; {hint}")
    _check_at_most(number("at_most", at_most), parameters, counts)

    image = torch.zeros(2, 1, 28, 28)
    ours, theirs = (operations(make(), image, backward=True) / 2 for make in (under_a_minute, under_10k))
    published = (utils.ROOT / "sessions" / "s11_speedrun" / "results.json").read_text(encoding="utf-8")
    epochs = json.loads(published)[0]["params"]["minute_epochs"]
    flop = epochs * 60_000 * ours
    print(
        f"Right. The network of the minute needs {ours / theirs:.0%} of what session 6's needs. Its {epochs} epochs of "
        f"60,000 images are {flop / 1e12:.1f} TFLOP: {flop / 100e9:.0f} s at 100 GFLOP a second. Where is the rest of "
        "the minute?"
    )


def _miscounted(layer, width, answer):
    """What seems to have been forgotten or counted twice."""
    size = layer.kernel_size[0]
    out = width + 2 * layer.padding[0] - size + 1
    numbers = layer.weight.numel()
    places = answer / numbers / 2
    if answer == numbers * out**2:
        return "multiplying and adding are two"
    if answer == (2 * numbers - layer.out_channels) * out**2:
        return "there are as many additions as multiplications, if the first one adds to 0"
    if size > 1 and places == (out // 2) ** 2:
        return "the pool comes behind it; the kernel is multiplied at each place of the map before"
    if places == width**2:
        return "without padding the kernel has fewer places than the image has pixels"
    if layer.padding[0] and places == (width - 2) ** 2:
        return "with padding the kernel has as many places as the map that comes in"
    if answer in (numbers, 2 * numbers):
        return "this is for a single place; the kernel is multiplied at each place of the map that goes out"
    right = 2 * numbers * out**2
    for factor in (1, 2):  # multiplying and adding were two, or not
        if layer.in_channels > 1 and answer * factor * layer.in_channels == right:
            return f"each kernel reaches through all {layer.in_channels} maps that come in"
        if answer * factor * layer.out_channels == right:
            return f"there are {layer.out_channels} kernels, one for each map that goes out"
        if size > 1 and answer * factor in (right / size, right / size**2):
            return "a kernel has rows and columns"
    return "take the numbers of one kernel, through all maps that come in, times kernels, times places, times two"


def _check_backward(backward, layer):
    """Raise NotYet unless `backward` is how many times as many operations this layer needs backwards."""
    inputs = torch.zeros(1, 8, 13, 13, requires_grad=True)
    both, forwards = operations(layer, inputs, backward=True), operations(layer, inputs)
    backward = number("backward", backward)
    right = both / forwards - 1
    hint = "the forward pass makes one thing, the maps. The backward pass makes more than one, each at that price"
    if backward == right + 1:
        hint = "a training step needs so many, but its forward pass is one of them"
    agrees("backward", backward, right, hint)


@functools.cache
def _parts():
    """The parameters and the operations of each convolution of session 6's network, two lists."""
    parameters, counts = [], []
    x = torch.zeros(1, 1, 28, 28)
    network = under_10k().eval()
    for layer in network:
        if isinstance(layer, ConvBlock):
            parameters.append(layer[0].weight.numel())
            counts.append(operations(layer, x))
        x = layer(x)
    return parameters, counts


def _check_at_most(at_most, parameters, counts):
    """Raise NotYet unless `at_most` is the gain if the layer with the most operations cost nothing."""
    most = counts.index(max(counts))
    share = counts[most] / sum(counts)
    slips = {
        share: "this is the share of the layer; think of what is left without it",
        1 - share: "this is the share that is left; think of how many such shares one second has room for",
        1 / share: "it would be so if this layer were all that is left, and not what is gone",
        share / (1 - share): "this is how many more; asked is how many times as many",
        1 + share: "who needs half of the time reads twice as many images, not half as many more",
        1 / (1 - parameters[most] / sum(parameters)): "this follows from its parameters; time goes with operations",
    }
    for value, hint in slips.items():
        require(abs(at_most - value) > 0.01 * value, f"your at_most is {at_most:g}, which is not right yet: {hint}.")
    hint = "find the share of all operations that is left without that layer; fewer operations, more images"
    agrees("at_most", at_most, 1 / (1 - share), hint, apart=0.01)


def pooled_first(pool_first, left, in_training):
    """Exercise 2: a block that pools first and gives the same, whatever the signs of gamma are."""
    generator = torch.Generator().manual_seed(0)
    for size in (2, 3):
        conv, norm = nn.Conv2d(6, 6, 3, bias=False), nn.BatchNorm2d(6)
        with torch.no_grad():
            for values in (conv.weight, norm.weight, norm.bias, norm.running_mean):
                values.copy_(torch.randn(values.shape, generator=generator) / 2)
            norm.running_var.uniform_(0.5, 2, generator=generator)
            norm.weight.abs_().add_(0.2)[::2] *= -1  # every other one is below 0
            block = nn.Sequential(conv, norm, nn.ReLU(), nn.MaxPool2d(size)).eval()
            _check_pooled_first(pool_first, block, torch.randn(4, 6, 14, 14, generator=generator))

    left = number("left", left)
    right = F.max_pool2d(torch.zeros(1, 9, 9), 2).numel() / 9**2
    hint = "count the places of a map before the pool, and those behind it"
    if abs(left - 0.25) < 1e-3:
        hint = "it would be so if 2 divided the width of the map; think of its last row and column"
    elif abs(1 - left - right) < 0.06:
        hint = "that is what is saved; asked is what is left"
    elif left > 1:
        hint = "it must be a share, from 0 to 1"
    require(abs(left - right) < 0.005, f"your left is {left:.3g}, which is not right yet: {hint}.")
    said = choice("in_training", in_training, ("same", "different"))
    hint = "in training batch norm measures mean and variance itself. Of which numbers, in the one order and the other?"
    require(said == "different", f"not '{said}': {hint}")
    gammas = torch.cat(_published_gammas())
    print(
        f"Right. The order can be changed after training; in training the two orders are two networks. Of the "
        f"{len(gammas):,} gammas of the published networks {int((gammas < 0).sum())} are below 0: who forgets them may "
        "never notice."
    )


def _check_pooled_first(pool_first, block, images):
    """One block; the usual slips are told by the maps that they make."""
    conv, norm, _, pool = block
    before = copy.deepcopy(block.state_dict())
    right = block(images)
    new = call("pool_first", pool_first, block)
    untouched = all(torch.equal(values, before[name]) for name, values in block.state_dict().items())
    require(untouched, "`pool_first` changes the block that it is given. Work on the copies, and leave it as it is.")
    require(isinstance(new, nn.Sequential), f"`pool_first` must return an nn.Sequential; it returns {describe(new)}.")
    order = [type(layer).__name__ for layer in new]
    late = "BatchNorm2d" in order and "MaxPool2d" in order and order.index("BatchNorm2d") < order.index("MaxPool2d")
    require(not late, "batch norm still stands before the pool, and has as much to do as ever.")
    wanted = ["Conv2d", "MaxPool2d", "BatchNorm2d", "ReLU"]
    require(order == wanted, f"expected are the layers {', '.join(wanted)}; these are {', '.join(order) or 'none'}.")
    maps = tensor("pool_first(block)(images)", call("pool_first(block)", new.eval(), images), right.shape)
    if torch.allclose(maps, right, atol=1e-4):
        return

    per_map = (None, slice(None), None, None)
    y = conv(images)
    deviation = (norm.running_var + norm.eps).sqrt()[per_map]
    mean, gamma, beta = (values[per_map] for values in (norm.running_mean, norm.weight, norm.bias))
    sign = gamma.sign()

    def gives(y, mean, gamma, beta):
        return torch.allclose(maps, ((pool(y) - mean) / deviation * gamma + beta).relu(), atol=1e-4)

    slips = {
        "the layers have the new order, and nothing else has changed. Which maps are wrong, and what is gamma there?": (
            (y, mean, gamma, beta)
        ),
        "gamma has a new sign, but the convolution still makes the old maps.": ((y, mean, gamma.abs(), beta)),
        "the convolution and gamma have changed sides, but the mean is still that of the old maps.": (
            (sign * y, mean, gamma.abs(), beta)
        ),
        "the maps of the convolution and their mean have changed sides; what undoes it behind the pool?": (
            (sign * y, sign * mean, gamma, beta)
        ),
        "the convolution has changed alone; batch norm does not know of it yet.": (sign * y, mean, gamma, beta),
        "the convolution must change too: the pool still takes the wrong end.": (y, sign * mean, gamma.abs(), beta),
        "beta is added behind all the signs; it stays as it is.": (sign * y, sign * mean, gamma.abs(), sign * beta),
        "now the maps with a positive gamma are wrong; those needed no help.": (-y, -mean, -gamma, beta),
    }
    for sentence, slip in slips.items():
        require(not gives(*slip), sentence)
    turned = F.conv2d(images, conv.weight * norm.weight.sign()[None, :, None, None])
    others = [(turned, m, g, beta) for m in (mean, sign * mean) for g in (gamma, gamma.abs())]
    require(not any(gives(*slip) for slip in others), "a map that comes *out* has one gamma. Which dimension is that?")
    wrong = [str(index) for index in range(6) if not torch.allclose(maps[:, index], right[:, index], atol=1e-4)]
    signs = " ".join("-" if value < 0 else "+" for value in norm.weight)
    require(False, f"the signs of gamma are {signs}; not the same are the maps {', '.join(wrong)}, counted from 0.")


def _published_gammas():
    """The gammas of all batch norms in the weights of the sessions: the only weights with one dimension."""
    from safetensors.torch import load_file

    files = (load_file(path) for path in sorted(utils.ROOT.glob("sessions/*/weights.safetensors")))
    gammas = [w.float() for weights in files for name, w in weights.items() if name.endswith("weight") and w.dim() == 1]
    return gammas or [torch.empty(0)]


def whitened(whiten):
    """Exercise 3: filters whose outputs have the covariance 1, and that are symmetric."""
    digits = data.load("digits")
    images = data.normalise(digits, digits.train.images[:500])
    generator = torch.Generator().manual_seed(0)
    colours = F.avg_pool2d(torch.randn(60, 3, 17, 17, generator=generator), 2, stride=1)  # neighbours are alike
    mixture = torch.tensor([[1.0, 0.5, 0.2], [0.3, 1.0, 0.4], [0.1, 0.6, 1.0]])
    colours = torch.einsum("oc,nchw->nohw", mixture, colours) + torch.tensor([1.0, -0.5, 0.3])[:, None, None]
    _check_whitened(whiten, "the digits", images)
    _check_whitened(whiten, "colour images whose mean is not 0", colours)

    covariance = _covariance(images)[0]
    pixels = covariance[0, 1] / covariance[0, 0]
    variances = torch.linalg.eigvalsh(covariance)
    louder = (variances[-1] / variances[0]).sqrt()
    print(
        f"Right. Two neighbouring pixels of the digits had a correlation of {pixels:.2f}, now it is 0. Each filter is "
        "a pixel minus parts of its two neighbours, and so it sharpens. The rarest pattern is made "
        f"{louder:.0f} times as loud as the commonest, and its noise, too: so the lesson adds a little."
    )


def _covariance(images):
    """Covariance and second moments of the 2 x 2 patches of images, two matrices (d, d)."""
    patches = F.unfold(images, 2).transpose(1, 2).flatten(0, 1).double()
    return torch.cov(patches.T, correction=0), patches.T @ patches / len(patches)


def _check_whitened(whiten, what, images):
    """Filters for one set of images; the usual slips are told by the covariance of the outputs."""
    covariance, moments = _covariance(images)
    channels, d = images.shape[1], len(covariance)
    before = images.clone()
    filters = call("whiten", whiten, images)
    require(torch.equal(images, before), "`whiten` changes the images that it is given: make something new.")
    if isinstance(filters, torch.Tensor):
        twice = filters.shape == (2 * d, channels, 2, 2)
        require(not twice, f"these are {2 * d} filters for patches of {d} numbers: half of them say nothing new.")
        flat = filters.shape == (d, d)
        require(not flat, f"these are {d} filters as rows; F.conv2d wants the shape {(d, channels, 2, 2)}.")
    filters = tensor("whiten(images)", filters, (d, channels, 2, 2)).double()
    outputs = F.conv2d(images.double(), filters).transpose(0, 1).flatten(1)  # (d, N * places)
    seen = torch.cov(outputs, correction=0)

    def same(one, other):
        return torch.allclose(one, other, rtol=0.01, atol=0.01 * float(other.abs().max()))

    def eigenvalues(matrix):
        return torch.linalg.eigvalsh((matrix + matrix.T) / 2)

    def varies_as(values, variances):
        return torch.allclose(values / variances, torch.ones(d, dtype=torch.double), rtol=0.01)

    matrix, identity, spread = filters.flatten(1), torch.eye(d, dtype=torch.double), eigenvalues(covariance)
    if same(seen, identity):
        symmetric = same(matrix, matrix.T)
        turned = "white, but each output belongs to a direction, no longer to a pixel: rotate the outputs back"
        require(symmetric, f"{what}: the outputs are {turned}.")
        require(
            eigenvalues(matrix).min() > 0,
            f"{what}: the outputs are white and the filters symmetric, but they turn some direction into its opposite.",
        )
        return
    off = float((seen - seen.diag().diag()).abs().max())
    slips = {
        "each pixel is divided by its own deviation, and neighbours still tell the same.": (
            same(matrix, matrix.diag().diag()) and same(seen.diag(), identity.diag())
        ),
        "the outputs are uncorrelated, but not stretched: the directions vary as much as ever.": (
            varies_as(eigenvalues(seen), spread)
        ),
        "where the patches varied most, the outputs vary least: a direction is divided by its deviation, and the "
        "deviation is the root of the variance.": varies_as(eigenvalues(seen), (1 / spread).flip(0)),
        "what varied much varies more now: divide, where you multiply.": varies_as(eigenvalues(seen), spread**2),
        f"the outputs are uncorrelated, but their variance is {float(seen[0, 0]):.3g} and not 1: the covariance is a "
        "mean over all patches.": same(seen, seen[0, 0] * identity),
        "a covariance is taken from the mean. Subtract that of the patches first.": (
            same(matrix @ moments @ matrix.T, identity)
        ),
        "the lengths of the filters are right, their directions are not: eigh puts an eigenvector into each column.": (
            varies_as(torch.linalg.svdvals(matrix) ** -2, spread)
        ),
    }
    for sentence, slipped in slips.items():
        require(not slipped, f"{what}: {sentence}")
    least = float(eigenvalues(seen)[0])
    damped = 0 < least < 1 and eigenvalues(seen).max() < 1.002
    require(
        not damped,
        f"{what}: the weakest direction has only the variance {least:.2f}; was something added to the divisor?",
    )
    middle = f"from {float(seen.diag().min()):.3g} to {float(seen.diag().max()):.3g}"
    require(
        False,
        f"{what}: the outputs have variances {middle} and covariances up to {off:.3g}; expected are 1 and 0.",
    )


def views(average_of_views, prediction, single, viewed, effect, verdict):
    """Exercise 4: the mean of the scores for several views, and what it is worth."""
    _check_average(average_of_views)
    outcome = checking.experiment(prediction, "single", single, "viewed", viewed, effect)
    checking.verdict(effect, verdict)
    print(
        f"Right: {outcome}. These networks never saw a moved digit. Let `prepare` move the training images by up "
        "to three pixels: what is the same average worth then?"
    )


def _check_average(average_of_views):
    """The function on an untrained network; the usual slips are told by the scores that they make."""
    utils.set_seed(0)
    network = nn.Sequential(ConvBlock(1, 4, stride=2), nn.Flatten(), nn.Linear(4 * 9 * 9, 10))
    images = F.pad(torch.rand(5, 1, 12, 12), (4, 4, 4, 4))
    shifts = [(-2, 1), (0, 0), (3, 0), (1, -3)]
    network(images)  # batch norm measures once

    def scores(shifts, training=False):
        copied = copy.deepcopy(network).train(training)
        with torch.no_grad():
            return torch.stack([copied(images.roll(shift, dims=(2, 3))) for shift in shifts])

    given, before = copy.deepcopy(network).train(), images.clone()
    answer = call("average_of_views", average_of_views, given, images, shifts)
    require(torch.equal(images, before), "`average_of_views` changes the images that it is given: make new ones.")
    all_scores = scores(shifts)
    if isinstance(answer, torch.Tensor) and answer.shape == all_scores.shape:
        require(False, f"these are the scores of all {len(shifts)} views; their mean is asked.")
    right = all_scores.mean(dim=0)
    answer = tensor("average_of_views(network, images, shifts)", answer, right.shape).detach()

    def gives(other):
        return torch.allclose(answer, other, atol=1e-5)

    if gives(right):
        return
    with torch.no_grad():
        blurred = torch.stack([images.roll(shift, dims=(2, 3)) for shift in shifts]).mean(dim=0)
        blurred = copy.deepcopy(network).eval()(blurred)
    slips = {
        "training left the network in training mode, and batch norm measures each batch anew. Which mode answers?": (
            scores(shifts, training=True).mean(dim=0)
        ),
        "this is the sum of the scores; the mean is asked.": all_scores.sum(dim=0),
        "these are the scores of a single, blurred image. Take the mean of the scores, not of the images.": blurred,
        "these are means of probabilities; asked are means of scores, before any softmax.": (
            all_scores.softmax(dim=2).mean(dim=0)
        ),
        "rows and columns have changed places: a shift names the rows first.": (
            scores([shift[::-1] for shift in shifts]).mean(dim=0)
        ),
        "the images are moved to the other side.": scores([(-y, -x) for y, x in shifts]).mean(dim=0),
        "this is the last view alone.": all_scores[-1],
        "this is the image as it is, alone: no view is moved.": scores([(0, 0)])[0],
        "of each score this is the largest of all views; the mean is asked.": all_scores.amax(dim=0),
    }
    for sentence, other in slips.items():
        require(not gives(other), sentence)
    moved = [(sum(y for y, _ in shifts[: k + 1]), sum(x for _, x in shifts[: k + 1])) for k in range(len(shifts))]
    require(not gives(scores(moved).mean(dim=0)), "each view is made from the one before: begin with the image again.")
    apart = float((answer - right).abs().max())
    require(False, f"the shape is right, the scores differ by up to {apart:.2g}: what is the mean of, and how many?")
