"""Whether what is to be published is consistent: records, the notebooks that wrote them, and their weights.

Nothing here trains or evaluates: it takes milliseconds. Whether the weights do what the record says is for verify.py.
"""

import ast
import symtable
from collections import defaultdict
from contextlib import contextmanager
from math import prod

from safetensors import SafetensorError, safe_open

from common.outputs import Outputs
from common.parameters import PLACE_PARAMETERS, ParameterError, find_parameters, read_schema
from common.record import MIME, VERSION, record_line
from course.notebooks import NOT_DECIDING, PublishError, find_cell, plain_code, run_of, tags

# The data sets that the course downloads or includes. name as shown: (parameter, sizes, SHA-256)
DATASETS = {
    "MNIST": ("mnist", (60_000, 10_000), "5f617ad9c21210b06a84523faa989821d0a8990220a212a11ee8fb720bfd5317"),
    "CIFAR-10": ("cifar10", (50_000, 10_000), "013ba16d14ecc4829da62bf2af648ca30f600491ecb3e7f329c827db0dd17522"),
    "digits": ("digits", (1437, 360), "77c452027670a08abfd46eb2010e951706a5fc37c7f6383dcf262ac4f7c17f28"),
}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norm: not parameters


# ---------------------------------------------------------------------------------------------------------------
# Records


def judged(record):
    """The measures of the network whose history and weights a record has: those of one part, or of the whole run."""
    metrics = record["metrics"]
    parts = metrics.get("parts", [])
    if _are_draws(parts):  # one of them is shown: the one at whose accuracy the history ends
        shown = record["history"][-1].get("test_accuracy")
        return next((part for part in parts if part["test_accuracy"] == shown), parts[0])
    same = [part for part in parts if all(metrics[key] == part[key] for key in metrics.keys() & part.keys())]
    return same[0] if same else metrics


def contradictions(records):
    """Yield a sentence for each place where a session's records contradict themselves, each other, or known facts."""
    for record in records:
        for why in _within(record):
            yield f"{_name(record)}: {why}"
    yield from _between(records)


def _within(record):
    """Yield where two numbers of a record disagree."""
    params, metrics, history = record["params"], record["metrics"], record["history"]
    parts, shown = metrics.get("parts", []), judged(record)
    yield from _dataset_faults(record["dataset"], params)
    if any(record[name] != params.get(name, record[name]) for name in ("profile", "variant", "seed")):
        yield "profile, variant or seed are not those of its parameters."
    lengths = [value for name, value in params.items() if name.endswith("epochs")]  # of parts: any of them
    yield from _history_faults(history, [params["epochs"]] if "epochs" in params else lengths, shown)
    if _are_draws(parts):
        if [part["draw"] for part in parts] != list(range(len(parts))) or params.get("draws", len(parts)) != len(parts):
            yield "its draws are not counted from 0 to the number of draws."
        for key in filter(_is_accuracy, parts[0]):
            if metrics.get(key) != sum(part.get(key, 0) for part in parts) / len(parts):
                yield f"{key} is not the mean of its draws."
    elif parts and shown is metrics:
        yield "none of its parts has the numbers of the whole."
    for part in parts:
        if "history" in part:
            yield from _history_faults(part["history"], lengths, part)
    if shown.get("history", history) != history:
        yield "its history is not that of the part whose numbers it has."
    if shown.get("seconds", record["seconds"]["train"]) != record["seconds"]["train"]:
        yield "the seconds of its training are not those of the part whose numbers it has."
    targets = [value for name, value in params.items() if name.endswith("target")]
    if shown.get("target", params["target"]) not in targets:
        yield "the target is not that of its parameters."
    if "stored" in metrics:
        right, changed = (metrics["stored"][name] for name in ("right", "changed"))
        if abs(right - shown["test_accuracy"] * record["dataset"]["test"]) > changed + 1e-6:
            yield f"the stored weights get {right} images right, which {changed} changed answers do not explain."


def _history_faults(history, lengths, measures):
    """Yield where a training's history is incomplete, or does not end at the accuracies that it reached."""
    lengths = lengths or [len(history)]
    if len(history) not in lengths or [row.get("epoch") for row in history] != list(range(1, len(history) + 1)):
        yield f"its history of {len(history)} rows does not have the epochs 1 to {' or '.join(map(str, lengths))}."
        return
    if "test_accuracy" not in history[-1]:
        yield "its history has no test accuracy."
    for key in filter(_is_accuracy, measures):
        last = history[-1].get(key if key == "test_accuracy" else f"test_{key}", measures[key])
        if last != measures[key]:
            yield f"{key} is {measures[key]}, but {last} at the end of its history."


