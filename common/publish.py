"""From executed notebooks to a session's README.md, images/, results.json, executed.ipynb and weights.safetensors."""

import ast
import copy
import hashlib
import html
import itertools
import json
import os
import re
import statistics
import tempfile
import tomllib
from collections import Counter
from pathlib import Path

import nbformat

from common.compare import difference
from common.record import KEYS, MIME, SCHEMA, hash_file, lesson_hashes, read_schema

ROOT = Path(__file__).resolve().parent.parent
SESSIONS = ROOT / "sessions"
# Cells with these tags do not decide a result: they find the course, show what came out, or write it down.
NOT_DECIDING = {"bootstrap", "parameters", "injected-parameters", "show", "record"}
MAX_WEIGHTS = 5_000_000  # bytes; larger files of weights are not committed


class PublishError(Exception):
    """Something cannot be published; the message is one sentence that says what and why."""


# ---------------------------------------------------------------------------------------------------------------
# Notebooks and their records


def read_notebook(path):
    """Read a notebook; raise PublishError if it is none."""
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, AttributeError, KeyError, nbformat.ValidationError) as error:
        raise PublishError(f"{path} is not a readable notebook: {str(error).splitlines()[0]}") from None


def tags(cell):
    return set(cell.metadata.get("tags", []))


def find_cell(notebook, tag):
    """The one cell with this tag; raises PublishError if there is none."""
    for cell in notebook.cells:
        if tag in tags(cell):
            return cell
    raise PublishError(f"The notebook has no cell with the tag {tag!r}.")


def schema_of(notebook):
    """The schema of a notebook's parameters, from its parameters cell."""
    return read_schema(find_cell(notebook, "parameters").source)


def source_digest(notebook):
    """SHA-256 of the code that decides the results, without comments and layout."""
    deciding = [cell.source for cell in notebook.cells if cell.cell_type == "code" and not tags(cell) & NOT_DECIDING]
    code = "\n".join(ast.unparse(ast.parse(source)) for source in deciding)
    return hashlib.sha256(code.encode()).hexdigest()


