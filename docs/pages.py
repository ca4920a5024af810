"""The pages of the site that are made from what the repository holds: sessions, exercises, results, docstrings, links.

`conf.py` calls this at each build. Nothing here imports Sphinx, and nothing that it writes is committed.
"""

import json
import re
import struct
from os.path import relpath
from pathlib import Path
from statistics import mean

from safetensors import deserialize

from course import index
from course.measures import device, groups, headline, percent
from course.notebooks import ROOT, read_notebook, results, tags, verification, weights_files
from course.sessions import all_sessions, in_reading_order

DOCS = ROOT / "docs"
REPOSITORY, RELEASE = index.repository_and_release()
WEIGHTS = "weights.safetensors"


class PageError(Exception):
    """A page cannot be made; the message is one sentence that says why."""


def sessions():
    """The sessions in the order in which they are read."""
    return in_reading_order(all_sessions())


def write():
    """Write the pages of sessions, exercises and modules into docs/, and remove those of what is gone."""
    pages = {}
    for session in sessions():
        pages[f"sessions/{session.name}.md"] = session_page(session)
        if (session.folder / WEIGHTS).exists():
            pages[f"sessions/{session.name}.svg"] = filters(session.folder / WEIGHTS)
        if has_exercises(session):
            pages[f"exercises/{session.name}.md"] = exercises_page(session.folder)
    for path in (ROOT / "common").glob("[!_]*.py"):
        pages[f"common/{path.stem}.md"] = module_page(path.stem)
    for part in ("sessions", "exercises", "common"):
        for path in (DOCS / part).glob("*"):
            if path.relative_to(DOCS).as_posix() not in pages:
                path.unlink()
    for name, text in pages.items():
        path = DOCS / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:  # Sphinx reads what is newer again
            path.write_text(text, encoding="utf-8")


def session_page(session):
    """A session's README with its buttons; in the navigation its exercises come below it."""
    name = session.name
    text = f"# {session.title}\n\n{local(buttons(session), 'docs/index.md', f'docs/sessions/{name}.md')}\n\n"
    if (session.folder / "README.md").exists():
        text += f"```{{include}} ../../sessions/{name}/README.md\n:start-after: <!-- /badges -->\n```\n"
    else:
        text += f"Not run yet: see [its notebook](../../sessions/{name}/session.ipynb).\n"
    if has_exercises(session):
        text += f"\n```{{toctree}}\n:hidden:\n\nExercises <../exercises/{name}>\n```\n"
    return text


def buttons(session):
    """What one can do with a session: open it in Colab, solve its exercises, draw for its network. Paths from docs/."""
    name = session.name
    links = [f"[Open in Colab]({index.colab_address(session.path)}){{.button}}"]
    if has_exercises(session):
        links.append(f"[Exercises](../sessions/{name}/exercises.ipynb){{.button}}")
    networks = json.loads((DOCS / "demo" / "networks.json").read_text(encoding="utf-8"))["networks"]
    for network in networks:
        if network["id"] == name and network["weights"]:
            grey = next(iter(network["inputs"].values()))[0] == 1
            text = "Draw a digit" if grey else "Try it on photographs"
            links.append(f"[{text}](demo/index.html?network={name}){{.button}}")
    return " ".join(links)


def has_exercises(session):
    return (session.folder / "exercises.ipynb").exists()


def exercises_page(folder):
    """A session's exercises as learners get them; the hints and solutions of solutions.ipynb are folded."""
    stubs = {cell.id: cell.source for cell in read_notebook(folder / "exercises.ipynb").cells}
    parts, solution = [], []
    for cell in read_notebook(folder / "solutions.ipynb").cells:
        if tags(cell) & {"bootstrap", "wrong"}:
            continue
        text = cell.source if cell.cell_type == "markdown" else python(stubs.get(cell.id, cell.source))
        parts.append(folded("Hint", text) if "hint" in tags(cell) else text)
        if "exercise" in tags(cell):
            solution.append(cell.source)
        if "check" in tags(cell):  # the solution comes last: below the hint and the check
            parts.append(folded("Solution", python("\n\n".join(solution))))
            solution.clear()
    name = folder.name
    return local("\n\n".join(parts) + "\n", f"sessions/{name}/solutions.ipynb", f"docs/exercises/{name}.md")


