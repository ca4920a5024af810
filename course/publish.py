"""From executed notebooks to a session's README.md, images/, results.json, executed.ipynb and weights.safetensors."""

import json
import re
import tempfile
import zlib
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import nbformat
from filelock import FileLock
from safetensors import SafetensorError, safe_open

from common.files import hash_file, replacing
from common.parameters import WHERE, ParameterError, check_parameters, find_parameters
from common.record import MIME, record_line
from course.notebooks import (
    ROOT,
    SESSIONS,
    PublishError,
    committed,
    find_cell,
    read_notebook,
    read_record,
    results,
    run_of,
    source_digest,
    verification,
)
from course.page import render
from course.sessions import read_session


@contextmanager
def turn():
    """Let one process at a time change what is published; the others wait."""
    with FileLock(ROOT / ".lock"):
        yield


@turn()
def publish(paths, folder=None):
    """Publish executed notebooks, all runs of one session, and return the folder: by default sessions/<session>.

    Raises PublishError where a notebook does not fit the session's source or the other notebooks.
    """
    notebooks = {path: read_notebook(path) for path in paths}
    records = {path: read_record(notebook, path.name) for path, notebook in notebooks.items()}
    sessions = {record["session"] for record in records.values()}
    if len(sessions) != 1:
        raise PublishError(f"These are runs of {', '.join(sorted(sessions))}: publish one session at a time.")
    own = SESSIONS / sessions.pop()
    if not (own / "session.ipynb").exists():
        raise PublishError(f"There is no session {own.name} here.")
    session = read_session(own)
    paths = sorted(paths, key=lambda path: (records[path]["variant"] != session.headline, run_of(records[path])))
    folder = folder or own
    published = folder.resolve() == own.resolve()
    if not published:
        _check_folder(folder)
    _check(session, [records[path] for path in paths], paths, published)
    for path in paths:
        _check_evidence(notebooks[path], records[path], path)
    shown = paths[0]
    files = {"executed.ipynb": nbformat.writes(_portable(notebooks[shown])) + "\n"}
    files["results.json"] = json.dumps([records[path] for path in paths], indent=1) + "\n"
    files |= render(session, notebooks[shown], [records[path] for path in paths])
    if committed(records[shown]):
        weights = shown.with_suffix(".safetensors")
        if not weights.exists() or hash_file(weights) != records[shown]["weights"]["sha256"]:
            raise PublishError(f"{weights} is not there or not the file that {shown.name} wrote.")
        _check_weights(weights)
        files["weights.safetensors"] = weights.read_bytes()
    _write_page(folder, files)
    (folder / "verified.json").unlink(missing_ok=True)  # it was about other weights
    if not committed(records[shown]):
        (folder / "weights.safetensors").unlink(missing_ok=True)  # of another run
    return folder


