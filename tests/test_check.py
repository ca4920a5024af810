"""`course check` finds what does not fit together; `course verify` and `course compare`."""

import json
import pickle
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
import torch
from conftest import ROOT, Course
from hostile import Bomb
from safetensors.torch import load_file, save_file

from common import data, model, train
from common.utils import versions
from course import notebooks, verify
from course.check import check
from course.notebooks import PublishError, find_cell, results
from course.sessions import all_sessions, read_session

SESSION = "s06_under_10k"
HOME = "/" + "home/me"  # in two parts, because this file is looked at too


def test_everything_committed_fits_together():
    assert list(check()) == []


def test_the_readmes_tell_the_speed_that_was_measured(own_course):
    """Their sections and the plot are made from benchmarks/speed.json and not edited by hand."""
    readmes = [own_course.root / "README.md", own_course.root / "benchmarks" / "README.md"]
    plot = own_course.root / "images" / "speed.png"
    texts = [readme.read_text(encoding="utf-8") for readme in readmes]
    for readme, text in zip(readmes, texts, strict=True):
        altered = re.sub(r"(<!-- speed -->).*(?=<!-- /speed -->)", r"\1\n", text, flags=re.DOTALL)
        assert altered != text
        readme.write_text(altered, encoding="utf-8")
    plot.parent.mkdir()
    command = [sys.executable, "benchmarks/speed.py", "page"]
    subprocess.run(command, cwd=own_course.root, env=own_course.environment(), check=True)
    assert [readme.read_text(encoding="utf-8") for readme in readmes] == texts
    assert plot.exists()


@pytest.fixture(scope="module")
def one_session(tmp_path_factory):
    """A copy of the course with one session, as a git checkout."""
    course = Course(tmp_path_factory.mktemp("one"))
    course.keep_sessions(SESSION)
    assert course("publish", "--rerender").returncode == 0  # its page names no neighbours now
    subprocess.run(["git", "init", "--quiet", course.root], check=True)
    return course


@pytest.fixture
def mine(one_session, tmp_path):
    """A copy of that, to be damaged."""
    return Course(tmp_path / "course", one_session)


def replace(name, old, new):
    def edit(root):
        path = root / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return edit


def drop_a_result(root):
    path = root / "sessions" / SESSION / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:-1]))


def change_the_code(root):
    path = root / "sessions" / SESSION / "session.ipynb"
    notebook = nbformat.read(path, 4)
    next(cell for cell in notebook.cells if cell.id == "training").source += "\nx = 1"
    nbformat.write(notebook, path)


def change_the_bootstrap(root):
    path = root / "sessions" / SESSION / "session.ipynb"
    notebook = nbformat.read(path, 4)
    find_cell(notebook, "bootstrap").source += "\nimport os"
    nbformat.write(notebook, path)


FAULTS = [
    (replace(f"sessions/{SESSION}/README.md", "99.5", "99.6"), "README.md is not what executed.ipynb"),
    (replace(f"sessions/{SESSION}/results.json", '"test_accuracy": 0.995', '"test_accuracy": 0.996'), "results.json"),
    (drop_a_result, "there is no result for variant A, seed 2"),
    (change_the_code, "the deciding code has changed since its results"),
    (change_the_bootstrap, "session.ipynb: not what `course index` would write"),
    (replace("README.md", "| 9,404 |", "| 9,405 |"), "README.md: not what `course index` would write"),
    (
        replace("README.md", "## Use it", f"## Use it in {HOME}/course"),
        "README.md names a folder on somebody's machine",
    ),
    (lambda root: (root / "sessions" / SESSION / "weights.safetensors").write_bytes(b""), "weights.safetensors is not"),
    (lambda root: next((root / "sessions" / SESSION / "images").iterdir()).unlink(), "is not what executed.ipynb"),
    (lambda root: (root / "sessions" / SESSION / "images" / "x.png").touch(), "does not show images/x.png"),
]


@pytest.mark.parametrize(("spoil", "message"), FAULTS)
def test_each_inconsistency_is_found(mine, spoil, message):
    spoil(mine.root)
    process = mine("check")
    assert process.returncode == 1
    assert message in process.stdout_text


