"""Notebooks and the records in them."""

import ast
import hashlib
import json
from collections import Counter
from pathlib import Path

import nbformat.reader

from common.parameters import read_schema
from common.record import MIME
from course.record_form import find_fault

ROOT = Path(__file__).resolve().parent.parent
SESSIONS = ROOT / "sessions"
RUN_ALL = SESSIONS / "run_all.ipynb"  # not a session: it executes them
# Cells with these tags do not decide a result: they find the course, show results, or record them.
NOT_DECIDING = {"bootstrap", "parameters", "injected-parameters", "show", "record"}
MAX_WEIGHTS = 6_000_000  # bytes, for the weights of the run that a page shows; larger files are not committed
MAX_OTHER_WEIGHTS = 1_000_000  # of each of its other runs


class PublishError(Exception):
    """Something cannot be published; the message is one sentence that says what and why."""


def read_notebook(path):
    """Read a notebook; raise PublishError if it is not one."""
    try:
        notebook = nbformat.reader.reads(Path(path).read_text(encoding="utf-8"))
        ids = Counter(str(cell["id"]) for cell in notebook["cells"] if "id" in cell)
        nbformat.validate(notebook, version=4)  # gives a cell another id if its own comes twice
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        AssertionError,
        nbformat.ValidationError,
    ) as error:
        raise PublishError(f"{path} is not a readable notebook: {first_line(error)}") from None
    for name, count in ids.items():
        if count > 1:  # a page finds the outputs of a cell by its id
            raise PublishError(f"{path}: {count} cells have the id {name!r}; give each its own.")
    return notebook


def first_line(error):
    """An error's message, in one line of limited length."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]


def tags(cell):
    return set(cell.metadata.get("tags", []))


def find_cell(notebook, tag):
    """The one cell with this tag; raises PublishError if there is none."""
    for cell in notebook.cells:
        if tag in tags(cell):
            return cell
    raise PublishError(f"The notebook has no cell with the tag {tag!r}.")


def schema_of(notebook):
    """The schema of a notebook's parameters, from its parameters cell."""
    return read_schema(find_cell(notebook, "parameters").source)


def source_digest(notebook):
    """SHA-256 of the code that decides the results, without comments and layout."""
    deciding = [cell for cell in notebook.cells if cell.cell_type == "code" and not tags(cell) & NOT_DECIDING]
    return hashlib.sha256("\n".join(map(plain_code, deciding)).encode()).hexdigest()


def plain_code(cell):
    """The code of a cell without comments and layout; raises PublishError if it is not Python."""
    try:
        return ast.unparse(ast.parse(cell.source))
    except (SyntaxError, ValueError) as error:
        raise PublishError(f"The cell {cell.get('id')!r} is not plain Python: {first_line(error)}.") from None


def read_record(notebook, name):
    """The record in the last output of an executed notebook; `name` is the notebook's name in errors."""
    for output in find_cell(notebook, "record").get("outputs", []):
        if MIME in output.get("data", {}):
            record = output["data"][MIME]
            break
    else:
        raise PublishError(f"{name} has no record: it was not executed to its end.")
    check_record(record, name)
    return {**record, "source_sha256": source_digest(notebook)}


def check_record(record, name):
    """Raise PublishError if this is not a record of a run; `name` is its name in the error."""
    if why := find_fault(record):
        raise PublishError(f"{name} has a malformed record ({first_line(why)}): execute it again.")


def results(folder):
    """The records in a folder's results.json; an empty list if nothing was published."""
    path = folder / "results.json"
    records = _read_json(path, list, [])
    for record in records:
        check_record(record, path)
    return records


def verification(folder):
    """What `course verify --note` noted last, or None."""
    return _read_json(folder / "verified.json", dict, None)


def _read_json(path, form, default):
    """The content of a published file; raises PublishError if it is damaged."""
    if not path.exists():
        return default
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PublishError(f"{path} is damaged: {first_line(error)}.") from None
    if not isinstance(content, form):
        raise PublishError(f"{path} is damaged: it is not a JSON {form.__name__}.")
    return content


def run_of(record):
    """What tells the runs of a session apart: variant and seed."""
    return record["variant"], record["seed"]


def shared_parameters(record):
    """A run's parameters without those that may differ between the runs of a page."""
    return {name: value for name, value in record["params"].items() if name not in ("variant", "seed")}


def weights_files(records):
    """The records of a page whose weights are committed, {path beside the page: record}.

    Those of the run shown, the first, are `weights.safetensors`; for the others only version 2 of the record keeps any.
    """
    files = {}
    for number, record in enumerate(records):
        name, largest = "weights.safetensors", MAX_WEIGHTS
        if number:
            name, largest = f"weights/{record['variant']}-seed-{record['seed']}.safetensors", MAX_OTHER_WEIGHTS
        if record["weights"] and record["weights"].get("bytes", 0) <= largest and (not number or record["schema"] > 1):
            files[name] = record
    return files
