"""Data for the demo in docs/demo: networks.json describes the networks, images.json the test images that it offers."""

import inspect
import json
import tomllib

import torch
from PIL import Image
from safetensors import safe_open

from common import data, model
from common.utils import count_parameters
from course.describe import describe
from course.evidence import judged
from course.notebooks import ROOT, results
from course.publish import write_files
from course.sessions import all_sessions
from course.verify import call_named

PAGE = ROOT / "docs" / "demo"
IMAGES_A_CLASS = 2


def write_networks():
    """Write networks.json; returns its path."""
    path = PAGE / "networks.json"
    write_files(PAGE, {path.name: networks_json()})
    return path


def networks_json():
    """The text of networks.json: where the sessions lie, and what the demo needs to run each network."""
    images = json.loads((PAGE / "images.json").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    source = f"{project['project']['urls']['Repository']}/tree/{project['tool']['course']['release']}"
    entries = [json.dumps(entry) for entry, _ in networks(images)]
    return f'{{"source": {json.dumps(source)}, "networks": [\n' + ",\n".join(entries) + "\n]}\n"


def networks(images):
    """Yield (description, untrained network) for all networks of the sessions whose data set is in `images`."""
    for session in all_sessions():
        yield from session_networks(session, images)


def session_networks(session, images):
    """Yield (description, untrained network) for the networks of one session, that of the headline first.

    In weights.safetensors its tensors have their own names; those of the others have the network's name in front, such
    as "step 1/0.0.weight".
    """
    records, file = results(session.folder), session.folder / "weights.safetensors"
    dataset = images.get(records[0]["dataset"]["name"]) if records else None
    if not dataset:
        return
    record = records[0]
    accuracies = {part.get("part"): part["test_accuracy"] for part in record["metrics"].get("parts", [])}
    accuracies[""] = judged(record).get("single_view_accuracy", judged(record)["test_accuracy"])
    trained = tensor_names(file)
    for name, call in {"": session.network, **session.others}.items():
        network, prefix = call_named(model, call, record["params"]), f"{name}/" if name else ""
        if isinstance(network, model.Views):  # the demo looks at an image once
            network, prefix = network.network, f"{prefix}network."
        tensors = network.state_dict()
        described = describe(network, *examples(network, dataset))
        entry = {
            "id": f"{session.name}-{name.replace(' ', '-')}" if name else session.name,
            "session": session.name,
            "title": f"{session.title}, {name}" if name else session.title,
            "dataset": record["dataset"]["name"],
            "tested": record["dataset"]["test"],
            "accuracy": accuracies.get(name),
            "parameters": count_parameters(network),
            # without the course's weights the demo still runs a reader's
            "weights": str(file.relative_to(ROOT)) if {prefix + tensor for tensor in tensors} <= trained else None,
            "prefix": prefix,
            "outputs": outputs(classes_of(session, record["params"], dataset), described["layers"][-1]["shape"][0]),
            **described,
        }
        yield entry, network


def tensor_names(file):
    """The names of the tensors in a safetensors file; none if it does not exist."""
    if not file.exists():
        return set()
    with safe_open(file, "pt") as tensors:
        return set(tensors.keys())


def examples(network, images):
    """Inputs (1, …) that a network takes: an image, and a digit if it adds one."""
    image, digit = torch.zeros(1, len(images["mean"]), *images["size"]), torch.zeros(1, 1)
    return (image, digit)[: len(inspect.signature(network.forward).parameters)]


def classes_of(session, params, images):
    """The classes of a session: those of its data set, or of what it makes from it."""
    if not session.test_set:
        return images["classes"]
    return call_named(data, session.test_set, params, data.load("digits")).classes


def outputs(classes, size):
    """What the `size` outputs mean: the scores of the classes, then for session 2 those of the sums.

    If only one number follows, a regression, it is the sum itself and has no classes.
    """
    label, rest = {"name": "label", "classes": classes}, size - len(classes)
    if rest == 0:
        return [label]
    return [label, {"name": "sum", "classes": [str(number) for number in range(rest)] if rest > 1 else None}]


def write_images():
    """Write the test images that the demo offers, the first few of each class, and what it must know about the data.

    Missing data sets are downloaded; raises DataError if that fails.
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
    write_files(PAGE, {"images.json": "{\n" + ",\n".join(lines) + "\n}\n"})
