"""From executed notebooks to a session's README.md, images/, results.json, executed.ipynb and weights.safetensors."""

import json
import re
import tempfile
import zlib
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import nbformat
from filelock import FileLock

from common.files import hash_file, replacing
from common.parameters import PLACE_PARAMETERS, check_parameters
from common.record import VERSION
from course.evidence import check_code, check_notebook, check_weights, contradictions, naming
from course.notebooks import (
    ROOT,
    SESSIONS,
    PublishError,
    read_notebook,
    read_record,
    results,
    run_of,
    shared_parameters,
    source_digest,
    verification,
    weights_files,
)
from course.page import render
from course.sessions import all_sessions, read_session

# The parts of a page, and the mark in its README.
PAGE = ("README.md", "results.json", "executed.ipynb", "weights.safetensors", "verified.json", "images", "weights")
MADE_BY = "Made by `course publish` from executed notebooks"


@contextmanager
def publishing_lock():
    """Let one process at a time change what is published; the others wait."""
    with FileLock(ROOT / ".lock"):
        yield


@dataclass
class Source:
    """Where a page has a run from: an executed notebook and the weights beside it, or what is published already."""

    record: dict
    path: Path  # of the notebook, or of results.json: only the run that a page shows has its notebook there
    weights: Path  # another file, or none, where those of this run are too large to be published


@publishing_lock()
def publish(paths, folder=None, add=False):
    """Publish executed notebooks, all runs of one session, and return the folder: by default sessions/<session>.

    With `add` they come to the runs that are published there; without, they replace them.

    Raises PublishError if a notebook does not fit the session's source or the other runs.
    """
    notebooks = {path: read_notebook(path) for path in paths}
    given = [Source(read_record(notebooks[path], path.name), path, path.with_suffix(".safetensors")) for path in paths]
    sessions = {source.record["session"] for source in given}
    if len(sessions) != 1:
        raise PublishError(f"These are runs of {', '.join(sorted(sessions))}: publish one session at a time.")
    own = SESSIONS / sessions.pop()
    if not (own / "session.ipynb").exists():
        raise PublishError(f"There is no session {own.name} here.")
    session = read_session(own)
    folder = folder or own
    published = folder.resolve() == own.resolve()
    if not published:
        _check_folder(folder, session.name)
    sources = [*given, *(_published(folder) if add else [])]
    sources.sort(key=lambda source: (source.record["variant"] != session.headline, run_of(source.record)))
    records = [source.record for source in sources]
    _check(session, records, [source.path for source in sources], published)
    for source in given:
        check_notebook(notebooks[source.path], source.record, source.path)
        check_code(notebooks[source.path], session.notebook, source.path)
    for why in contradictions(records):
        raise PublishError(f"The records are inconsistent: {why[:300]}")
    shown = notebooks.get(sources[0].path) or read_notebook(folder / "executed.ipynb")
    files = {"executed.ipynb": nbformat.writes(_portable(shown)) + "\n"}
    files["results.json"] = json.dumps(records, indent=1) + "\n"
    files |= render(session, shown, records)
    for name, record in weights_files(records).items():
        source = sources[records.index(record)]
        weights = source.weights
        if not weights.exists() or hash_file(weights) != record["weights"]["sha256"]:
            raise PublishError(f"{weights} is missing or not the file that {source.path.name} wrote.")
        check_weights(weights, record)
        files[name] = weights.read_bytes()
    before = set() if published else {"weights.safetensors", *weights_files(results(folder))}
    _write_page(folder, files)
    (folder / "verified.json").unlink(missing_ok=True)  # it is about other weights
    for old in (folder / "weights.safetensors", *folder.glob("weights/*")):
        name = old.relative_to(folder).as_posix()
        if name not in files and (published or name in before):  # of other runs
            old.unlink(missing_ok=True)
    return folder


def _published(folder):
    """The runs of a page as sources of a new one."""
    records = results(folder)
    if not records:
        raise PublishError(f"Nothing is published in {folder} to which runs could be added.")
    names = {run_of(record): name for name, record in weights_files(records).items()}
    return [
        Source(record, folder / "results.json", folder / names.get(run_of(record), "weights.safetensors"))
        for record in records
    ]


def publish_zip(path, to=None):
    """Publish each session of a zip of run_all.ipynb; yields a README for each, or the PublishError that refuses it.

    `to` is the folder for the pages' folders, by default sessions/.
    """
    with unpacked(path) as folders:
        for folder in folders:
            try:
                yield publish(sorted(folder.glob("*.ipynb")), to and to / folder.name) / "README.md"
            except PublishError as error:
                yield error


def rerender_all():
    """Make all published pages again; yields a README for each, or the PublishError that refuses it."""
    for session in all_sessions():
        if results(session.folder):
            try:
                rerender(session.folder)
                yield session.folder / "README.md"
            except PublishError as error:
                yield error


