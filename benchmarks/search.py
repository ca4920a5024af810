"""The searches for recipes: each candidate is trained on most training images and judged by 5,000 held-out ones.

    python benchmarks/search.py s06    # or another of SEARCHES: minutes a candidate; goes on where it stopped

The test set takes no part. What was found is written to search_NAME.json, which the session's notebook shows.
"""

import json
import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from common import data, model, speedrun, train, utils
from common.files import replacing

LIGHT, WEAK, STRONG = "8°, 1.5 px, 8 %", "10°, 2 px, 10 %", "15°, 3 px, 15 %"
AUGMENTATIONS = {
    "none": None,
    LIGHT: data.Augment(rotate=8, shift=1.5, scale=0.08),
    WEAK: data.Augment(rotate=10, shift=2, scale=0.1),
    STRONG: data.Augment(rotate=15, shift=3, scale=0.15),
}


def candidate(batch_size, rate, weight_decay, augmentation, **seed):
    settings = {"batch size": batch_size, "rate": rate, "weight decay": weight_decay, "augmentation": augmentation}
    return {**settings, **seed}


def classify(network, epochs):
    """How to judge a candidate for a network that reads digits."""

    def judge(candidate, searched):
        augment = AUGMENTATIONS[candidate["augmentation"]]
        train_loader, held_out = data.loaders(searched, candidate["batch size"], augment)
        net = network()
        optimizer, schedule = train.one_cycle(net, train_loader, candidate["rate"], epochs, candidate["weight decay"])
        return train.fit(net, train_loader, None, optimizer, epochs=epochs, schedule=schedule, held_out=held_out)

    return judge


def normalised(candidate, searched):
    """How to judge a candidate for step 2 of session 4, which has batch norm and dropout."""
    train_loader, held_out = data.loaders(searched, 64)
    net = model.batch_norm_and_dropout(candidate["dropout"]).to(memory_format=torch.channels_last)
    epochs = candidate["epochs"]
    optimizer, schedule = train.one_cycle(net, train_loader, 0.1, epochs)
    return train.fit(net, train_loader, None, optimizer, epochs=epochs, schedule=schedule, held_out=held_out)


def add(candidate, searched, epochs=10):
    """How to judge a candidate for session 2, with the sum as one of 19 classes: Adam."""
    pixels = {"mean": searched.mean, "std": searched.std}
    train_loader = data.DigitSumLoader(searched.train, 64, augment=AUGMENTATIONS[WEAK], shuffle=True, **pixels)
    held_out = data.DigitSumLoader(searched.test, 1000, **pixels)
    net = model.DigitSum()
    optimizer = torch.optim.Adam(net.parameters(), candidate["rate"])
    schedule = train.rise_and_fall(optimizer, candidate["rate"], epochs * len(train_loader))
    return train.fit(
        net,
        train_loader,
        None,
        optimizer,
        epochs=epochs,
        schedule=schedule,
        held_out=held_out,
        loss=lambda outputs, targets: (
            F.cross_entropy(outputs[:, :10], targets[:, 0]) + F.cross_entropy(outputs[:, 10:], targets[:, 1])
        ),
        metrics={
            "accuracy": lambda outputs, targets: outputs[:, :10].argmax(dim=1) == targets[:, 0],
            "sum_accuracy": lambda outputs, targets: outputs[:, 10:].argmax(dim=1) == targets[:, 1],
        },
    )


def photographs(candidate, searched, epochs=5):
    """How to judge a candidate for OneCycle in session 10: a narrow ResNet-18 and few epochs, for the time it takes."""
    train_loader, held_out = data.loaders(searched, candidate["batch size"], data.Augment(crop_padding=2, flip=True))
    net = model.resnet18(candidate["width"]).to(memory_format=torch.channels_last)
    optimizer, schedule = train.one_cycle(net, train_loader, candidate["rate"], epochs, candidate["weight decay"])
    options = {"epochs": epochs, "schedule": schedule, "held_out": held_out, "bfloat16": utils.has_bfloat16("cpu")}
    return train.fit(net, train_loader, None, optimizer, **options)


def photograph_candidate(rate=0.2, weight_decay=5e-4, batch_size=128, width=16):
    return {"width": width, "batch size": batch_size, "rate": rate, "weight decay": weight_decay}


def fast(images=None):
    """How to judge a candidate for the hour of session 11: its network and recipe, with the first `images` only."""

    def judge(candidate, searched):
        part = data.Split(searched.train.images[:images], searched.train.labels[:images])
        searched = data.with_splits(searched, part, searched.test, searched.classes)
        augment = data.Augment(crop_padding=candidate["crop padding"], flip=True)
        train_loader, held_out = data.loaders(searched, 512, augment)
        epochs, net = candidate["epochs"], model.under_an_hour().to(memory_format=torch.channels_last)
        filters = speedrun.whitening(data.normalise(searched, searched.train.images[:5000]))
        net[0].weight.requires_grad_(False).copy_(filters)
        if candidate["identity"] == "yes":  # the first kernels hand on the maps that they get
            for weights in net[2:].parameters():
                if weights.dim() == 4:
                    torch.nn.init.dirac_(weights.data[: weights.shape[1]])
        optimizer, schedule = speedrun.one_cycle(net, train_loader, 0.5, epochs, 1e-3, candidate["rate of filters"])
        loss = partial(F.cross_entropy, label_smoothing=candidate["label smoothing"])
        options = {"epochs": epochs, "schedule": schedule, "held_out": held_out, "bfloat16": utils.has_bfloat16("cpu")}
        return train.fit(net, train_loader, None, optimizer, loss=loss, **options)

    return judge


