"""What all notebooks share, badges and bootstrap cell, and the index in the top-level README."""

import io
import tomllib

import nbformat

from course.exercises import solutions, write_exercises
from course.measures import groups, headline
from course.notebooks import ROOT, RUN_ALL, SESSIONS, PublishError, find_cell, read_notebook, results
from course.publish import publishing_lock, write_changed, write_files
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
EXERCISES_BADGE = "https://img.shields.io/badge/exercises-open_in_Colab-f9ab00?logo=googlecolab"


def index_files():
    """The notebooks with badges and bootstrap cells, the README with its index and link to the site: {path: text}."""
    repository, release = repository_and_release()
    files = {}
    for path in [*(session.path for session in all_sessions()), *solutions(), RUN_ALL]:
        notebook = read_notebook(path)
        exercises = path.with_name("exercises.ipynb")
        lines = (
            "![Python 3.11 or newer](https://img.shields.io/badge/python-3.11%2B-3776ab)\n"
            "![PyTorch 2.10 or newer](https://img.shields.io/badge/torch-2.10%2B-ee4c2c)\n"
            f"[![Open in Colab]({COLAB_BADGE})]({colab_address(path)})"
        )
        if path.name == "solutions.ipynb":  # the exercises made from it have the same title
            lines = f"[![Open in Colab]({COLAB_BADGE})]({colab_address(exercises)})"
            on_github = f"{repository}/blob/{release}/{path.relative_to(ROOT).as_posix()}"
            page = f"{site_address()}exercises/{path.parent.name}.html"
            lines += f"\n\nStuck? [Hints to unfold]({page}). For afterwards: [solutions]({on_github})."
        elif path.with_name("solutions.ipynb").exists():
            lines += f"\n[![Exercises in Colab]({EXERCISES_BADGE})]({colab_address(exercises)})"
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
    """Write badges and bootstrap cells, the exercises, which have them too, the index and its picture."""
    write_changed(index_files())
    write_exercises()
    if heads := _one_task(_heads()):
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
    """The README's sentence with the link to the site."""
    return (
        f"**[The course as a site]({site_address()})**, with search, exercises, and a demo: draw a digit, and see what "
        "the networks make of it."
    )


def _heads():
    """The headline of each session that has results: {its name: group}."""
    found = [(session, results(session.folder)) for session in all_sessions()]
    return {session.name: headline(session, groups(records)) for session, records in found if records}


def _one_task(heads):
    """The sessions whose networks read all ten digits of MNIST: only these are comparable in one plot."""
    ten = {session.name for session in all_sessions() if not session.test_set}
    on_mnist = {name for name in heads if results(SESSIONS / name)[0]["dataset"]["name"] == "MNIST"}
    return {name: head for name, head in heads.items() if name in ten & on_mnist}


def _index(heads):
    """The table of all sessions and, where there are results, the picture of the journey."""
    lines = ["| session | test accuracy | parameters |", "| --- | --- | --- |"]
    for session in all_sessions():
        records = results(session.folder)
        page = "README.md" if records else session.path.name
        link = f"[{session.title}](sessions/{session.name}/{page})"
        badge = f"[![Open in Colab]({COLAB_BADGE})]({colab_address(session.path)})"
        about = f"**{link}**<br>{session.teaches}<br>{badge}"  # the button would be squeezed in a column of its own
        row = [about, "not run yet", ""]
        if records:
            head = heads[session.name]
            row[1:] = f"{head.accuracy} (n = {head.n})", f"{head.parameters:,}"
        lines.append(f"| {' | '.join(row)} |")
    lines += ["", f"The whole course at once, on a GPU: [![Open in Colab]({COLAB_BADGE})]({colab_address(RUN_ALL)})"]
    if points := _one_task(heads):
        lines += ["", f"![{_journey_in_words(points)}](images/{JOURNEY})"]
    return "\n".join(lines)


def _label(name):
    """A session's name in a plot: its number, then its name in words."""
    return f"{int(name[1:3])} {name[4:].replace('_', ' ')}"


def _journey(heads):
    """The sessions as points, accuracy against parameters."""
    from matplotlib.figure import Figure  # here, because most commands draw nothing

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, head in heads.items():
        mean, values = 100 * head.accuracy.mean, [100 * value for value in head.accuracy.values]
        axes.errorbar(head.parameters, mean, [[mean - min(values)], [max(values) - mean]], fmt="o", capsize=4)
        place = {"xytext": (8, 8), "textcoords": "offset points", "fontsize": 11}
        axes.annotate(_label(name), (head.parameters, mean), **place)
    axes.set(xscale="log", xlabel="parameters", ylabel="test accuracy (%)")
    axes.margins(x=0.3, y=0.2)
    for ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        ticks(lambda value, _: f"{value:,.0f}" if f"{value:g}"[0] in "1247" else "")
    axes.set_title("MNIST: mean accuracy, lowest to highest run", fontsize=12)
    axes.grid(alpha=0.3)
    return figure


def _journey_in_words(heads):
    points = [f"session {_label(name)} {head.accuracy} with {head.parameters:,}" for name, head in heads.items()]
    return "MNIST, test accuracy against the number of parameters: " + "; ".join(points) + "."


def between(text, marker, content):
    """Replace the text between the comments <!-- marker --> and <!-- /marker -->."""
    start, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise PublishError(f"There must be one {start} and one {end}.")
    return text[: text.index(start) + len(start)] + f"\n{content}\n" + text[text.index(end) :]
