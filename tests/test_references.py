"""The references of the regression test are consistent with the sources and themselves; nbval finds alterations."""

import ast
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT
from references import FOLDER, IGNORE, clean

from common.train import log_line
from course import notebooks
from course.sessions import all_sessions, find_session

SESSIONS = all_sessions()
SESSION = find_session("s06_under_10k")


def code_of(notebook):
    """{id: code without comments and layout} of the cells not written by papermill or `course index`."""
    written = {"injected-parameters", "bootstrap"}
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and not notebooks.tags(cell) & written]
    return {cell.id: ast.unparse(ast.parse(cell.source)) for cell in cells}


def printed(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


def problems(reference, source, quick):
    """What is wrong with a reference that nbval itself would not notice."""
    cells = {cell.id: cell for cell in reference.cells if cell.cell_type == "code"}
    if code_of(reference) != code_of(source):
        yield "its code is not that of the source"
    values = ast.parse(cells["injected-parameters"].source).body
    if {node.targets[0].id: ast.literal_eval(node.value) for node in values} != quick:
        yield "its parameters are not those of the quick profile"
    if None in [cell.execution_count for cell in cells.values()]:
        yield "a cell was not run"  # nbval does not compare its outputs then
    if any(output.output_type == "error" for cell in cells.values() for output in cell.outputs):
        yield "a cell failed"
    try:
        record = notebooks.read_record(reference, "the reference")
    except notebooks.PublishError as error:
        yield str(error)
        return
    log = "".join(map(printed, cells.values()))
    for row in record["history"]:
        if log_line(row, record["dataset"]["test"], 0).removesuffix("0.0 s") not in log:
            yield f"epoch {row['epoch']} was printed otherwise than it was recorded"


def load(session):
    reference = nbformat.read(FOLDER / f"{session.name}.ipynb", 4)
    return reference, nbformat.read(session.path, 4), session.quick


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.name)
def test_a_reference_fits_its_source_and_its_record(session):
    assert list(problems(*load(session))) == [], "run `make references`, then look at the differences"


def test_no_reference_without_its_session():
    assert {path.stem for path in FOLDER.iterdir()} == {session.name for session in SESSIONS}


def edit_metric(cells, source):
    record = cells["record"].outputs[0].data[notebooks.MIME]
    record["history"][-1]["test_accuracy"] -= 1 / 360


def edit_printed_metric(cells, source):
    output = cells["training"].outputs[-1]
    right, rest = output.text.rsplit("/360", 1)
    output.text = f"{right[:-1]}{(int(right[-1]) + 1) % 10}/360{rest}"


def edit_source(cells, source):
    next(cell for cell in source.cells if cell.id == "layers").source += "\nprint('more')"


def edit_parameter(cells, source):
    cells["injected-parameters"].source = cells["injected-parameters"].source.replace("epochs = 3", "epochs = 4")


def forget_a_cell(cells, source):
    cells["layers"].execution_count = None


def forget_the_record(cells, source):
    cells["record"].outputs = []


@pytest.mark.parametrize(
    "edit", [edit_metric, edit_printed_metric, edit_source, edit_parameter, forget_a_cell, forget_the_record]
)
def test_an_altered_reference_is_found(edit):
    reference, source, quick = load(SESSION)
    assert list(problems(reference, source, quick)) == []
    edit({cell.id: cell for cell in reference.cells}, source)
    assert list(problems(reference, source, quick))


def test_nbval_finds_altered_outputs_and_nothing_else(own_course):
    """A shape, a rate and a number of images are altered, an output removed: only these four cells fail."""
    reference = load(SESSION)[0]
    ids = [cell.id for cell in reference.cells]
    reference.cells = reference.cells[: ids.index("training") + 1]
    cells = {cell.id: cell for cell in reference.cells if cell.cell_type == "code"}
    for name, old, new in (
        ("data", "1437", "1438"),
        ("layers", "26x26", "26x27"),
        ("training", "learning rate 0.0", "learning rate 0.5"),
    ):
        for output in cells[name].outputs:
            holder, key = (output, "text") if "text" in output else (output.data, "text/markdown")
            if old in holder[key]:
                holder[key] = holder[key].replace(old, new, 1)
                break
        else:
            pytest.fail(f"{name} does not print {old}")
    cells["summary"].outputs = []
    path = own_course.root / "altered.ipynb"  # beside common/, where the bootstrap cell finds it
    nbformat.write(reference, path)
    options = ["--nbval", "--nbval-current-env", "--nbval-sanitize-with", str(ROOT / "tests" / "nbval.cfg")]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-rf",
        "--rootdir",
        own_course.root,
        *options,
        path,
    ]
    process = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    failed = [line for line in process.stdout.splitlines() if line.startswith("FAILED")]
    numbers = [list(cells).index(name) for name in ("data", "layers", "summary", "training")]
    assert [int(line.split("Cell ")[1].split()[0]) for line in failed] == numbers, process.stdout


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.name)
def test_only_outputs_of_trained_weights_are_not_compared(session):
    reference, notebook, _ = load(session)
    in_the_source = {cell.id for cell in notebook.cells if IGNORE in notebooks.tags(cell)}
    for cell in reference.cells:
        if cell.id not in in_the_source:
            cell.metadata["tags"] = [tag for tag in cell.metadata["tags"] if tag != IGNORE]
    clean(reference)
    assert reference == load(session)[0]
