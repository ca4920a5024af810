"""Every figure of the course.

A function that draws returns a Figure and a text that says what it shows; show() displays both.
"""

import base64
import difflib
import inspect
import io
import math
import statistics

import numpy as np
import torch
from IPython.display import Markdown, display
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from common.report import accuracy_per_class, confused_pairs


def show(name, figure, alt):
    """Display a figure as a PNG with a stable file name, and its text for readers who cannot see it."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100, bbox_inches="tight", facecolor="white")  # opaque, for dark pages too
    bundle = {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": alt}
    display(bundle, raw=True, metadata={"filename": f"{name}.png", "alt": alt})


def show_table(rows):
    """Display a list of dicts with the same keys as a table; the keys name its columns."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([str(row[column]) for column in columns] for row in rows)]
    show_text(*("| " + " | ".join(line) + " |" for line in lines))


def show_text(*lines):
    """Display lines of Markdown."""
    display(Markdown("\n".join(lines)))


def show_source(*objects):
    """Display the definitions of functions and classes, as they are in their files."""
    _show_code("\n\n\n".join(inspect.getsource(item).rstrip() for item in objects), "python")


def show_changes(before, after):
    """Display how the definition of one function differs from that of another, line by line."""
    lines = [inspect.getsource(item).splitlines() for item in (before, after)]
    longest = len(lines[0]) + len(lines[1])  # as context: all lines are shown
    _, _, _, *changes = difflib.unified_diff(*lines, n=longest, lineterm="")
    _show_code("\n".join(changes), "diff")


def _show_code(text, language):
    bundle = {"text/markdown": f"```{language}\n{text}\n```", "text/plain": text}
    display(bundle, raw=True, metadata={"language": language})


def sample_grid(split, classes, columns=10, rows=3):
    """The first images of each class, one class a column."""
    columns = min(columns, len(classes))
    figure, axes = _image_axes(rows, columns)
    for label in range(columns):
        for row, image in enumerate(split.images[split.labels == label][:rows]):
            _draw(axes[row][label], image)
        axes[0][label].set_title(classes[label], fontsize=10)
    return figure, f"Training images, the first {rows} of each class in a column: {', '.join(classes[:columns])}."


def digit_sums(inputs, targets, count=5):
    """The first examples of a batch of `data.DigitSumLoader`: image plus digit, and what they add up to."""
    images, digits = inputs
    figure, axes = _image_axes(1, count, size=1.1, title=0.45)
    sums = []
    for axis, image, digit, (label, total) in zip(axes[0], images.cpu(), digits[:count, 0], targets, strict=False):
        axis.imshow(image.permute(1, 2, 0).squeeze(-1), cmap="gray")
        axis.set_title(f"label {label}\n+ {digit:.0f} = {total}", fontsize=11)
        sums.append(f"an image of {label} plus the digit {digit:.0f}: {total}")
    return figure, f"Examples, their answers above them: {'; '.join(sums)}."


