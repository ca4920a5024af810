"""The two packages: which may import what, and neither knows a session by name."""

import ast
import re

import pytest
from conftest import ROOT

LESSON, COMMAND = sorted((ROOT / "common").glob("*.py")), sorted((ROOT / "course").glob("*.py"))
MACHINERY = {"course", "papermill", "nbformat", "nbconvert", "nbclient", "snakemake"}


def imported(path):
    """The packages that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", LESSON, ids=lambda path: path.name)
def test_common_does_not_depend_on_the_command(path):
    assert not MACHINERY & set(imported(path))


def test_the_command_imports_common_but_papermill_has_a_process_of_its_own():
    def users(package):
        return [path.name for path in COMMAND if package in imported(path)]

    assert len(users("common")) > 1 and len(users("nbformat")) > 1
    assert users("papermill") == ["engine.py"]
    assert not [path.name for path in COMMAND if re.search(r"(from|import) course\.engine", path.read_text())]


@pytest.mark.parametrize(
    "path",
    [*LESSON, *COMMAND, ROOT / "Snakefile", ROOT / "Makefile"],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_no_session_is_known_by_name(path):
    names = [folder.name for folder in (ROOT / "sessions").iterdir() if folder.is_dir()]
    assert names
    text = path.read_text(encoding="utf-8")
    assert [name for name in names if name in text] == []
    assert re.findall(r"\bs\d\d_\w+", text) == []
