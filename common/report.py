"""Tables and sentences about a run."""

import math

import torch
from torch import nn

from common.utils import count_parameters


def final_and_best(history):
    """Accuracy on the training and the test set after the last epoch and at its best, as rows of a table."""
    rows = []
    for name in ("train", "test"):
        accuracies = history[f"{name}_accuracy"]
        best = max(accuracies)
        epochs = [str(row["epoch"]) for row in history.epochs if row[f"{name}_accuracy"] == best]
        rows.append(
            {
                "accuracy": name,
                "last epoch": f"{accuracies[-1]:.2%}",
                "highest": f"{best:.2%}",
                "in epoch": " and ".join(epochs),
            }
        )
    return rows


def first_epoch(history, accuracy):
    """The first epoch, counted from 1, after which the test accuracy is `accuracy` or more; None where it never is."""
    return next((row["epoch"] for row in history.epochs if row["test_accuracy"] >= accuracy), None)


def analysis(history, target, images, train_accuracy, train_images=None):
    """What a run says, as lines of Markdown: `target` is an accuracy, `images` the size of the test set.

    `train_accuracy` is that of the trained network on its unchanged training images: that in the history was measured
    while the network learned. `train_images` says how many they are where they are so few that their own noise counts.
    """
    last = history.epochs[-1]
    best = max(history.epochs, key=lambda row: row["test_accuracy"])
    right = last["test_accuracy"]
    if best["test_accuracy"] == right:
        choice = "No epoch was better than the last one."
    else:
        choice = (
            f"Epoch {best['epoch']} had {best['test_accuracy']:.2%}. Quoting it would mean choosing with the test set."
        )
    gap, noise, noisy = 100 * (train_accuracy - right), 100 * standard_error(right, images), "the test accuracy"
    more, verdict = "not more", "no overfitting can be seen"
    if train_images:
        noise, noisy = math.hypot(noise, 100 * standard_error(right, train_images)), "the gap itself"
        verdict = f"with {train_images} training images one run cannot tell"
    if gap > 2 * noise:
        more, verdict = "more", "it knows its training images better than new ones"
    return [
        f"- **Result.** {right:.2%} after epoch {last['epoch']}, {images - round(right * images)} of {images} test "
        f"images wrong: {'reached' if right >= target else 'missed'} the target of {target:.2%}.",
        "- **Best epoch.** " + choice,
        f"- **Overfitting.** The trained network is right on {train_accuracy:.2%} of its unchanged training images. "
        f"The gap of {gap:+.2f} points is {more} than twice the standard error of {noisy} "
        f"({noise:.2f} points): {verdict}.",
    ]


def standard_error(accuracy, images):
    """The binomial standard error of an accuracy measured on this many images."""
    return math.sqrt(accuracy * (1 - accuracy) / images)


def next_step(network, history, target, train_accuracy, images):
    """What to try next with a network, and why, as a line of Markdown: read off its run and its layers.

    `network` is the trained network; the other arguments are those of analysis().
    """
    right = history["test_accuracy"][-1]
    gap = train_accuracy - right
    dense = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    share = sum(map(count_parameters, dense)) / count_parameters(network)
    overfits = gap > 2 * standard_error(right, images)
    if right < target and train_accuracy < target:
        advice = (
            f"Even on the training images only {train_accuracy:.2%} are right, below the target: train longer, or "
            "give the network more channels."
        )
    elif overfits and not any(isinstance(layer, nn.BatchNorm2d | nn.Dropout) for layer in network.modules()):
        advice = (
            f"{train_accuracy:.2%} of the training images are right, {100 * gap:.2f} points more than of the test "
            "images. Make them harder to learn by heart, with batch norm and dropout."
        )
    elif share > 0.5:
        advice = (
            f"{share:.0%} of the {count_parameters(network):,} parameters are in fully connected layers, where each "
            "weight belongs to one place in the image. Replace that head with global average pooling."
        )
    elif overfits:
        advice = (
            f"The gap is still {100 * gap:.2f} points, with {count_parameters(network):,} parameters. Change the "
            "images at random, so that the network never sees one twice: the next sessions do."
        )
    elif right < target:
        advice = "The target is missed by less than the noise: train with other seeds before you change anything."
    else:
        advice = "The gap is inside the noise: look for a smaller network that does as well."
    return f"- **What to try next.** {advice}"