def test_an_altered_output_is_found_even_after_the_page_was_made_again(mine):
    path = mine.root / "sessions" / SESSION / "executed.ipynb"
    text = path.read_text(encoding="utf-8")
    assert "Epoch  1 " in text
    path.write_text(text.replace("Epoch  1 ", "Epoch  7 ", 1), encoding="utf-8")
    assert mine("publish", "--rerender").returncode == 0
    process = mine("check")
    assert process.returncode == 1
    assert "what the cells printed and showed was changed after the run" in process.stdout_text


def test_verify_says_which_session_has_no_weights(mine):
    (mine.root / "sessions" / SESSION / "weights.safetensors").unlink()
    process = mine("verify")
    assert process.returncode == 1
    assert f"{SESSION}: no weights are committed" in process.stderr_text


def test_a_consistent_course_has_no_problems(mine):
    process = mine("check")
    assert process.returncode == 0, process.stdout_text
    assert "everything fits together" in process.stdout_text


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits):
    """The folder of a session whose weights were trained on the digits, with its record."""
    folder = tmp_path_factory.mktemp("verify") / SESSION
    folder.mkdir()
    shutil.copy(ROOT / "sessions" / SESSION / "session.yaml", folder)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = model.under_10k()
    train_loader, test_loader = data.loaders(digits, 32)
    optimizer, schedule = train.one_cycle(network, train_loader, 0.1, 2)
    options = {"epochs": 2, "schedule": schedule, "log": lambda line: None}
    history = train.fit(network, train_loader, test_loader, optimizer, **options)
    save_file(network.state_dict(), folder / "weights.safetensors")
    record = results(ROOT / "sessions" / SESSION)[0]
    record["params"] |= {"dataset": "digits", "epochs": 2}
    record["dataset"] = {"name": "digits", "train": 1437, "test": 360, "sha256": digits.sha256}
    record["metrics"]["test_accuracy"] = history["test_accuracy"][-1]
    record |= {"history": history.epochs, "versions": versions(), "device": "CPU", "threads": 1}
    (folder / "results.json").write_text(json.dumps([record]))
    return folder


def write_accuracy(folder, accuracy, **values):
    """Put another accuracy into the record, wherever it has one."""
    record = json.loads((folder / "results.json").read_text())[0]
    record["history"][-1]["test_accuracy"] = record["metrics"]["test_accuracy"] = accuracy
    (folder / "results.json").write_text(json.dumps([record | values]))


def test_weights_are_verified(trained):
    record = json.loads((trained / "results.json").read_text())[0]
    right = round(record["history"][-1]["test_accuracy"] * 360)
    assert f"test accuracy {right} of 360, in the record {right}" in verify.verify(read_session(trained), "cpu")


def test_weights_that_contradict_the_record_are_found(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / SESSION)
    weights = load_file(folder / "weights.safetensors")
    last = list(weights)[-1]
    save_file({**weights, last: weights[last].flip(0)}, folder / "weights.safetensors")
    with pytest.raises(PublishError, match="the weights do not do what the record says"):
        verify.verify(read_session(folder), "cpu")


def test_on_another_device_three_images_may_differ(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / SESSION)
    record = json.loads((folder / "results.json").read_text())[0]
    exact = record["history"][-1]["test_accuracy"]
    for device, differ, agrees in (("CPU", 1, False), ("a GPU", 3, True), ("a GPU", 4, False)):
        write_accuracy(folder, exact - differ / 360, device=device)
        if agrees:
            assert "on another device, up to 3 may differ" in verify.verify(read_session(folder), "cpu")
        else:
            with pytest.raises(PublishError, match="the weights do not do"):
                verify.verify(read_session(folder), "cpu")


def test_a_note_is_not_written_about_runs_that_were_published_in_the_meantime(trained, tmp_path, monkeypatch):
    folder = shutil.copytree(trained, tmp_path / SESSION)
    verify_run = verify.verify_run

    def publish_meanwhile(*arguments):
        found = verify_run(*arguments)
        write_accuracy(folder, 0.5)
        return found

    monkeypatch.setattr(verify, "verify_run", publish_meanwhile)
    with pytest.raises(PublishError, match="other runs were published in the meantime"):
        verify.verify(read_session(folder), "cpu", note=True)
    assert not (folder / "verified.json").exists()


