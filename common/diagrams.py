"""Diagrams that explain a network: drawn from its own layers, each returned as a Figure and a text in words."""

import copy

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import nn

from common.utils import count_parameters, output_size

FIRST, SECOND, PADDED, INK = "#2166ac", "#d95f02", "#e8e8e8", "#222222"  # blue, orange, light grey, nearly black


def kernel_slides(size=5, kernel=3):
    """How a kernel slides over an image, and what padding and stride do to the size of the result.

    Drawn are the kernel's first two places and their results. The size is (H + 2 * padding - kernel) // stride + 1.
    """
    settings = [(0, 1), (1, 1), (1, 2)]
    figure = Figure(figsize=(5.2, 8.4), layout="constrained")
    texts = []
    for axes, (padding, stride) in zip(figure.subplots(3, 1), settings, strict=True):
        out = output_size(size, kernel, stride, padding)
        whole, top = size + 2 * padding, 7
        left, bottom = (top - whole) / 2, (top - whole) / 2
        _grid(axes, left, bottom, whole, PADDED)
        _grid(axes, left + padding, bottom + padding, size, "white")
        right = top + 3.2
        _grid(axes, right, (top - out) / 2, out, "white")
        for number, color in enumerate((FIRST, SECOND)):
            x, y = left + number * stride, bottom + whole - kernel
            inset = 0.09 * (1 - number)
            _outline(axes, x + inset, y + inset, kernel - 2 * inset, color)
            cell = (right + number, (top - out) / 2 + out - 1)
            axes.add_patch(Rectangle(cell, 1, 1, facecolor=color, alpha=0.85))
        _arrow(axes, (top + 0.5, top / 2), (right - 0.6, top / 2))
        axes.set(xlim=(-0.2, right + 5.4), ylim=(-0.2, top + 0.2), aspect="equal")
        axes.axis("off")
        axes.set_title(
            f"padding {padding}, stride {stride}: {size} × {size} becomes {out} × {out}", fontsize=13, loc="left"
        )
        texts.append(f"with padding {padding} and stride {stride} an image of {size} x {size} becomes {out} x {out}")
    figure.supxlabel("grey: padding, pixels of value 0    blue, orange: the first two places", fontsize=11)
    return figure, (
        f"A kernel of {kernel} x {kernel} slides over an image and gives one number at each place: "
        f"{'; '.join(texts)}. Padding puts zeros around the image; the stride is how far the kernel moves."
    )


def one_place(image, weight):
    """What a convolution computes at one place: the pixels under the kernel times its weights, added up.

    `image` (H, W) is normalised, `weight` (k, k) one kernel. Shown is the place where the sum is greatest.
    """
    image, weight = image.cpu().numpy(), weight.detach().cpu().numpy()
    size = len(weight)
    windows = np.lib.stride_tricks.sliding_window_view(image, weight.shape)
    sums = (windows * weight).sum(axis=(2, 3))
    row, column = np.unravel_index(sums.argmax(), sums.shape)
    patch, total = windows[row, column], sums.max()
    figure = Figure(figsize=(5.2, 5.4), layout="constrained")
    (whole, pixels), (weights, products) = figure.subplots(2, 2)
    whole.imshow(image, cmap="gray")
    _outline(whole, column - 0.5, row - 0.5, size, SECOND)
    whole.set_title("the image and one place", fontsize=12)
    _numbers(pixels, patch, "gray", (image.min(), image.max()))
    pixels.set_title("its pixels, normalised", fontsize=12)
    limit = abs(weight).max()
    _numbers(weights, weight, "RdBu", (-limit, limit))
    weights.set_title("× weights of the kernel", fontsize=12)
    limit = abs(patch * weight).max()
    _numbers(products, patch * weight, "RdBu", (-limit, limit))
    products.set_title(f"= products; their sum: {total:.2f}", fontsize=12)
    whole.axis("off")
    figure.supxlabel("blue: positive, red: negative; all numbers are rounded", fontsize=11)
    return figure, (
        f"One place of a convolution: {patch.size} pixels, from {patch.min():.2f} to {patch.max():.2f}, "
        f"times as many weights, from {weight.min():.2f} to {weight.max():.2f}; the products add up to {total:.2f}. "
        "Blue numbers are positive, red ones negative."
    )


