"""Parameters: what the schema says, what the check refuses."""

import contextlib
import copy
import io
import json
import math
import os
import subprocess
import sys
from importlib import metadata

import pytest
from conftest import ROOT
from hostile import (
    CELL_OF_TYPES,
    anything,
    few,
    hostile,
)
from hypothesis import given
from hypothesis import strategies as st
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from papermill.translators import PythonTranslator

from common.parameters import ParameterError, check_parameters, describe, find_parameters, read_schema
from common.record import check_installation, finite
from course import cli
from course.evidence import outputs_of
from course.sessions import find_session

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="

CELL = """
# What is done
profile = "full"  # @param ["full", "quick"]
variant = "A"  # @param ["A", "B"]
seed = 0  # @param {"type": "integer", "min": 0}
dataset = "mnist"  # @param ["mnist", "digits"]
epochs = 20  # @param {"type": "integer", "min": 1, "max": 100}
lr = 0.1  # @param {"type": "number", "min": 0}
bfloat16 = False  #@param {"type": "boolean"}
data_dir = ""  # @param {"type": "string"}
weights = ""  # @param {"type": "string"}
"""
SCHEMA = read_schema(CELL)


def test_the_schema_is_read_from_the_cell():
    names = ["profile", "variant", "seed", "dataset", "epochs", "lr", "bfloat16", "data_dir", "weights"]
    assert list(SCHEMA) == names
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
    # a cell of the learner's own may name what it likes, and have a form too
    own = 'mine = 1  # @param {"type": "integer"}\nlr = 3  # @param {type:"slider"}'
    assert find_parameters([CELL, "other = 1", own, "run = …"]) == defaults
    assert find_parameters([own, CELL, "run = …"]) == defaults


def test_unknown_names_from_papermill_and_a_missing_cell_are_refused():
    with pytest.raises(ParameterError, match="no parameter learning_rate"):
        find_parameters([CELL, "# Parameters\nlearning_rate = 1\n", ""])
    with pytest.raises(ParameterError, match='lr must be a number, not "float'):
        find_parameters([CELL, "# Parameters\nlr = float('nan')\n", ""])
    with pytest.raises(ParameterError, match="Run the parameters cell first"):
        find_parameters(["", "import os", "text = '# @param'"][:2])


def test_the_last_run_of_the_parameters_cell_counts():
    """Older ones may have been wrong, and later cells may have changed the values."""
    changed = CELL.replace("epochs = 20", "epochs = 4")
    for old in (CELL.replace("epochs = 20", "epochs = 10 + 10"), "# Parameters\nlearning_rate = 1\n"):
        assert find_parameters([old, changed, "run = …", "epochs = 99"])["epochs"] == 4


@pytest.mark.parametrize(
    "line", ["epochs = 10 + 10  # @param {}", 'lr = 0.1  # @param {type: "number"}', "a = b  # @param []"]
)
def test_a_malformed_parameter_line_is_named(line):
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