def fast_candidate(epochs=4, filter_rate=0.08, smoothing=0.2, padding=2, identity="yes"):
    rest = {"label smoothing": smoothing, "crop padding": padding, "identity": identity}
    return {"epochs": epochs, "rate of filters": filter_rate, **rest}


# name: (data set, how to judge a candidate, the candidates)
SEARCHES = {
    "s02": ("mnist", add, [{"rate": 0.003}, {"rate": 0.01}]),
    "s04": (  # step 1
        "mnist",
        classify(model.skeleton, 12),
        [candidate(64, rate, 1e-4, "none") for rate in (0.02, 0.05, 0.1)],
    ),
    "s04_step2": (
        "mnist",
        normalised,
        [{"dropout": dropout, "epochs": epochs} for dropout, epochs in ((0.1, 12), (0.05, 12), (0.02, 12), (0.05, 16))],
    ),
    "s06": (
        "mnist",
        classify(model.under_10k, 20),
        [
            candidate(128, 0.05, 5e-4, WEAK),
            candidate(64, 0.1, 5e-4, WEAK),
            candidate(64, 0.05, 5e-4, WEAK),
            candidate(64, 0.1, 1e-4, WEAK),
            candidate(64, 0.2, 5e-4, WEAK),
            candidate(64, 0.1, 5e-4, STRONG),
        ],
    ),
    "s10": (
        "cifar10",
        photographs,
        [
            photograph_candidate(),
            photograph_candidate(rate=0.4),
            photograph_candidate(rate=0.1),
            photograph_candidate(weight_decay=1e-3),
            photograph_candidate(batch_size=256),
        ],
    ),
    "s11_minute": (
        "mnist",
        classify(model.under_a_minute, 9),
        [
            candidate(128, 0.1, 1e-4, LIGHT),
            candidate(128, 0.05, 1e-4, LIGHT),
            candidate(128, 0.2, 1e-4, LIGHT),
            candidate(128, 0.1, 5e-4, LIGHT),
            candidate(128, 0.1, 1e-4, WEAK),
            candidate(64, 0.1, 1e-4, LIGHT),
            candidate(128, 0.1, 1e-4, "none"),
        ],
    ),
    "s11_minute_images": (  # the question of the search before that one seed cannot answer
        "mnist",
        classify(model.under_a_minute, 9),
        [candidate(128, 0.1, 1e-4, images, seed=seed) for images in (LIGHT, "none") for seed in range(10)],
    ),
    "s11_hour": (
        "cifar10",
        fast(),
        [
            fast_candidate(),
            fast_candidate(epochs=10),
            fast_candidate(filter_rate=0.04),
            fast_candidate(filter_rate=0.16),
            fast_candidate(identity="no"),
        ],
    ),
    "s11_hour_overfitting": (  # few images, many epochs: what works against overfitting shows only so
        "cifar10",
        fast(images=5000),
        [
            fast_candidate(epochs=20),
            fast_candidate(epochs=20, padding=4),
            fast_candidate(epochs=20, smoothing=0.0),
        ],
    ),
}


def held_out_measures(row):
    """What an epoch's row of the history says about the held-out images, as texts of a table."""
    measures = {"held-out loss": f"{row['held_out_loss']:.4f}", "held-out accuracy": f"{row['held_out_accuracy']:.2%}"}
    if "held_out_sum_accuracy" in row:
        measures["held-out sum accuracy"] = f"{row['held_out_sum_accuracy']:.2%}"
    return measures


def rank(name):
    """The key that puts the best result of a search first: by loss, or by accuracy where the loss is not the same."""
    if name.startswith("s11_hour"):
        return lambda result: -float(result["held-out accuracy"].rstrip("%"))
    return lambda result: result["held-out loss"]


def search(name):
    """Judge the candidates that were not judged yet, and write down each result at once."""
    dataset, judge, candidates = SEARCHES[name]
    path = Path(__file__).with_name(f"search_{name}.json")
    whole = data.load(dataset)
    searched = data.with_splits(whole, *data.hold_out(whole.train), whole.classes)  # held-out images for test images
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    done = [{key: result[key] for key in candidates[0]} for result in results]
    for candidate in candidates:
        if candidate not in done:
            print(candidate)
            utils.set_seed(candidate.get("seed", 0))
            last = judge(candidate, searched).epochs[-1]
            results.append({**candidate, **held_out_measures(last)})
            results.sort(key=rank(name))
            with replacing(path) as unfinished:
                unfinished.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    search(sys.argv[1])