def kernel_of_three(size=3):
    """How a kernel with a square of weights for each of three channels makes one number."""
    figure = Figure(figsize=(5.2, 5.0), layout="constrained")
    axes = figure.subplots()
    colours = ("#d1e5f0", "#fdd9b5", "#d9f0d3")
    for number, (y, colour) in enumerate(zip((9.0, 5.4, 1.8), colours, strict=True), 1):
        _grid(axes, 0.2, y - 1.5, 6, "white", cell=0.5)
        _grid(axes, 1.2, y - 0.5, size, colour, cell=0.5)
        axes.text(3.75, y, "×", ha="center", va="center", fontsize=16)
        _grid(axes, 4.3, y - 0.75, size, colour, cell=0.5)
        _arrow(axes, (6.0, y), (8.0, 5.4 + (y - 5.4) / 6))
        axes.text(0.2, y + 1.65, f"channel {number}", fontsize=11)
        axes.text(4.3, y + 0.95, f"its {size * size} weights", fontsize=11)
    axes.text(8.4, 5.4, "+", ha="center", va="center", fontsize=22, color=SECOND, weight="bold")
    _arrow(axes, (8.8, 5.4), (9.6, 5.4))
    _grid(axes, 9.7, 5.0, 1, "#e6e6e6", cell=0.8)
    axes.text(10.1, 4.3, "one\nnumber", ha="center", va="top", fontsize=11)
    axes.set(xlim=(0, 10.8), ylim=(0, 11.2))
    axes.axis("off")
    return figure, (
        f"A kernel for three channels has {size} x {size} weights for each: {3 * size * size} in all. At one place it "
        f"multiplies {3 * size * size} numbers with them, and all products are added up to one number."
    )


def shapes(network, input_size):
    """What comes out of each part of a chain for one image of `input_size` (C, H, W).

    One bar for each part: as wide as its maps, and higher the more maps there are.
    """
    names = {"MaxPool2d": "max-pooling", "AvgPool2d": "average pooling", "Linear": "fully connected layer"}
    rows, x = [("image", input_size)], torch.zeros(1, *input_size)
    for layer in copy.deepcopy(network).cpu().eval():
        with torch.no_grad():
            x = layer(x)
        kind = type(layer).__name__
        if kind != "Flatten":
            rows.append((names.get(kind, "convolution block"), tuple(x.shape[1:])))
    figure = Figure(figsize=(5.2, 0.62 * len(rows)), layout="constrained")
    axes, words = figure.subplots(), []
    largest = max(size[0] for _, size in rows)
    for number, (name, size) in enumerate(rows):
        side, text = (size[1], " × ".join(map(str, size))) if len(size) == 3 else (1, f"{size[0]} numbers")
        height, width = 0.12 + 0.6 * size[0] / largest, 0.36 * side / input_size[1]
        colour = "#fdd9b5" if "pooling" in name else "#d1e5f0" if "convolution" in name else "#e6e6e6"
        place = (0.5 - width / 2, -number - height / 2)
        axes.add_patch(Rectangle(place, width, height, facecolor=colour, edgecolor="#777777"))
        axes.text(0.29, -number, name, ha="right", va="center", fontsize=11)
        axes.text(0.71, -number, text, ha="left", va="center", fontsize=11)
        words.append(f"{name} {text}")
    axes.set(xlim=(-0.05, 1.0), ylim=(0.5 - len(rows), 0.5))
    axes.axis("off")
    return figure, "What comes out of each part: " + "; ".join(words).replace("×", "x") + "."


def averages(maps, chosen):
    """Maps (C, h, w) with their numbers, and below each its mean, for the channels `chosen`."""
    figure = Figure(figsize=(1.75 * len(chosen), 3.2), layout="constrained")
    axes = figure.subplots(2, len(chosen), height_ratios=[3, 1.2])
    limits = (0, float(maps[chosen].max()))
    for (above, below), number in zip(axes.T, chosen, strict=True):
        _numbers(above, maps[number].numpy(), "gray", limits)
        above.set_title(f"map {number + 1}", fontsize=12)
        _numbers(below, maps[number].mean().numpy().reshape(1, 1), "gray", limits)
        below.set_title("mean", fontsize=11)
    means = ", ".join(f"map {number + 1} {float(maps[number].mean()):.2f}" for number in chosen)
    return figure, f"{len(chosen)} of the last maps, {' x '.join(map(str, maps.shape[1:]))}, and their means: {means}."


