"""The sessions as they are committed: notebooks in order, pages up to date, and each notebook runs by itself."""

import ast
import functools
import json
import os
import re
import subprocess
import sys

import nbformat
import pytest
import yaml
from conftest import ROOT
from references import FOLDER, clean

from common import notebooks
from common.cli import profile_parameters
from common.record import WHERE, check_parameters

SOURCES = notebooks.sessions()
PUBLISHED = [path for path in SOURCES if (path.parent / "results.json").exists()]
each_session = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.parent.name)
each_published = pytest.mark.parametrize("source", PUBLISHED, ids=lambda path: path.parent.name)


def read(path):
    return nbformat.read(path, 4)


@each_session
def test_a_source_is_without_outputs_and_complete(source):
    notebook = read(source)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) == {"course", "kernelspec", "language_info"}
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells)
    for tag in ("bootstrap", "parameters", "record"):
        notebooks.find_cell(notebook, tag)
    assert notebooks.tags(notebook.cells[-1]) == {"record"}
    assert max(len(cell.source.splitlines()) for cell in notebook.cells) <= 40
    headings = [line for cell in notebook.cells for line in cell.source.splitlines() if line.startswith("## ")]
    assert headings[:4] == ["## The problem and its target", "## Data", "## Model", "## Training"]
    assert headings[-1] == "## What was learned"


@each_session
def test_parameters_fit_their_own_schema(source):
    schema = notebooks.schema_of(read(source))
    defaults = {name: rule["default"] for name, rule in schema.items()}
    assert check_parameters(schema, defaults) == defaults
    assert {"profile", "dataset", "variant", "seed", "target"} <= set(schema)
    assert {"data_dir", "checkpoint", "weights", "device"} <= set(schema) & WHERE
    quick = profile_parameters(source, schema, "quick")
    assert quick["profile"] == "quick"
    assert quick["dataset"] == "digits"
    assignments = ast.parse(notebooks.find_cell(read(source), "parameters").source).body
    assert [node.targets[0].id for node in assignments] == list(schema), "a line without its # @param"


def test_badges_and_bootstrap_come_from_one_place(own_course):
    before = {path: path.read_bytes() for path in own_course.root.glob("sessions/*/session.ipynb")}
    assert own_course("badges").returncode == 0
    assert before == {path: path.read_bytes() for path in before}
    pyproject = own_course.root / "pyproject.toml"
    pyproject.write_text(
        re.sub(r'Repository = ".*"', 'Repository = "https://github.com/me/fork"', pyproject.read_text())
    )
    assert own_course("badges").returncode == 0
    for path in before:
        assert "colab.research.google.com/github/me/fork/blob/main/sessions/" in path.read_text()
        assert "https://github.com/me/fork" in notebooks.find_cell(read(path), "bootstrap").source


def papermill(source, target, **parameters):
    """Execute a notebook as anyone would, without the command `course`, from the notebook's own folder."""
    quick = yaml.safe_load((source.parent / "quick.yaml").read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "papermill", source.name, str(target), "--no-progress-bar"]
    command += ["--parameters_yaml", yaml.safe_dump({**quick, **parameters})]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=source.parent, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Executes a session once; gives the folder with the notebook, the weights and what else it wrote."""

    @functools.cache
    def execute(source):
        folder = tmp_path_factory.mktemp(source.parent.name)
        parameters = {"weights": str(folder / "new" / "w.safetensors")}
        if "log_dir" in notebooks.schema_of(read(source)):
            parameters["log_dir"] = str(folder / "events")
        process = papermill(source, folder / "out.ipynb", **parameters)
        assert process.returncode == 0, process.stderr
        return folder

    return execute


@each_session
def test_plain_papermill_ends_like_the_reference(source, executed):
    folder = executed(source)
    assert (folder / "new" / "w.safetensors").exists()
    notebook, reference = read(folder / "out.ipynb"), read(FOLDER / f"{source.parent.name}.ipynb")
    records = [notebooks.read_record(one, source) for one in (notebook, reference)]
    found, expected = ([record["metrics"], *record["metrics"].get("parts", [])] for record in records)
    for name in ("parameters", "receptive_field"):
        assert [part.get(name) for part in found] == [part.get(name) for part in expected]
    # Another processor rounds otherwise, and 360 test images make one standard error a point.
    assert found[0]["test_accuracy"] == pytest.approx(expected[0]["test_accuracy"], abs=0.03)
    assert [row["lr"] for row in records[0]["history"]] == pytest.approx([row["lr"] for row in records[1]["history"]])
    clean(notebook)
    assert kinds(notebook) == kinds(reference)


def kinds(notebook):
    """Which kinds of output each cell has: one that shows nothing any more is found, whatever figures it shows."""
    return {
        cell.id: [(output.output_type, *output.get("data", ())) for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


def test_plain_papermill_refuses_an_unknown_parameter(tmp_path):
    process = papermill(SOURCES[0], tmp_path / "out.ipynb", learning_rate=1)
    assert process.returncode != 0
    assert "There is no parameter learning_rate. There are:" in process.stderr


def test_session_2_writes_its_curves_for_tensorboard(executed):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = executed(ROOT / "sessions" / "s02_digit_sum" / "session.ipynb")
    record = notebooks.read_record(read(folder / "out.ipynb"), "out.ipynb")
    events = EventAccumulator(str(folder / "events" / "classification-seed-0")).Reload()
    for quantity in ("train_loss", "test_accuracy", "test_sum_accuracy"):
        written = [event.value for event in events.Scalars(quantity)]
        assert written == pytest.approx([row[quantity] for row in record["history"]])
    assert len(list((folder / "events").iterdir())) == 3


def test_code_style():
    for command in (["check"], ["format", "--check"]):
        process = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True
        )
        assert process.returncode == 0, process.stdout


def test_the_requirements_name_the_packages_of_the_course():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    names = {re.split(r"[><=]", line)[0] for line in lines if line and not line.startswith("#")}
    fixed = {"torch", "torchvision", "jupyter", "nbconvert", "papermill", "matplotlib", "torchsummary", "nbval"}
    assert fixed <= names
    locked = {line.split("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line}
    assert names <= locked


@each_published
def test_results_are_strict_json(source):
    def refuse(name):
        pytest.fail(f"{name} is no JSON")

    json.loads((source.parent / "results.json").read_text(encoding="utf-8"), parse_constant=refuse)