def augmented(image, augment, count=6):
    """A uint8 image (C, H, W), and `count` changed copies of it as the network sees them."""
    changed = augment((image / 255).expand(count, -1, -1, -1), torch.Generator().manual_seed(0))
    figure, axes = _image_axes(1, count + 1, title=0.22)
    for axis, picture in zip(axes[0], [image, *(changed * 255).byte()], strict=True):
        _draw(axis, picture)
    axes[0][0].set_title("as it is", fontsize=9)
    axes[0][1].set_title("changed at random", fontsize=9, loc="left")
    return figure, f"A training image as it is, and {count} copies that were changed at random."


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
    """Loss and error on the training and the test set over the epochs, on log scales, to show the last tenths."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for part, label in (("train", "training, while it learns"), ("test", "test, after the epoch")):
        left.plot(history["epoch"], history[f"{part}_loss"], marker=".", label=label)
        right.plot(history["epoch"], _errors(history[f"{part}_accuracy"]), marker=".", label=label)
    _log_axis(left, "loss")
    _log_axis(right, "error (%)")
    for axes in (left, right):
        _epoch_axis(axes)
    right.legend()
    first, last = history.epochs[0], history.epochs[-1]
    return figure, (
        f"Learning curves over {len(history.epochs)} epochs: training loss from {first['train_loss']:.3f} to "
        f"{last['train_loss']:.3f}, test loss from {first['test_loss']:.3f} to {last['test_loss']:.3f}; test error "
        f"from {1 - first['test_accuracy']:.2%} to {1 - last['test_accuracy']:.2%}. All on log scales."
    )


def _errors(accuracies):
    """Accuracies as errors in percent; an error of 0 is drawn as 0.01, for the log scale."""
    return [max(100 * (1 - accuracy), 0.01) for accuracy in accuracies]


def _log_axis(axes, name):
    """A log scale with plain numbers, at 1, 2 and 5 of each decade."""
    axes.set(ylabel=name, yscale="log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(
        FuncFormatter(lambda value, _: f"{value:g}" if f"{value:g}".lstrip("0.")[:1] in "25" else "")
    )


def _epoch_axis(axes):
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3, which="both")


def lr_searches(searches, rule):
    """One panel for each of `searches` {title: common.lr_finder.Search}: both losses over the rate, and suggestions.

    The line of `rule`, whose suggestion is taken, is solid.
    """
    figure = Figure(figsize=(4.8 * len(searches), 4.2), layout="constrained")
    panels = figure.subplots(1, len(searches), squeeze=False)[0]
    texts = []
    for axes, (title, search) in zip(panels, searches.items(), strict=True):
        axes.plot(search.rates, search.losses, color="darkgray", label="loss")
        axes.plot(search.rates, search.smoothed, color="black", label="smoothed")
        for number, (name, rate) in enumerate(search.suggestions().items()):
            style, taken = ("solid", ", taken") if name == rule else ("dashed", "")
            axes.axvline(rate, color=f"C{number}", linestyle=style, label=f"{name}: {rate:.2g}{taken}")
        axes.set(title=title, xscale="log", xlabel="learning rate", ylabel="loss")
        axes.set_ylim(0.9 * min(search.losses), 1.3 * search.smoothed[0])  # a loss that explodes leaves the panel
        axes.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
        lowest = min(search.smoothed)
        suggested = ", ".join(f"{name} {rate:.2g}" for name, rate in search.suggestions().items())
        texts.append(
            f"{title}: {len(search.rates)} rates from {search.rates[0]:.2g} to {search.rates[-1]:.2g}, smoothed loss "
            f"from {search.smoothed[0]:.2f} down to {lowest:.2f} at {search.rates[search.smoothed.index(lowest)]:.2g}, "
            f"{search.end}; suggestions: {suggested}"
        )
    return figure, "Searches for the learning rate. " + ". ".join(texts) + "."


def compare_curves(histories, quantities):
    """One panel for each of `quantities`, columns of a History, with one line for each of `histories` {name: …}.

    A quantity is "lr", a loss or an accuracy. All are drawn on log scales, accuracies as errors.
    """
    figure = Figure(figsize=(4.2 * len(quantities), 3.6), layout="constrained")
    panels = figure.subplots(1, len(quantities), squeeze=False)[0]
    ends = {name: [] for name in histories}
    for axes, quantity in zip(panels, quantities, strict=True):
        drawn = quantity.replace("_", " ").replace("accuracy", "error (%)")
        drawn = "learning rate at the start of the epoch" if drawn == "lr" else drawn
        for name, history in histories.items():
            values = _errors(history[quantity]) if quantity.endswith("accuracy") else history[quantity]
            axes.plot(history["epoch"], values, marker=".", label=name)
            ends[name].append(f"{drawn} {values[-1]:.3g}")
        _log_axis(axes, drawn)
        _epoch_axis(axes)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(histories))
    texts = [f"{name}: {', '.join(values)}" for name, values in ends.items()]
    return figure, "Curves over the epochs, on log scales. In the last one, " + "; ".join(texts) + "."


def gaps(histories):
    """Overfitting: training accuracy minus test accuracy over the epochs, one line for each of `histories`.

    The axis fits the later epochs: the large gaps of the first ones would flatten all others.
    """
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    ends, seen = [], []
    for name, history in histories.items():
        rows = zip(history["train_accuracy"], history["test_accuracy"], strict=True)
        points = [100 * (train - test) for train, test in rows]
        axes.plot(history["epoch"], points, marker=".", label=name)
        ends.append(f"{name} {points[-1]:+.2f}")
        seen += points[len(points) // 4 :]
    room = 0.1 * max(max(seen) - min(seen), 0.1)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(ylabel="training minus test\naccuracy (points)", ylim=(min(0, *seen) - room, max(0, *seen) + room))
    _epoch_axis(axes)
    axes.legend()
    return figure, (
        f"Training accuracy minus test accuracy, in points; after the last epoch: {', '.join(ends)}. Positive: better "
        "on the training images. The axis fits the later epochs, earlier points may lie outside."
    )


def sums(truth, predicted):
    """Predicted sums (N,) of a regression against the true ones, and how int() and round() read them."""
    error = (predicted - truth).double()
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.scatter(truth, predicted, s=3, alpha=0.3)
    left.plot([0, 18], [0, 18], color="black", linewidth=0.8)
    left.set(xlabel="true sum", ylabel="predicted sum", xticks=range(0, 19, 3), title="each test image, one dot")
    bins = np.linspace(-1.5, 1.5, 61)
    heights = np.histogram(error.clamp(-1.5, 1.5), bins)[0]
    low, high = bins[:-1], bins[1:]
    for name, color, chosen in (
        ("round() and int() are right", "tab:green", (low >= -1e-9) & (high <= 0.5 + 1e-9)),
        ("only round() is right", "tab:blue", (low >= -0.5 - 1e-9) & (high <= 1e-9)),
        ("only int() is right", "tab:orange", (low >= 0.5 - 1e-9) & (high <= 1 + 1e-9)),
        ("both are wrong", "gray", (high <= -0.5 + 1e-9) | (low >= 1 - 1e-9)),
    ):
        right.bar(low[chosen], heights[chosen], width=0.05, align="edge", color=color, label=name)
    right.set(xlabel="predicted minus true sum", ylabel="test images", title="which reading is right", yscale="log")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    within = float((error.abs() < 0.5).double().mean())
    below = float((error < 0).double().mean())
    return figure, (
        f"Predicted against true sums of {len(truth)} test images: {within:.1%} lie within 0.5 of the truth, where "
        f"round() is right; {below:.1%} lie below it, where int() is wrong. Errors beyond 1.5 are at the edges."
    )


def predictions(split, logits, classes, count=10):
    """The first image of each of up to `count` classes, with the network's answer and how sure it is."""
    labels = split.labels.tolist()
    chosen = torch.tensor([labels.index(label) for label in range(len(classes)) if label in labels][:count])
    right = int((logits.argmax(dim=1).cpu() == split.labels)[chosen].sum())
    figure = _answers(split, logits, classes, chosen)
    return figure, (
        f"The first test image of {len(chosen)} classes with prediction, truth and confidence: {right} are right."
    )


