"""A session's README.md and images, from its notebook, an executed notebook, and the records of all runs."""

import base64
import copy
import html
import io
import itertools
import math
import re
import shlex
from pathlib import Path

from common.compare import difference
from common.outputs import KINDS
from course.measures import device, groups, headline, percent, time_of
from course.notebooks import PublishError, first_line, results, run_of, tags, weights_files
from course.sessions import in_reading_order, read_session

# What no page may hold: control characters, and marks that turn the direction of the text after them.
HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
LARGEST = 10_000_000  # bytes of a page with its images
# Starts of Markdown lines, in lists too, that would look like the page's own head or headings.
OF_A_HEAD = re.compile(r"^((?:\s|[-*+]\s|\d+[.)]\s)*)([>#]|[=-](?=[=-]*\s*$))", re.M)
COLOURS = re.compile(r"\x1b\[[\d;]*m")  # of a terminal


def render(session, executed, records, verified=None):
    """The README of a session and its images, {path: content}.

    The page is the session's notebook with the outputs of `executed`, the run shown, matched by cell id. The figures at
    the top come from `records`, the run shown first. `verified` says when the weights were evaluated again.
    """
    from nbconvert import MarkdownExporter
    from traitlets.config import Config

    page = copy.deepcopy(session.notebook)
    page.cells = [cell for cell in page.cells if not tags(cell) & {"bootstrap", "record"}]
    # Colab keeps the id of a cell in its metadata.
    outputs = {cell.get("id", cell.metadata.get("id")): cell.get("outputs", []) for cell in executed.cells}
    for cell in page.cells:
        if cell.cell_type == "code":
            cell.outputs = [harmless(output) for output in outputs.get(cell.id, []) if output.get("name") != "stderr"]
    config = Config()
    config.CoalesceStreamsPreprocessor.enabled = True
    exporter = MarkdownExporter(
        raw_template=(Path(__file__).parent / "readme.md.j2").read_text(encoding="utf-8"),
        filters={"escape_markdown": escape_markdown, "code": code, "fence": fence, "percent": percent},
        config=config,
    )
    resources = {"output_files_dir": "images", "course": {**summary(session, page, records), "verified": verified}}
    try:
        text, resources = exporter.from_notebook_node(page, resources)
    except ValueError as error:  # two images with the same name, or one not in base64
        raise PublishError(f"An image of the notebook cannot be written: {first_line(error)}") from None
    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)  # code keeps its blank lines
    text = "".join(part if part.startswith("```") else re.sub(r"\n{3,}", "\n\n", part) for part in parts).strip() + "\n"
    if found := HIDDEN.search(text):
        raise PublishError(f"The page would hold the character {found[0]!r}, which is invisible: take it out.")
    size = len(text.encode()) + sum(map(len, resources["outputs"].values()))
    if size > LARGEST:
        raise PublishError(f"The page would have {size / 1e6:.0f} MB with its images, at most {LARGEST / 1e6:.0f}.")
    return {"README.md": text, **resources["outputs"]}


APPENDIX = ("All runs", "Run it", "Where this comes from")  # the template's own headings


def summary(session, page, records):
    """What the template shows besides the notebook."""
    found = groups(records)
    head, ledger = headline(session, found), _ledger(found)
    lines = {name for name, *_ in ledger}  # compared with their recipe only
    before, after = neighbours(session)
    headings = [line[3:] for cell in page.cells for line in cell.source.splitlines() if line.startswith("## ")]
    data, shown = records[0]["dataset"], records[0]
    times = [time_of(record) for record in records]
    minutes = [math.ceil(seconds / 60) for seconds, _ in times]
    return {
        "session": session.name,
        "profile": shown["profile"],
        "claimed": session.claimed,
        "dataset": data,
        "datasets": list({record["dataset"]["sha256"]: record["dataset"] for record in records}.values()),
        "groups": found,
        "named": [group for group in found if group.name in session.seeds] or found,
        "head": head,
        "ledger": ledger,
        "differences": _differences([group for group in found if group.name not in lines], head),
        "compared": _compared(session, head),
        "before": before,
        "after": after,
        "reading": max(1, round(sum(len(cell.source.split()) for cell in page.cells) / 150)),  # words a minute
        "minutes": " to ".join(str(number) for number in sorted({min(minutes), max(minutes)})),
        "resumed": any(resumed for _, resumed in times),
        "colab_minutes": session.colab_minutes,
        "commits": sorted({record["versions"].get("course", "not noted") for record in records}),
        "standard_error": (head.accuracy.mean * (1 - head.accuracy.mean) / data["test"]) ** 0.5,
        "changed": _changed(session.schema, records),
        "contents": [(heading, _anchor(heading)) for heading in [*headings, *APPENDIX]],
        "devices": sorted({device(record) for record in records}),
        "runs": [f"{variant}, seed {seed}" for variant, seed in map(run_of, records)],
        "shown": shown,
        "weights": list(weights_files(records)),
        "command": _command(shown, session.schema),
        "epochs": next((name for name in session.schema if name.endswith("epochs")), None),
        "parameters": {name: shown["params"][name] for name in session.schema if name in shown["params"]},
    }


