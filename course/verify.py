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

# How the network of each session's weights is made from the parameters of its run.
NETWORKS = {
    "s02_digit_sum": lambda params: model.DigitSum(),
    "s03_first_convnet": lambda params: model.first_convnet(),
    "s04_three_iterations": lambda params: model.global_average_pooling(),
    "s05_grad_cam": lambda params: model.zero_one_or_neither(params["classes"]),
    "s06_under_10k": lambda params: model.under_10k(),
    "s07_under_20k": lambda params: model.under_20k(),
    "s10_resnet_lr_finder": lambda params: model.resnet18(params["width"]),
}
ELSEWHERE = 3  # so many images may be judged differently on another device or with other threads


def verify(folder, device="auto", note=False):
    """Evaluate the weights in a session's folder on the whole test set; returns what was found, as a sentence.

    With `note` it is written to verified.json there, and to the page. Raises PublishError where the weights do not do
    what results.json says, or are not there, and DataError where the data set is not there.
    """
    session, path = folder.name, folder / "weights.safetensors"
    if not path.exists():
        raise PublishError(f"{session}: no weights are committed; a run of the session writes them.")
    records = results(folder)
    if not records:
        raise PublishError(f"{session}: there is no record of the run that wrote weights.safetensors.")
    record = records[0]
    device = utils.choose_device(device)
    dataset = data.load(record["params"]["dataset"])
    if dataset.sha256 != record["dataset"]["sha256"]:
        raise PublishError(f"{session}: the data set {dataset.name} is not the one of the record.")
    network = NETWORKS[session](record["params"])
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:  # no tensors; others than this network has
        why = first_line(" ".join(str(error).split()))
        raise PublishError(f"{session}: weights.safetensors is not that of this network: {why}") from None
    found = count_right(session, record["params"], network.to(device), dataset, device)
    here = utils.device_name(device), torch.get_num_threads()
    allowed = 0 if here == (record["device"], record["threads"]) else ELSEWHERE
    last, lines = record["history"][-1], []
    for name, (right, count) in found.items():
        expected = round(last[name] * count)
        lines.append(f"{name.replace('_', ' ')} {right} of {count}, in the record {expected}")
        if abs(right - expected) > allowed:
            raise PublishError(f"{session}: {lines[-1]}: the weights do not do what the record says.")
    if note:
        verified = {"date": date.today().isoformat(), "found": lines, "device": here[0], "versions": utils.versions()}
        verified["common_sha256"] = lesson_hashes()
        write_files(folder, {"verified.json": json.dumps(verified, indent=1) + "\n"})
        rerender(session)
    return f"{session}: {'; '.join(lines)}" + (f" (on another device up to {allowed} may differ)" if allowed else "")


def count_right(session, params, network, dataset, device):
    """How many test images the network judges rightly, of how many: {name as in the history: (right, count)}."""
    options = {"mean": dataset.mean, "std": dataset.std, "device": device}
    if session == "s02_digit_sum":
        loader = data.DigitSumLoader(dataset.test, 1000, seed=params["seed"], **options)
        outputs, (labels, sums) = train.predict(network, loader), loader.targets.unbind(dim=1)
        right = {
            "test_accuracy": train.accuracy(outputs[:, :10], labels),
            "test_sum_accuracy": train.accuracy(outputs[:, 10:], sums),
        }
    else:
        if session == "s05_grad_cam":
            dataset = data.zero_one_or_neither(dataset, params["classes"])
        loader = data.Loader(dataset.test, 1000, **options)
        right = {"test_accuracy": train.accuracy(train.predict(network, loader), loader.targets)}
    return {name: (int(answers.sum()), len(answers)) for name, answers in right.items()}
