"""Parameters: what the schema says, what the check refuses."""

import math

import pytest

from common.record import ParameterError, check_parameters, describe, find_parameters, finite, read_schema

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
    assert find_parameters(["", "import os", CELL, "run = …"], defaults) == defaults
    injected = "# Parameters\nepochs = 3\n"
    assert find_parameters([CELL, injected, "run = …"], {**defaults, "epochs": 3})["epochs"] == 3
    # a cell of the learner's own may name what it likes
    assert find_parameters([CELL, "other = 1", "run = …"], {**defaults, "other": 1}) == defaults


def test_papermills_unknown_names_are_refused_and_a_missing_cell_too():
    namespace = {**{name: rule["default"] for name, rule in SCHEMA.items()}, "learning_rate": 1}
    with pytest.raises(ParameterError, match="no parameter learning_rate"):
        find_parameters([CELL, "# Parameters\nlearning_rate = 1\n", ""], namespace)
    with pytest.raises(ParameterError, match="Run the parameters cell first"):
        find_parameters(["", "import os"], {})


def test_a_cell_that_was_run_again_counts():
    changed = CELL.replace("epochs = 20", "epochs = 4")
    namespace = {name: rule["default"] for name, rule in read_schema(changed).items()}
    old = "# Parameters\nlearning_rate = 1\n"
    assert find_parameters([CELL, old, changed, ""], namespace)["epochs"] == 4


def test_numbers_that_json_does_not_know_become_null():
    assert finite({"a": [1.5, math.nan, (math.inf, "x")], "b": {"c": -math.inf, "d": 2}}) == {
        "a": [1.5, None, [None, "x"]],
        "b": {"c": None, "d": 2},
    }
