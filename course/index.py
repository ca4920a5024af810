"""What is the same in every notebook, badges and bootstrap cell, and the index in the top-level README."""

import io
import tomllib

import nbformat

from course.measures import groups, headline
from course.notebooks import ROOT, RUN_ALL, PublishError, find_cell, read_notebook, results
from course.page import escape_markdown, page_title
from course.publish import publishing_lock, write_files
from course.sessions import all_sessions

BOOTSTRAP = """\
# @title Setup
# Find the course's code; where this notebook stands alone, as in Colab, fetch it.
import shutil
import subprocess
import sys
from pathlib import Path

repository, release = "{repository}", "{release}"
here = Path.cwd()
clone = here / "{name}"
root = next((folder for folder in (here, *here.parents) if (folder / "common" / "model.py").exists()), clone)
if root == clone and (root / ".git").exists() and not (root / ".git" / "index").exists():
    shutil.rmtree(root)  # half of a clone that was broken off: git writes the index last
if root == clone and not root.exists():
    subprocess.run(["git", "clone", "--quiet", "--depth=1", "--branch", release, repository, str(root)], check=True)
sys.path.insert(0, str(root))
if root == clone:
    from common.utils import install

    install("torchsummary", "safetensors", "pooch", "scikit-learn")"""

JOURNEY = "journey.png"
COLAB_BADGE = "https://colab.research.google.com/assets/colab-badge.svg"


def index_files():
    """The notebooks with badges and bootstrap cells, the README with its index and link to the site: {path: text}."""
    repository, release = repository_and_release()
    files = {}
    for path in [*(session.path for session in all_sessions()), RUN_ALL]:
        notebook = read_notebook(path)
        lines = (
            "![Python 3.11 or newer](https://img.shields.io/badge/python-3.11%2B-3776ab)\n"
            "![PyTorch 2.10 or newer](https://img.shields.io/badge/torch-2.10%2B-ee4c2c)\n"
            f"[![Open in Colab]({COLAB_BADGE})]({colab_address(path)})"
        )
        first = notebook.cells[0]
        first.source = between(first.source, "badges", lines)
        cell = find_cell(notebook, "bootstrap")
        cell.source = BOOTSTRAP.format(repository=repository, release=release, name=repository.rsplit("/", 1)[1])
        files[path] = nbformat.writes(notebook) + "\n"
    readme = ROOT / "README.md"
    text = between(readme.read_text(encoding="utf-8"), "site", _site())
    return {**files, readme: between(text, "index", _index(_heads()))}


@publishing_lock()
def write_index():
    """Write badges and bootstrap cells, the index and its picture."""
    for path, text in index_files().items():
        write_files(path.parent, {path.name: text})
    if heads := _heads():
        png = io.BytesIO()
        _journey(heads).savefig(
            png, format="png", dpi=100, facecolor="white", metadata={"Description": _journey_in_words(heads)}
        )
        write_files(ROOT / "images", {JOURNEY: png.getvalue()})


def repository_and_release():
    """The repository's address and the branch or tag that Colab opens, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return project["project"]["urls"]["Repository"], project["tool"]["course"]["release"]


def colab_address(notebook):
    """Where Colab opens a notebook of the repository."""
    repository, release = repository_and_release()
    colab = repository.replace("https://github.com", "https://colab.research.google.com/github")
    return f"{colab}/blob/{release}/{notebook.relative_to(ROOT).as_posix()}"


def site_address():
    """Where GitHub Pages shows the site of the repository."""
    owner, name = repository_and_release()[0].split("/")[-2:]
    return f"https://{owner.lower()}.github.io/{name}/"


def _site():
    """The sentence of the README that leads to the site."""
    return (
        f"**[The course as a site]({site_address()})**, with search, exercises, and every network to draw a digit for."
    )


def _heads():
    """The headline of each session that has results: {its name: group}."""
    found = [(session, results(session.folder)) for session in all_sessions()]
    return {session.name: headline(session, groups(records)) for session, records in found if records}


def _index(heads):
    """The table of all sessions and, where there are results, the picture of the journey."""
    columns = ["session", "what it teaches", "parameters", "receptive field"]
    columns += ["test accuracy (mean ± sd)", "claimed", "an epoch"]
    lines = [f"| {' | '.join(columns)} | |", "| --- " * (len(columns) + 1) + "|"]
    for session in all_sessions():
        records = results(session.folder)
        page = "README.md" if records else session.path.name
        link = f"[{page_title(session, records)}](sessions/{session.name}/{page})"
        badge = f"[![Open in Colab]({COLAB_BADGE})]({colab_address(session.path)})"
        row = [link, session.teaches, "", "", "not run yet", session.claimed, "", badge]
        if records:
            head = heads[session.name]
            epoch = head.seconds / len(records[0]["history"])
            row[2:5] = f"{head.parameters:,}", str(head.receptive_field), f"{head.accuracy} (n = {head.n})"
            row[6] = f"{epoch:.2g} s, {escape_markdown(head.device)}"
        lines.append(f"| {' | '.join(row)} |")
    lines += ["", f"All of it in one go, on a GPU: [![Open in Colab]({COLAB_BADGE})]({colab_address(RUN_ALL)})"]
    if heads:
        lines += ["", f"![{_journey_in_words(heads)}](images/{JOURNEY})"]
    return "\n".join(lines)


def _number(name):
    """The number of a session, such as "6", from its name, which begins with s06."""
    return name[1:3].lstrip("0")


def _journey(heads):
    """The sessions as points, accuracy against parameters."""
    from matplotlib.figure import Figure  # here, because most commands draw nothing
    from matplotlib.ticker import NullLocator

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, head in heads.items():
        mean, values = head.accuracy.mean, head.accuracy.values
        axes.errorbar(head.parameters, mean, [[mean - min(values)], [max(values) - mean]], fmt="o", capsize=4)
        axes.annotate(f" {_number(name)}", (head.parameters, mean), fontsize=12, va="bottom")
    ticks = [0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 0.993, 0.995, 0.997, 0.998]
    axes.set(xscale="log", yscale="logit", xlabel="parameters", ylabel="test accuracy")
    axes.set_yticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_title("Each session: mean accuracy, lowest to highest run, number of parameters", fontsize=11)
    axes.grid(alpha=0.3)
    return figure


def _journey_in_words(heads):
    points = [f"session {_number(name)} {head.accuracy} with {head.parameters:,}" for name, head in heads.items()]
    return "Test accuracy against the number of parameters: " + "; ".join(points) + "."


def between(text, marker, content):
    """Replace what stands between the comments <!-- marker --> and <!-- /marker -->."""
    start, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise PublishError(f"There must be one {start} and one {end}.")
    return text[: text.index(start) + len(start)] + f"\n{content}\n" + text[text.index(end) :]
