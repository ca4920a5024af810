"""The demo, docs/demo, made ready to be served: its page, the description of the networks, and their weights."""

import json
import shutil
import tomllib

import torch
from PIL import Image

from common import data, model
from common.notebooks import ROOT, SESSIONS, read_notebook, results, sessions
from common.verify import NETWORKS
from course.describe import describe

PAGE = ROOT / "docs" / "demo"
IMAGES = PAGE / "images.json"  # of each data set: its classes, its pixel statistics, and a few test images in a PNG
IMAGES_A_CLASS = 2
# The networks of a session besides the one of its headline; their weights are weights-<name>.safetensors.
OTHERS = {
    "s02_digit_sum": {
        "regression": lambda: model.DigitSum(sums=1),
        "no hidden layer": lambda: model.DigitSum(hidden=False),
    },
    "s04_three_iterations": {"step 1": model.skeleton, "step 2": model.batch_norm_and_dropout},
}


def write_demo(folder):
    """Write all files of the demo into a folder, from where any web server can serve it; returns the networks shown.

    A session is left out while it has no weights, or weights of a data set that the demo has no images of.
    """
    images = json.loads(IMAGES.read_text(encoding="utf-8"))
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    networks = [entry for path in sessions() for entry in describe_session(path.parent, images)]
    for entry in networks:
        if not entry["weights"]:
            continue
        target = folder / entry["weights"]
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(SESSIONS / entry["session"] / target.name.removeprefix(f"{entry['session']}-"), target)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    description = {"repository": project["urls"]["Repository"], "images": images, "networks": networks}
    (folder / "networks.json").write_text(json.dumps(description), encoding="utf-8")
    return networks


def describe_session(folder, images):
    """What the demo knows of each network of a session; its `weights` are None where they are not committed."""
    records = results(folder)
    if not records or records[0]["dataset"]["name"] not in images:
        return
    record, dataset = records[0], records[0]["dataset"]["name"]
    title = read_notebook(folder / "session.ipynb").cells[0].source.splitlines()[0].removeprefix("# ")
    accuracies = {part["part"]: part["test_accuracy"] for part in record["metrics"].get("parts", []) if "part" in part}
    accuracies[None] = record["history"][-1]["test_accuracy"]
    builders = {None: lambda: NETWORKS[folder.name](record["params"])} | OTHERS.get(folder.name, {})
    for name, build in builders.items():
        file = f"weights-{name.replace(' ', '-')}.safetensors" if name else "weights.safetensors"
        network = build()
        described = describe(network, *examples(network, images[dataset]))
        yield {
            "id": f"{folder.name}-{name.replace(' ', '-')}" if name else folder.name,
            "session": folder.name,
            "title": f"{title}, {name}" if name else title,
            "dataset": dataset,
            "accuracy": accuracies.get(name),
            "tested": record["dataset"]["test"],
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            # without a file the demo can still run weights of the reader's own
            "weights": f"weights/{folder.name}-{file}" if (folder / file).exists() else None,
            "outputs": outputs(folder.name, record, described, images[dataset]["classes"]),
            **described,
        }


def examples(network, images):
    """Inputs (1, …) that a network takes: an image, and a digit where it adds one."""
    image = torch.zeros(1, len(images["mean"]), *images["size"])
    return (image, torch.zeros(1, 1)) if isinstance(network, model.DigitSum) else (image,)


def outputs(session, record, described, classes):
    """What the numbers mean that come out: groups with a name and their classes, or without classes a number."""
    if session == "s05_grad_cam":
        return [
            {
                "name": "label",
                "classes": data.zero_one_or_neither(data.load("digits"), record["params"]["classes"]).classes,
            }
        ]
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
    IMAGES.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
