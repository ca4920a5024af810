"""Every figure of the course.

A function that draws returns a Figure and a text that says in words what it shows; show() displays both.
"""

import base64
import io
import math
import statistics

import numpy as np
import torch
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.report import accuracy_per_class, confused_pairs


def show(name, figure, alt):
    """Display a figure as a PNG under a stable file name, with its text for readers who do not see it."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100, bbox_inches="tight", facecolor="white")  # opaque, for dark pages too
    bundle = {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": alt}
    display(bundle, raw=True, metadata={"filename": f"{name}.png", "alt": alt})


def show_table(rows):
    """Display a list of dicts with the same keys as a table, its columns named by the keys."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([str(row[column]) for column in columns] for row in rows)]
    show_text(*("| " + " | ".join(line) + " |" for line in lines))


def show_text(*lines):
    """Display lines of Markdown."""
    display(Markdown("\n".join(lines)))


def sample_grid(split, classes, columns=10, rows=3):
    """The first images of each class, one class a column."""
    columns = min(columns, len(classes))
    figure, axes = _image_axes(rows, columns)
    for label in range(columns):
        for row, image in enumerate(split.images[split.labels == label][:rows]):
            _draw(axes[row][label], image)
        axes[0][label].set_title(classes[label], fontsize=10)
    return figure, f"Training images, the first {rows} of each class in a column: {', '.join(classes[:columns])}."


def image_profile(data):
    """How bright the images are: their mean image, and how often each pixel value occurs."""
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 2])
    _draw(left, data.train.images.float().mean(dim=0).byte())
    left.set_title("mean image", fontsize=10)
    counts = torch.bincount(data.train.images.flatten(), minlength=256) / data.train.images.numel()
    right.stairs(counts, fill=True)
    right.set(yscale="log", xlabel="pixel value", ylabel="share of pixels")
    black = float(counts[0])
    return figure, f"Mean training image and histogram of the pixel values: {black:.0%} of all pixels are exactly 0."