def run_digest(session, profile):
    """SHA-256 of what decides the runs of a session and profile: when it changes, they have to be executed again.

    For the quick profile this includes common/; for the full one a change there is for the tests to judge, because
    hours of training hang on it.
    """
    notebook = read_notebook(SESSIONS / session / "session.ipynb")
    parts = [source_digest(notebook), json.dumps(schema_of(notebook))]
    if profile == "quick":
        parts += [(SESSIONS / session / "quick.yaml").read_text(encoding="utf-8"), json.dumps(lesson_hashes())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def read_record(notebook, name):
    """The record in the last output of an executed notebook; `name` is how to call the notebook in an error."""
    for output in find_cell(notebook, "record").get("outputs", []):
        if MIME in output.get("data", {}):
            record = output["data"][MIME]
            break
    else:
        raise PublishError(f"{name} has no record: it was not executed to its end.")
    if record.get("schema") != SCHEMA or set(record) != set(KEYS):
        raise PublishError(f"{name} has a record of another form (schema {record.get('schema')}): execute it again.")
    return {**record, "source_sha256": source_digest(notebook)}


# ---------------------------------------------------------------------------------------------------------------
# Publishing


def publish(paths, folder=None):
    """Publish executed notebooks, all runs of one session, and return the folder: by default sessions/<session>.

    Raises PublishError where a notebook does not fit the session's source or the other notebooks.
    """
    notebooks = {path: read_notebook(path) for path in paths}
    records = {path: read_record(notebook, path.name) for path, notebook in notebooks.items()}
    sessions = {record["session"] for record in records.values()}
    if len(sessions) != 1:
        raise PublishError(f"These are runs of {', '.join(sorted(sessions))}: publish one session at a time.")
    session = sessions.pop()
    if not (SESSIONS / session / "session.ipynb").exists():
        raise PublishError(f"There is no session {session} here.")
    source = read_notebook(SESSIONS / session / "session.ipynb")
    headline = source.metadata.course.headline
    paths = sorted(paths, key=lambda path: (records[path]["variant"] != headline, run_of(records[path])))
    folder = folder or SESSIONS / session
    _check(source, [records[path] for path in paths], paths, published=SESSIONS in folder.resolve().parents)
    shown = paths[0]
    files = {"executed.ipynb": nbformat.writes(_portable(notebooks[shown])) + "\n"}
    files["results.json"] = json.dumps([records[path] for path in paths], indent=1) + "\n"
    files |= render(source, notebooks[shown], [records[path] for path in paths])
    if records[shown]["weights"]:
        weights = shown.with_suffix(".safetensors")
        if not weights.exists() or hash_file(weights) != records[shown]["weights"]["sha256"]:
            raise PublishError(f"{weights} is not there or not the file that {shown.name} wrote.")
        if committed(records[shown]):
            files["weights.safetensors"] = weights.read_bytes()
    _write_page(folder, files)
    if not committed(records[shown]):
        (folder / "weights.safetensors").unlink(missing_ok=True)  # of another run
    return folder


def committed(record):
    """Whether the weights of a run stand beside its page: there are some, and they are not too large."""
    return bool(record["weights"]) and record["weights"].get("bytes", 0) <= MAX_WEIGHTS


def rerender(session):
    """Make a published README again, from its executed notebook and results, with today's prose."""
    folder = SESSIONS / session
    executed = read_notebook(folder / "executed.ipynb")
    source, records = read_notebook(folder / "session.ipynb"), results(folder)
    if source_digest(source) != source_digest(executed):
        raise PublishError(f"The results of {session} are those of other code than session.ipynb has: run it again.")
    _write_page(folder, render(source, executed, records))


def runs(source):
    """The (variant, seed) pairs of a session's full profile, those of the headline first.

    For each variant `course.seeds` says how many seeds there are, counted from 0, or lists them.
    """
    course = source.metadata.course
    variants = sorted(course.seeds, key=lambda variant: (variant != course.headline, variant))
    seeds = {variant: range(seeds) if isinstance(seeds, int) else seeds for variant, seeds in course.seeds.items()}
    return [(variant, seed) for variant in variants for seed in seeds[variant]]


def _check(source, records, paths, published):
    """Raise PublishError where a record does not fit the source or the other records."""
    deciding = source_digest(source)
    names = set(schema_of(source))
    for path, record in zip(paths, records, strict=True):
        if record["source_sha256"] != deciding:
            raise PublishError(f"{path} was executed from other code than session.ipynb has today: execute it again.")
        if not set(record["params"]) <= names:
            raise PublishError(f"{path} has parameters that session.ipynb does not have: execute it again.")
        if published and record["profile"] != "full":
            raise PublishError(f"{path} is a run of the quick profile; published are runs of the full one.")
        if _recipe(record) != _recipe(records[0]):
            raise PublishError(f"{path} has other parameters than {paths[0]}: publish runs of one kind together.")
        if record["dataset"] != records[0]["dataset"]:
            raise PublishError(f"{path} used other data than {paths[0]}.")
    for (variant, seed), count in Counter(map(run_of, records)).items():
        if count > 1:
            raise PublishError(f"Variant {variant}, seed {seed} was given {count} times.")


def _recipe(record):
    """The parameters that all runs of a page have in common."""
    return {name: value for name, value in record["params"].items() if name not in ("variant", "seed")}


def run_of(record):
    """What tells the runs of a session apart: variant and seed."""
    return record["variant"], record["seed"]


def _portable(notebook):
    """The executed notebook without papermill's notes, which name paths and change with every execution."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
    return notebook


def _write(folder, files):
    """Write all files beside their places first, then rename each: none is ever there by half."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".publish-") as temporary:
        for name, content in files.items():
            path = Path(temporary) / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        for name in files:
            (folder / name).parent.mkdir(exist_ok=True)
            os.replace(Path(temporary) / name, folder / name)


def _write_page(folder, files):
    """Write a session's page, and delete the images that it does not show any more."""
    _write(folder, files)
    for image in (folder / "images").glob("*"):
        if f"images/{image.name}" not in files:
            image.unlink()


# ---------------------------------------------------------------------------------------------------------------
# The README


def render(source, executed, records):
    """The README of a session and its images, {path: content}.

    The page is `source` with the outputs of `executed`, the run shown, matched by cell id; the figures at the head come
    from `records`, the run shown first.
    """
    from nbconvert import MarkdownExporter
    from traitlets.config import Config

    page = copy.deepcopy(source)
    page.cells = [cell for cell in page.cells if not tags(cell) & {"bootstrap", "record"}]
    page.cells[0].source = page.cells[0].source.replace(source_title(source), page_title(source, records), 1)
    outputs = {cell.id: cell.outputs for cell in executed.cells if cell.cell_type == "code"}
    for cell in page.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in outputs.get(cell.id, []) if output.get("name") != "stderr"]
    config = Config()
    config.CoalesceStreamsPreprocessor.enabled = True
    exporter = MarkdownExporter(
        raw_template=(Path(__file__).parent / "readme.md.j2").read_text(encoding="utf-8"),
        filters={"escape_markdown": escape_markdown},
        config=config,
    )
    resources = {"output_files_dir": "images", "course": _summary(source, page, records)}
    text, resources = exporter.from_notebook_node(page, resources)
    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)  # code keeps its blank lines
    text = "".join(part if part.startswith("```") else re.sub(r"\n{3,}", "\n\n", part) for part in parts).strip() + "\n"
    return {"README.md": text, **resources["outputs"]}


