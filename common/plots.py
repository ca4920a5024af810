"""Every figure of the course. Its functions return a Figure and a text that says in words what it shows."""

import base64
import io
import math

import numpy as np
import torch
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


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
    right.bar(range(256), counts, width=1)
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


def predictions(split, logits, classes, count=10):
    """The first images of a split with what the network says and how sure it is."""
    chosen = torch.arange(min(count, len(split.labels)))
    right = int((logits.argmax(dim=1).cpu() == split.labels)[chosen].sum())
    figure = _answers(split, logits, classes, chosen)
    return figure, f"The first {len(chosen)} test images with prediction, truth and confidence: {right} are right."


def misclassified(split, logits, classes, count=25):
    """Images that the network gets wrong, those with the most confident mistakes first."""
    probabilities, answers = logits.softmax(dim=1).cpu().max(dim=1)
    wrong = (answers != split.labels).nonzero().flatten()
    chosen = wrong[probabilities[wrong].argsort(descending=True, stable=True)][:count]
    if not len(chosen):
        figure = Figure(figsize=(6, 0.6))
        figure.text(0.5, 0.5, "no mistakes", ha="center", va="center")
        return figure, "There is nothing to see: no test image is misclassified."
    mistakes = ", ".join(f"{classes[split.labels[i]]} as {classes[answers[i]]}" for i in chosen[:5])
    return _answers(split, logits, classes, chosen), (
        f"{len(chosen)} of the {len(wrong)} misclassified test images, the most confident first: {mistakes}"
        + (", and so on." if len(chosen) > 5 else ".")
    )


def accuracy_per_class(labels, logits, classes):
    """Which share of each class is recognised, {name: fraction}; NaN for a class that does not occur."""
    right = logits.argmax(dim=1).cpu() == labels
    return {name: float(right[labels == label].double().mean()) for label, name in enumerate(classes)}


def class_accuracy(labels, logits, classes):
    """Bar chart of the accuracy per class."""
    accuracies = accuracy_per_class(labels, logits, classes)
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    bars = axes.bar(list(accuracies), list(accuracies.values()))
    axes.bar_label(bars, [f"{accuracy:.1%}" for accuracy in accuracies.values()], fontsize=8)
    lowest = min(accuracy for accuracy in accuracies.values() if not math.isnan(accuracy))
    room = max(0.01, 1 - lowest)  # above the bars for their labels, and below the shortest
    axes.set(xlabel="class", ylabel="accuracy", ylim=(max(0.0, lowest - 0.5 * room), 1 + 0.15 * room))
    if max(map(len, classes)) > 4:
        axes.tick_params("x", rotation=45)
    worst, best = min(accuracies, key=accuracies.get), max(accuracies, key=accuracies.get)
    return figure, (
        f"Accuracy per class, from {accuracies[worst]:.2%} for {worst} to {accuracies[best]:.2%} for {best}; "
        "the axis does not begin at zero."
    )


def confusion_matrix(labels, logits, classes):
    """Which class is taken for which."""
    from sklearn.metrics import ConfusionMatrixDisplay
    from sklearn.metrics import confusion_matrix as count

    matrix = count(labels, logits.argmax(dim=1).cpu(), labels=range(len(classes)))
    figure = Figure(figsize=(6, 5.4), layout="constrained")
    display_ = ConfusionMatrixDisplay(matrix, display_labels=classes)
    display_.plot(ax=figure.subplots(), colorbar=False, cmap="Blues", xticks_rotation=0 if len(classes) < 11 else 45)
    np.fill_diagonal(matrix, 0)
    pairs = [(int(matrix[pair]), *pair) for pair in zip(*matrix.nonzero(), strict=True)]
    pairs = [f"{classes[i]} as {classes[j]} ({n} times)" for n, i, j in sorted(pairs, key=lambda pair: -pair[0])[:3]]
    return figure, "Confusion matrix. Most frequent mistakes: " + (", ".join(pairs) or "none") + "."


def _image_axes(rows, columns, size=0.9, title=0.0):
    """A grid of axes for images, without frames."""
    figure = Figure(figsize=(columns * size, rows * (size + title)), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for one in axes.flat:
        one.axis("off")
    return figure, axes


def _draw(axes, image):
    """Draw one uint8 image (1 or 3, H, W)."""
    axes.imshow(image.permute(1, 2, 0).squeeze(-1), cmap="gray", vmin=0, vmax=255)


def _answers(split, logits, classes, chosen):
    """Grid of the chosen images, each with the prediction, its probability and the truth."""
    probabilities, answers = logits.softmax(dim=1).cpu().max(dim=1)
    columns = min(5, len(chosen))
    figure, axes = _image_axes(-(-len(chosen) // columns), columns, size=1.5, title=0.25)
    for axis, index in zip(axes.flat, chosen.tolist(), strict=False):
        _draw(axis, split.images[index])
        truth, answer = int(split.labels[index]), int(answers[index])
        color = "black" if truth == answer else "firebrick"
        text = f"{classes[answer]} ({probabilities[index]:.0%})\ntruth {classes[truth]}"
        axis.set_title(text, fontsize=9, color=color)
    return figure