def _ledger(groups):
    """What each change of a recipe costs: [(line, Difference, times as long)], for groups of two runs or more.

    A line of a ledger is a group "NAME, change", which is compared with the group NAME.
    """
    bases = {group.name: group for group in groups}
    lines = [(bases.get(group.name.rpartition(", ")[0]), group) for group in groups]
    return [
        (
            line.name,
            difference(base.accuracy.values, line.accuracy.values),
            line.mean_seconds / (base.mean_seconds or math.inf),  # 0 s can only be in a forged record
        )
        for base, line in lines
        if base and min(base.n, line.n) > 1
    ]


def _differences(groups, head):
    """Groups of two runs or more, compared two by two, the headline's last: [(names, {measure: Difference})].

    Those of other data are not compared.
    """
    groups = sorted((group for group in groups if group.n > 1), key=lambda group: group is head)
    return [
        (
            (before.name, after.name),
            {
                name: "the same"
                if measure.values == after.measures[name].values  # two readings of one network
                else difference(measure.values, after.measures[name].values)
                for name, measure in before.measures.items()
            },
        )
        for before, after in itertools.combinations(groups, 2)
        if before.dataset == after.dataset
    ]


def _compared(session, head):
    """How the headline differs from another session's runs, if session.yaml names one: (name, Difference)."""
    if not session.compare_with:
        return None
    folder, variant = session.compare_with
    found = [group for group in groups(results(session.folder.parent / folder)) if group.name == variant]
    if not found or min(found[0].n, head.n) < 2:
        return None
    return f"{folder}, {variant}", difference(found[0].accuracy.values, head.accuracy.values)


def neighbours(session):
    """The sessions to read before and after a session, each as (title, folder), or None."""
    others = in_reading_order(read_session(path.parent) for path in session.folder.parent.glob("s*/session.ipynb"))
    place = [other.name for other in others].index(session.name)
    around = [others[place - 1] if place else None, others[place + 1] if place + 1 < len(others) else None]
    return [other and (other.title, other.name) for other in around]


def _changed(schema, records):
    """What differs from the full profile in any run, apart from variant and seed."""
    changed = {}
    for name, rule in schema.items():
        values = {record["params"].get(name, rule["default"]) for record in records} - {rule["default"]}
        if values and name not in ("variant", "seed"):
            changed[name] = f"{name} = {', '.join(map(str, sorted(values)))} instead of {rule['default']}"
    return list(changed.values())


def _command(record, schema):
    """The command that repeats a run."""
    known = [(name, value) for name, value in record["params"].items() if name in schema]
    params = [(name, shlex.quote(str(value))) for name, value in known if value != schema[name]["default"]]
    options = [f" -p {name} {value}" for name, value in params if name not in ("profile", "seed")]
    threads = f"OMP_NUM_THREADS={record['threads']} " if record["device"] == "CPU" else ""
    profile = f" --profile {record['profile']}" if record["profile"] != "full" else ""
    return f"{threads}course run {record['session']}{profile}{''.join(options)} --seed {record['seed']}"


def _anchor(heading):
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def escape_markdown(value):
    """Text from a record or an image as plain text in Markdown: HTML, links, tables and code stay inert."""
    text = html.escape(_one_line(value), quote=False)
    return _without_addresses(re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", text))


def _one_line(value):
    """A text in one line, without terminal colours."""
    return " ".join(COLOURS.sub("", str(value)).split())


def _without_addresses(text):
    """GitHub turns a bare address into a link; with entities it is only shown."""
    return re.sub(r"(?i)(www)\.", r"\1&#46;", text.replace("://", "&#58;//"))


def code(value):
    """Any text as code within a line or a table cell."""
    text = _one_line(value)
    return f"<code>{escape_markdown(text)}</code>" if re.search("[`|]", text) else f"`{text}`"


def fence(text):
    """The fence that makes lines of text a code block: longer than any fence in them."""
    return "`" * max([3, *(len(ticks) + 1 for ticks in re.findall("`{3,}", text))])


def harmless(output):
    """A cell's output as a page may show it: text, tables and images; tags, links and addresses stay inert."""
    if "data" not in output:
        return output
    name, alt = output.metadata.get("filename", ""), output.metadata.get("alt", "")
    if not re.fullmatch(r"[\w.-]*", str(name)):
        raise PublishError(f"An image of the notebook has the name {name!r}: take letters, digits, dots and dashes.")
    output = copy.deepcopy(output)
    language = output.metadata.get("language")
    language = language if language in ("python", "diff") else ""  # code: its plain text becomes a block on the page
    output.metadata = type(output.metadata)(filename=str(name), alt=str(alt), language=language)
    if language:
        output.data.pop("text/markdown", None)
    output.data = type(output.data)({mime: output.data[mime] for mime in KINDS if mime in output.data})
    if "image/png" in output.data and not _is_png(output.data["image/png"]):
        raise PublishError(f"An image of the notebook cannot be written: {str(name)!r} is not a PNG.")
    if "text/markdown" in output.data:
        text = COLOURS.sub("", output.data["text/markdown"])
        text = re.sub(r"<|\[|`{3,}|~{3,}", _entities, text)
        text = OF_A_HEAD.sub(lambda match: match[1] + _entities(match[2]), text)
        output.data["text/markdown"] = _without_addresses(text)
    return output


def _is_png(content):
    """Whether this is a complete, undamaged PNG in base64."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(base64.b64decode(content)), formats=["PNG"]) as image:
            image.verify()
    except Exception:  # Pillow's decoders raise many kinds
        return False
    return True


def _entities(match):
    return "".join(f"&#{ord(character)};" for character in match[0])  # a match, or a text of one character