def test_every_cell_works_after_the_parameters_were_run_again():
    """Then `device` is "auto" again until the cell that makes the Run chooses one: that cell is run, too."""
    source = find_session("s06").notebook
    parameters, start, data_cell, model = (
        next(cell.source for cell in source.cells if cell.id == name)
        for name in ("parameters", "start", "data", "model")
    )
    parameters = parameters.replace('dataset = "mnist"', 'dataset = "digits"')
    changed = parameters.replace("epochs = 20", "epochs = 3").replace('device = "auto"', 'device = "cpu"')
    wrong = parameters.replace("epochs = 20", "epochs = 0")
    own = 'mine = 1  # @param {"type": "integer"}'
    cells = [parameters, start, data_cell, own, parameters, model, changed, changed, own, wrong]
    cells += [parameters, model, "print(epochs, device, len(In))"]
    code = (
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance(colors='nocolor')\n"
        f"for cell in {cells!r}:\n"
        "    shell.run_cell(cell, store_history=True)\n"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.stdout.splitlines()[-1] == f"20 cpu {len(cells) + 1}"
    assert process.stdout.count("Traceback") == 1
    assert "ParameterError: epochs must be from 1 to 1000, not 0" in process.stdout


def test_kernel_and_file_give_the_outputs_the_same_checksum(tmp_path):
    """In pieces, in base64, or as the last value of a cell."""
    cells = [
        "from common.outputs import listen\nlisten(get_ipython())\noutputs = listen(get_ipython())",
        "import base64, sys\nfrom IPython.display import Markdown, display\nprint('one', 2)\nprint('ä')",
        "display(Markdown('*three*'))\nprint('two', file=sys.stderr)",
        f"png = base64.b64decode('{PIXEL}')\n"
        "display({'image/png': png, 'text/plain': 'four'}, raw=True, metadata={'filename': 'x.png', 'alt': 'four'})",
        "2 + 3",
    ]
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    notebook.cells.append(new_code_cell("print(outputs.sha256())", metadata={"tags": ["record"]}))
    NotebookClient(notebook, resources={"metadata": {"path": str(ROOT)}}).execute()
    heard = notebook.cells[-1].outputs[0].text.strip()
    assert sum(len(cell.outputs) for cell in notebook.cells) == 6
    assert heard == outputs_of(notebook).sha256()
    for cell, change in (
        (1, lambda output: output.update(text="one 3\nä\n")),
        (2, lambda output: output.data.update({"text/markdown": "*tree*"})),
        (3, lambda output: output.metadata.update(alt="five")),
        (3, lambda output: output.metadata.update(filename="y.png")),
        (3, lambda output: output.data.update({"image/png": PIXEL.replace("A6", "A7")})),
        (4, lambda output: output.data.update({"text/plain": "6"})),
    ):
        altered = copy.deepcopy(notebook)
        change(next(output for output in altered.cells[cell].outputs if output.get("name") != "stderr"))
        assert heard != outputs_of(altered).sha256()


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


# ---------------------------------------------------------------------------------------------------------------
# Hostile input: any value, from the command and from papermill


TYPES = read_schema(CELL_OF_TYPES)


@few(100)
@given(st.sampled_from([*TYPES]), anything)
def test_a_value_is_refused_or_reaches_the_notebook_as_it_is(name, value):
    """What passes the check has the right type and range, and papermill's cell has the same value."""
    try:
        checked = check_parameters(TYPES, {name: value})
    except ParameterError:
        return
    assert type(checked[name]) is type(TYPES[name]["default"])
    assert not isinstance(value, float) or math.isfinite(value)
    assert (
        find_parameters([CELL_OF_TYPES, "# Parameters\n" + PythonTranslator.codify(checked, "")])[name] == checked[name]
    )


@few(100)
@given(st.dictionaries(st.text() | hostile | st.integers(), anything, min_size=1, max_size=3))
def test_an_unknown_name_is_refused(values):
    with pytest.raises(ParameterError, match="There is no parameter"):
        check_parameters(TYPES, values)


@few(100)
@given(st.text() | hostile)
@pytest.mark.parametrize("start", ["", "epochs = ", "epochs.x = ", "lr = __import__('os').system('touch outside')\n"])
def test_a_cell_with_code_for_parameters_is_not_executed(start, text):
    before = sorted(os.listdir())
    with contextlib.suppress(ParameterError):
        values = find_parameters([CELL_OF_TYPES, f"# Parameters\n{start}{text}"])
        assert values == check_parameters(TYPES, values)
    assert sorted(os.listdir()) == before


@few(100)
@given(anything | st.fixed_dictionaries({"type": st.sampled_from(["number", "file", 1])}, optional={"min": anything}))
def test_a_malformed_form_is_refused(form):
    try:
        schema = read_schema(f"x = 1  # @param {json.dumps(form)}")
        check_parameters(schema, {"x": 1})
    except ParameterError:
        return
    assert "x = 1" in describe(schema)


@pytest.fixture(scope="module")
def command():
    """The command in this process: (exit code, stderr, what would have been executed)."""

    def call(*arguments):
        executed, error = [], io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(error):
            patch.setattr(cli, "SIGNALS", ())
            patch.setattr(cli, "execute", lambda *values: executed.append(values))
            try:
                code = cli.main(list(arguments))
            except SystemExit as exit:  # argparse
                code = exit.code
        return code, error.getvalue(), executed

    return call


@few(60)
@given(st.sampled_from(["epochs", "lr", "dataset", "variant", "seed"]) | st.text() | hostile, st.text() | hostile)
def test_a_parameter_of_the_command_is_refused_or_executed(command, name, value):
    code, error, executed = command("run", "s06", "-p", name, value)
    if code:
        assert code == 2
        assert not executed
        assert "course: " in error or "usage: course" in error
    else:
        _, values, path, _ = executed[0]
        assert values[name] == type(values[name])(value)
        assert len(path.parts) == 3  # whatever the value is, the files lie in the session's folder
        assert ".." not in path.parts


@pytest.mark.parametrize("limit", ["nan", "inf", "0", "-1", "x"])
def test_an_invalid_time_limit_is_refused(command, limit):
    code, error, executed = command("run", "s06", f"--time-limit={limit}")
    assert (code, executed) == (2, [])
    assert "--time-limit: invalid hours value" in error


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "s06", "-p", "epochs", 200_000 * "9"],
        ["run", "s06", "-p", "variant", 100_000 * "a "],
        ["run", "s06", "-p", 100_000 * "a ", "1"],
        ["run", 100_000 * "a "],
        ["run", "s06", "--time-limit", 100_000 * "a "],
        [100_000 * "a "],
        ["data", 100_000 * "a "],
        ["compare", 100_000 * "a ", "s06:B"],
    ],
)
def test_a_long_value_is_not_repeated_in_full(command, arguments):
    code, error, executed = command(*arguments)
    assert (bool(code), executed) == (True, [])
    assert len(error) < 5000
    assert "characters)" in error


@pytest.mark.parametrize("place", ["../../x", "/" + "tmp", "logs/../../x"])
def test_logs_are_not_written_outside_the_course(command, place):
    code, error, executed = command("run", "s02", "-p", "log_dir", place)
    assert (code, executed) == (2, [])
    assert "log_dir must be a folder inside" in error
    assert command("run", "s02", "-p", "log_dir", "logs/x")[0] == 0


def test_runs_on_different_image_folders_have_different_names(command):
    names = [command("run", "s10", "-p", "dataset", f"folder:{name}")[2][0][2].name for name in ("a/b", "a_b", "a?b")]
    assert len(set(names)) == 3
    assert all(name.startswith("all-seed-0-dataset-folder_a_b-") for name in names)
    assert command("run", "s10", "--seed", "1")[2][0][2].name == "all-seed-1"
    long = command("run", "s10", "-p", "dataset", "folder:" + 300 * "x")[2][0][2].name
    assert len(f"{long}.safetensors.unfinished") < 255