def misclassified(split, logits, classes, count=25, explain=None):
    """Images that the network gets wrong, the most confident mistakes first.

    `explain` takes the numbers (n,) of the images shown and returns their heat maps (n, H, W), from 0 to 1: each image
    is then followed by a copy under its map.
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
        + (" Beside each image is a copy under the heat map for the prediction." if explain else "")
    )


def class_accuracy(labels, logits, classes):
    """The accuracy of each class in percent, as dots."""
    accuracies = {name: 100 * share for name, share in accuracy_per_class(labels, logits, classes).items()}
    figure = Figure(figsize=(6, 1 + 0.28 * len(classes)), layout="constrained")
    axes = figure.subplots()
    axes.hlines(range(len(classes)), 0, 100, color="lightgray", linewidth=1)
    axes.scatter(list(accuracies.values()), range(len(classes)), zorder=2)
    present = [name for name, accuracy in accuracies.items() if not math.isnan(accuracy)]
    worst, best = min(present, key=accuracies.get), max(present, key=accuracies.get)
    room = max(0.1, 0.12 * (100 - accuracies[worst]))
    for row, accuracy in enumerate(accuracies.values()):
        axes.annotate(f"{accuracy:.2f}", (accuracy, row), (0, 6), textcoords="offset points", ha="center", fontsize=9)
    left = max(0, accuracies[worst] - 2 * room)
    axes.set(xlabel=f"test accuracy of the class (%); the axis begins at {left:.1f}", xlim=(left, 100 + room))
    axes.set_yticks(range(len(classes)), classes)
    axes.set_ylim(len(classes) - 0.5, -0.8)
    return figure, (
        f"Accuracy of each class as a dot, from {accuracies[worst]:.2f} % for {worst} to {accuracies[best]:.2f} % for "
        f"{best}. The axis begins at {left:.1f} %."
    )


def confusion_matrix(labels, logits, classes):
    """Which class is taken for which: how many images of each class, a row, got each answer, a column.

    Only mistakes are coloured, more strongly for more; right answers are on the grey diagonal, zeros are left blank.
    """
    answers = logits.argmax(dim=1).cpu()
    pairs = len(classes) * labels + answers  # one number for each cell of the matrix
    matrix = pairs.bincount(minlength=len(classes) ** 2).view(len(classes), len(classes)).numpy()
    mistakes = matrix * (1 - np.eye(len(classes), dtype=matrix.dtype))
    figure = Figure(figsize=(6, 5.6), layout="constrained")
    axes = figure.subplots()
    orange = LinearSegmentedColormap.from_list("mistakes", ["white", "orange"])
    axes.imshow(mistakes, cmap=orange, vmin=0, vmax=max(1, mistakes.max()))
    for place in range(len(classes)):
        axes.add_patch(Rectangle((place - 0.5, place - 0.5), 1, 1, facecolor="#e8e8e8"))
    for (truth, answer), images in np.ndenumerate(matrix):
        if images:
            axes.text(answer, truth, images, ha="center", va="center")
    rotation = 45 if max(map(len, classes)) > 4 or len(classes) > 10 else 0
    axes.set_xticks(range(len(classes)), classes, rotation=rotation)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="answer", ylabel="class", title="grey: right answers; orange: mistakes")
    rows = confused_pairs(labels, logits, classes, 3)
    most = [f"{row['truth']} as {row['taken for']} ({row['images']} times)" for row in rows]
    return figure, "Confusion matrix. Most frequent mistakes: " + (", ".join(most) or "none") + "."


def filters_and_maps(model, layer, image):
    """The kernels of a first convolution (K, 1, k, k), numbered, each beside the map that it makes of one image.

    `image` is normalised, (C, H, W). Blue weights are positive, red ones negative.
    """
    weights = layer.weight.detach().cpu()[:, 0]
    maps = _outputs(model, image, {"maps": layer})["maps"]
    columns = 3
    rows = -(-len(weights) // columns)
    figure, axes = _image_axes(rows + 1, 2 * columns, size=0.9, title=0.22)
    axes[0][0].imshow(image[0].cpu(), cmap="gray")
    axes[0][0].set_title("the image", fontsize=9)
    notes = (
        "kernel: blue = positive weight, red = negative",
        "map: white = found here, grey = nothing,",
        "black = the opposite",
    )
    for line, note in enumerate(notes):
        axes[0][1].write(note, line)
    limit, brightest = float(weights.abs().max()), float(maps.abs().max())
    places = axes[1:].reshape(-1, 2)
    for number, ((left, right), weight, channel) in enumerate(zip(places, weights, maps, strict=False), 1):
        left.imshow(weight, cmap="RdBu", vmin=-limit, vmax=limit)
        left.set_title(f"kernel {number}", fontsize=9)
        right.imshow(channel, cmap="gray", vmin=-brightest, vmax=brightest)
        right.set_title(f"map {number}", fontsize=9)
    return figure, (
        f"The {len(weights)} kernels of the first convolution beside their maps of one image: blue weights are "
        f"positive, red ones negative, from {weights.min():.2f} to {weights.max():.2f}."
    )


def color_filters(filters, columns=6):
    """Filters (K, C, h, w) of one or three channels as small pictures, numbered: grey is 0, bright is positive."""
    figure, axes = _image_axes(-(-len(filters) // columns), columns, size=0.9, title=0.22)
    for number, (axis, weights) in enumerate(zip(axes.flat, filters.cpu(), strict=False), 1):
        shown = 0.5 + weights / weights.abs().max() / 2
        axis.imshow(shown.permute(1, 2, 0).squeeze(-1), cmap="gray", vmin=0, vmax=1)
        axis.set_title(number, fontsize=9)
    return (
        figure,
        f"The {len(filters)} filters of {filters.shape[2]} x {filters.shape[3]} pixels, grey where a weight is 0.",
    )


def feature_maps(model, image, layers, count=6):
    """The most active maps after each of `layers` {title: module}, for one normalised image (C, H, W), numbered.

    Chosen are those whose points differ most after the last layer. The model must be in evaluation mode, or batch norm
    would learn from the image.
    """
    outputs = _outputs(model, image, layers)
    last = list(outputs.values())[-1]
    activity = last.flatten(1).std(dim=1) if last[0].numel() > 1 else last.flatten()
    chosen = activity.argsort(descending=True)[:count].sort().values.tolist()
    figure, axes = _image_axes(len(layers), len(chosen), size=1.0, title=0.56)
    zeros = {title: f"{float((output == 0).double().mean()):.0%}" for title, output in outputs.items()}
    for row, (title, output) in zip(axes, outputs.items(), strict=True):
        for axis, number in zip(row, chosen, strict=True):
            channel = output[number]
            axis.imshow(channel, cmap="gray", vmin=min(0, float(output.min())), vmax=float(output.max()))
            axis.set_title(f"map {number + 1}", fontsize=8)
        size = " × ".join(str(size) for size in output.shape)
        limits = f"numbers from {output.min():.1f} (dark) to {output.max():.1f} (bright), {zeros[title]} zeros"
        row[0].set_title(f"{title}: {size}\n{limits}\n", fontsize=9, loc="left")
    _note(figure, f"the {len(chosen)} maps of {len(last)} whose numbers differ most")
    return figure, (
        f"The {len(chosen)} most active maps of one image, numbers {', '.join(str(number + 1) for number in chosen)}; "
        f"share of zeros in all maps: {', '.join(f'{title} {share}' for title, share in zeros.items())}."
    )


def _outputs(model, image, layers):
    """The output of each of `layers` {title: module} for one image, {title: (channels, H, W)}."""
    outputs = {}
    hooks = [
        layer.register_forward_hook(lambda _, __, output, title=title: outputs.update({title: output[0].cpu().clone()}))
        for title, layer in layers.items()
    ]
    with torch.no_grad():
        model(image[None])
    for hook in hooks:
        hook.remove()
    return outputs


def scores(image, logits, classes, truth):
    """A uint8 image (C, H, W), the scores (classes,) that it gets, and what softmax makes of them."""
    probabilities = logits.softmax(dim=0).cpu()
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    picture, *charts = figure.subplots(1, 3, width_ratios=[1, 1.6, 1.6])
    _draw(picture, image)
    picture.set_title(f"truth: {truth}", fontsize=10)
    picture.axis("off")
    for axes, values, name in zip(charts, (logits.cpu(), probabilities), ("score", "probability"), strict=True):
        axes.bar(classes, values)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(xlabel="class", ylabel=name)
    order = probabilities.argsort(descending=True).tolist()
    first, second = (f"{classes[number]} {float(probabilities[number]):.1%}" for number in order[:2])
    return figure, f"Scores and probabilities of the classes for one image that shows {truth}: {first}, {second}."


def heat_map_rows(split, chosen, logits, classes, maps):
    """One row for each chosen image: the image, its heat map for each class, and that for the prediction laid over it.

    `maps` (len(chosen), classes, H, W) range from 0 to 1; `logits` are those of the whole split.
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
        _overlay(row[-1], image_maps[answer])
        row[-1].set_title(f"overlay for {classes[answer]}", fontsize=8)
    _note(figure, "heat maps: black 0, yellow 1, for the class above; red titles: mistakes")
    right = int((logits.argmax(dim=1).cpu() == split.labels)[chosen].sum())
    return figure, (
        f"{len(chosen)} test images, {right} classified right and {len(chosen) - right} wrong, each with its heat maps "
        f"for the classes {', '.join(classes)}, and that for the prediction laid over the image."
    )