def receptive_fields(image, layers, columns=3):
    """How much of an image one output sees, layer by layer; what it does not see is dark.

    `image` (H, W) is uint8, `layers` are the rows of utils.receptive_field(). Layers that see no more than the one
    before are left out. A field larger than the image reaches into the padding.
    """
    seen, steps = 1, []
    for number, layer in enumerate(layers, 1):
        if layer["field"] > seen:
            seen = layer["field"]
            steps.append((number, layer))
    size = len(image)
    rows = -(-len(steps) // columns)
    figure = Figure(figsize=(5.2, 2.1 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    margin = max(0, (seen - size) / 2) + 1
    for axes, (number, layer) in zip(panels, steps, strict=False):
        field, middle = layer["field"], (size - 1) / 2
        axes.imshow(image, cmap="gray", vmin=0, vmax=255, alpha=0.3)
        low = middle - field / 2
        axes.imshow(image, cmap="gray", vmin=0, vmax=255).set_clip_path(
            Rectangle((low, low), field, field, transform=axes.transData)
        )
        _outline(axes, low, low, field, SECOND)
        axes.set(xlim=(-0.5 - margin, size - 0.5 + margin), ylim=(size - 0.5 + margin, -0.5 - margin))
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_facecolor(PADDED)
        kind = {"Conv2d": "convolution", "MaxPool2d": "max-pooling", "AvgPool2d": "average"}[layer["layer"]]
        axes.set_title(f"{number}: {kind}\n{field} × {field}", fontsize=11)
    for axes in panels[len(steps) :]:
        axes.axis("off")
    figure.supxlabel("in the frame: what one number sees; dimmed: what it does not see; margin: padding", fontsize=10)
    words = ", ".join(f"layer {number} {layer['field']}" for number, layer in steps)
    return figure, (
        f"The receptive field of one output in the middle, over a digit of {size} x {size} pixels, in pixels: {words}."
    )


def two_paths(network):
    """The two inputs of session 2, the paths that they take, and where they meet; `network` is a DigitSum."""
    figure = Figure(figsize=(5.2, 6.2), layout="constrained")
    axes = figure.subplots()
    image, digit = network.image_path[-2].out_features, network.digit_path[0].out_features
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in network.image_path.modules())
    hidden, labels, sums = network.hidden[0].out_features, network.label.out_features, network.sum.out_features
    left, right, middle = 2.4, 7.6, 5.0
    boxes = [
        (left, 10, "image\n1 × 28 × 28", "#d1e5f0"),
        (right, 10, "digit\none number, 0 to 9", "#fdd9b5"),
        (left, 7.6, f"{convolutions} convolutions,\nfully connected:\n{image} numbers", "#d1e5f0"),
        (right, 7.6, f"fully connected:\n{digit} numbers", "#fdd9b5"),
        (middle, 5.2, f"side by side: {image} + {digit} = {image + digit} numbers", "#e6e6e6"),
        (middle, 3.2, f"hidden layer: {hidden} numbers", "#e6e6e6"),
        (left, 0.8, f"label\n{labels} scores", "#d1e5f0"),
        (right, 0.8, f"sum of label and digit\n{sums} scores", "#d9f0d3"),
    ]
    for x, y, text, color in boxes:
        _box(axes, x, y, text, color, width=9.2 if x == middle else 4.7)
    for start, end in (
        ((left, 9.3), (left, 8.3)),
        ((right, 9.3), (right, 8.3)),
        ((left, 6.9), (left, 5.9)),
        ((right, 6.9), (right, 5.9)),
        ((middle, 4.5), (middle, 3.9)),
        ((left, 2.5), (left, 1.5)),
        ((right, 2.5), (right, 1.5)),
    ):
        _arrow(axes, start, end)
    axes.set(xlim=(-0.1, 10.1), ylim=(0, 10.8))
    axes.axis("off")
    return figure, (
        f"Two paths: the image goes through {convolutions} convolutions and a fully connected layer to {image} "
        f"numbers, the digit through a fully connected layer to {digit}. Put side by side, these {image + digit} "
        f"go through a hidden layer of {hidden} to {labels} scores for the label and {sums} for the sum."
    )


def heads(dense, pooled):
    """A fully connected head against global average pooling.

    `dense` are the layers of a head that begins with a fully connected one, `pooled` those from average pooling on.
    Both take maps (C, size, size) and end in scores.
    """
    first = next(layer for layer in dense if isinstance(layer, nn.Linear))
    last = next(layer for layer in pooled.modules() if isinstance(layer, nn.Conv2d))
    size = pooled[0].kernel_size
    figure = Figure(figsize=(5.2, 6.4), layout="constrained")
    above, below = figure.subplots(2, 1)
    counts = [count_parameters(dense), count_parameters(pooled)]
    above.set_title(f"fully connected head: {counts[0]:,} parameters", fontsize=13, loc="left")
    below.set_title(f"global average pooling: {counts[1]:,} parameters", fontsize=13, loc="left")
    for axes, points in ((above, 4), (below, size)):
        for number in (2, 1, 0):
            _grid(axes, 0.2 + 0.35 * number, 2.0 + 0.35 * number, points, "#d1e5f0", cell=2 / points)
        axes.set(xlim=(0, 10.6), ylim=(-0.7, 6))
        axes.axis("off")
    inputs, outputs = np.linspace(0.4, 5.6, 9), np.linspace(0.8, 5.2, 6)
    for y in inputs:
        for end in outputs:
            above.plot([5.2, 9.2], [y, end], color=FIRST, linewidth=0.6, alpha=0.6)
    _dots(above, 5.2, inputs)
    _dots(above, 9.2, outputs)
    _arrow(above, (3.3, 3.2), (4.8, 3.2))
    above.text(5.2, -0.6, f"{first.in_features} points", ha="center", fontsize=11)
    above.text(9.2, -0.6, f"{first.out_features} numbers,\nthen the scores", ha="center", va="center", fontsize=11)
    above.text(1.5, -0.6, "maps", ha="center", fontsize=11)
    means, scores = np.linspace(1.0, 5.0, 4), np.linspace(0.8, 5.2, 6)
    for y in means:
        _arrow(below, (3.3, 3.2), (5.0, y), color="#777777")
        for end in scores:
            below.plot([5.2, 9.2], [y, end], color=FIRST, linewidth=0.6, alpha=0.6)
    _dots(below, 5.2, means)
    _dots(below, 9.2, scores)
    below.text(1.5, -0.6, "maps", ha="center", fontsize=11)
    below.text(5.2, -0.6, f"{last.in_channels} means,\none a map", ha="center", va="center", fontsize=11)
    below.text(9.2, -0.6, f"{last.out_channels} scores", ha="center", fontsize=11)
    return figure, (
        f"Above, a fully connected head: each of {first.in_features} points of the maps has a weight for each of "
        f"{first.out_features} numbers, and the scores follow: {counts[0]:,} parameters. Below, global average "
        f"pooling: the mean of each of {last.in_channels} maps of {size} x {size} has a weight for each of "
        f"{last.out_channels} scores: {counts[1]:,} parameters."
    )


def learning_rate(optimizer, schedule, epochs):
    """The learning rate over the training with an OneCycle `schedule`, which is run through with its `optimizer`."""
    rates = []
    for _ in range(schedule.total_steps):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    times = np.linspace(0, epochs, len(rates))
    top = int(np.argmax(rates))
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(times, rates, color=FIRST, linewidth=2)
    notes = {
        0: "   small steps: the\n   gradients change quickly",
        top: "the peak:\nget far",
        3 * len(rates) // 5: "smaller steps:\nsettle",
    }
    for step, note in notes.items():
        axes.annotate(note, (times[step], rates[step]), (12, 0), textcoords="offset points", fontsize=11)
    axes.set(xlabel="epoch", ylabel="learning rate", ylim=(0, 1.3 * max(rates)))
    axes.grid(alpha=0.3)
    return figure, (
        f"OneCycle over {epochs} epochs: the learning rate rises in a line from {rates[0]:.2g} to its peak, "
        f"{rates[top]:.2g}, after {times[top]:.1f} epochs, then falls in a line to {rates[-1]:.2g}."
    )


def residual_blocks(blocks):
    """Residual blocks side by side, each with its path and its shortcut: `blocks` is {title: model.ResidualBlock}."""
    figure = Figure(figsize=(6.0, 7.4), layout="constrained")
    texts = []
    for axes, (title, block) in zip(figure.subplots(1, len(blocks), squeeze=False)[0], blocks.items(), strict=True):
        path = _names(block.path)
        shortcut = _names(block.shortcut) or ["as it is"]
        levels = np.linspace(8.4, 3.2, len(path))
        axes.text(2.6, 10.1, "x", ha="center", va="center", fontsize=15, style="italic")
        _arrow(axes, (2.6, 9.8), (2.6, levels[0] + 0.5))
        for number, (y, name) in enumerate(zip(levels, path, strict=True)):
            _box(axes, 2.6, y, name, "#d1e5f0", width=4.6, height=1.05)
            if number:
                _arrow(axes, (2.6, levels[number - 1] - 0.5), (2.6, y + 0.5))
        _arrow(axes, (2.6, levels[-1] - 0.5), (2.6, 1.85))
        axes.text(2.6, 1.7, "+", ha="center", va="center", fontsize=17, color=SECOND, weight="bold")
        axes.plot([2.6, 8.0, 8.0], [9.6, 9.6, 1.7], color=SECOND, linewidth=2, zorder=1)
        _arrow(axes, (8.0, 1.7), (3.1, 1.7), color=SECOND)
        _box(axes, 8.0, 5.9, "\n".join(["shortcut", "", *shortcut]), "#fdd9b5", width=4.4, height=2.6)
        _arrow(axes, (2.6, 1.35), (2.6, 0.85))
        _box(axes, 2.6, 0.4, "ReLU", "#d1e5f0", width=4.6, height=0.9)
        _arrow(axes, (2.6, -0.05), (2.6, -0.7))
        axes.text(2.6, -1.0, "y", ha="center", va="center", fontsize=15, style="italic")
        axes.text(2.3, 9.15, "path", ha="right", va="center", fontsize=11)
        axes.set_title(title, fontsize=12)
        axes.set(xlim=(0.0, 10.6), ylim=(-1.3, 10.4))
        axes.axis("off")
        texts.append(
            f"{title}: x goes through {', '.join(path)}; beside it the shortcut hands x on {', '.join(shortcut)}"
        )
    return figure, (
        "A residual block: what comes out of the path is added to what comes through the shortcut, then ReLU. "
        + ". ".join(text.replace("\n", " ") for text in texts)
        + "."
    )


def _names(layers):
    """Names for the layers of a path in a diagram; none for an identity."""
    names = []
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            lines = [f"{layer.kernel_size[0]} × {layer.kernel_size[0]} conv", f"{layer.out_channels} maps"]
            names.append("\n".join([*lines, *([f"stride {layer.stride[0]}"] if layer.stride[0] > 1 else [])]))
        elif isinstance(layer, nn.BatchNorm2d):
            names.append("batch norm")
        elif isinstance(layer, nn.ReLU):
            names.append("ReLU")
    return names


def _grid(axes, left, bottom, size, color, cell=1.0):
    for row in range(size):
        for column in range(size):
            place = (left + column * cell, bottom + row * cell)
            axes.add_patch(Rectangle(place, cell, cell, facecolor=color, edgecolor="#888888", linewidth=0.8))


def _outline(axes, left, bottom, size, color):
    axes.add_patch(Rectangle((left, bottom), size, size, fill=False, edgecolor=color, linewidth=2.5))


def _box(axes, x, y, text, color, width, height=1.4):
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.2"
    axes.add_patch(
        FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=color, edgecolor="#777777", zorder=2)
    )
    axes.text(x, y, text, ha="center", va="center", fontsize=11, color=INK)


def _arrow(axes, start, end, color=INK):
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 1.5})


def _dots(axes, x, heights):
    axes.scatter([x] * len(heights), heights, s=60, color=INK, zorder=3)


def _numbers(axes, values, cmap, limits):
    """A small matrix as coloured squares with its numbers in them."""
    picture = axes.imshow(values, cmap=cmap, vmin=limits[0], vmax=limits[1])
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = picture.cmap(picture.norm(value))
        color = "black" if 0.3 * red + 0.6 * green + 0.1 * blue > 0.5 else "white"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=12, color=color)
    axes.axis("off")