@contextmanager
def unpacked(path):
    """The folders in a zip of run_all.ipynb, one per session with its runs, during the block.

    Raises PublishError if it is damaged or holds anything else.
    """
    with tempfile.TemporaryDirectory() as temporary:
        try:
            with ZipFile(path) as archive:
                if not archive.namelist():
                    raise PublishError(f"{path} is empty: no run was finished.")
                for name in archive.namelist():
                    if not re.fullmatch(r"\w+/[\w-][\w.-]*\.(ipynb|safetensors)", name):
                        raise PublishError(f"{path} is not a zip of run_all.ipynb: it holds {name!r}.")
                archive.extractall(temporary)
        except (BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
            raise PublishError(f"{path} is not a readable zip: {error}") from None
        yield sorted(Path(temporary).iterdir())


@publishing_lock()
def rerender(folder):
    """Make a published README again, from its executed notebook and results, with today's prose."""
    executed = read_notebook(folder / "executed.ipynb")
    session, records = read_session(folder), results(folder)
    if source_digest(session.notebook) != source_digest(executed):
        raise PublishError(f"The results of {folder.name} come from other code than session.ipynb has: run it again.")
    _write_page(folder, render(session, executed, records, verification(folder)))


def _check_folder(folder, session):
    """Raise PublishError if a page would replace anything but a page of the same session."""
    if SESSIONS.resolve() in [folder.resolve(), *folder.resolve().parents]:
        raise PublishError(f"{folder} is no place for a page of this session: choose a folder outside sessions/.")
    there = [folder / name for name in PAGE if (folder / name).exists() or (folder / name).is_symlink()]
    for path in there:
        if path.is_symlink():
            raise PublishError(f"{path} is a symbolic link: choose another folder.")
    if there and not _is_page(folder, session):
        raise PublishError(f"{there[0]} does not belong to a published page of {session}: choose another folder.")


def _is_page(folder, session):
    """Whether a folder holds what `course publish` wrote for this session."""
    try:
        readme = (folder / "README.md").read_text(encoding="utf-8")
        return {record["session"] for record in results(folder)} == {session} and MADE_BY in readme
    except (OSError, ValueError, PublishError):
        return False


def _check(session, records, paths, published):
    """Raise PublishError if a record does not fit the source or the other records."""
    deciding, schema = source_digest(session.notebook), session.schema
    for path, record in zip(paths, records, strict=True):
        if record["source_sha256"] != deciding:
            raise PublishError(f"{path} was executed from code other than today's session.ipynb: execute it again.")
        if record["schema"] != VERSION:
            raise PublishError(f"{path} was executed with an older version of the course: execute it again.")
        if set(record["params"]) != set(schema) - PLACE_PARAMETERS:
            raise PublishError(f"{path} does not have the parameters that session.ipynb has: execute it again.")
        with naming(path):
            check_parameters(schema, record["params"])
        if published and record["profile"] != "full":
            raise PublishError(f"{path} is a run of the quick profile; only runs of the full one are published.")
        if shared_parameters(record) != shared_parameters(records[0]):
            raise PublishError(f"{path} has other parameters than {paths[0]}: publish runs of one kind together.")
        first = next(other for other in records if other["variant"] == record["variant"])
        if record["dataset"] != first["dataset"]:  # session 11 has a data set for each variant
            raise PublishError(f"{path} used other data than {paths[records.index(first)]}.")
    for (variant, seed), count in Counter(map(run_of, records)).items():
        if count > 1:
            raise PublishError(f"Variant {variant}, seed {seed} was given {count} times.")


def _portable(notebook):
    """The executed notebook without papermill's notes, which name paths and change with each execution."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
    return notebook


def write_files(folder, files):
    """Write all files beside their places first, then rename each: none is ever half-written."""
    with ExitStack() as stack:
        for name, content in files.items():
            unfinished = stack.enter_context(replacing(folder / name))
            unfinished.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_changed(files):
    """Write those of {path: text} that differ from what is there: an open notebook is not touched for nothing."""
    for path, text in files.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_files(path.parent, {path.name: text})


def _write_page(folder, files):
    """Write a session's page, and delete the images that it no longer shows."""
    for name in PAGE:  # left by a killed process: we hold the lock, so nobody writes there
        (folder / f"{name}.unfinished").unlink(missing_ok=True)
    readme = folder / "README.md"
    before = readme.read_text(encoding="utf-8") if readme.exists() else ""
    write_files(folder, files)
    for image in (folder / "images").glob("*"):
        name = f"images/{image.name}"
        elsewhere = SESSIONS not in folder.parents  # there an image may be somebody else's
        if name not in files and not (elsewhere and f"]({name})" not in before):
            image.unlink()
