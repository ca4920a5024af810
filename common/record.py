"""The parameters of a notebook, checked against its own parameters cell, and the record of its run."""

import ast
import hashlib
import json
import math
import os
import re
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

SCHEMA = 1
MIME = "application/vnd.course.record+json"
KEYS = (
    *("schema", "session", "profile", "variant", "seed", "params", "dataset", "device", "threads", "versions"),
    *("common_sha256", "started", "finished", "seconds", "history", "metrics", "weights"),
)
# These say where something lies or runs. All other parameters decide the result.
WHERE = {"data_dir", "checkpoint", "weights", "log_dir", "device"}
LESSON_FILES = ("model.py", "data.py", "train.py", "many.py", "lr_finder.py", "grad_cam.py", "plots.py", "utils.py")
PYTHON_TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool}

# ---------------------------------------------------------------------------------------------------------------
# Parameters


class ParameterError(ValueError):
    """A parameter is unknown, of the wrong type or out of range; the message lists what there is."""


def read_schema(source):
    """Read the parameters cell: {name: {"default": …, "type": …, "min": …, "max": …, "choices": […]}}.

    A line is `name = value  # @param {"type": "number", "min": 0}` or `name = value  # @param ["one", "two"]`: what
    Colab shows as a form. Raises ParameterError for a line of another form.
    """
    schema = {}
    for line in source.splitlines():
        if "@param" not in line:
            continue
        match = re.match(r"(\w+) = (.+?)\s+#\s?@param (.+)$", line)
        try:
            name, default, form = match[1], ast.literal_eval(match[2]), json.loads(match[3])
            rule = {"type": "string", "choices": form} if isinstance(form, list) else dict(form)
            known = rule["type"] in PYTHON_TYPES
            limits = [float(rule[limit]) for limit in ("min", "max") if limit in rule]
        except (TypeError, ValueError, SyntaxError, KeyError):
            known, limits = False, []
        if not known or not all(map(math.isfinite, limits)):
            form = 'name = value  # @param {"type": "number"}'
            raise ParameterError(f"This line must have a plain value and the form {form}: {line}")
        schema[name] = {"default": default, **rule}
    return schema


def check_parameters(schema, values):
    """Return `values` with whole numbers as floats where a number is asked for; raise ParameterError for a bad one."""
    unknown = sorted(str(name) for name in values if name not in schema)
    if unknown:
        raise ParameterError(f"There is no parameter {', '.join(unknown)}. There are:\n{describe(schema)}")
    return {name: _check(name, schema[name], value) for name, value in values.items()}


def _check(name, rule, value):
    expected = PYTHON_TYPES[rule["type"]]
    fits = isinstance(value, expected) and isinstance(value, bool) == (expected is bool)
    if not fits:
        hint = ""
        if rule["type"] == "number" and isinstance(value, str) and re.fullmatch(r"[+-]?\d+[eE][+-]?\d+", value):
            hint = f": YAML reads {value} as text, write it with a point, as in 1.0e-3"
        raise ParameterError(f"{name} must be {_article(rule['type'])}, not {value!r}{hint}.")
    if "choices" in rule and value not in rule["choices"]:
        raise ParameterError(f"{name} must be one of {', '.join(map(repr, rule['choices']))}, not {value!r}.")
    low, high = rule.get("min", -math.inf), rule.get("max", math.inf)
    if expected not in (str, bool) and not (low <= value <= high and abs(value) <= sys.float_info.max):
        raise ParameterError(f"{name} must be from {low} to {high}, not {value!r}.")
    return float(value) if rule["type"] == "number" else value


def _article(word):
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def describe(schema):
    """One line a parameter: name, default value, type and range."""
    lines = []
    for name, rule in schema.items():
        limits = f"one of {', '.join(map(repr, rule['choices']))}" if "choices" in rule else rule["type"]
        limits += f", at least {rule['min']}" if "min" in rule else ""
        limits += f", at most {rule['max']}" if "max" in rule else ""
        lines.append(f"  {name} = {rule['default']!r}  ({limits})")
    return "\n".join(lines)


def find_parameters(inputs):
    """The checked parameters of a running notebook, {name: value}.

    `inputs` are the sources of the cells that were run so far (IPython's `In`). The last one with `@param` lines is the
    parameters cell; the cell that papermill adds behind it may change its values, and name nothing else.
    """
    position = max(
        (number for number, source in enumerate(inputs) if re.search("^\\w+ = .*@param", source, re.M)), default=-1
    )
    if position < 0:
        raise ParameterError("Run the parameters cell first: the one with the @param lines.")
    schema = read_schema(inputs[position])
    values = {name: rule["default"] for name, rule in schema.items()}
    for source in inputs[position + 1 :]:
        if source.startswith("# Parameters"):  # how papermill begins the cell that it adds
            values |= _assignments(source)
    return check_parameters(schema, values)


def find_variables(session, namespace):
    """The checked parameters where no inputs are kept, as under nbval: the variables that have their names."""
    text = (Path(__file__).resolve().parent.parent / "sessions" / session / "session.ipynb").read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    schema = read_schema("".join(cells[0]["source"]))
    if set(schema) - set(namespace):
        raise ParameterError("Run the parameters cell first: the one with the @param lines.")
    return check_parameters(schema, {name: namespace[name] for name in schema})