def class_maps(split, logits, classes, chosen, explain):
    """One column for each chosen mistake: the image, then its heat map for the true class and for the predicted one.

    `explain` takes numbers of images (n,) and classes (n,) and returns heat maps (n, H, W) from 0 to 1. Returns figure,
    text, and both maps (2, n, H, W), that for the true class first.
    """
    truth, answers = split.labels[chosen], logits.argmax(dim=1).cpu()[chosen]
    maps = torch.stack([explain(chosen, truth), explain(chosen, answers)]).cpu()
    figure, axes = _image_axes(3, len(chosen), size=1.4, title=0.4)
    for number, (column, index) in enumerate(zip(axes.T, chosen.tolist(), strict=True)):
        _draw(column[0], split.images[index])
        for axis, label, heat in zip(column[1:], (truth[number], answers[number]), maps[:, number], strict=True):
            _draw(axis, split.images[index])
            _overlay(axis, heat)
            axis.set_title(f"map for {classes[label]}", fontsize=9)
        column[0].set_title(f"{classes[truth[number]]}\ntaken for {classes[answers[number]]}", fontsize=9)
    pairs = ", ".join(f"{classes[t]} taken for {classes[a]}" for t, a in zip(truth, answers, strict=True))
    return figure, f"The image, its heat map for the true and for the predicted class: {pairs}.", maps


