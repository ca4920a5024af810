"""Parameters: what the schema says, what the check refuses."""

import math
import subprocess
import sys
from importlib import metadata

import pytest
from conftest import ROOT

from common.parameters import ParameterError, check_parameters, describe, find_parameters, read_schema
from common.record import check_installation, finite

CELL = """
# What is done
dataset = "mnist"  # @param ["mnist", "digits"]
epochs = 20  # @param {"type": "integer", "min": 1, "max": 100}
lr = 0.1  # @param {"type": "number", "min": 0}
bfloat16 = False  #@param {"type": "boolean"}
data_dir = ""  # @param {"type": "string"}
"""
SCHEMA = read_schema(CELL)


def test_the_schema_is_read_from_the_cell():
    assert list(SCHEMA) == ["dataset", "epochs", "lr", "bfloat16", "data_dir"]
    assert SCHEMA["epochs"] == {"default": 20, "type": "integer", "min": 1, "max": 100}
    assert SCHEMA["dataset"]["choices"] == ["mnist", "digits"]
    for name in SCHEMA:
        assert name in describe(SCHEMA)


def test_good_values_pass_and_whole_numbers_become_floats():
    values = check_parameters(SCHEMA, {"epochs": 3, "lr": 1, "dataset": "digits", "bfloat16": True})
    assert values == {"epochs": 3, "lr": 1.0, "dataset": "digits", "bfloat16": True}
    assert isinstance(values["lr"], float)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epoch", 3, r"no parameter epoch\. There are:\n.*dataset.*epochs = 20"),
        ("epochs", "3", "epochs must be an integer, not '3'"),
        ("epochs", 3.0, "epochs must be an integer"),
        ("epochs", True, "epochs must be an integer, not True"),
        ("epochs", None, "epochs must be an integer, not None"),
        ("epochs", [3], "epochs must be an integer"),
        ("epochs", 0, "epochs must be from 1 to 100, not 0"),
        ("epochs", 101, "epochs must be from 1 to 100"),
        ("lr", math.nan, "lr must be from 0 to inf, not nan"),
        ("lr", math.inf, "lr must be from 0 to inf, not inf"),
        ("lr", -0.1, "lr must be from 0"),
        ("lr", "1e-3", r"write it with a point, as in 1\.0e-3"),
        ("lr", True, "lr must be a number, not True"),
        ("bfloat16", 1, "bfloat16 must be a boolean"),
        ("dataset", "mnits", "dataset must be one of 'mnist', 'digits', not 'mnits'"),
        ("dataset", 5, "dataset must be a string"),
        ("__import__('os').getcwd()", 5, "no parameter __import__"),
    ],
)
def test_bad_values_are_refused(name, value, message):
    with pytest.raises(ParameterError, match=f"(?s){message}"):
        check_parameters(SCHEMA, {name: value})


def test_a_notebook_finds_its_own_parameters():
    defaults = {name: rule["default"] for name, rule in SCHEMA.items()}
    assert find_parameters(["", "import os", CELL, "run = …"]) == defaults
    injected = "# Parameters\nepochs = 3\n"
    assert find_parameters([CELL, injected, "run = …"])["epochs"] == 3
    # a cell of the learner's own may name what it likes
    assert find_parameters([CELL, "other = 1", "run = …"]) == defaults


def test_papermills_unknown_names_are_refused_and_a_missing_cell_too():
    with pytest.raises(ParameterError, match="no parameter learning_rate"):
        find_parameters([CELL, "# Parameters\nlearning_rate = 1\n", ""])
    with pytest.raises(ParameterError, match='lr must be a number, not "float'):
        find_parameters([CELL, "# Parameters\nlr = float('nan')\n", ""])
    with pytest.raises(ParameterError, match="Run the parameters cell first"):
        find_parameters(["", "import os", "text = '# @param'"][:2])


def test_a_cell_that_was_run_again_counts():
    """The last one: older ones may have been wrong, and later cells may have given the names other values."""
    changed = CELL.replace("epochs = 20", "epochs = 4")
    for old in (CELL.replace("epochs = 20", "epochs = 10 + 10"), "# Parameters\nlearning_rate = 1\n"):
        assert find_parameters([old, changed, "run = …", "epochs = 99"])["epochs"] == 4


@pytest.mark.parametrize(
    "line", ["epochs = 10 + 10  # @param {}", 'lr = 0.1  # @param {type: "number"}', "a = b  # @param []"]
)
def test_a_line_of_another_form_is_named(line):
    with pytest.raises(ParameterError, match="This line must have a plain value") as error:
        find_parameters([CELL + line])
    assert line in str(error.value)


@pytest.mark.parametrize(
    ("torch", "torchvision", "needs", "fits"),
    [
        ("2.11.0", "0.26.0", "torch (==2.11.0)", True),
        ("2.11.0+cu128", "0.26.0+cu128", "torch (==2.11.0)", True),
        ("2.15.0", "0.29.2", "torch (>=2.14.0)", True),
        ("2.10.0", "0.26.0", "torch (==2.11.0)", False),
        ("2.11.0+cpu", "0.26.0", "torch (==2.11.0)", False),
    ],
)
def test_torch_and_torchvision_must_match(monkeypatch, torch, torchvision, needs, fits):
    versions = {"torch": torch, "torchvision": torchvision}
    monkeypatch.setattr(metadata, "version", versions.__getitem__)
    monkeypatch.setattr(metadata, "requires", lambda package: ["numpy", needs])
    if fits:
        check_installation()
    else:
        with pytest.raises(RuntimeError, match=r"do not match: install both in one command"):
            check_installation()


@pytest.mark.parametrize("module", ["common", "common.data", "course.cli"])
def test_an_old_python_is_told_which_one_is_needed(module):
    code = f"import sys; sys.version_info = (3, 10, 13, 'final', 0); import {module}"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "ImportError: The course needs Python 3.11 or newer, this is" in process.stderr.splitlines()[-1]


def test_numbers_that_json_does_not_know_become_null():
    assert finite({"a": [1.5, math.nan, (math.inf, "x")], "b": {"c": -math.inf, "d": 2}}) == {
        "a": [1.5, None, [None, "x"]],
        "b": {"c": None, "d": 2},
    }