def source_title(source):
    """The title of a session, as its notebook has it."""
    return source.cells[0].source.splitlines()[0].removeprefix("# ")


def page_title(source, records):
    """The title of a session's page: it says so where the network has another width than in the full profile."""
    default = schema_of(source).get("width", {}).get("default")
    widths = sorted({record["params"].get("width", default) for record in records} - {default})
    return source_title(source) + (f" (width {', '.join(map(str, widths))})" if widths else "")


def _summary(source, page, records):
    """What the template shows besides the notebook."""
    results = [result for record in records for result in _results(record)]
    groups = [
        _group(name, [result for result in results if result["group"] == name])
        for name in dict.fromkeys(result["group"] for result in results)
    ]
    head = next((group for group in groups if group["name"] == source.metadata.course.headline), groups[0])
    headings = [line[3:] for cell in page.cells for line in cell.source.splitlines() if line.startswith("## ")]
    data, shown = records[0]["dataset"], records[0]
    return {
        "session": shown["session"],
        "profile": shown["profile"],
        "claimed": source.metadata.course.claimed,
        "dataset": data,
        "groups": groups,
        "head": head,
        "differences": _differences(groups, head),
        "standard_error": (head["mean"] * (1 - head["mean"]) / data["test"]) ** 0.5,
        "changed": _changed(source, records),
        "contents": [(heading, _anchor(heading)) for heading in [*headings, "Where this comes from"]],
        "devices": sorted({_device(record) for record in records}),
        "runs": [f"{variant}, seed {seed}" for variant, seed in map(run_of, records)],
        "shown": shown,
        "weights_committed": committed(shown),
        "command": _command(shown, schema_of(source)),
        "parameters": {name: shown["params"][name] for name in schema_of(source) if name in shown["params"]},
    }