def test_the_number_that_the_page_shows_is_verified(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / SESSION)
    record = json.loads((folder / "results.json").read_text())[0]
    reached = record["metrics"]["test_accuracy"]
    record["metrics"]["test_accuracy"] = 0.9999
    (folder / "results.json").write_text(json.dumps([record]))
    with pytest.raises(PublishError, match=r"test_accuracy is 0\.9999, but 0\..* at the end of its history"):
        verify.verify(read_session(folder), "cpu")
    write_accuracy(folder, 0.9999)
    with pytest.raises(PublishError, match="in the record 360: the weights do not do what the record says"):
        verify.verify(read_session(folder), "cpu")
    write_accuracy(folder, reached, metrics={**record["metrics"], "test_accuracy": reached, "parameters": 9405})
    with pytest.raises(PublishError, match="has 9,404 parameters, but the record says otherwise"):
        verify.verify(read_session(folder), "cpu")


def test_the_weights_of_every_run_are_verified(trained, tmp_path):
    """The others are in weights/. Even three images classified differently are found on the same machine."""
    folder = shutil.copytree(trained, tmp_path / SESSION)
    record = json.loads((folder / "results.json").read_text())[0]
    first = load_file(folder / "weights.safetensors")
    generator = torch.Generator().manual_seed(1)
    changed = {
        name: tensor + 0.02 * torch.randn(tensor.shape, generator=generator) if tensor.dim() == 4 else tensor
        for name, tensor in first.items()
    }
    (folder / "weights").mkdir()
    save_file(changed, folder / "weights" / "B-seed-1.safetensors")
    network = verify.make_network(read_session(folder), record["params"])
    network.load_state_dict(changed)
    row = train.evaluate(network, data.loaders(data.load("digits"), 32)[1])
    assert row["accuracy"] != record["metrics"]["test_accuracy"], "both get the same number right: this shows nothing"
    other = json.loads(json.dumps(record)) | {"seed": 1, "schema": 2, "executed": 1, "outputs_sha256": "0"}
    other["params"]["seed"], other["metrics"]["test_accuracy"] = 1, row["accuracy"]
    other["history"][-1] |= {"test_accuracy": row["accuracy"], "test_loss": row["loss"]}
    other["weights"]["sha256"] = "1"
    (folder / "results.json").write_text(json.dumps([record, other]))
    found = verify.verify(read_session(folder), "cpu").splitlines()
    assert len(found) == 2
    right = round(row["accuracy"] * 360)
    assert found[1] == f"{SESSION}: variant B, seed 1: test accuracy {right} of 360, in the record {right}"
    save_file(first, folder / "weights" / "B-seed-1.safetensors")
    with pytest.raises(
        PublishError, match=r"weights/B-seed-1\.safetensors: test accuracy .* do not do what the record"
    ):
        verify.verify(read_session(folder), "cpu")
    (folder / "weights" / "B-seed-1.safetensors").unlink()
    with pytest.raises(PublishError, match=r"weights/B-seed-1\.safetensors"):
        verify.verify(read_session(folder), "cpu")


