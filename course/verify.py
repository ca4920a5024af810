"""Evaluates committed weights with today's code, and compares with the published record."""

import json
from datetime import date

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from common import data, model, train, utils
from common.record import lesson_hashes
from course.notebooks import PublishError, first_line, results
from course.publish import rerender, write_files

ELSEWHERE = 3  # so many images may be judged differently on another device or with other threads


def verify(session, device="auto", note=False):
    """Evaluate the weights of a Session on the whole test set; returns what was found, as a sentence.

    With `note` it is written to verified.json beside them, and to the page. Raises PublishError where the weights do
    not do what results.json says, or are not there, and DataError where the data set is not there.
    """
    folder, name = session.folder, session.name
    path = folder / "weights.safetensors"
    if not path.exists():
        raise PublishError(f"{name}: no weights are committed; a run of the session writes them.")
    records = results(folder)
    if not records:
        raise PublishError(f"{name}: there is no record of the run that wrote weights.safetensors.")
    record = records[0]
    device = utils.choose_device(device)
    dataset = data.load(record["params"]["dataset"])
    if dataset.sha256 != record["dataset"]["sha256"]:
        raise PublishError(f"{name}: the data set {dataset.name} is not the one of the record.")
    network = make_network(session, record["params"])
    try:
        tensors = load_file(path)
        network.load_state_dict({name: tensor for name, tensor in tensors.items() if "/" not in name})  # see Run.finish
    except (SafetensorError, RuntimeError) as error:  # no tensors; others than this network has
        why = first_line(" ".join(str(error).split()))
        raise PublishError(f"{name}: weights.safetensors is not that of this network: {why}") from None
    found = count_right(session, record["params"], network.to(device), dataset, device)
    here = utils.device_name(device), torch.get_num_threads()
    allowed = 0 if here == (record["device"], record["threads"]) else ELSEWHERE
    last, lines = record["history"][-1], []
    for measure, (right, count) in found.items():
        expected = round(last[measure] * count)
        lines.append(f"{measure.replace('_', ' ')} {right} of {count}, in the record {expected}")
        if abs(right - expected) > allowed:
            raise PublishError(f"{name}: {lines[-1]}: the weights do not do what the record says.")
    if note:
        verified = {"date": date.today().isoformat(), "found": lines, "device": here[0], "versions": utils.versions()}
        verified["common_sha256"] = lesson_hashes()
        write_files(folder, {"verified.json": json.dumps(verified, indent=1) + "\n"})
        rerender(folder)
    return f"{name}: {'; '.join(lines)}" + (f" (on another device up to {allowed} may differ)" if allowed else "")


def make_network(session, params):
    """The untrained network of a session's weights, for the parameters of a run."""
    return _call(model, session.network, params)


def count_right(session, params, network, dataset, device):
    """How many test images the network judges rightly, of how many: {name as in the history: (right, count)}."""
    if session.test_set:
        dataset = _call(data, session.test_set, params, dataset)
    options = {"mean": dataset.mean, "std": dataset.std, "seed": params["seed"], "device": device}
    loader = getattr(data, session.loader)(dataset.test, 1000, **options)
    outputs = train.predict(network, loader)
    scores = session.scores or {"accuracy": outputs.shape[1]}
    targets = loader.targets.view(len(outputs), -1).unbind(dim=1)
    right = {}
    for name, logits, labels in zip(scores, outputs.split(list(scores.values()), dim=1), targets, strict=True):
        right[f"test_{name}"] = int(train.accuracy(logits, labels).sum()), len(labels)
    return right


def _call(module, call, params, *values):
    """What a call in a session.yaml such as `resnet18(width)` gives, after other values with parameters of a run."""
    function, names = call.removesuffix(")").split("(")
    return getattr(module, function)(*values, *(params[name] for name in names.split(", ") if name))
