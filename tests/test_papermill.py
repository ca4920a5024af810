"""Each notebook runs by itself, with plain papermill, and ends like its reference."""

import functools
import os
import subprocess
import sys

import nbformat
import pytest
import yaml
from conftest import ROOT
from references import FOLDER, clean

from common import notebooks

SOURCES = notebooks.sessions()


def read(path):
    return nbformat.read(path, 4)


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


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.parent.name)
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