def _results(record):
    """The results of a run that are averaged: itself, its draws, or its named parts each in a group of their own."""
    whole = {
        "group": record["variant"],
        "target": record["params"]["target"],
        "targets": {  # of the other accuracies: that of sum_accuracy is the parameter sum_target
            name.replace("_target", "_accuracy"): value
            for name, value in record["params"].items()
            if name.endswith("_target")
        },
        "seconds": record["seconds"]["train"],
        "device": _device(record),
        **record["metrics"],
    }
    parts = record["metrics"].get("parts", [])
    return [{**whole, "group": part.get("part", whole["group"]), **part} for part in parts] or [whole]


def _group(name, results):
    """Means, standard deviations and ranges over the results of one group."""
    others = [key for key in results[0] if key.endswith("_accuracy") and key != "test_accuracy"]
    return {
        "name": name,
        "n": len(results),
        "over": "draws" if "draw" in results[0] else "seeds",
        **_measure([result["test_accuracy"] for result in results], results[0]["target"]),
        "others": {
            key.replace("_", " "): _measure([result[key] for result in results], results[0]["targets"].get(key))
            for key in others
        },
        "parameters": results[0]["parameters"],
        "seconds": round(statistics.mean(result["seconds"] for result in results)),
        "device": " or ".join(sorted({result["device"] for result in results})),
    }


def _measure(values, target):
    """What is said about an accuracy: its mean and spread and, where there is a target, whether it was reached."""
    mean = statistics.mean(values)
    measure = {
        "values": values,
        "mean": mean,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "low": min(values),
        "high": max(values),
        "target": target,
    }
    if target is not None:
        missed = f"{100 * (target - mean):.2g} points below the target."
        measure["reached"] = sum(value >= target for value in values)
        measure["close"] = f"{mean:.2%}" == f"{target:.2%}"  # two digits would hide on which side of the target it is
        measure["verdict"] = "the target is reached." if mean >= target else missed
    return measure


def _differences(groups, head):
    """Each two groups of two runs or more, compared; the headline's comes last: [(names, {measure: Difference})]."""
    groups = sorted((group for group in groups if group["n"] > 1), key=lambda group: group is head)
    return [
        (
            (before["name"], after["name"]),
            {
                "test accuracy": difference(before["values"], after["values"]),
                **{
                    name: difference(before["others"][name]["values"], after["others"][name]["values"])
                    for name in before["others"]
                },
            },
        )
        for before, after in itertools.combinations(groups, 2)
    ]


def _changed(source, records):
    """What differs from the full profile in any run, besides what runs are meant to differ in."""
    changed = {}
    for name, rule in schema_of(source).items():
        values = {record["params"].get(name, rule["default"]) for record in records} - {rule["default"]}
        if values and name not in ("variant", "seed"):
            changed[name] = f"{name} = {', '.join(map(str, sorted(values)))} instead of {rule['default']}"
    return list(changed.values())


def _command(record, schema):
    """The command that repeats a run."""
    params = [(name, value) for name, value in record["params"].items() if value != schema[name]["default"]]
    options = [f" -p {name} {value}" for name, value in params if name not in ("profile", "seed")]
    threads = f"OMP_NUM_THREADS={record['threads']} " if record["device"] == "CPU" else ""
    profile = f" --profile {record['profile']}" if record["profile"] != "full" else ""
    return f"{threads}course run {record['session']}{profile}{''.join(options)} --seed {record['seed']}"


def _device(record):
    if record["device"] != "CPU":
        return record["device"]
    return f"CPU with {record['threads']} thread{'s' if record['threads'] > 1 else ''}"


def _anchor(heading):
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def escape_markdown(value):
    """Text from a record or an image as plain text in Markdown: no HTML, link, table or code comes alive."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", text)


# ---------------------------------------------------------------------------------------------------------------
# What is the same in every notebook: badges, bootstrap cell, the index in the top-level README

BOOTSTRAP = """\
# Find the course's code; where this notebook stands alone, as in Colab, fetch it.
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