def _dataset_faults(dataset, params):
    """Yield where a data set is not the known one with its name."""
    named = next((name for name, (parameter, *_) in DATASETS.items() if parameter == params.get("dataset")), None)
    if named and dataset["name"] != named:
        yield f"the parameter says that the data set is {params['dataset']}, the record {dataset['name']}."
    if dataset["name"] in DATASETS:
        _, sizes, sha256 = DATASETS[dataset["name"]]
        chosen = params.get("classes") == 2  # then images of other classes are left out
        if dataset["sha256"] != sha256 or (not chosen and (dataset["train"], dataset["test"]) != sizes):
            yield f"its data are not {dataset['name']}: {sizes[0]} + {sizes[1]} images, SHA-256 {sha256[:16]}…"


def _between(records):
    """Yield where runs share what they cannot share, or differ where they must not."""
    seen = {}
    for record in records:
        name = _name(record)
        marks = [("the same history", repr(record["history"]))]
        marks += [("the same weights", record["weights"]["sha256"])] if record["weights"] else []
        for mark in marks:
            if mark in seen:
                yield f"{seen[mark]} and {name} have {mark[0]}: one run was given as two."
            seen[mark] = name
    sizes = defaultdict(set)
    for record in records:
        for part in record["metrics"].get("parts") or [record["metrics"]]:
            for key in ("parameters", "receptive_field", "target"):
                value = part.get(key, record["metrics"].get(key))
                sizes[part.get("part", record["variant"]), key].add(value)
    for (group, key), values in sizes.items():
        if len(values) > 1:
            yield f"the runs of {group} differ in {key}: {', '.join(map(str, sorted(values, key=str)))}."


def _name(record):
    return "variant {}, seed {}".format(*run_of(record))


def _are_draws(parts):
    return bool(parts) and all("draw" in part for part in parts)


def _is_accuracy(key):
    return key.endswith("_accuracy")


@contextmanager
def naming(name):
    """Raise PublishError, which names the notebook, if one of its parameters is not allowed."""
    try:
        yield
    except ParameterError as error:
        raise PublishError(f"{name}: {error}") from None


# ---------------------------------------------------------------------------------------------------------------
# Executed notebooks


def check_notebook(notebook, record, name):
    """Raise PublishError if an executed notebook does not show what its record says, or was pieced together.

    A record of version 1 may have no checksum, and has no outputs checksum or execution count.
    """
    output = next(output for output in find_cell(notebook, "record").outputs if MIME in output.get("data", {}))
    if record["schema"] == VERSION and output.data.get("text/plain") != record_line(output.data[MIME]):
        raise PublishError(f"{name}: the record was changed after the run: its checksum does not match.")
    if any(item.output_type == "error" for cell in notebook.cells for item in cell.get("outputs", [])):
        raise PublishError(f"{name}: a cell ended with an error.")
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    with naming(name):
        parameters = {key: value for key, value in find_parameters(sources).items() if key not in PLACE_PARAMETERS}
    named = {key: record[key] for key in ("profile", "variant", "seed")}
    if parameters != record["params"] or parameters != parameters | named:
        raise PublishError(f"{name}: the record has other parameters than the notebook.")
    if record["schema"] == VERSION:
        _check_order(notebook, record, name)
        if outputs_of(notebook).sha256() != record["outputs_sha256"]:
            raise PublishError(f"{name}: what the cells printed and showed was changed after the run.")
        text = _text_of(notebook)
        for measures in record["metrics"].get("parts") or [record["metrics"]]:
            for key in filter(_is_accuracy, measures):
                if f"{measures[key]:.2%}" not in text:
                    raise PublishError(
                        f"{name}: the record says that {key} is {measures[key]:.2%}, but no cell shows it."
                    )