@contextmanager
def unpacked(path):
    """The folders in a zip of run_all.ipynb, one a session with its runs, for the time of the block.

    Raises PublishError if it is damaged, or holds anything else.
    """
    with tempfile.TemporaryDirectory() as temporary:
        try:
            with ZipFile(path) as archive:
                if not archive.namelist():
                    raise PublishError(f"{path} is empty: no run was finished.")
                for name in archive.namelist():
                    if not re.fullmatch(r"\w+/[\w-][\w.-]*\.(ipynb|safetensors)", name):
                        raise PublishError(f"{path} is no zip of run_all.ipynb: it holds {name!r}.")
                archive.extractall(temporary)
        except (BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
            raise PublishError(f"{path} is not a readable zip: {error}") from None
        yield sorted(Path(temporary).iterdir())


@turn()
def rerender(folder):
    """Make a published README again, from its executed notebook and results, with today's prose."""
    executed = read_notebook(folder / "executed.ipynb")
    session, records = read_session(folder), results(folder)
    if source_digest(session.notebook) != source_digest(executed):
        raise PublishError(
            f"The results of {folder.name} are those of other code than session.ipynb has: run it again."
        )
    _write_page(folder, render(session, executed, records, verification(folder)))


def _check_folder(folder):
    """Raise PublishError where a page would take the place of something else than a page."""
    if SESSIONS.resolve() in [folder.resolve(), *folder.resolve().parents]:
        raise PublishError(f"{folder} is no place for a page of this session: choose a folder outside of sessions/.")
    if not (folder / "results.json").exists() and any((folder / name).exists() for name in ("README.md", "images")):
        raise PublishError(f"{folder} has a README.md or images that are no published page: choose another folder.")


def _check(session, records, paths, published):
    """Raise PublishError where a record does not fit the source or the other records."""
    deciding, schema = source_digest(session.notebook), session.schema
    for path, record in zip(paths, records, strict=True):
        if record["source_sha256"] != deciding:
            raise PublishError(f"{path} was executed from other code than session.ipynb has today: execute it again.")
        if not set(record["params"]) <= set(schema):
            raise PublishError(f"{path} has parameters that session.ipynb does not have: execute it again.")
        with _naming(path):
            check_parameters(schema, record["params"])
        if published and record["profile"] != "full":
            raise PublishError(f"{path} is a run of the quick profile; published are runs of the full one.")
        if recipe(record) != recipe(records[0]):
            raise PublishError(f"{path} has other parameters than {paths[0]}: publish runs of one kind together.")
        if record["dataset"] != records[0]["dataset"]:
            raise PublishError(f"{path} used other data than {paths[0]}.")
    for (variant, seed), count in Counter(map(run_of, records)).items():
        if count > 1:
            raise PublishError(f"Variant {variant}, seed {seed} was given {count} times.")


def _check_evidence(notebook, record, path):
    """Raise PublishError where the record is not the one that the notebook wrote, or says something else than it."""
    output = next(output for output in find_cell(notebook, "record").outputs if MIME in output.get("data", {}))
    if output.data.get("text/plain") != record_line(output.data[MIME]):
        raise PublishError(f"{path}: the record was changed after the run: its checksum is another one.")
    if any(item.output_type == "error" for cell in notebook.cells for item in cell.get("outputs", [])):
        raise PublishError(f"{path}: a cell ended with an error.")
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    with _naming(path):
        parameters = {name: value for name, value in find_parameters(sources).items() if name not in WHERE}
    named = {name: record[name] for name in ("profile", "variant", "seed")}
    if parameters != record["params"] or parameters != parameters | named:
        raise PublishError(f"{path}: the record has other parameters than the notebook.")


@contextmanager
def _naming(path):
    """Raise PublishError, which names the notebook, where one of its parameters is not allowed."""
    try:
        yield
    except ParameterError as error:
        raise PublishError(f"{path}: {error}") from None


def _check_weights(path):
    """Raise PublishError if this is not a file of tensors and nothing else, such as a pickle with another name."""
    try:
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        raise PublishError(f"{path} is no safetensors file: {error}.") from None


def recipe(record):
    """The parameters that all runs of a page have in common."""
    return {name: value for name, value in record["params"].items() if name not in ("variant", "seed")}


def _portable(notebook):
    """The executed notebook without papermill's notes, which name paths and change with every execution."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
    return notebook


def write_files(folder, files):
    """Write all files beside their places first, then rename each: none is ever there by half."""
    with ExitStack() as stack:
        for name, content in files.items():
            unfinished = stack.enter_context(replacing(folder / name))
            unfinished.write_bytes(content if isinstance(content, bytes) else content.encode())


def _write_page(folder, files):
    """Write a session's page, and delete the images that it does not show any more."""
    for unfinished in folder.glob(
        "*.unfinished"
    ):  # of a process that was killed: we hold the lock, nobody writes there
        unfinished.unlink()
    write_files(folder, files)
    for image in (folder / "images").glob("*"):
        if f"images/{image.name}" not in files:
            image.unlink()
