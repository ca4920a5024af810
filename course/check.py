"""Whether everything that is committed fits together: pages, results, code, badges, index."""

import re
import subprocess

from common.files import hash_file
from common.parameters import PLACE_PARAMETERS
from course.evidence import check_notebook, contradictions
from course.exercises import exercises
from course.index import index_files
from course.notebooks import (
    ROOT,
    PublishError,
    read_notebook,
    read_record,
    results,
    run_of,
    source_digest,
    verification,
    weights_files,
)
from course.page import render
from course.sessions import all_sessions

# A folder on somebody's machine: a user's, Colab's, a temporary one.
LOCAL_PATH = re.compile(r"(?<![\w.])/(?:home|root|Users|work|tmp|content)/\w")


def check():
    """Yield what is wrong, one sentence each."""
    for session in all_sessions():
        try:
            yield from check_session(session)
        except PublishError as error:  # a damaged file: go on with the other sessions
            yield f"{session.name}: {error}"
    for command, files in {"index": index_files(), "exercises": exercises()}.items():
        for path, text in files.items():
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                yield f"{path.parent.name}/{path.name}: not what `course {command}` would write today."
    yield from local_paths()


def check_session(session):
    """Yield what is wrong with a session: results missing or from other code, or a page with other results."""
    folder, name = session.folder, session.name
    records = results(folder)
    if not records:
        yield f"{name}: nothing is published."
        return
    executed = read_notebook(folder / "executed.ipynb")
    digest = source_digest(session.notebook)
    if {digest} != {source_digest(executed), *(record["source_sha256"] for record in records)}:
        yield f"{name}: the deciding code has changed since its results: run it again."
        return
    missing = set(session.runs()) - {run_of(record) for record in records}
    for variant, seed in sorted(missing):
        yield f"{name}: there is no result for variant {variant}, seed {seed}."
    parameters = set(session.schema) - PLACE_PARAMETERS
    if any(set(record["params"]) != parameters or record["profile"] != "full" for record in records):
        yield f"{name}: the results are not those of today's parameters or of the full profile."
    if read_record(executed, "executed.ipynb") != records[0]:
        yield f"{name}: results.json does not begin with the record in executed.ipynb."
    for why in contradictions(records):
        yield f"{name}: {why}"
    try:
        check_notebook(executed, records[0], "executed.ipynb")
    except PublishError as error:
        yield f"{name}: {error}"
    yield from check_weights(folder, weights_files(records))
    yield from check_page(folder, render(session, executed, records, verification(folder)))


def check_weights(folder, files):
    """Yield where the weights beside a page differ from those of its records, {path: record}."""
    for path in [folder / "weights.safetensors", *folder.glob("weights/*")]:
        if path.exists() and path.relative_to(folder).as_posix() not in files:
            yield f"{folder.name}: {path.relative_to(folder)} should not be there."
    for name, record in files.items():
        if not (folder / name).exists():
            yield f"{folder.name}: {name} should be there."
        elif hash_file(folder / name) != record["weights"]["sha256"]:
            yield f"{folder.name}: {name} is not the file that the record names."


def check_page(folder, files):
    """Yield where a session's page is not what its evidence and today's prose give."""
    for name, content in files.items():
        path = folder / name
        wanted = content if isinstance(content, bytes) else content.encode()
        if not path.exists() or path.read_bytes() != wanted:
            yield f"{folder.name}: {name} is not what executed.ipynb, results.json and session.ipynb give."
    for path in (folder / "images").glob("*"):
        if f"images/{path.name}" not in files:
            yield f"{folder.name}: the page does not show images/{path.name}."
    for text, name in re.findall(r"!\[(.*?)\]\((images/.*?)\)", files["README.md"]):
        if len(text) < 30:
            yield f"{folder.name}: {name} has no text that says what it shows."


def local_paths():
    """Yield the files of the repository that name a folder on somebody's machine."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        yield "This is not a git checkout: its files are unknown."
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and LOCAL_PATH.search(path.read_text(encoding="utf-8", errors="ignore")):
            yield f"{name} names a folder on somebody's machine."