def spread(values, name, target):
    """One dot per run, with their mean and a target."""
    values = 100 * torch.tensor(values, dtype=torch.double)
    figure = Figure(figsize=(7, 2.2), layout="constrained")
    axes = figure.subplots()
    axes.scatter(values, torch.zeros(len(values)), alpha=0.6)
    axes.axvline(values.mean(), color="black", label=f"mean {values.mean():.2f}")
    axes.axvline(100 * target, color="firebrick", linestyle="dashed", label=f"target {100 * target:.2f}")
    axes.set(xlabel=f"{name} (%)", yticks=[])
    figure.legend(loc="outside upper center", ncols=2)
    mean = f"{values.mean():.2f}" + (f" ± {values.std():.2f}" if len(values) > 1 else "")
    return figure, (
        f"{name.capitalize()}, {len(values)} runs as dots: mean {mean} %, from {values.min():.2f} to "
        f"{values.max():.2f} %; the target is {100 * target:.2f} %."
    )


def distributions(runs):
    """Test accuracies of several sets of runs {name: values}, a row of dots each, with their means."""
    figure = Figure(figsize=(7, 1 + 0.6 * len(runs)), layout="constrained")
    axes = figure.subplots()
    for row, values in enumerate(runs.values()):
        axes.scatter(values, [row] * len(values), alpha=0.6)
        axes.scatter(statistics.mean(values), row, marker="|", s=400, color="black")
    axes.set(xlabel="test accuracy", yticks=range(len(runs)), yticklabels=list(runs), ylim=(len(runs) - 0.5, -0.5))
    means = ", ".join(f"{name} {statistics.mean(values):.2%} ({len(values)} runs)" for name, values in runs.items())
    return figure, f"Test accuracies, one dot per run; means: {means}."


