"""Publishing: what a page says, what is refused, and that nothing is left half-done."""

import base64
import contextlib
import copy
import dataclasses
import json
import pickle
import re
import shutil
import statistics
import subprocess

import mistune
import nbformat
import pytest
from bs4 import BeautifulSoup
from conftest import Course
from hostile import (
    HOSTILE,
    PARAMETERS,
    PIXEL,
    Bomb,
    Session,
    anything,
    few,
    live,
    outputs_with,
    places,
    replaced,
    small_notebook,
)
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_output

from common.parameters import ParameterError, read_schema
from common.record import MIME, record_line
from course import notebooks, publish
from course.evidence import outputs_of
from course.notebooks import PublishError, find_cell
from course.page import _command
from course.sessions import find_session


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A course with a toy session and its two executed seeds: the accuracy is 0.5 + seed / 10."""
    course = Course(tmp_path_factory.mktemp("published"))
    course.keep_sessions("s06_under_10k")
    course.add_session("s99_test", "accuracy = 0.5 + seed / 10\nprint('\\n'.join(map(str, range(30))))")
    assert course("index").returncode == 0
    for seed in (0, 1):
        process = course("run", "s99", "--seed", seed)
        assert process.returncode == 0, process.stderr_text
    return course


@pytest.fixture
def mine(executed, tmp_path):
    """A copy of that course, to be damaged."""
    return Course(tmp_path / "course", executed)


def runs_of(course):
    return sorted((course.root / "runs" / "full" / "s99_test").glob("*.ipynb"))


def page(course):
    return course.root / "sessions" / "s99_test"


def published(course):
    """The content of each published file."""
    return {path: path.read_bytes() for path in page(course).rglob("*") if path.is_file()}


def change(path, edit):
    """Edit a notebook with a function."""
    notebook = nbformat.read(path, 4)
    edit(notebook)
    nbformat.write(notebook, path)


def change_record(path, edit):
    """Edit a record as a forger who knows about the checksum would."""

    def edit_record(notebook):
        data = notebook.cells[-1].outputs[0].data
        edit(data[MIME])
        data["text/plain"] = record_line(data[MIME]) if {"metrics", "session"} <= set(data[MIME]) else ""

    change(path, edit_record)


def show_the_numbers(notebook):
    """Print the accuracies of a changed record, as if they had been reached."""
    record = notebook.cells[-1].outputs[0].data[MIME]
    accuracies = [part[name] for part in record["metrics"]["parts"] for name in part if name.endswith("_accuracy")]
    notebook.cells[-2].outputs[0].text = "".join(f"{accuracy:.2%}\n" for accuracy in accuracies)
    record["outputs_sha256"] = outputs_of(notebook).sha256()
    renew_checksum(notebook)


def set_target(notebook, target):
    cell = find_cell(notebook, "parameters")
    cell.source = cell.source.replace("target = 0.5 ", f"target = {target} ")


def test_an_altered_record_is_refused(mine):
    """One digit is altered; if the checksum is forged too, the rest of the notebook gives it away."""

    def alter(notebook):
        notebook.cells[-1].outputs[0].data[MIME]["metrics"]["test_accuracy"] += 0.001

    original = runs_of(mine)[0].read_text()
    change(runs_of(mine)[0], alter)
    process = mine("publish", *runs_of(mine))
    assert process.returncode == 1
    assert "A-seed-0.ipynb: the record was changed after the run: its checksum does not match." in process.stderr_text
    runs_of(mine)[0].write_text(original)
    for path in runs_of(mine):
        change_record(path, lambda record: record["params"].update(target=0.4))
    process = mine("publish", *runs_of(mine))
    assert process.returncode == 1
    assert "A-seed-0.ipynb: the record has other parameters than the notebook." in process.stderr_text
    assert not (page(mine) / "README.md").exists()


def test_a_record_saved_by_colab_is_the_same(mine):
    """JavaScript writes 1.0 as 1."""
    change_record(runs_of(mine)[0], lambda record: record["seconds"].update(data=2.0))
    for path in runs_of(mine):
        path.write_text(path.read_text().replace("2.0", "2"))
    assert '"data": 2,' in runs_of(mine)[0].read_text()
    assert mine("publish", *runs_of(mine)).returncode == 0


def test_a_page_shows_mean_and_spread_over_the_seeds(mine):
    process = mine("publish", *runs_of(mine))
    assert process.returncode == 0, process.stderr_text
    readme = (page(mine) / "README.md").read_text()
    mean, sd = statistics.mean([0.5, 0.6]), statistics.stdev([0.5, 0.6])
    assert f"| A | {100 * mean:.2f} ± {100 * sd:.2f} % (n = 2) | 50.00 % to 60.00 % | 50.00 % | 2 of 2 | 6 |" in readme
    assert "target 50.00 %, reached)" in readme
    assert "<details><summary>30 lines of output</summary>" in readme
    records = json.loads((page(mine) / "results.json").read_text())
    assert [record["seed"] for record in records] == [0, 1]
    assert records[0]["source_sha256"] == notebooks.source_digest(notebooks.read_notebook(page(mine) / "session.ipynb"))
    weights = (page(mine) / "weights.safetensors").read_bytes()
    assert weights == runs_of(mine)[0].with_suffix(".safetensors").read_bytes()
    assert "papermill" not in (page(mine) / "executed.ipynb").read_text()
    assert "55.00 ± 7.07 % (n = 2)" in (mine.root / "README.md").read_text()
    lines = mine("list").stdout_text.splitlines()
    assert lines[-1].split()[:6] == ["s99_test", "A", "6", "55.00", "±", "7.07"]
    assert {line.index("sessions/") for line in lines[1:]} == {lines[0].index("where")}


def test_named_parts_are_groups_and_their_differences_are_tested(mine):
    def split(record):
        better = {"part": "better", "test_accuracy": 0.9 + record["seed"] / 100, "sum_accuracy": 0.8, "parameters": 6}
        worse = {"part": "worse", "test_accuracy": 0.5 + record["seed"] / 100, "sum_accuracy": 0.8, "parameters": 5}
        record["metrics"] = {**better, "parts": [worse, better]}
        record["history"][-1]["test_accuracy"] = better["test_accuracy"]

    for path in runs_of(mine):
        change_record(path, split)
        change(path, show_the_numbers)
    description = page(mine) / "session.yaml"
    description.write_text(description.read_text().replace("headline: A", "headline: better"))
    assert mine("publish", *runs_of(mine)).returncode == 0
    readme = (page(mine) / "README.md").read_text()
    assert "| worse | 50.50 ± 0.71 % (n = 2) | 50.00 % to 51.00 % | 50.00 % | 2 of 2 | 80.00 ± 0.00 % | 5 |" in readme
    assert "| worse → better | +40.00 points" in readme
    row = next(line for line in readme.splitlines() if line.startswith("| worse → better"))
    test_accuracy, sum_accuracy = row.split("|")[2:4]
    assert test_accuracy.strip().endswith(": more than the noise between runs")
    assert sum_accuracy.strip() == "the same"


def test_the_lines_of_a_ledger_are_compared_with_their_recipe_only(mine):
    def split(record):
        seconds = record["seconds"]["train"] = 2.0
        recipe = {"part": "A", "test_accuracy": 0.5 + record["seed"] / 100, "parameters": 6, "seconds": seconds}
        cheap = {**recipe, "part": "A, cheap", "test_accuracy": 0.3 + record["seed"] / 100, "seconds": seconds / 2}
        bare = {**recipe, "part": "A, bare", "test_accuracy": 0.4 + record["seed"] / 10, "seconds": 1.5 * seconds}
        record["metrics"] = {**recipe, "parts": [recipe, cheap, bare]}
        record["history"][-1]["test_accuracy"] = recipe["test_accuracy"]

    for path in runs_of(mine):
        change_record(path, split)
        change(path, show_the_numbers)
    process = mine("publish", *runs_of(mine))
    assert process.returncode == 0, process.stderr_text
    rows = {}
    for line in (page(mine) / "README.md").read_text().partition("The ledger:")[2].splitlines():
        if line.startswith("| A"):
            name, points, noise, ratio = (text.strip() for text in line.strip("|").split("|"))
            rows[name] = points.partition(" (")[0], noise, ratio
    assert rows == {"A, cheap": ("-20.00", "yes", "0.50"), "A, bare": ("-5.50", "no", "1.50")}
    assert "Which differences" not in (page(mine) / "README.md").read_text()


def test_a_missed_target_is_shown_with_its_distance(mine):
    for path in runs_of(mine):
        change_record(path, lambda record: record["params"].update(target=0.58))
        change(path, lambda notebook: set_target(notebook, 0.58))
    assert mine("publish", *runs_of(mine)).returncode == 0
    readme = (page(mine) / "README.md").read_text()
    assert "missed by 3 points" in readme
    assert "1 of 2" in readme
    assert "target = 0.58 instead of 0.5" in readme


def test_new_weights_forget_the_verification_of_the_old_ones(mine):
    assert mine("publish", *runs_of(mine)).returncode == 0
    note = {"date": "2026-01-31", "found": ["all right"], "device": "CPU", "versions": {"torch": "2"}}
    (page(mine) / "verified.json").write_text(json.dumps(note))
    assert mine("publish", "--rerender").returncode == 0
    assert "2026-01-31" in (page(mine) / "README.md").read_text()
    assert mine("publish", *runs_of(mine)).returncode == 0
    assert not (page(mine) / "verified.json").exists()
    assert "2026-01-31" not in (page(mine) / "README.md").read_text()


def test_prose_can_change_without_a_new_run(mine):
    mine("publish", *runs_of(mine))
    before = (page(mine) / "README.md").read_text()
    source = page(mine) / "session.ipynb"
    change(source, lambda notebook: notebook.cells[5].update(source="## What was learned\n\nPatience."))
    assert mine("publish", "--rerender").returncode == 0
    after = (page(mine) / "README.md").read_text()
    assert after == before.replace("Nothing.", "Patience.")


def run_other_code(course):
    change(page(course) / "session.ipynb", lambda notebook: notebook.cells[4].update(source="accuracy = 0.9"))


def remove_record(course):
    change(runs_of(course)[1], lambda notebook: notebook.cells[-1].update(outputs=[]))


def alter_accuracy(record):
    record["metrics"]["test_accuracy"] = record["history"][-1]["test_accuracy"] = 0.9


def add_line(notebook, line):
    find_cell(notebook, "parameters").source += f"\n{line}"


def run_again_out_of_order(notebook):
    """After the run, a learner executed the work cell and the record cell again."""
    notebook.cells[-1].execution_count += 2
    notebook.cells[-1].outputs[0].data[MIME]["executed"] += 2
    renew_checksum(notebook)


def add_cell(code, position=-1, tag="show"):
    """A function that puts a cell into a notebook, and numbers it as if it had been executed there."""

    def add(notebook):
        notebook.cells.insert(position, nbformat.v4.new_code_cell(code, id="added", metadata={"tags": [tag]}))
        cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source]
        for number, cell in enumerate(cells, 1):
            cell.execution_count = number
        notebook.cells[-1].outputs[0].data[MIME]["executed"] = len(cells)
        renew_checksum(notebook)

    return add


def renew_checksum(notebook):
    data = notebook.cells[-1].outputs[0].data
    data["text/plain"] = record_line(data[MIME])


def record_of(number, **values):
    """A function that changes the record of the first or second run, as a forger who knows about the checksum would."""
    return lambda course: change_record(runs_of(course)[number], lambda record: record.update(values))


def notebook_of(edit):
    return lambda course: change(runs_of(course)[1], edit)


def swap_history(course):
    """The second run is the first under another seed."""
    first = nbformat.read(runs_of(course)[0], 4)
    record_of(1, **{name: first.cells[-1].outputs[0].data[MIME][name] for name in ("history", "metrics")})(course)

    def swap(notebook):
        notebook.cells[-2] = first.cells[-2]
        notebook.cells[-1].outputs[0].data[MIME]["outputs_sha256"] = outputs_of(notebook).sha256()
        renew_checksum(notebook)

    change(runs_of(course)[1], swap)


def swap_weights(course):
    first = nbformat.read(runs_of(course)[0], 4).cells[-1].outputs[0].data[MIME]
    record_of(1, weights=first["weights"])(course)


def repeat_an_id(course):
    path = runs_of(course)[0]
    notebook = json.loads(path.read_text())  # nbformat would give the cell another id
    notebook["cells"][1]["id"] = notebook["cells"][0]["id"]
    path.write_text(json.dumps(notebook))


REFUSED = [
    (notebook_of(run_again_out_of_order), "not executed from top to bottom in one go: 'record' comes as number 7"),
    (record_of(1, executed=8), "the record was not written by the cell in which it stands"),
    (record_of(1, schema=1), "executed with an older version of the course"),
    (
        notebook_of(lambda notebook: notebook.cells[5].outputs[0].update(text="0\n" * 30)),
        "what the cells printed and showed was changed after the run",
    ),
    (
        notebook_of(lambda notebook: notebook.cells[-1].update(source=notebook.cells[-1].source + "\nx = 1")),
        "its record cell is not that of session.ipynb",
    ),
    (notebook_of(add_cell("accuracy = 0.9")), "the cell 'added' is not in session.ipynb and sets accuracy"),
    (notebook_of(add_cell("run.finish = print")), "the cell 'added' is not in session.ipynb and sets run"),
    (notebook_of(add_cell("from os import *")), "the cell 'added' is not in session.ipynb and sets *"),
    (notebook_of(lambda notebook: add_line(notebook, "x = 1")), "must have lines like name = value only"),
    (notebook_of(lambda notebook: add_line(notebook, "import os")), "must have lines like name = value only"),
    (
        notebook_of(add_cell("import os", 4, "injected-parameters")),
        "'added' must have lines like name = value only",
    ),
    (
        record_of(1, history=[{"epoch": 1, "test_accuracy": 0.9}]),
        "test_accuracy is 0.6, but 0.9 at the end of its history",
    ),
    (record_of(1, metrics={"test_accuracy": 0.6, "parameters": 7}), "the runs of A differ in parameters: 6, 7"),
    (record_of(1, history=[{"epoch": 2, "test_accuracy": 0.6}]), "does not have the epochs 1 to 1"),
    (
        lambda course: change_record(runs_of(course)[1], alter_accuracy),
        "the record says that test_accuracy is 90.00%, but no cell shows it",
    ),
    (swap_history, "variant A, seed 0 and variant A, seed 1 have the same history: one run was given as two"),
    (swap_weights, "variant A, seed 0 and variant A, seed 1 have the same weights: one run was given as two"),
    (run_other_code, "was executed from code other than today's session.ipynb"),
    (remove_record, "has no record: it was not executed to its end"),
    (
        lambda course: change_record(runs_of(course)[1], lambda record: record.update(seed=0)),
        "was given 2 times",
    ),
    (
        lambda course: change_record(runs_of(course)[0], lambda record: record.update(schema=0)),
        "has a malformed record",
    ),
    (
        lambda course: change_record(runs_of(course)[0], lambda record: record.pop("history")),
        "has a malformed record",
    ),
    (
        lambda course: change_record(runs_of(course)[0], lambda record: record.update(profile="quick")),
        "quick profile",
    ),
    (
        lambda course: change_record(runs_of(course)[1], lambda record: record["dataset"].update(sha256="0")),
        "used other data than",
    ),
    (
        lambda course: change_record(runs_of(course)[1], lambda record: record["params"].update(target=0.1)),
        "has other parameters than",
    ),
    (
        lambda course: change_record(runs_of(course)[1], lambda record: record["params"].update(rate=1)),
        "does not have the parameters that session.ipynb has",
    ),
    (
        lambda course: change_record(runs_of(course)[1], lambda record: record.update(session="s06_under_10k")),
        "publish one session at a time",
    ),
    (
        lambda course: change(runs_of(course)[1], lambda notebook: add_line(notebook, "x = 1  # @param {")),
        "A-seed-1.ipynb: This line must have",
    ),
    (repeat_an_id, "2 cells have the id 'title'; give each its own"),
    (lambda course: runs_of(course)[0].write_text("{}"), "is not a readable notebook"),
    (lambda course: runs_of(course)[0].write_text("no json"), "is not a readable notebook"),
    (
        lambda course: runs_of(course)[0].with_suffix(".safetensors").unlink(),
        "safetensors is missing or not the file",
    ),
    (
        lambda course: runs_of(course)[0].with_suffix(".safetensors").write_bytes(b"x"),
        "not the file that A-seed-0",
    ),
]


@pytest.mark.parametrize(("spoil", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_runs_that_do_not_fit_are_refused_and_nothing_is_written(mine, spoil, reason):
    spoil(mine)
    before = sorted(path.name for path in page(mine).iterdir())
    process = mine("publish", *runs_of(mine))
    assert process.returncode == 1
    assert reason in process.stderr_text
    assert "Traceback" not in process.stderr_text
    assert sorted(path.name for path in page(mine).iterdir()) == before


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        (".", "README.md does not belong to a published page of s99_test: choose another folder"),
        ("sessions", "choose a folder outside sessions/"),
        ("sessions/s06_under_10k", "choose a folder outside sessions/"),
    ],
)
def test_a_page_replaces_nothing_else(mine, folder, reason):
    def files():
        return {path: path.read_bytes() for path in mine.root.rglob("*") if path.is_file() and path.name != ".lock"}

    before = files()
    process = mine("publish", *runs_of(mine), "--to", folder)
    assert process.returncode == 1
    assert reason in process.stderr_text
    assert files() == before


def make_page_of_another_session(folder, course):
    for name in ("README.md", "results.json"):
        (folder / name).write_bytes((course.root / "sessions" / "s06_under_10k" / name).read_bytes())


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (
            lambda folder, course: (folder / "results.json").write_text("[]"),
            "results.json does not belong to a published",
        ),
        (
            lambda folder, course: (folder / "results.json").write_text("mine"),
            "results.json does not belong to a published",
        ),
        (lambda folder, course: (folder / "executed.ipynb").write_text("mine"), "executed.ipynb does not belong to"),
        (
            lambda folder, course: (folder / "weights.safetensors").write_text("mine"),
            "weights.safetensors does not belong",
        ),
        (lambda folder, course: (folder / "weights").mkdir(), "weights does not belong to a published page"),
        (lambda folder, course: (folder / "images").symlink_to("/"), "images is a symbolic link"),
        (lambda folder, course: (folder / "README.md").symlink_to("nowhere"), "README.md is a symbolic link"),
        (make_page_of_another_session, "README.md does not belong to a published page of s99_test"),
    ],
)
def test_other_peoples_files_are_neither_replaced_nor_deleted(mine, prepare, reason):
    folder = mine.root / "mine"
    folder.mkdir()
    prepare(folder, mine)
    before = {path: path.is_file() and path.read_bytes() for path in folder.iterdir()}
    process = mine("publish", *runs_of(mine), "--to", "mine")
    assert process.returncode == 1
    assert reason in process.stderr_text
    assert {path: path.is_file() and path.read_bytes() for path in folder.iterdir()} == before


def test_a_page_elsewhere_is_replaced_and_files_beside_it_stay(mine):
    folder = mine.root / "mine"
    for _ in range(2):
        assert mine("publish", *runs_of(mine), "--to", "mine").returncode == 0
        for name in ("images/mine.png", "weights/mine.safetensors", "mine.ipynb"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("mine")
    assert mine("publish", runs_of(mine)[0], "--to", "mine").returncode == 0
    assert (folder / "images" / "mine.png").exists()
    assert [path.name for path in (folder / "weights").iterdir()] == ["mine.safetensors"]


def test_an_empty_name_is_not_the_current_folder(mine):
    process = mine("publish", *runs_of(mine), "--to", "")
    assert process.returncode == 2
    assert "--to: give a name; the current folder is ." in process.stderr_text
    process = mine("compare", "s06:A", "s06:B", "--plot", "")
    assert process.returncode == 2
    assert "--plot: give a name" in process.stderr_text


def test_runs_are_compared_before_they_are_published(executed):
    process = executed("compare", "runs/full/s99_test:A", "s06:B")
    assert process.returncode == 0, process.stderr_text
    assert "runs/full/s99_test:A: mean 55.00 %, 2 runs" in process.stdout_text
    process = executed("compare", "runs/full/s99_test", "s06:B")
    assert process.returncode == 2
    assert "'runs/full/s99_test': runs/full/s99_test has results of A." in process.stderr_text


def test_a_run_that_is_there_twice_is_not_compared(mine):
    path = runs_of(mine)[0]
    shutil.copy(path, path.with_name(f"{path.stem} (1).ipynb"))
    process = mine("compare", "runs/full/s99_test:A", "s06:B")
    assert process.returncode == 2
    assert "has a run twice" in process.stderr_text


def test_changed_comments_and_layout_are_not_changed_code(mine):
    code = "# a comment\naccuracy = (0.5 +\n    seed / 10)\n\nprint('\\n'.join(map(str, range(30))))  # another"
    change(page(mine) / "session.ipynb", lambda notebook: notebook.cells[4].update(source=code))
    assert mine("publish", *runs_of(mine)).returncode == 0


def test_a_cell_that_only_shows_may_differ(mine):
    """A plot may change without new training if it touches nothing that deciding cells use."""
    for path in runs_of(mine):
        change(path, add_cell("for number in range(3):\n    text = f'{accuracy + number}'"))
    assert mine("publish", *runs_of(mine)).returncode == 0


def test_text_in_a_record_stays_inert(mine):
    name = "<script>alert(1)</script> [x](http://bad) | `code` **bold**"
    for path in runs_of(mine):
        change_record(path, lambda record: record["dataset"].update(name=name))
    assert mine("publish", *runs_of(mine)).returncode == 0
    readme = (page(mine) / "README.md").read_text()
    assert "<script" not in readme
    assert "[x](http" not in readme
    assert "**bold**" not in readme
    assert r"\[x\]\(http&#58;//bad\) \| \`code\`" in readme


def test_the_weights_of_every_run_are_published(mine):
    first, other = (path.with_suffix(".safetensors") for path in runs_of(mine))
    assert mine("publish", *runs_of(mine)).returncode == 0
    kept = page(mine) / "weights" / "A-seed-1.safetensors"
    assert kept.read_bytes() == other.read_bytes()
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]
    assert "; of 1 more in [`weights/`](weights)" in (page(mine) / "README.md").read_text()
    subprocess.run(["git", "init", "--quiet", mine.root], check=True)
    assert "weights" not in mine("check").stdout_text
    kept.write_bytes(first.read_bytes())
    assert "weights/A-seed-1.safetensors is not the file that the record names" in mine("check").stdout_text
    kept.rename(kept.with_name("A-seed-2.safetensors"))
    process = mine("check")
    assert "weights/A-seed-1.safetensors should be there" in process.stdout_text
    assert "weights/A-seed-2.safetensors should not be there" in process.stdout_text
    assert mine("publish", *runs_of(mine)).returncode == 0
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]
    other.unlink()
    assert "A-seed-1.safetensors is missing or not the file" in mine("publish", *runs_of(mine)).stderr_text


def test_runs_can_be_added_to_those_that_are_published(mine):
    first, second = runs_of(mine)
    assert "Nothing is published in " in mine("publish", "--add", second).stderr_text
    assert mine("publish", first, second).returncode == 0
    together = published(mine)
    assert mine("publish", first).returncode == 0
    assert published(mine) != together
    first.unlink()
    first.with_suffix(".safetensors").unlink()
    assert mine("publish", "--add", second).returncode == 0
    assert published(mine) == together
    assert "Variant A, seed 1 was given 2 times." in mine("publish", "--add", second).stderr_text


def test_an_added_run_can_be_the_one_that_the_page_shows(mine):
    first, second = runs_of(mine)
    assert mine("publish", first, second).returncode == 0
    together = published(mine)
    assert mine("publish", second).returncode == 0
    assert mine("publish", "--add", first).returncode == 0
    assert published(mine) == together


def test_large_weights_are_not_committed_and_the_page_says_where_they_are(mine):
    mine("publish", *runs_of(mine))
    assert (page(mine) / "weights.safetensors").exists()
    for path in runs_of(mine):
        change_record(path, lambda record: record["weights"].update(bytes=44_700_000))
    assert mine("publish", *runs_of(mine)).returncode == 0
    assert not (page(mine) / "weights.safetensors").exists()
    readme = (page(mine) / "README.md").read_text()
    assert "too large to be committed (45 MB)" in readme
    assert "`runs/full/s99_test/A-seed-0.safetensors`" in readme
    before = readme
    assert mine("publish", "--rerender").returncode == 0
    assert (page(mine) / "README.md").read_text() == before


def test_a_run_that_was_resumed_took_longer_than_its_trainings(mine):
    assert mine("publish", *runs_of(mine)).returncode == 0
    assert "min or more" not in (page(mine) / "README.md").read_text()
    for path in runs_of(mine):
        change_record(path, lambda record: record["seconds"].update(train=7200))
    assert mine("publish", *runs_of(mine)).returncode == 0
    assert "a full run 120 min or more" in (page(mine) / "README.md").read_text()


def test_seeds_are_counted_or_listed():
    session = dataclasses.replace(find_session("s06"), headline="B", seeds={"all": [0], "one": [1, 2], "B": 2})
    assert session.runs() == [("B", 0), ("B", 1), ("all", 0), ("one", 1), ("one", 2)]


def test_a_page_is_replaced_as_a_whole(mine):
    (page(mine) / "images").mkdir()
    (page(mine) / "images" / "old.png").write_bytes(b"old")
    assert mine("publish", *runs_of(mine)).returncode == 0
    assert not (page(mine) / "images" / "old.png").exists()
    assert not list(page(mine).rglob("*.unfinished"))


# ---------------------------------------------------------------------------------------------------------------
# Hostile input: any text and any value, in a record and in a notebook


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    session = Session(tmp_path_factory.mktemp("hostile"))
    session.publish(small_notebook(record=session.record))
    return session


def test_the_renderer_recognises_active_content():
    assert {tag for tag, *_ in live("\n\n".join(HOSTILE))} >= {"script", "img", "iframe", "a"}


@pytest.mark.parametrize("text", HOSTILE)
def test_text_in_a_notebook_stays_inert(session, text):
    """In the record, in a parameter, and in every kind of output."""

    def page_of(text):
        parameters = PARAMETERS.replace('dataset = "mnist"', f"dataset = {text!r}")
        record = copy.deepcopy(session.record)
        record |= {"device": text, "versions": {"torch": text, text: "1"}}
        record["dataset"]["name"] = record["params"]["dataset"] = text
        accuracy = record["metrics"]["test_accuracy"]
        record["metrics"]["parts"] = [{"part": part, "test_accuracy": accuracy} for part in (text, text, "b", "b")]
        return session.publish(small_notebook(parameters, outputs_with(text), record))

    page, plain = page_of(text), page_of("text")
    assert live(page) == live(plain)
    for word in re.findall("[a-z]{3,}", text):
        assert page.count(word) > plain.count(word), f"{word} is lost"


@few(60)
@given(st.data())
def test_a_record_with_anything_in_it_is_refused_or_shown_as_text(session, data):
    place = data.draw(st.sampled_from([place for place in places(session.record) if "history" not in place][1:]))
    record = replaced(session.record, place, data.draw(anything))
    notebook = small_notebook(record=session.record)
    notebook.cells[-1].outputs[0].data[MIME] = record
    with contextlib.suppress(Exception):  # a forger who knows of the checksum
        notebook.cells[-1].outputs[0].data["text/plain"] = record_line(record)
    try:
        readme = session.publish(notebook)
    except (PublishError, ParameterError):
        return
    assert live(readme) <= live(session.publish(small_notebook(record=session.record)))


@few(25)
@given(st.data())
def test_a_notebook_with_anything_in_it_is_refused_or_shown_as_text(session, data):
    notebook = json.loads(nbformat.writes(small_notebook(outputs=outputs_with("text"), record=session.record)))
    expected = live(session.publish(notebook))
    place = data.draw(st.sampled_from([place for place in places(notebook) if MIME not in place]))
    with contextlib.suppress(PublishError, ParameterError):
        assert live(session.publish(replaced(notebook, place, data.draw(anything)))) <= expected


@few(60)
@given(st.binary(max_size=50) | anything.map(lambda value: json.dumps(value).encode()))
def test_files_with_arbitrary_bytes_are_named(session, content):
    """Notebook, results and note of the verification."""
    path = session.root / "runs" / "results.json"
    path.write_bytes(content)
    path.with_name("verified.json").write_bytes(content)
    with pytest.raises(PublishError, match="not a readable notebook"):
        notebooks.read_notebook(path)
    for read, form in ((notebooks.results, list), (notebooks.verification, dict)):
        try:
            assert isinstance(read(path.parent), form)
        except PublishError as error:
            assert ".json" in str(error)
    path.unlink()
    path.with_name("verified.json").unlink()


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        ("../../outside.png", PIXEL, "has the name"),
        ("x](javascript:alert(1)).png", PIXEL, "has the name"),
        ("a\0b", PIXEL, "has the name"),
        ("x.png", "abcde", "cannot be written"),
    ],
)
def test_an_image_of_a_notebook_with_a_bad_name_or_content_is_refused(session, name, image, message):
    output = new_output("display_data", data={"image/png": image}, metadata={"filename": name})
    with pytest.raises(PublishError, match=message):
        session.publish(small_notebook(outputs=[output], record=session.record))


def test_an_image_that_is_not_a_png_is_refused(session):
    for content in (b"<script>alert(1)</script>", base64.b64decode(PIXEL)[:-20], b"GIF89a"):
        data = {"image/png": base64.b64encode(content).decode()}
        output = new_output("display_data", data=data, metadata={"filename": "x.png"})
        with pytest.raises(PublishError, match=r"'x\.png' is not a PNG"):
            session.publish(small_notebook(outputs=[output], record=session.record))


@pytest.mark.parametrize(
    "text", ["\u202egnp", "a\u2066b", "a\u200eb", "a\x07b", "a\x1b]8;;http://evil.example\x07b", "a\x85b"]
)
def test_invisible_characters_are_refused(session, text):
    """Marks that turn the direction of text, and characters that control a terminal."""
    output = new_output("display_data", data={"text/markdown": text, "text/plain": "x"})
    with pytest.raises(PublishError, match="which is invisible: take it out"):
        session.publish(small_notebook(outputs=[output], record=session.record))


@pytest.mark.parametrize(
    "text",
    [
        "> **Result:** **99.99 %**",
        "  > **Result:** **99.99 %**",
        "- > **Result:** **99.99 %**",
        "1. # Result",
        "## Result",
        "Result\n===",
        "Result\n---",
    ],
)
def test_an_output_cannot_imitate_the_head_of_the_page(session, text):
    def shapes(text):
        output = new_output("display_data", data={"text/markdown": f"a\n\n{text}\n\nb", "text/plain": "x"})
        readme = session.publish(small_notebook(outputs=[output], record=session.record))
        html = mistune.create_markdown(plugins=["table"])(readme)
        return [tag.name for tag in BeautifulSoup(html, "html.parser").find_all(re.compile("blockquote|h[1-6]|hr"))]

    assert shapes(text) == shapes("Result")
    assert len(shapes(text)) >= 3


def test_a_page_that_is_too_large_is_refused(session):
    output = new_output("stream", name="stdout", text=11 * "x" * 1_000_000)
    with pytest.raises(PublishError, match="The page would have 11 MB with its images, at most 10"):
        session.publish(small_notebook(outputs=[output], record=session.record))


def test_duplicate_image_names_and_failed_cells_are_refused(session):
    image = new_output("display_data", data={"image/png": PIXEL}, metadata={"filename": "x.png"})
    with pytest.raises(PublishError, match="unique"):
        session.publish(small_notebook(outputs=[image, image], record=session.record))
    error = new_output("error", ename="E", evalue="<script>", traceback=["\n\n<script>"])
    with pytest.raises(PublishError, match="a cell ended with an error"):
        session.publish(small_notebook(outputs=[error], record=session.record))


def test_code_that_is_not_python_is_refused(session):
    notebook = small_notebook(record=session.record)
    notebook.cells[2].source = "%cd /\n!touch outside"
    with pytest.raises(PublishError, match="The cell 'work' is not plain Python"):
        session.publish(notebook)


def test_a_value_that_the_source_forbids_is_refused(session):
    """The parameters cell of an executed notebook may have been changed along with the record."""
    record = replaced(session.record, ("params", "seed"), -1) | {"seed": -1}
    with pytest.raises(PublishError, match="seed must be from 0"):
        session.publish(small_notebook(PARAMETERS.replace("seed = 0", "seed = -1"), record=record))


def test_a_record_that_contradicts_its_own_parameters_is_refused(session):
    with pytest.raises(PublishError, match="the record has other parameters than the notebook"):
        session.publish(small_notebook(record=session.record | {"seed": 7}))


def test_the_command_that_repeats_a_run_is_a_single_command():
    """Readers copy it into a shell."""
    params = {"dataset": "folder:x; touch 'outside' $(touch outside)"}
    record = {"session": "s99_test", "profile": "full", "seed": 0, "device": "GPU", "params": params}
    found = _command(record, read_schema(PARAMETERS))
    assert found == """course run s99_test -p dataset 'folder:x; touch '"'"'outside'"'"' $(touch outside)' --seed 0"""


def test_runs_that_measure_different_things_are_refused(session):
    whole = {"test_accuracy": session.record["metrics"]["test_accuracy"]}
    parts = [{**whole, "sum_accuracy": whole["test_accuracy"]}, whole]
    record = replaced(session.record, ("metrics",), {**session.record["metrics"], "parts": parts})
    with pytest.raises(PublishError, match="do not all measure the same accuracies"):
        session.publish(small_notebook(record=record))


def test_a_pickle_is_not_published_as_weights(session):
    path = session.executed.with_suffix(".safetensors")
    good = path.read_bytes()
    path.write_bytes(pickle.dumps(Bomb(session.root / "outside")))
    record = replaced(session.record, ("weights", "sha256"), publish.hash_file(path))
    with pytest.raises(PublishError, match="is not a safetensors file"):
        session.publish(small_notebook(record=record))
    path.write_bytes(good)