repository, release = "{repository}", "{release}"
here = Path.cwd()
root = next((folder for folder in (here, *here.parents) if (folder / "common" / "model.py").exists()), None)
if root is None:
    root = here / "{name}"
    if not (root / "common" / "model.py").exists():
        subprocess.run(["git", "clone", "--quiet", "--depth=1", "--branch", release, repository, str(root)], check=True)
    missing = [package for package in ("torchsummary", "safetensors", "pooch", "sklearn") if find_spec(package) is None]
    if missing:
        packages = ["scikit-learn" if package == "sklearn" else package for package in missing]
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *packages], check=True)
sys.path.insert(0, str(root))"""


COLAB_BADGE = "https://colab.research.google.com/assets/colab-badge.svg"


def write_badges():
    """Write badges and bootstrap cell into every session's notebook and the index into the README."""
    repository, release = _repository()
    for path in sessions():
        notebook = read_notebook(path)
        badges = (
            "![Python 3.11 or newer](https://img.shields.io/badge/python-3.11%2B-3776ab)\n"
            "![PyTorch 2.10 or newer](https://img.shields.io/badge/torch-2.10%2B-ee4c2c)\n"
            f"[![Open in Colab]({COLAB_BADGE})]({_colab_address(path)})"
        )
        first = notebook.cells[0]
        first.source = _between(first.source, "badges", badges)
        cell = find_cell(notebook, "bootstrap")
        cell.source = BOOTSTRAP.format(repository=repository, release=release, name=repository.rsplit("/", 1)[1])
        _write(path.parent, {path.name: nbformat.writes(notebook) + "\n"})
    write_index()


def _repository():
    """The repository's address and the branch or tag that Colab opens, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return project["project"]["urls"]["Repository"], project["tool"]["course"]["release"]


def _colab_address(notebook):
    """Where Colab opens a notebook of the repository."""
    repository, release = _repository()
    colab = repository.replace("https://github.com", "https://colab.research.google.com/github")
    return f"{colab}/blob/{release}/{notebook.relative_to(ROOT).as_posix()}"


def sessions():
    """The notebooks of all sessions, in order."""
    return sorted(SESSIONS.glob("s*/session.ipynb"))


def results(folder):
    """The records in a folder's results.json; an empty list where nothing was published."""
    path = folder / "results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def overview(folders):
    """One row a session and variant: what `course list` prints."""
    rows = []
    for source_path, folder in folders:
        source = read_notebook(source_path)
        records = results(folder)
        groups = _summary(source, source, records)["groups"] if records else []
        rows += [{"session": source_path.parent.name, **group} for group in groups]
    return rows


def write_index():
    """Write the table of all sessions into the top-level README."""
    lines = [
        "| session | what it teaches | parameters | test accuracy (mean ± sd) | claimed | training, one run | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for path in sessions():
        source, records = read_notebook(path), results(path.parent)
        link = f"[{page_title(source, records)}](sessions/{path.parent.name}/{'README.md' if records else path.name})"
        if records:
            head = _summary(source, source, records)["head"]
            spread = f" ± {100 * head['sd']:.2f}" if head["sd"] is not None else ""
            figures = (
                f"{head['parameters']:,} | {100 * head['mean']:.2f}{spread} % (n = {head['n']}) | "
                f"{source.metadata.course.claimed} | {head['seconds']} s, {head['device']}"
            )
        else:
            figures = f" | not run yet | {source.metadata.course.claimed} | "
        badge = f"[![Open in Colab]({COLAB_BADGE})]({_colab_address(path)})"
        lines.append(f"| {link} | {source.metadata.course.teaches} | {figures} | {badge} |")
    readme = ROOT / "README.md"
    text = _between(readme.read_text(encoding="utf-8"), "index", "\n".join(lines))
    _write(ROOT, {"README.md": text})


def _between(text, marker, content):
    """Replace what stands between the comments <!-- marker --> and <!-- /marker -->."""
    start, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise PublishError(f"There must be one {start} and one {end}.")
    return text[: text.index(start) + len(start)] + f"\n{content}\n" + text[text.index(end) :]