class _Place:
    """A place for one image in a grid. It works like an Axes, but all places share one, which draws much faster."""

    def __init__(self, axes, left, bottom, size):
        self.axes, self.extent = axes, (left, left + size, bottom, bottom + size)

    def imshow(self, image, **options):
        # Sharp pixels: a blurred picture would be three times as large a file
        self.axes.imshow(image, extent=self.extent, interpolation="nearest", **options)

    def set_title(self, text, loc="center", **options):
        left, right, _, top = self.extent
        x = left if loc == "left" else (left + right) / 2
        self.axes.text(x, top + 0.06, text, ha=loc, va="bottom", **options)

    def write(self, text, line):
        left, _, _, top = self.extent
        self.axes.text(left, top - 0.2 - 0.24 * line, text, fontsize=9)


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


def _note(figure, text):
    """Say under a figure what its colours mean."""
    figure.text(0.01, -0.08 / figure.get_figheight(), text, fontsize=10, va="top")


def _overlay(axes, heat):
    """Lay a heat map (H, W) from 0 to 1 over an image: opaque where it is hot, clear where it is cold."""
    axes.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.9 * heat.numpy())


def _answers(split, logits, classes, chosen, maps=None):
    """Grid of the chosen images, each with prediction, probability and truth, followed by its map if there are maps."""
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
    if maps is not None:
        _note(figure, "heat map: from black, 0, to yellow, 1: what speaks for the prediction")
    return figure