def _assignments(source):
    """What a cell of nothing but assignments to names assigns, {name: value}."""
    try:
        nodes = ast.parse(source).body
    except (SyntaxError, ValueError):
        nodes = [None]
    if not all(isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) for node in nodes):
        raise ParameterError("The cell that begins with # Parameters must have lines like name = value only.")
    return {node.targets[0].id: _plain(node.value) for node in nodes}


def _plain(node):
    """The value of a literal; of anything else, such as float("nan"), its text: no check lets it pass."""
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return ast.unparse(node)


# ---------------------------------------------------------------------------------------------------------------
# The record


class Run:
    """One execution of a session's notebook, from its checked parameters to the record in its last cell."""

    def __init__(self, session, inputs, namespace):
        """`inputs` is IPython's `In`, see find_parameters; in `namespace`, `globals()`, the parameters are set anew."""
        check_installation()
        self.session = session
        self.parameters = find_parameters(inputs) if any(inputs) else find_variables(session, namespace)
        namespace.update(self.parameters)  # this cell may be run again after others gave the names another value
        if self.parameters["weights"]:  # a folder that cannot be written to should be known now, not after training
            Path(self.parameters["weights"]).parent.mkdir(parents=True, exist_ok=True)
        self.started = _now()
        self.seconds = {}

    @contextmanager
    def time(self, part):
        """Measure how many seconds a part of the run takes, such as "data"."""
        started = time.perf_counter()
        yield
        self.seconds[part] = time.perf_counter() - started

    def finish(self, model, data, device, history, metrics):
        """Display the record of the run, the evidence from which it is published, and write the weights.

        `model` is written to the safetensors file that the parameter `weights` names, if it names one. `data` is a
        common.data.Dataset, `history` a common.train.History, `metrics` a dict with `test_accuracy` as a fraction,
        `parameters` as an integer, then the session's own.
        """
        import torch  # here, because the command `course` uses this module and should not wait two seconds
        from IPython.display import display
        from safetensors.torch import save_file

        from common.utils import device_name, versions

        weights = self.parameters["weights"]
        if weights:
            weights = Path(weights)
            unfinished = weights.with_name(weights.name + ".unfinished")
            save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, unfinished)
            os.replace(unfinished, weights)
        record = {
            "schema": SCHEMA,
            "session": self.session,
            "profile": self.parameters["profile"],
            "variant": self.parameters["variant"],
            "seed": self.parameters["seed"],
            "params": {name: value for name, value in self.parameters.items() if name not in WHERE},
            "dataset": {
                "name": data.name,
                "train": len(data.train.labels),
                "test": len(data.test.labels),
                "sha256": data.sha256,
            },
            "device": device_name(device),
            "threads": torch.get_num_threads(),
            "versions": versions(),
            "common_sha256": lesson_hashes(),
            "started": self.started,
            "finished": _now(),
            "seconds": self.seconds | history.seconds,
            "history": history.epochs,
            "metrics": metrics,
            "weights": None,
        }
        if weights:
            size = weights.stat().st_size
            record["weights"] = {"file": weights.name, "bytes": size, "sha256": hash_file(weights)}
        record = finite(record)
        display({MIME: record, "text/plain": record_line(record)}, raw=True)


def check_installation():
    """Raise RuntimeError if the installed torchvision was made for another torch; imports neither of them."""
    torch, torchvision = metadata.version("torch"), metadata.version("torchvision")
    needs = [Requirement(line) for line in metadata.requires("torchvision")]
    fits = all(need.specifier.contains(torch, prereleases=True) for need in needs if need.name == "torch")
    if not fits or ("+cpu" in torch) != ("+cpu" in torchvision):
        raise RuntimeError(
            f"torch {torch} and torchvision {torchvision} do not match: install both in one command from the same "
            "place, `pip install --force-reinstall torch torchvision`."
        )


def lesson_hashes():
    """SHA-256 of each file of common/ that a lesson imports."""
    folder = Path(__file__).parent
    return {name: hash_file(folder / name) for name in LESSON_FILES if (folder / name).exists()}


def hash_file(path):
    """SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def record_line(record):
    """A record in one line, for those who see no more of it; its checksum shows if a number was changed afterwards."""
    accuracy = record["metrics"]["test_accuracy"]
    checksum = hashlib.sha256(json.dumps(_as_floats(record), sort_keys=True).encode()).hexdigest()[:16]
    run = f"{record['session']} {record['variant']} seed {record['seed']}"
    return f"{run}: test accuracy {accuracy:.2%}, checksum of the record {checksum}"


def _as_floats(value):
    """The same structure with every number as a float: Colab saves 1.0 as 1."""
    if isinstance(value, dict):
        return {key: _as_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_floats(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def finite(value):
    """The same structure of dicts, lists and numbers with null for what is no number elsewhere: infinities, NaN."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, int | float) and not abs(value) <= sys.float_info.max:
        return None
    return value


def _now():
    return datetime.now(UTC).isoformat(timespec="seconds")
