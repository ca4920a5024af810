"""The searches for recipes: each candidate is trained on 55,000 images of MNIST and judged by 5,000 held-out ones.

    python benchmarks/search.py s06        # minutes a candidate on one CPU core; goes on where it stopped

The test set takes no part. What was found is written to search_NAME.json, which the session's notebook shows.
"""

import json
import sys
from pathlib import Path

import torch

from common import data, model, train, utils

WEAK, STRONG = "10°, 2 px, 10 %", "15°, 3 px, 15 %"
AUGMENTATIONS = {
    "none": None,
    WEAK: data.Augment(rotate=10, shift=2, scale=0.1),
    STRONG: data.Augment(rotate=15, shift=3, scale=0.15),
}


def candidate(batch_size, rate, weight_decay, augmentation):
    return {"batch size": batch_size, "rate": rate, "weight decay": weight_decay, "augmentation": augmentation}


# name: (network, epochs, candidates)
SEARCHES = {
    "s06": (
        model.under_10k,
        20,
        [
            candidate(128, 0.05, 5e-4, WEAK),
            candidate(64, 0.1, 5e-4, WEAK),
            candidate(64, 0.05, 5e-4, WEAK),
            candidate(64, 0.1, 1e-4, WEAK),
            candidate(64, 0.2, 5e-4, WEAK),
            candidate(64, 0.1, 5e-4, STRONG),
        ],
    ),
    "s04": (model.skeleton, 12, [candidate(64, rate, 1e-4, "none") for rate in (0.02, 0.05, 0.1)]),  # its step 1
}


def judge(network, epochs, candidate, mnist, seed=0):
    """Train one candidate and return it with its loss and accuracy on the held-out images after the last epoch."""
    searched = data.with_splits(mnist, *data.hold_out(mnist.train), mnist.classes)  # held-out images for test images
    augment = AUGMENTATIONS[candidate["augmentation"]]
    train_loader, held_out_loader = data.loaders(searched, candidate["batch size"], augment, seed=seed)
    utils.set_seed(seed)
    net = network()
    optimizer, schedule = train.one_cycle(net, train_loader, candidate["rate"], epochs, candidate["weight decay"])
    history = train.fit(net, train_loader, None, optimizer, epochs=epochs, schedule=schedule, held_out=held_out_loader)
    loss, accuracy = history["held_out_loss"][-1], history["held_out_accuracy"][-1]
    return {**candidate, "held-out loss": f"{loss:.4f}", "held-out accuracy": f"{accuracy:.2%}"}


def search(name):
    """Judge the candidates that were not judged yet, and write down each result at once."""
    network, epochs, candidates = SEARCHES[name]
    path = Path(__file__).with_name(f"search_{name}.json")
    mnist = data.load("mnist")
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    done = [{key: result[key] for key in candidates[0]} for result in results]
    for candidate in candidates:
        if candidate not in done:
            print(candidate)
            results.append(judge(network, epochs, candidate, mnist))
            results.sort(key=lambda result: result["held-out loss"])
            path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    search(sys.argv[1])
