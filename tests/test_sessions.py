"""The committed sessions: notebooks in order, and pages up to date."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib

import nbformat
import pytest
from conftest import DESCRIPTION, ROOT
from hostile import CELL_OF_TYPES, small_notebook

from common.parameters import PLACE_PARAMETERS, ParameterError, check_parameters
from course import notebooks
from course.sessions import UsageError, all_sessions, read_session

SESSIONS = all_sessions()
PUBLISHED = [session for session in SESSIONS if (session.folder / "results.json").exists()]
each_session = pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.name)
each_published = pytest.mark.parametrize("session", PUBLISHED, ids=lambda session: session.name)


def read(path):
    return nbformat.read(path, 4)


@each_session
def test_a_source_is_without_outputs_and_complete(session):
    notebook = read(session.path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells)
    for tag in ("bootstrap", "parameters", "record"):
        notebooks.find_cell(notebook, tag)
    assert notebooks.tags(notebook.cells[-1]) == {"record"}
    assert max(len(cell.source.splitlines()) for cell in notebook.cells) <= 40
    headings = [line for cell in notebook.cells for line in cell.source.splitlines() if line.startswith("## ")]
    assert headings[:4] == ["## The problem and its target", "## Data", "## Model", "## Training"]
    assert headings[-1] == "## What was learned"


@each_session
def test_parameters_fit_their_own_schema(session):
    schema = session.schema
    defaults = {name: rule["default"] for name, rule in schema.items()}
    assert check_parameters(schema, defaults) == defaults
    assert {"profile", "dataset", "variant", "seed", "target"} <= set(schema)
    assert {"data_dir", "checkpoint", "weights", "device"} <= set(schema) & PLACE_PARAMETERS
    quick = session.parameters("quick")
    assert quick["profile"] == "quick"
    assert quick["dataset"] == "digits"
    assignments = ast.parse(notebooks.find_cell(session.notebook, "parameters").source).body
    assert [node.targets[0].id for node in assignments] == list(schema), "a line without its # @param"


def test_badges_and_bootstrap_come_from_one_place(own_course):
    before = {path: path.read_bytes() for path in own_course.root.glob("sessions/*/session.ipynb")}
    assert own_course("index").returncode == 0
    assert before == {path: path.read_bytes() for path in before}
    pyproject = own_course.root / "pyproject.toml"
    pyproject.write_text(
        re.sub(r'Repository = ".*"', 'Repository = "https://github.com/me/fork"', pyproject.read_text())
    )
    assert own_course("index").returncode == 0
    for path in before:
        assert "colab.research.google.com/github/me/fork/blob/main/sessions/" in path.read_text()
        assert "https://github.com/me/fork" in notebooks.find_cell(read(path), "bootstrap").source


def break_off_early(clone):
    (clone / ".git" / "objects").mkdir(parents=True)
    (clone / ".git" / "HEAD").write_text("ref: refs/heads/main\n")


def break_off_late(clone):
    """While git writes the files: only some are there."""
    (clone / "common" / "train.py").unlink()
    (clone / ".git" / "index").rename(clone / ".git" / "index.lock")


def test_a_partial_clone_is_replaced_and_a_complete_one_kept(own_course, tmp_path):
    """What a notebook opened alone has fetched when its machine is lost."""
    root, alone = own_course.root, tmp_path / "alone"
    alone.mkdir()
    git = ["git", "-C", root, "-c", "user.name=test", "-c", "user.email=test@example.org"]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    release, address = project["tool"]["course"]["release"], project["project"]["urls"]["Repository"]
    for command in (["init", "-q", "-b", release], ["add", "."], ["commit", "-q", "-m", "course"]):
        subprocess.run([*git, *command], check=True)
    code = notebooks.find_cell(read(root / "sessions" / "s06_under_10k" / "session.ipynb"), "bootstrap").source
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        **{"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.file://{root}.insteadOf", "GIT_CONFIG_VALUE_0": address},
    }
    clone = alone / address.rsplit("/", 1)[1]
    for prepare in (break_off_early, break_off_late, lambda clone: (clone / "mine.txt").write_text("mine")):
        prepare(clone)
        command = [sys.executable, "-c", f"{code}\nimport common.train; print(common.train.__file__)"]
        process = subprocess.run(command, cwd=alone, env=environment, capture_output=True, text=True)
        assert process.stdout.strip() == str(clone / "common" / "train.py"), process.stderr
    assert (clone / "mine.txt").exists()


def test_the_requirements_name_the_packages_of_the_course():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    names = {re.split(r"[><=]", line)[0] for line in lines if line and not line.startswith("#")}
    fixed = {"torch", "torchvision", "jupyter", "nbconvert", "papermill", "matplotlib", "torchsummary", "nbval"}
    assert fixed <= names
    locked = {line.split("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line}
    assert names <= locked


@each_published
def test_results_are_strict_json(session):
    def refuse(name):
        pytest.fail(f"{name} is not JSON")

    json.loads((session.folder / "results.json").read_text(encoding="utf-8"), parse_constant=refuse)


# ---------------------------------------------------------------------------------------------------------------
# Hostile input: malformed descriptions


@pytest.mark.parametrize(
    "quick",
    ["", "- epochs", "epochs: [", "1: 2", "epochs: !!python/object/apply:os.mkdir [outside]", "epochs: 1e3", "\xff"],
)
def test_a_broken_quick_profile_is_named(tmp_path, monkeypatch, quick):
    monkeypatch.chdir(tmp_path)
    nbformat.write(small_notebook(CELL_OF_TYPES), tmp_path / "session.ipynb")
    text = DESCRIPTION.replace("quick: {profile: quick}", f"quick:\n  {quick}")
    (tmp_path / "session.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises((UsageError, ParameterError), match=r"session\.yaml"):
        read_session(tmp_path).parameters("quick")
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("teaches: nothing\n", "", "'teaches' is a required property"),
        ("claimed: 50 %", "claimed: 50", "claimed: 50 is not of type 'string'"),
        ("claimed: 50 %", "claimed: 50 %\nepochs: 3", "'epochs' was unexpected"),
        ("skeleton()", "__import__('os').mkdir('outside')", "network: "),
        ("seeds: {A: 2}", "seeds: 2", "seeds: 2 is not of type 'object'"),
    ],
)
def test_a_broken_description_of_a_session_is_named(tmp_path, old, new, message):
    assert old in DESCRIPTION
    (tmp_path / "session.yaml").write_text(DESCRIPTION.replace(old, new))
    with pytest.raises(UsageError, match=re.escape(message)):
        read_session(tmp_path)
    (tmp_path / "session.yaml").unlink()
    with pytest.raises(UsageError, match="No such file"):
        read_session(tmp_path)
