"""Evaluates committed weights with today's code, and compares with the published record."""

import json
from datetime import date
from importlib.metadata import version

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file

from common import data, model, train, utils
from common.record import lesson_hashes
from course.evidence import DATASETS, contradictions, judged
from course.notebooks import PublishError, first_line, results, run_of, weights_files
from course.publish import publishing_lock, rerender, write_files

ELSEWHERE = 3  # images that may be judged differently on another device, or with other threads or another PyTorch


def verify(session, device="auto", note=False):
    """Evaluate all committed weights of a Session on the whole test set; returns the findings, one line per run.

    With `note` they go to verified.json beside the weights, and to the page. Raises PublishError if the weights are
    missing or do not do what the page shows, and DataError if the data set is missing.
    """
    folder, name = session.folder, session.name
    if not (folder / "weights.safetensors").exists():
        raise PublishError(f"{name}: no weights are committed; a run of the session writes them.")
    records = results(folder)
    if not records:
        raise PublishError(f"{name}: there is no record of the run that wrote weights.safetensors.")
    device = utils.choose_device(device)
    datasets = load_datasets(name, records)
    for why in contradictions(records):
        raise PublishError(f"{name}: {why}")
    found = [
        verify_run(session, path, record, datasets[record["dataset"]["name"]], device)
        for path, record in weights_files(records).items()
    ]
    if note:
        verified = {"date": date.today().isoformat(), "found": found, "device": utils.device_name(device)}
        verified |= {"versions": utils.versions(), "common_sha256": lesson_hashes()}
        with publishing_lock():
            if results(folder) != records:
                raise PublishError(f"{name}: other runs were published in the meantime: verify it again.")
            write_files(folder, {"verified.json": json.dumps(verified, indent=1) + "\n"})
        rerender(folder)
    return "\n".join(f"{name}: {line}" for line in found)


def load_datasets(name, records):
    """The data sets of a session's records, {name as shown: Dataset}; raises PublishError where one is another."""
    found = {}
    for shown, sha256 in {(record["dataset"]["name"], record["dataset"]["sha256"]) for record in records}:
        parameter = DATASETS[shown][0] if shown in DATASETS else records[0]["params"]["dataset"]
        found[shown] = data.load(parameter)
        if found[shown].sha256 != sha256:
            raise PublishError(f"{name}: the data set {found[shown].name} is not that of the record.")
    return found


def verify_run(session, path, record, dataset, device):
    """Evaluate the weights of one run; returns the finding in words. `path` is its file, relative to the page."""
    name = f"{session.name}: {path}"
    network = make_network(session, record["params"])
    try:
        load_weights(network, session.folder / path)
    except (SafetensorError, OSError, RuntimeError) as error:  # not tensors; missing; not those of this network
        why = first_line(" ".join(str(error).split()))
        raise PublishError(f"{name} does not fit this network: {why}") from None
    shown = dict(judged(record))
    if utils.count_parameters(network) != shown.get("parameters", record["metrics"]["parameters"]):
        raise PublishError(f"{name} has {utils.count_parameters(network):,} parameters, but the record says otherwise.")
    found = count_right(session, record["params"], network.to(device), dataset, device)
    here = utils.device_name(device), torch.get_num_threads(), version("torch")
    same = here == (record["device"], record["threads"], record["versions"].get("torch"))
    allowed, lines = 0 if same else ELSEWHERE, []
    for measure, (right, count) in found.items():
        expected = round(shown[measure] * count)
        if measure == "test_accuracy" and "stored" in record["metrics"]:
            expected = record["metrics"]["stored"]["right"]
        lines.append(f"{measure.replace('_', ' ')} {right} of {count}, in the record {expected}")
        if abs(right - expected) > allowed:
            raise PublishError(f"{name}: {lines[-1]}: the weights do not do what the record says.")
    run = "variant {}, seed {}: ".format(*run_of(record)) if "/" in path else ""
    elsewhere = "" if same else f" (on another device, up to {allowed} may differ)"
    return f"{run}{'; '.join(lines)}{elsewhere}"


def load_weights(network, path):
    """Load a run's own network from its file; the others in it have a name and a slash before, see Run.finish."""
    network.load_state_dict({name: tensor for name, tensor in load_file(path).items() if "/" not in name})


def make_network(session, params):
    """The untrained network for a session's weights, with the parameters of a run."""
    return call_named(model, session.network, params)


def count_right(session, params, network, dataset, device):
    """How many test images the network gets right, of how many: {name as in the record: (right, count)}."""
    if session.test_set:
        dataset = call_named(data, session.test_set, params, dataset)
    options = {"mean": dataset.mean, "std": dataset.std, "seed": params["seed"], "device": device}
    loader = getattr(data, session.loader)(dataset.test, 1000, **options)
    outputs = train.predict(network, loader)
    scores = session.scores or {"accuracy": outputs.shape[1]}
    targets = loader.targets.view(len(outputs), -1).unbind(dim=1)
    right = {}
    for name, logits, labels in zip(scores, outputs.split(list(scores.values()), dim=1), targets, strict=True):
        right["test_accuracy" if name == "accuracy" else name] = int(train.accuracy(logits, labels).sum()), len(labels)
    return right


def call_named(module, call, params, *values):
    """The result of a call in session.yaml, `resnet18(width)` with a parameter of a run or `DigitSum(sums=1)` without.

    Other `values` come first.
    """
    function, names = call.removesuffix(")").split("(")
    given = [name for name in names.split(", ") if name]
    fixed = dict(name.split("=") for name in given if "=" in name)
    values += tuple(params[name] for name in given if "=" not in name)
    return getattr(module, function)(*values, **{name: yaml.safe_load(value) for name, value in fixed.items()})
