"""What the demo in docs/demo knows of the networks, networks.json, and the test images that it offers, images.json."""

import json
import tomllib

import torch
from PIL import Image

from common import data, model
from common.utils import count_parameters
from course.describe import describe
from course.notebooks import ROOT, read_notebook, results, sessions
from course.verify import NETWORKS

PAGE = ROOT / "docs" / "demo"
IMAGES_A_CLASS = 2
# The networks of a session besides the one of its headline; their weights are weights-<name>.safetensors.
OTHERS = {
    "s02_digit_sum": {
        "regression": lambda: model.DigitSum(sums=1),
        "no hidden layer": lambda: model.DigitSum(hidden=False),
    },
    "s04_three_iterations": {"step 1": model.skeleton, "step 2": model.batch_norm_and_dropout},
}


def write_networks():
    """Write networks.json; returns its path."""
    path = PAGE / "networks.json"
    path.write_text(networks_json(), encoding="utf-8")
    return path


def networks_json():
    """The text of networks.json: where the sessions lie, and of each network what the demo needs to run it."""
    images = json.loads((PAGE / "images.json").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    source = f"{project['project']['urls']['Repository']}/tree/{project['tool']['course']['release']}"
    networks = [json.dumps(entry) for path in sessions() for entry in describe_session(path.parent, images)]
    return f'{{"source": {json.dumps(source)}, "networks": [\n' + ",\n".join(networks) + "\n]}\n"


def describe_session(folder, images):
    """What the demo knows of each network of a session; none if it has no images of the session's data set."""
    records = results(folder)
    dataset = images.get(records[0]["dataset"]["name"]) if records else None
    if not dataset:
        return
    record = records[0]
    title = read_notebook(folder / "session.ipynb").cells[0].source.splitlines()[0].removeprefix("# ")
    accuracies = {part.get("part"): part["test_accuracy"] for part in record["metrics"].get("parts", [])}
    accuracies[None] = record["history"][-1]["test_accuracy"]
    builders = {None: lambda: NETWORKS[folder.name](record["params"])} | OTHERS.get(folder.name, {})
    for name, build in builders.items():
        ending = f"-{name.replace(' ', '-')}" if name else ""
        weights = folder / f"weights{ending}.safetensors"
        network = build()
        described = describe(network, *examples(network, dataset))
        yield {
            "id": f"{folder.name}{ending}",
            "session": folder.name,
            "title": f"{title}, {name}" if name else title,
            "dataset": record["dataset"]["name"],
            "tested": record["dataset"]["test"],
            "accuracy": accuracies.get(name),
            "parameters": count_parameters(network),
            # without a committed file the demo still runs weights of the reader's own
            "weights": str(weights.relative_to(ROOT)) if weights.exists() else None,
            "outputs": outputs(folder.name, record, described, dataset["classes"]),
            **described,
        }


def examples(network, images):
    """Inputs (1, …) that a network takes: an image, and a digit where it adds one."""
    image = torch.zeros(1, len(images["mean"]), *images["size"])
    return (image, torch.zeros(1, 1)) if isinstance(network, model.DigitSum) else (image,)


def outputs(session, record, described, classes):
    """What the numbers mean that come out: groups with a name and their classes, or with None for one number."""
    if session == "s05_grad_cam":
        digits = data.zero_one_or_neither(data.load("digits"), record["params"]["classes"])
        return [{"name": "label", "classes": digits.classes}]
    label, rest = {"name": "label", "classes": classes}, described["layers"][-1]["shape"][0] - len(classes)
    if rest == 0:
        return [label]
    return [label, {"name": "sum", "classes": [str(number) for number in range(rest)] if rest > 1 else None}]


def write_images():
    """Write the test images that the demo offers, the first few of each class, and what it must know of the data.

    The data sets are downloaded where they are not there; raises DataError where that fails.
    """
    described = {}
    for name in data.NAMES:
        dataset = data.load(name)
        images, labels = dataset.test
        chosen = torch.cat([(labels == label).nonzero()[:IMAGES_A_CLASS, 0] for label in range(len(dataset.classes))])
        row = torch.cat(list(images[chosen]), dim=2)  # (C, H, N * W): side by side
        pixels = row[0] if len(row) == 1 else row.permute(1, 2, 0)
        Image.fromarray(pixels.numpy()).save(PAGE / f"{name}.png", optimize=True)
        described[dataset.name] = {
            "file": f"{name}.png",
            "size": list(images.shape[2:]),
            "labels": [dataset.classes[label] for label in labels[chosen]],
            "classes": dataset.classes,
            "mean": dataset.mean,
            "std": dataset.std,
        }
    lines = [f"{json.dumps(name)}: {json.dumps(values)}" for name, values in described.items()]
    (PAGE / "images.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
