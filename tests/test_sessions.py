"""The sessions as they are committed: notebooks in order, and pages up to date."""

import ast
import json
import re

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
        pytest.fail(f"{name} is no JSON")

    json.loads((session.folder / "results.json").read_text(encoding="utf-8"), parse_constant=refuse)


# ---------------------------------------------------------------------------------------------------------------
# Hostile input: descriptions of another form


@pytest.mark.parametrize(
    "quick",
    ["", "- epochs", "epochs: [", "1: 2", "epochs: !!python/object/apply:os.mkdir [outside]", "epochs: 1e3", "\xff"],
)
def test_a_broken_quick_profile_is_named(tmp_path, monkeypatch, quick):
    monkeypatch.chdir(tmp_path)
    nbformat.write(small_notebook(CELL_OF_TYPES), tmp_path / "session.ipynb")
    text = DESCRIPTION.replace("quick: {profile: quick}", f"quick:\n  {quick}")
    (tmp_path / "session.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises((UsageError, ParameterError)):
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