def python(code):
    return f"```python\n{code}\n```"


def folded(summary, text):
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def module_page(name):
    """The docstrings of a module of common/."""
    return f"# common.{name}\n\n```{{eval-rst}}\n.. automodule:: common.{name}\n   :members:\n```\n"


def plain(lines):
    """A docstring, which is plain text with code in single backticks, as reStructuredText."""
    parts = re.split(r"`([^`]+)`", "\n".join(lines))
    parts[::2] = [re.sub(r"([\\*|_])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"``{part}``" for part in parts[1::2]]
    return "".join(parts).splitlines()


# Tables of results, and the list of sessions on the start page


def glance():
    """The table of all networks: what they reached over seeds or draws, and their size."""
    rows = []
    for session in sessions():
        for group in groups(results(session.folder)):
            values = group.accuracy.values
            spread = f"{percent(min(values))} to {percent(max(values))}"
            rows.append(
                [link(session), group.name, f"{group.accuracy} (n = {group.n})", spread, f"{group.parameters:,}"]
            )
    return table(["session", "network", "test accuracy", "lowest to highest", "parameters"], rows)


def runs():
    """The table of all records: one row a run."""
    rows = []
    for session in sessions():
        records, verified = results(session.folder), verification(session.folder)
        kept = list(weights_files(records).values())
        for record in records:
            draws = sum("draw" in part for part in record["metrics"].get("parts", []))
            reached = percent(record["metrics"]["test_accuracy"])
            rows.append(
                [
                    link(session),
                    record["variant"],
                    str(record["seed"]),
                    reached + (f" ({draws} draws)" if draws else ""),
                    record["dataset"]["name"],
                    device(record),
                    f"{record['seconds']['train']:,.0f}",
                    record["finished"][:10],
                    verified["date"] if verified and record in kept else "",
                ]
            )
    heads = ["session", "variant", "seed", "test accuracy", "data", "device", "training, s", "finished", "verified"]
    return table(heads, rows)


def link(session):
    """The number of a session, as a link to its page: "6" of s06_under_10k."""
    return f"[{int(session.name[1:3])}](sessions/{session.name}.md)"


def table(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# The start page


def begin():
    """The buttons of the start page: where a reader begins."""
    first = sessions()[0]
    return (
        f"[Begin with session {int(first.name[1:3])}](sessions/{first.name}.md){{.button .primary}} "
        f"[Open it in Colab]({index.colab_address(first.path)}){{.button}} "
        "[Draw a digit](demo/index.html){.button} "
        "[Run it at home](run.md){.button}"
    )


def cards():
    """A list of all sessions: what each teaches, what its network reached, its filters, and where to open it."""
    return "\n".join(map(card, sessions()))


def card(session):
    records, name = results(session.folder), session.name
    facts = "Not run yet"
    if records:
        head = headline(session, groups(records))
        facts = f"{head.parameters:,} parameters, {head.accuracy}"
    picture = ""
    if (session.folder / WEIGHTS).exists():
        picture = f"![Filters of the first layer of session {int(name[1:3])}, as trained](sessions/{name}.svg)\n\n  "
    teaches = session.teaches[0].upper() + session.teaches[1:] + "."
    return f"- {picture}**[{session.title}](sessions/{name}.md)**\n\n  {teaches}\n\n  *{facts}*\n\n  {buttons(session)}"


CELL, GAP = 10, 6  # pixels: a weight, and the distance of two filters
BLUE, ORANGE = "#2f7ddb", "#f0883e"


def filters(weights, count=8):
    """A picture (SVG) of the first filters of a network's first layer: a square a weight, orange above 0, blue below.

    Strong colours are large weights. Of a filter for red, green and blue the mean is shown.
    """
    kernels = first_layer(weights)[:count]
    largest = max(abs(value) for kernel in kernels for row in kernel for value in row)
    size = len(kernels[0]) * CELL
    squares = [
        f'<rect x="{number * (size + GAP) + x * CELL}" y="{y * CELL}" width="{CELL}" height="{CELL}"'
        f' fill="{ORANGE if value > 0 else BLUE}" fill-opacity="{abs(value) / largest:.2f}"/>'
        for number, kernel in enumerate(kernels)
        for y, row in enumerate(kernel)
        for x, value in enumerate(row)
    ]
    width = count * (size + GAP) - GAP
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {size}">{"".join(squares)}</svg>\n'


def first_layer(weights):
    """The kernels of the convolution that sees the image, in a file of weights: each a list of rows of numbers."""
    layers = [
        layer for name, layer in deserialize(weights.read_bytes()) if "/" not in name
    ]  # of the session's headline
    (layer,) = (layer for layer in layers if len(layer["shape"]) == 4 and layer["shape"][1] in (1, 3))
    _, channels, height, width = layer["shape"]
    number = {"F32": "f", "F16": "e"}[layer["dtype"]]
    values = struct.unpack(f"<{len(layer['data']) // struct.calcsize(number)}{number}", layer["data"])
    rows = [values[start : start + width] for start in range(0, len(values), width)]
    planes = [rows[start : start + height] for start in range(0, len(rows), height)]
    kernels = [planes[start : start + channels] for start in range(0, len(planes), channels)]
    return [
        [[mean(pixel) for pixel in zip(*row, strict=True)] for row in zip(*kernel, strict=True)] for kernel in kernels
    ]


# Links

# What looks like a link there is none: fenced code but for MyST's directives, and code within a line.
CODE = re.compile(r"(^ *(`{3,})[^\n{]*\n.*?^ *\2`*$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
SHIELD = re.compile(r"!\[[^\]]*\]\(https://img\.shields\.io/[^)]*\)\n?")
IMAGE_ELSEWHERE = re.compile(r"!\[([^\]]*)\]\(https?://[^)]*\)")
RELATIVE = re.compile(r"\]\((?!\w+:|#)([^)\s]+)\)(?:\{\.external\})?")


def local(text, origin, page):
    """Markdown of the file `origin` as the page `page` shows it, both paths from the root.

    Nothing is loaded from elsewhere: images of other sites become their text, those of shields.io nothing. A link to a
    file leads to the page that shows it, or else to the repository. Raises PageError if there is no such file.
    """

    def destination(match):
        found = target(match[1], origin, page)
        external = "{.external}" if "demo/" in found else ""  # no page of Sphinx's: MyST leaves the link as it is
        return f"]({found}){external}"

    parts = CODE.split(text)  # text, code, the code's fence, text, …
    for position in range(0, len(parts), 3):
        part = IMAGE_ELSEWHERE.sub(r"\1", SHIELD.sub("", parts[position]))
        parts[position] = RELATIVE.sub(destination, part)
    del parts[2::3]
    return "".join(parts)


def target(link, origin, page):
    """Where a relative link in the file `origin` leads to from the page `page`."""
    name, rest = re.fullmatch("([^?#]*)(.*)", link).groups()
    path = (ROOT / origin).parent / name
    if not path.exists():
        raise PageError(f"{origin} links to {link}, which does not exist.")
    path = Path(relpath(path, ROOT)).as_posix()
    shown = page_of(path)
    if shown.startswith("docs/") or path.endswith((".png", ".jpg", ".svg")):
        return relpath(shown, Path(page).parent) + rest
    kind = "tree" if (ROOT / path).is_dir() else "blob"
    return f"{REPOSITORY}/{kind}/{RELEASE}/{path}{rest}"


def page_of(path):
    """The page that shows a file of the repository, or the file itself: both as paths from the root."""
    if match := re.fullmatch(r"sessions/(\w+)/(README\.md|exercises\.ipynb|solutions\.ipynb)", path):
        return f"docs/{'sessions' if match[2] == 'README.md' else 'exercises'}/{match[1]}.md"
    shown = {"README.md": "index", "CONTRIBUTING.md": "contributing", "benchmarks/README.md": "benchmarks"}
    return f"docs/{shown[path]}.md" if path in shown else path