def test_weights_in_half_precision_are_verified_as_stored(trained, tmp_path):
    """The record says how many images they get right, and how many answers differ from the network's before."""
    folder = shutil.copytree(trained, tmp_path / SESSION)
    record = json.loads((folder / "results.json").read_text())[0]
    rough = {
        name: (tensor * 16).round() / 16 if tensor.is_floating_point() else tensor
        for name, tensor in load_file(folder / "weights.safetensors").items()
    }
    save_file(
        {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in rough.items()},
        folder / "weights.safetensors",
    )
    network = verify.make_network(read_session(folder), record["params"])
    network.load_state_dict(rough)
    right = round(360 * train.evaluate(network, data.loaders(data.load("digits"), 32)[1])["accuracy"])
    before = round(360 * record["metrics"]["test_accuracy"])
    assert right != before
    for stored, message in (
        ({"right": right, "changed": abs(right - before) + 2}, None),
        ({"right": right + 1, "changed": abs(right - before) + 2}, "do not do what the record says"),
        ({"right": right, "changed": abs(right - before) - 1}, "changed answers do not explain"),
    ):
        record["metrics"]["stored"] = stored
        (folder / "results.json").write_text(json.dumps([record]))
        if message:
            with pytest.raises(PublishError, match=message):
                verify.verify(read_session(folder), "cpu")
        else:
            assert f"test accuracy {right} of 360, in the record {right}" in verify.verify(read_session(folder), "cpu")


def test_verifying_needs_the_same_data_and_the_weights(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / SESSION)
    record = json.loads((folder / "results.json").read_text())[0]
    record["dataset"]["sha256"] = "0"
    (folder / "results.json").write_text(json.dumps([record]))
    with pytest.raises(PublishError, match="the data set digits is not that of the record"):
        verify.verify(read_session(folder))
    (folder / "weights.safetensors").unlink()
    with pytest.raises(PublishError, match="no weights are committed"):
        verify.verify(read_session(folder))


def test_every_session_with_weights_can_be_verified():
    """Its session.yaml names a network that fits the weights, and calls it with parameters of its runs."""
    with_weights = [session for session in all_sessions() if (session.folder / "weights.safetensors").exists()]
    assert with_weights
    for session in with_weights:
        network = verify.make_network(session, results(session.folder)[0]["params"])
        verify.load_weights(network, session.folder / "weights.safetensors")


def test_two_sets_of_runs_are_compared(course, tmp_path):
    process = course("compare", "s06:A", "s06:B", "--plot", tmp_path / "plot.png")
    assert process.returncode == 0, process.stderr_text
    assert "s06:A → s06:B: +0.1" in process.stdout_text
    assert "more than the noise between runs" in process.stdout_text
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    process = course("compare", "s06:A", "s06:C")
    assert process.returncode == 2
    assert "'s06:C': s06_under_10k has results of B, A." in process.stderr_text
    process = course("compare", "s10:rate by train loss", "s10:OneCycle")
    assert process.returncode == 2
    assert "One run says nothing" in process.stderr_text


# ---------------------------------------------------------------------------------------------------------------
# Hostile input: malformed weights


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """The committed weights of session 6, in a folder of their own; no data are needed."""
    source = ROOT / "sessions" / "s06_under_10k"
    target = tmp_path / "s06_under_10k"
    target.mkdir()
    for name in ("session.yaml", "results.json", "weights.safetensors"):
        (target / name).write_bytes((source / name).read_bytes())
    dataset = type("Dataset", (), {"sha256": notebooks.results(source)[0]["dataset"]["sha256"]})
    monkeypatch.setattr(data, "load", lambda name: dataset)
    return target / "weights.safetensors"


def spoil_shape(path):
    tensors = load_file(path)
    save_file({name: tensor[None] for name, tensor in tensors.items()}, path)


def drop_a_layer(path):
    tensors = load_file(path)
    tensors.pop(next(name for name in tensors if tensors[name].dim() == 4))
    save_file(tensors, path)


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_shape,
        drop_a_layer,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * 64),  # a header of 18 million terabytes
        lambda path: path.write_bytes(pickle.dumps(Bomb(path.parent / "outside"))),
        lambda path: torch.save(Bomb(path.parent / "outside"), path),
    ],
)
def test_malformed_weights_are_refused_and_run_no_code(weights, spoil):
    spoil(weights)
    with pytest.raises(PublishError, match="does not fit this network") as error:
        verify.verify(read_session(weights.parent), "cpu")
    assert "\n" not in str(error.value)
    assert not (weights.parent / "outside").exists()


def test_weights_without_a_record_are_not_verified(weights):
    (weights.parent / "results.json").write_text("[]")
    with pytest.raises(PublishError, match="there is no record of the run"):
        verify.verify(read_session(weights.parent), "cpu")