def paired_difference(names, before, after):
    """Whether one network is better than another on the same test images, as a sentence.

    `before` and `after` (N,) say which images each gets right. Only images that one gets right and the other wrong tell
    them apart: with b lost and c won, the difference is (c - b) / N, its standard error sqrt(b + c - (b - c)² / N) / N.
    """
    lost, won, count = int((before & ~after).sum()), int((after & ~before).sum()), len(before)
    difference = 100 * (won - lost) / count
    error = 100 * math.sqrt(won + lost - (won - lost) ** 2 / count) / count
    verdict = "more" if abs(difference) > 2 * error else "not more"
    return (
        f"- **{names[0]} → {names[1]}**: {won} test images won, {lost} lost: {difference:+.2f} ± {error:.2f} points. "
        f"That is {verdict} than the choice of test images explains (two standard errors)."
    )


def accuracy_per_class(labels, logits, classes):
    """The accuracy on each class, {name: fraction}; NaN for a class that does not occur."""
    right = logits.argmax(dim=1).cpu() == labels
    return {name: float(right[labels == label].double().mean()) for label, name in enumerate(classes)}


def confused_pairs(labels, logits, classes, count=5):
    """The most frequent mistakes, as rows of a table; no rows for a network that makes none."""
    answers = logits.argmax(dim=1).cpu()
    wrong = answers != labels
    pairs, counts = torch.stack([labels, answers])[:, wrong].unique(dim=1, return_counts=True)
    order = counts.argsort(descending=True, stable=True)[:count]
    return [
        {
            "truth": classes[truth],
            "taken for": classes[answer],
            "images": times,
            "of all mistakes": f"{times / int(wrong.sum()):.1%}",
        }
        for (truth, answer), times in zip(pairs[:, order].T.tolist(), counts[order].tolist(), strict=True)
    ]


def epoch_table(title, history):
    """Loss and accuracy on training, held-out and test images after each epoch, as lines of text in columns."""
    parts = [part for part in ("train", "held_out", "test") if f"{part}_loss" in history.epochs[0]]
    names = [f"{part.replace('_', '-')} {measure}" for part in parts for measure in ("loss", "accuracy")]
    lines = [title, "  ".join(["epoch", *names])]
    for row in history.epochs:
        values = [text for part in parts for text in (f"{row[f'{part}_loss']:.4f}", f"{row[f'{part}_accuracy']:.2%}")]
        aligned = [f"{value:>{len(name)}}" for value, name in zip(values, names, strict=True)]
        lines.append("  ".join([f"{row['epoch']:5d}", *aligned]))
    return "\n".join(lines)


def about_maps(maps):
    """What heat maps (2, n, H, W) of n images say, as lines of Markdown; those for the true class come first.

    They say how much of the mass lies in the middle quarter of the image, and how alike an image's two maps are: the
    mean correlation over their pixels. Images with an empty map are left out.
    """
    maps = maps[:, maps.amax(dim=(2, 3)).amin(dim=0) > 0].double()
    if not maps.numel():
        return ["- One of the two maps of each image is empty."]
    height, width = maps.shape[2:]
    middle = maps[:, :, height // 4 : height - height // 4, width // 4 : width - width // 4]
    true, predicted = (100 * middle.sum(dim=(1, 2, 3)) / maps.sum(dim=(1, 2, 3))).tolist()
    centred = maps.flatten(2) - maps.flatten(2).mean(dim=2, keepdim=True)
    likeness = torch.cosine_similarity(*centred, dim=1)
    return [
        f"- **Where they look.** The middle quarter of the image holds {true:.0f} % of the mass of the maps for the "
        f"true class, and {predicted:.0f} % of that for the predicted class; evenly spread it would be 25 %.",
        f"- **How alike they are.** The two maps of an image have a correlation of {likeness.mean():.2f} on average, "
        f"from {likeness.min():.2f} to {likeness.max():.2f}.",
    ]


def on_strokes(images, labels, classes, maps):
    """The share of each class's heat maps that lies on the strokes of digits, as rows of a table.

    `images` (N, 1, H, W) are bytes, a stroke is what is brighter than 64; `maps` (N, classes, H, W) are zero or larger.
    Means over the images of a class, without the maps that are 0 everywhere, whose share is named.
    """
    strokes = (images > 64).double()
    shares = (maps * strokes).sum(dim=(2, 3)) / maps.sum(dim=(2, 3))  # (N, classes), not a number for empty maps
    rows = [{"": "strokes in the image"}] + [{"": f"map for {name}, on strokes"} for name in classes]
    for shown, name in enumerate(classes):
        of_class = labels == shown
        column = f"images of {name}"
        rows[0][column] = f"{strokes[of_class].mean():.0%}"
        for row, values in zip(rows[1:], shares[of_class].T, strict=True):
            empty = values.isnan().double().mean()
            some = f" ({empty:.0%} are empty)" if empty else ""
            row[column] = f"{values.nanmean():.0%}{some}" if empty < 1 else "all are empty"
    return rows
