"""Each notebook runs by itself, with plain papermill, and ends like its reference."""

import functools

import pytest
from references import FOLDER, clean, execute

from course import notebooks
from course.sessions import all_sessions, find_session

SESSIONS = all_sessions()


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Executes a session once; returns the folder with the notebook, the weights and whatever else it wrote."""

    @functools.cache
    def folder_of(name):
        session = find_session(name)
        folder = tmp_path_factory.mktemp(name)
        parameters = {"weights": str(folder / "new" / "w.safetensors")}
        if "log_dir" in session.schema:
            parameters["log_dir"] = str(folder / "events")
        process = execute(session, folder / "out.ipynb", **parameters)
        assert process.returncode == 0, process.stderr
        return folder

    return folder_of


@pytest.mark.parametrize("name", [session.name for session in SESSIONS])
def test_plain_papermill_ends_like_the_reference(name, executed):
    folder = executed(name)
    assert (folder / "new" / "w.safetensors").exists()
    paths = folder / "out.ipynb", FOLDER / f"{name}.ipynb"
    notebook, reference = map(notebooks.read_notebook, paths)
    records = [notebooks.read_record(one, name) for one in (notebook, reference)]
    found, expected = ([record["metrics"], *record["metrics"].get("parts", [])] for record in records)
    for key in ("parameters", "receptive_field"):
        assert [part.get(key) for part in found] == [part.get(key) for part in expected]
    # Another processor rounds differently, and with 360 test images one standard error is about a point.
    assert found[0]["test_accuracy"] == pytest.approx(expected[0]["test_accuracy"], abs=0.03)
    assert [row["lr"] for row in records[0]["history"]] == pytest.approx([row["lr"] for row in records[1]["history"]])
    clean(notebook)
    assert kinds(notebook) == kinds(reference)


def kinds(notebook):
    """The kinds of output of each cell: a cell that shows nothing any more is found, whatever its numbers."""
    return {
        cell.id: [(output.output_type, *output.get("data", ())) for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


def test_plain_papermill_refuses_an_unknown_parameter(tmp_path):
    process = execute(SESSIONS[0], tmp_path / "out.ipynb", learning_rate=1)
    assert process.returncode != 0
    assert "There is no parameter learning_rate. There are:" in process.stderr


def test_session_2_writes_its_curves_for_tensorboard(executed):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = executed("s02_digit_sum")
    record = notebooks.read_record(notebooks.read_notebook(folder / "out.ipynb"), "out.ipynb")
    events = EventAccumulator(str(folder / "events" / "classification-seed-0")).Reload()
    for quantity in ("train_loss", "test_accuracy", "test_sum_accuracy"):
        written = [event.value for event in events.Scalars(quantity)]
        assert written == pytest.approx([row[quantity] for row in record["history"]])
    assert len(list((folder / "events").iterdir())) == 3
