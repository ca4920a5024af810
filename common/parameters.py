"""A notebook's parameters, read from its parameters cell and checked against it."""

import ast
import json
import math
import re
import sys
from pathlib import Path

# These say where something lies or runs. All other parameters decide the result.
PLACE_PARAMETERS = {"data_dir", "checkpoint", "weights", "log_dir", "device"}
NEEDED = {"profile", "variant", "seed", "weights"}  # what the parameters cell of every session has, and no other cell
PYTHON_TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool}


class ParameterError(ValueError):
    """A parameter is unknown, of the wrong type or out of range; the message lists what is allowed."""


def read_schema(source):
    """Read the parameters cell: {name: {"default": …, "type": …, "min": …, "max": …, "choices": […]}}.

    A line is `name = value  # @param {"type": "number", "min": 0}` or `name = value  # @param ["one", "two"]`, which
    Colab shows as a form. Raises ParameterError for any other `@param` line.
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
        except (TypeError, ValueError, SyntaxError, KeyError, OverflowError):  # the last for a limit of 400 digits
            known, limits = False, []
        if not known or not all(map(math.isfinite, limits)):
            form = 'name = value  # @param {"type": "number"}'
            raise ParameterError(f"This line must have a plain value and the form {form}: {_cut(line)}")
        schema[name] = {"default": default, **rule}
    return schema


def check_parameters(schema, values):
    """Return `values`, as floats where the type is "number"; raise ParameterError for a bad value."""
    unknown = sorted(str(name) for name in values if name not in schema)
    if unknown:
        raise ParameterError(f"There is no parameter {_cut(', '.join(unknown))}. There are:\n{describe(schema)}")
    return {name: _check(name, schema[name], value) for name, value in values.items()}


def _check(name, rule, value):
    expected = PYTHON_TYPES[rule["type"]]
    fits = isinstance(value, expected) and isinstance(value, bool) == (expected is bool)
    if not fits:
        hint = ""
        if rule["type"] == "number" and isinstance(value, str) and re.fullmatch(r"[+-]?\d+[eE][+-]?\d+", value):
            hint = f": YAML reads {_cut(value)} as text, write it with a point, as in 1.0e-3"
        raise ParameterError(f"{name} must be {_article(rule['type'])}, not {_cut(repr(value))}{hint}.")
    if "choices" in rule and value not in rule["choices"]:
        raise ParameterError(f"{name} must be one of {', '.join(map(repr, rule['choices']))}, not {_cut(repr(value))}.")
    low, high = rule.get("min", -math.inf), rule.get("max", math.inf)
    if expected not in (str, bool) and not (low <= value <= high and abs(value) <= sys.float_info.max):
        raise ParameterError(f"{name} must be from {low} to {high}, not {_cut(repr(value))}.")
    return float(value) if rule["type"] == "number" else value


def _cut(text):
    """A text cut for a message: user input may have any length."""
    return text if len(text) <= 200 else f"{text[:100]}… ({len(text):,} characters)"


def _article(word):
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def describe(schema):
    """One line per parameter: name, default value, type and range."""
    lines = []
    for name, rule in schema.items():
        limits = f"one of {', '.join(map(repr, rule['choices']))}" if "choices" in rule else rule["type"]
        limits += f", at least {rule['min']}" if "min" in rule else ""
        limits += f", at most {rule['max']}" if "max" in rule else ""
        lines.append(f"  {name} = {rule['default']!r}  ({limits})")
    return "\n".join(lines)


def is_parameters_cell(source, needed=NEEDED):
    """Whether this is the parameters cell: a learner's cell may have `@param` lines too, but not those `needed`."""
    return set(re.findall(r"^(\w+) = .*@param", source, re.M)) >= needed


def find_parameters(inputs, needed=NEEDED):
    """The checked parameters of a running notebook, {name: value}.

    `inputs` are the sources of the cells run so far (IPython's `In`). The parameters cell is the last one run that has
    the names `needed`. The cell that papermill adds after it may change its values, but add no names.
    """
    position = max((number for number, source in enumerate(inputs) if is_parameters_cell(source, needed)), default=-1)
    if position < 0:
        names = ", ".join(sorted(needed))
        raise ParameterError(f"Run the parameters cell first: the one with the @param lines of {names} and others.")
    schema = read_schema(inputs[position])
    values = {name: rule["default"] for name, rule in schema.items()}
    for source in inputs[position + 1 :]:
        if source.startswith("# Parameters"):  # how papermill begins the cell that it adds
            values |= _assignments(source)
    return check_parameters(schema, values)


def find_variables(session, namespace):
    """The checked parameters if no inputs are kept, as under nbval: the variables with their names."""
    # Not utils.ROOT: the command `course` uses this module, and should not wait two seconds for torch
    text = (Path(__file__).resolve().parent.parent / "sessions" / session / "session.ipynb").read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    schema = read_schema("".join(cells[0]["source"]))
    if set(schema) - set(namespace):
        raise ParameterError("Run the parameters cell first: the one with the @param lines.")
    return check_parameters(schema, {name: namespace[name] for name in schema})


def _assignments(source):
    """The assignments, {name: value}, of a cell that has nothing else."""
    try:
        nodes = ast.parse(source).body
    except (SyntaxError, ValueError):
        nodes = [None]
    if not all(isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) for node in nodes):
        raise ParameterError("The cell that begins with # Parameters must have lines like name = value only.")
    return {node.targets[0].id: _plain(node.value) for node in nodes}


def _plain(node):
    """The value of a literal; for anything else, such as float("nan"), its text, which no check lets pass."""
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return ast.unparse(node)