def learning_curves(history):
    """Loss and accuracy on the training and the test set over the epochs."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    epochs = history["epoch"]
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, history[f"train_{quantity}"], marker=".", label="training, while it learns")
        axes.plot(epochs, history[f"test_{quantity}"], marker=".", label="test, after the epoch")
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    axes.legend()
    first, last = history.epochs[0], history.epochs[-1]
    return figure, (
        f"Learning curves over {len(epochs)} epochs: training loss from {first['train_loss']:.3f} to "
        f"{last['train_loss']:.3f}, test loss from {first['test_loss']:.3f} to {last['test_loss']:.3f}, test accuracy "
        f"from {first['test_accuracy']:.2%} to {last['test_accuracy']:.2%}."
    )


def lr_searches(searches):
    """One panel for each of `searches` {title: common.lr_finder.Search}: both losses over the rate, and suggestions."""
    figure = Figure(figsize=(4.8 * len(searches), 3.6), layout="constrained")
    panels = figure.subplots(1, len(searches), squeeze=False)[0]
    texts = []
    for axes, (title, search) in zip(panels, searches.items(), strict=True):
        axes.plot(search.rates, search.losses, color="lightgray", label="loss")
        axes.plot(search.rates, search.smoothed, color="black", label="smoothed")
        for number, (name, rate) in enumerate(search.suggestions().items()):
            axes.axvline(rate, color=f"C{number}", linestyle="dashed", label=f"{name}: {rate:.2g}")
        axes.set(title=title, xscale="log", xlabel="learning rate", ylabel="loss")
        axes.set_ylim(0.9 * min(search.losses), 1.3 * search.smoothed[0])  # where it explodes it leaves the panel
        axes.legend(fontsize=8)
        lowest = min(search.smoothed)
        suggested = ", ".join(f"{name} {rate:.2g}" for name, rate in search.suggestions().items())
        texts.append(
            f"{title}: {len(search.rates)} rates from {search.rates[0]:.2g} to {search.rates[-1]:.2g}, smoothed loss "
            f"from {search.smoothed[0]:.2f} down to {lowest:.2f} at {search.rates[search.smoothed.index(lowest)]:.2g}, "
            f"{search.end}; suggestions: {suggested}"
        )
    return figure, "Searches for the learning rate. " + ". ".join(texts) + "."


def compare_curves(histories, quantities):
    """One panel for each of the `quantities`, columns of a History, with one line for each of `histories` {name: …}."""
    figure = Figure(figsize=(4.2 * len(quantities), 3.4), layout="constrained")
    panels = figure.subplots(1, len(quantities), squeeze=False)[0]
    for axes, quantity in zip(panels, quantities, strict=True):
        for name, history in histories.items():
            axes.plot(history["epoch"], history[quantity], marker=".", label=name)
        axes.set(xlabel="epoch", ylabel=quantity.replace("_", " "))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    panels[0].legend()
    ends = [
        f"{name}: " + ", ".join(f"{quantity.replace('_', ' ')} {history[quantity][-1]:.4f}" for quantity in quantities)
        for name, history in histories.items()
    ]
    return figure, "Curves over the epochs. After the last one, " + "; ".join(ends) + "."


def gaps(histories):
    """Overfitting: training accuracy minus test accuracy over the epochs, one line for each of `histories`."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    ends = []
    for name, history in histories.items():
        rows = zip(history["train_accuracy"], history["test_accuracy"], strict=True)
        points = [100 * (train - test) for train, test in rows]
        axes.plot(history["epoch"], points, marker=".", label=name)
        ends.append(f"{name} {points[-1]:+.2f}")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(xlabel="epoch", ylabel="training minus test accuracy (points)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure, f"Training accuracy minus test accuracy, in points; after the last epoch: {', '.join(ends)}."


def sums(truth, predicted):
    """Sums (N,) that a regression predicts beside the true ones, and how int() and round() read them."""
    error = (predicted - truth).double()
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.scatter(truth, predicted, s=2, alpha=0.3)
    left.plot([0, 18], [0, 18], color="black", linewidth=0.8)
    left.set(xlabel="true sum", ylabel="predicted sum", xticks=range(0, 19, 3))
    right.hist(error.clamp(-1.5, 1.5), bins=60, color="gray")
    right.axvspan(-0.5, 0.5, alpha=0.2, color="tab:blue", label="round() is right")
    right.axvspan(0, 1, ymax=0.5, alpha=0.3, color="tab:orange", label="int() is right")
    right.set(xlabel="predicted minus true sum", ylabel="test images")
    right.legend()
    within = float((error.abs() < 0.5).double().mean())
    below = float((error < 0).double().mean())
    return figure, (
        f"Predicted against true sums of {len(truth)} test images: {within:.1%} lie within 0.5 of the truth, where "
        f"round() is right; {below:.1%} lie below it, where int() is wrong."
    )


def predictions(split, logits, classes, count=10):
    """The first image of each class, of up to `count` classes, with what the network says and how sure it is."""
    labels = split.labels.tolist()
    chosen = torch.tensor([labels.index(label) for label in range(len(classes)) if label in labels][:count])
    right = int((logits.argmax(dim=1).cpu() == split.labels)[chosen].sum())
    figure = _answers(split, logits, classes, chosen)
    return figure, (
        f"The first test image of {len(chosen)} classes with prediction, truth and confidence: {right} are right."
    )


def misclassified(split, logits, classes, count=25, explain=None):
    """Images that the network gets wrong, those with the most confident mistakes first.

    `explain` takes the numbers (n,) of those that are shown and returns their heat maps (n, H, W), from 0 to 1: beside
    each image stands the same image under its map.
    """
    probabilities, answers = logits.softmax(dim=1).cpu().max(dim=1)
    wrong = (answers != split.labels).nonzero().flatten()
    chosen = wrong[probabilities[wrong].argsort(descending=True, stable=True)][:count]
    if not len(chosen):
        figure = Figure(figsize=(6, 0.6))
        figure.text(0.5, 0.5, "no mistakes", ha="center", va="center")
        return figure, "There is nothing to see: no test image is misclassified."
    mistakes = ", ".join(f"{classes[split.labels[i]]} as {classes[answers[i]]}" for i in chosen[:5])
    return _answers(split, logits, classes, chosen, explain(chosen) if explain else None), (
        f"{len(chosen)} of the {len(wrong)} misclassified test images, the most confident first: {mistakes}"
        + (", and so on." if len(chosen) > 5 else ".")
        + (" Beside each it stands again under the heat map of what speaks for the prediction." if explain else "")
    )


def class_accuracy(labels, logits, classes):
    """Bar chart of the accuracy per class."""
    accuracies = accuracy_per_class(labels, logits, classes)
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    bars = axes.bar(list(accuracies), list(accuracies.values()))
    axes.bar_label(bars, [f"{accuracy:.1%}" for accuracy in accuracies.values()], fontsize=8)
    present = [name for name, accuracy in accuracies.items() if not math.isnan(accuracy)]
    worst, best = min(present, key=accuracies.get), max(present, key=accuracies.get)
    lowest = accuracies[worst]
    room = max(0.01, 1 - lowest)  # above the bars for their labels, and below the shortest
    axes.set(xlabel="class", ylabel="accuracy", ylim=(max(0.0, lowest - 0.5 * room), 1 + 0.15 * room))
    if max(map(len, classes)) > 4:
        axes.tick_params("x", rotation=45)
    return figure, (
        f"Accuracy per class, from {accuracies[worst]:.2%} for {worst} to {accuracies[best]:.2%} for {best}"
        + ("; the axis does not begin at zero." if axes.get_ylim()[0] > 0 else ".")
    )


def confusion_matrix(labels, logits, classes):
    """Which class is taken for which: how many images of each class, a row, were given each answer, a column."""
    answers = logits.argmax(dim=1).cpu()
    pairs = len(classes) * labels + answers  # one number for each cell of the matrix
    matrix = pairs.bincount(minlength=len(classes) ** 2).view(len(classes), len(classes)).numpy()
    figure = Figure(figsize=(6, 5.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(matrix, cmap="Blues")
    for (truth, answer), images in np.ndenumerate(matrix):
        colour = "white" if images > matrix.max() / 2 else "black"
        axes.text(answer, truth, images, color=colour, ha="center", va="center")
    rotation = 45 if max(map(len, classes)) > 4 or len(classes) > 10 else 0
    axes.set_xticks(range(len(classes)), classes, rotation=rotation)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="answer", ylabel="class")
    rows = confused_pairs(labels, logits, classes, 3)
    mistakes = [f"{row['truth']} as {row['taken for']} ({row['images']} times)" for row in rows]
    return figure, "Confusion matrix. Most frequent mistakes: " + (", ".join(mistakes) or "none") + "."


def filters(layer):
    """The filters of a first convolution, (K, 1, k, k), as small images: what it looks for."""
    weights = layer.weight.detach().cpu()[:, 0]
    figure, axes = _image_axes(-(-len(weights) // 8), 8)
    limit = float(weights.abs().max())
    for axis, weight in zip(axes.flat, weights, strict=False):
        axis.imshow(weight, cmap="RdBu", vmin=-limit, vmax=limit)
    return figure, (
        f"The {len(weights)} filters of the first convolution: blue where a bright pixel speaks for what the filter "
        f"looks for, red where it speaks against; weights from {weights.min():.2f} to {weights.max():.2f}."
    )


def feature_maps(model, image, layers, count=8):
    """The first maps that come out of each of `layers` {title: module} for one normalised image (C, H, W).

    The model must be in evaluation mode, or batch norm would learn from the image.
    """
    outputs = {}
    hooks = [
        layer.register_forward_hook(lambda _, __, output, title=title: outputs.update({title: output.detach().clone()}))
        for title, layer in layers.items()
    ]
    with torch.no_grad():
        model(image[None])
    for hook in hooks:
        hook.remove()
    figure, axes = _image_axes(len(layers), count, title=0.2)
    for row, (title, output) in zip(axes, outputs.items(), strict=True):
        for axis, channel in zip(row, output[0].cpu(), strict=False):
            axis.imshow(channel, cmap="gray", vmin=min(0, float(output.min())), vmax=float(output.max()))
        row[0].set_title(f"{title}: {'x'.join(str(size) for size in output.shape[1:])}", fontsize=9, loc="left")
    zeros = ", ".join(f"{title} {float((output == 0).double().mean()):.0%}" for title, output in outputs.items())
    return figure, f"Maps of one image, up to {count} of each kind; share of zeros: {zeros}."


def scores(logits, classes, truth):
    """The scores (classes,) that one image gets, and what softmax makes of them."""
    probabilities = logits.softmax(dim=0).cpu()
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    for axes, values, name in zip(
        figure.subplots(1, 2), (logits.cpu(), probabilities), ("score", "probability"), strict=True
    ):
        axes.bar(classes, values)
        axes.set(xlabel="class", ylabel=name)
    winner = int(probabilities.argmax())
    return figure, (
        f"Scores and probabilities of the classes for one image that shows {truth}: {classes[winner]} wins with "
        f"{float(probabilities[winner]):.1%}."
    )


def heat_map_rows(split, chosen, logits, classes, maps):
    """One row for each chosen image: the image, its heat map for each class, and that of the prediction laid over it.

    `maps` (len(chosen), classes, H, W) reach from 0 to 1; `logits` are those of the whole split.
    """
    columns = len(classes) + 2
    figure, axes = _image_axes(len(chosen), columns, size=1.4, title=0.2)
    for row, index, image_maps in zip(axes, chosen.tolist(), maps.cpu(), strict=True):
        truth, answer = int(split.labels[index]), int(logits[index].argmax())
        color = "black" if truth == answer else "firebrick"
        for axis in (row[0], row[-1]):
            _draw(axis, split.images[index])
        row[0].set_title(f"{classes[answer]}, truth {classes[truth]}", fontsize=8, color=color)
        for axis, heat, name in zip(row[1:-1], image_maps, classes, strict=True):
            axis.imshow(heat, cmap="inferno", vmin=0, vmax=1)
            axis.set_title(f"for {name}", fontsize=8)
        row[-1].imshow(image_maps[answer], cmap="inferno", vmin=0, vmax=1, alpha=0.55)
        row[-1].set_title(f"overlay for {classes[answer]}", fontsize=8)
    right = int((logits.argmax(dim=1).cpu() == split.labels)[chosen].sum())
    return figure, (
        f"{len(chosen)} test images, {right} classified right and {len(chosen) - right} wrong, each with its heat maps "
        f"for the classes {', '.join(classes)}, and that of the prediction laid over the image."
    )


def class_maps(split, logits, classes, chosen, explain):
    """One column for each chosen mistake: the image, then its heat map for the true class and for the predicted one.

    `explain` takes numbers of images (n,) and classes (n,) and returns heat maps (n, H, W) from 0 to 1. Returns figure
    and text, then both maps (2, n, H, W), that of the true class first.
    """
    truth, answers = split.labels[chosen], logits.argmax(dim=1).cpu()[chosen]
    maps = torch.stack([explain(chosen, truth), explain(chosen, answers)]).cpu()
    figure, axes = _image_axes(3, len(chosen), size=1.4, title=0.4)
    for number, (column, index) in enumerate(zip(axes.T, chosen.tolist(), strict=True)):
        _draw(column[0], split.images[index])
        for axis, label, heat in zip(column[1:], (truth[number], answers[number]), maps[:, number], strict=True):
            _draw(axis, split.images[index])
            _overlay(axis, heat)
            axis.set_title(f"for {classes[label]}", fontsize=9)
        column[0].set_title(f"{classes[truth[number]]}\ntaken for {classes[answers[number]]}", fontsize=9)
    pairs = ", ".join(f"{classes[t]} taken for {classes[a]}" for t, a in zip(truth, answers, strict=True))
    return figure, f"The image, its heat map for the true and for the predicted class: {pairs}.", maps


def spread(values, name, target):
    """One dot a run, with their mean and a target."""
    values = torch.tensor(values, dtype=torch.double)
    figure = Figure(figsize=(7, 2), layout="constrained")
    axes = figure.subplots()
    axes.scatter(values, torch.zeros(len(values)), alpha=0.6)
    axes.axvline(values.mean(), color="black", label=f"mean {values.mean():.2%}")
    axes.axvline(target, color="firebrick", linestyle="dashed", label=f"target {target:.2%}")
    axes.set(xlabel=name, yticks=[])
    axes.legend()
    mean = f"{100 * values.mean():.2f}" + (f" ± {100 * values.std():.2f}" if len(values) > 1 else "")
    return figure, (
        f"{name} of {len(values)} runs as dots: mean {mean} %, from {values.min():.2%} to {values.max():.2%}; "
        f"the target is {target:.2%}."
    )


def distributions(runs):
    """Test accuracies of several sets of runs {name: values}, one row of dots each, with their means."""
    figure = Figure(figsize=(7, 1 + 0.6 * len(runs)), layout="constrained")
    axes = figure.subplots()
    for row, values in enumerate(runs.values()):
        axes.scatter(values, [row] * len(values), alpha=0.6)
        axes.scatter(statistics.mean(values), row, marker="|", s=400, color="black")
    axes.set(xlabel="test accuracy", yticks=range(len(runs)), yticklabels=list(runs), ylim=(len(runs) - 0.5, -0.5))
    means = ", ".join(f"{name} {statistics.mean(values):.2%} ({len(values)} runs)" for name, values in runs.items())
    return figure, f"Test accuracies, one dot a run; means: {means}."


class _Place:
    """A place for one image in a grid. It takes what an Axes takes; but all share one, which is drawn much faster."""

    def __init__(self, axes, left, bottom, size):
        self.axes, self.extent = axes, (left, left + size, bottom, bottom + size)

    def imshow(self, image, **options):
        self.axes.imshow(image, extent=self.extent, **options)

    def set_title(self, text, loc="center", **options):
        left, right, _, top = self.extent
        x = left if loc == "left" else (left + right) / 2
        self.axes.text(x, top + 0.06, text, ha=loc, va="bottom", **options)


def _image_axes(rows, columns, size=0.9, title=0.0):
    """A grid of places for square images, (rows, columns); `size` of an image and room for its `title` in inches."""
    across, down = size + 0.08, size + 0.08 + title
    figure = Figure(figsize=(columns * across, rows * down))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, columns * across), ylim=(0, rows * down))  # in inches
    axes.axis("off")
    places = [
        _Place(axes, column * across, (rows - 1 - row) * down, size) for row in range(rows) for column in range(columns)
    ]
    return figure, np.array(places, dtype=object).reshape(rows, columns)


def _draw(axes, image):
    """Draw one uint8 image (1 or 3, H, W)."""
    axes.imshow(image.permute(1, 2, 0).squeeze(-1), cmap="gray", vmin=0, vmax=255)


def _overlay(axes, heat):
    """Lay a heat map (H, W) from 0 to 1 over an image: opaque where it is hot, clear where it is cold."""
    axes.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.9 * heat.numpy())


def _answers(split, logits, classes, chosen, maps=None):
    """Grid of the chosen images, each with prediction, probability and truth; where there are maps, they follow it."""
    probabilities, answers = logits.softmax(dim=1).cpu().max(dim=1)
    columns, places = min(5, len(chosen)), 1 if maps is None else 2
    figure, axes = _image_axes(-(-len(chosen) // columns), columns * places, size=1.4, title=0.4)
    for number, index in enumerate(chosen.tolist()):
        image, *mapped = axes.flat[places * number : places * (number + 1)]
        _draw(image, split.images[index])
        for axis in mapped:
            _draw(axis, split.images[index])
            _overlay(axis, maps[number].cpu())
        truth, answer = int(split.labels[index]), int(answers[index])
        color = "black" if truth == answer else "firebrick"
        text = f"{classes[answer]} ({probabilities[index]:.0%})\ntruth {classes[truth]}"
        image.set_title(text, fontsize=9, color=color)
    return figure
