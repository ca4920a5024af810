"""The parameters of a notebook, checked against its own parameters cell, and the record of its run."""

import ast
import hashlib
import json
import math
import re
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

SCHEMA = 1
MIME = "application/vnd.course.record+json"
KEYS = (
    *("schema", "session", "profile", "variant", "seed", "params", "dataset", "device", "threads", "versions"),
    *("common_sha256", "started", "finished", "seconds", "history", "metrics", "weights"),
)
# These say where something lies or runs. All other parameters decide the result.
WHERE = {"data_dir", "checkpoint", "weights", "log_dir", "device"}
LESSON_FILES = ("model.py", "data.py", "train.py", "lr_finder.py", "grad_cam.py", "plots.py", "utils.py")
PYTHON_TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool}

# ---------------------------------------------------------------------------------------------------------------
# Parameters


class ParameterError(ValueError):
    """A parameter is unknown, of the wrong type or out of range; the message lists what there is."""


def read_schema(source):
    """Read the parameters cell: {name: {"default": …, "type": …, "min": …, "max": …, "choices": […]}}.

    A line is `name = value  # @param {"type": "number", "min": 0}` or `name = value  # @param ["one", "two"]`: what
    Colab shows as a form.
    """
    schema = {}
    for line in source.splitlines():
        match = re.match(r"(\w+) = (.+?)\s+#\s?@param (.+)$", line)
        if match:
            name, default, form = match[1], ast.literal_eval(match[2]), json.loads(match[3])
            if isinstance(form, list):
                form = {"type": "string", "choices": form}
            schema[name] = {"default": default, **form}
    return schema


def check_parameters(schema, values):
    """Return `values` with whole numbers as floats where a number is asked for; raise ParameterError for a bad one."""
    unknown = sorted(set(values) - set(schema))
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
    if rule["type"] == "number":
        value = float(value)
    if "choices" in rule and value not in rule["choices"]:
        raise ParameterError(f"{name} must be one of {', '.join(map(repr, rule['choices']))}, not {value!r}.")
    low, high = rule.get("min", -math.inf), rule.get("max", math.inf)
    if expected not in (str, bool) and not (low <= value <= high and math.isfinite(value)):
        raise ParameterError(f"{name} must be from {low} to {high}, not {value!r}.")
    return value


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


def find_parameters(inputs, namespace):
    """Check the parameters of a running notebook and return their values.

    `inputs` are the sources of the cells that were run so far (IPython's `In`): the last one with # @param lines is the
    parameters cell, and papermill's cell behind it may name nothing else. `namespace` (`globals()`) holds the values.
    """
    position = max((number for number, source in enumerate(inputs) if read_schema(source)), default=None)
    if position is None:
        raise ParameterError("Run the parameters cell first: the one with the # @param lines.")
    schema = read_schema(inputs[position])
    names = set(schema)
    for source in inputs[position + 1 :]:
        if source.startswith("# Parameters"):  # how papermill begins the cell that it adds
            targets = (target for node in ast.parse(source).body for target in getattr(node, "targets", ()))
            names |= {target.id for target in targets}
    return check_parameters(schema, {name: namespace[name] for name in [*schema, *sorted(names - set(schema))]})


# ---------------------------------------------------------------------------------------------------------------
# The record


class Run:
    """One execution of a session's notebook, from its checked parameters to the record in its last cell."""

    def __init__(self, session, inputs, namespace):
        """`inputs` and `namespace` are IPython's `In` and `globals()`; see find_parameters."""
        self.session = session
        self.parameters = find_parameters(inputs, namespace)
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

        from common.utils import versions

        weights = self.parameters["weights"]
        if weights:
            weights = Path(weights)
            save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, weights)
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
            "device": torch.cuda.get_device_name() if torch.device(device).type == "cuda" else "CPU",
            "threads": torch.get_num_threads(),
            "versions": versions(),
            "common_sha256": lesson_hashes(),
            "started": self.started,
            "finished": _now(),
            "seconds": self.seconds | history.seconds,
            "history": history.epochs,
            "metrics": metrics,
            "weights": {"file": weights.name, "sha256": hash_file(weights)} if weights else None,
        }
        record = finite(record)
        line = f"{self.session} {record['variant']} seed {record['seed']}: test accuracy {metrics['test_accuracy']:.2%}"
        display({MIME: record, "text/plain": line}, raw=True)


def lesson_hashes():
    """SHA-256 of each file of common/ that a lesson imports."""
    folder = Path(__file__).parent
    return {name: hash_file(folder / name) for name in LESSON_FILES if (folder / name).exists()}


def hash_file(path):
    """SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def finite(value):
    """The same structure of dicts, lists and numbers with null for what JSON cannot say: infinities and NaN."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _now():
    return datetime.now(UTC).isoformat(timespec="seconds")