def _check_order(notebook, record, name):
    """Raise PublishError unless the cells were executed from top to bottom, in one go, in a new kernel."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    for number, cell in enumerate(cells, 1):
        if cell.execution_count != number:
            raise PublishError(
                f"{name}: the cells were not executed from top to bottom in one go: {cell.get('id')!r} comes as number "
                f"{number} and was executed as {cell.execution_count}. Restart the kernel and run all cells."
            )
    if record["executed"] != find_cell(notebook, "record").execution_count:
        raise PublishError(f"{name}: the record was not written by the cell in which it stands: run all cells again.")


def outputs_of(notebook):
    """The Outputs of an executed notebook, as its kernel saw them: from the parameters to the record."""
    outputs = Outputs()
    for output in _heard(notebook):
        if "data" in output:
            outputs.add_display(output.data, output.metadata)
        else:
            outputs.add_text(output.text)
    return outputs


def _text_of(notebook):
    """What the cells printed and displayed as text."""
    texts = []
    for output in _heard(notebook):
        texts += (
            [output.data.get(kind, "") for kind in ("text/markdown", "text/plain")]
            if "data" in output
            else [output.text]
        )
    return "\n".join(map(str, texts))


def _heard(notebook):
    """What was printed or displayed by all cells but the first ones, which only prepare, and the record."""
    for cell in notebook.cells:
        if not tags(cell) & {"bootstrap", "parameters", "injected-parameters", "record"}:
            for output in cell.get("outputs", []):
                if "data" in output or output.get("name") == "stdout":
                    yield output


def check_code(notebook, source, name):
    """Raise PublishError if a cell that by its tag decides nothing could have changed what others decide.

    source_digest compares the deciding cells with the source's.
    """
    schema = read_schema(find_cell(source, "parameters").source)
    if plain_code(find_cell(notebook, "record")) != plain_code(find_cell(source, "record")):
        raise PublishError(f"{name}: its record cell is not that of session.ipynb: execute it again.")
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    known = {plain_code(cell) for cell in source.cells if cell.cell_type == "code"}
    others = [plain_code(cell) for cell in cells if not tags(cell) & (NOT_DECIDING - {"record"})]
    used = {"*"}.union(*map(_read_names, others))
    for cell in cells:
        if tags(cell) & {"parameters", "injected-parameters"}:
            _check_assignments(cell, schema, name)
        elif tags(cell) & NOT_DECIDING and plain_code(cell) not in known:
            changed = sorted(_bound_names(plain_code(cell)) & used)
            if changed:
                raise PublishError(
                    f"{name}: the cell {cell.get('id')!r} is not in session.ipynb and sets {', '.join(changed)}, which "
                    "other cells use: execute session.ipynb as it is."
                )


def _check_assignments(cell, schema, name):
    """Raise PublishError unless a cell of parameters has only lines `name = value` with known names."""
    injected = "injected-parameters" in tags(cell)
    names = []
    for node in ast.parse(plain_code(cell)).body:
        plain = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and len(node.targets) == 1
        names.append(node.targets[0].id if plain else "")
    if not set(names) <= set(schema) or (not injected and names != list(read_schema(cell.source))):
        raise PublishError(
            f"{name}: the cell {cell.get('id')!r} must have lines like name = value only, each with its # @param."
        )


def _read_names(code):
    """The names that a cell takes from others, without those that it sets before it reads them."""
    top = symtable.symtable(code, "cell", "exec")
    names = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_referenced()}
    inner = top.get_children()
    for table in inner:
        inner += table.get_children()
        names |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global()}
    nodes = [ast.parse(code)]
    for node in nodes:  # all but those in functions, which are read only when the function is called
        nodes += [] if isinstance(node, ast.FunctionDef | ast.Lambda) else ast.iter_child_nodes(node)
    reads = [node for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    for node in nodes:
        if isinstance(node, ast.For):
            targets, set_at = [node.target], node.target.end_lineno
        elif isinstance(node, ast.Assign):
            targets, set_at = node.targets, node.end_lineno + 1
        else:
            continue
        earlier = {read.id for read in reads if read.lineno < set_at}
        own = {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        names -= own - earlier
    return names


def _bound_names(code):
    """The names that a cell assigns or changes in part; "*" if that cannot be known."""
    symbols = symtable.symtable(code, "cell", "exec").get_symbols()
    names = {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            while isinstance(node, ast.Attribute | ast.Subscript):
                node = node.value
            names.add(node.id if isinstance(node, ast.Name) else "*")
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            names.add("*")
    return names


# ---------------------------------------------------------------------------------------------------------------
# Weights


def check_weights(path, record):
    """Raise PublishError unless this is a file of tensors only, with as many parameters as the record says.

    A renamed pickle is refused.
    """
    try:
        with safe_open(path, framework="np") as tensors:
            shapes = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118 (no dict)
    except SafetensorError as error:
        raise PublishError(f"{path} is not a safetensors file: {error}.") from None
    parameters = defaultdict(int)  # of each network: that of the run, and others, named by their part before a /
    for name, shape in shapes.items():
        parameters[name.rpartition("/")[0]] += 0 if name.endswith(STATISTICS) else prod(shape)
    parts = [part for part in record["metrics"].get("parts", []) if "part" in part]
    for name, found in parameters.items():  # of a network that is read in two ways, the part is called "name, way"
        own = next((part for part in parts if f"{part['part']}, ".startswith(f"{name}, ")), record["metrics"])
        said = own.get("parameters")
        if said != found:
            network = f"the network {name!r}" if name else "its network"
            raise PublishError(f"{path}: {network} has {found:,} parameters, but the record says {said}.")
