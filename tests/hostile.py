"""Hostile input for the tests: active content, values of any kind, and a small session to put them in."""

import copy
import json
import os

import mistune
import nbformat
import pytest
import torch
from bs4 import BeautifulSoup
from conftest import DESCRIPTION, ROOT
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from safetensors.torch import save_file

from common.parameters import ParameterError, read_schema
from common.record import MIME, VERSION, record_line
from course import evidence, notebooks, publish
from course.notebooks import PublishError

CELL_OF_TYPES = """
dataset = "mnist"  # @param {"type": "string"}
variant = "A"  # @param ["A", "B"]
epochs = 20  # @param {"type": "integer", "min": 1, "max": 100}
lr = 0.1  # @param {"type": "number", "min": 0}
bfloat16 = False  # @param {"type": "boolean"}
profile = "full"  # @param ["full", "quick"]
seed = 0  # @param {"type": "integer", "min": 0}
weights = ""  # @param {"type": "string"}
"""


def few(examples):
    """The same few examples every time, with no time limit."""
    checks = list(HealthCheck)
    return settings(max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=checks)


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</details><iframe src='//evil.example'></iframe>",
    "[x](javascript:alert(1))",
    r"\[x](http://evil.example)",
    "![x](http://evil.example/x.png)",
    "<http://evil.example>",
    "http://evil.example and HTTPS://evil.example",
    "www.evil.example",
    "` | <script>alert(1)</script> | `",
    "a\n\n<script>alert(1)</script>\n\n[x]: http://evil.example\n\n[x]",
    "a\n```\n<script>alert(1)</script>\n```\nb",
    "a\n````\n<script>alert(1)</script>\n[x](http://evil.example)",
    "plain\n``\x1b[0m`\n[x](http://evil.example)\n<script>alert(1)</script>",
    "../../outside",
    "$(touch outside); `touch outside`",
]


hostile = st.sampled_from(HOSTILE)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | hostile | st.just(10**400)


anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9) | hostile, inner, max_size=3),
)


PARAMETERS = """
profile = "full"  # @param ["full", "quick"]
variant = "A"  # @param ["A"]
seed = 0  # @param {"type": "integer", "min": 0}
target = 0.5  # @param {"type": "number", "min": 0, "max": 1}
dataset = "mnist"  # @param {"type": "string"}
weights = ""  # @param {"type": "string"}
"""


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


def small_notebook(parameters=PARAMETERS, outputs=(), record=None):
    """A session's notebook: its source or, with a record, an executed one."""
    cells = [
        new_markdown_cell("# A test", id="title"),
        new_code_cell(parameters, id="parameters", metadata={"tags": ["parameters"]}),
        new_code_cell("accuracy = 0.5", id="work", outputs=list(outputs)),
        new_code_cell("run.finish()", id="record", metadata={"tags": ["record"]}),
    ]
    for number, cell in enumerate(cells[1:], 1):
        cell.execution_count = number if record else None
    if record:
        shown = " ".join(f"{value:.2%}" for name, value in record["metrics"].items() if name.endswith("_accuracy"))
        cells[2].outputs.append(new_output("display_data", data={"text/plain": shown}))
        record["outputs_sha256"] = evidence.outputs_of(new_notebook(cells=cells)).sha256()
        written = {MIME: record, "text/plain": record_line(record)}
        cells[-1].outputs = [new_output("display_data", data=written)]
    return new_notebook(cells=cells)


class Session:
    """A session in a folder of its own, and one executed notebook of it."""

    def __init__(self, root):
        self.root, self.executed, self.page = root, root / "runs" / "run.ipynb", root / "page"
        (root / "sessions" / "s99_test").mkdir(parents=True)
        (root / "runs").mkdir()
        (root / "logs").mkdir()
        nbformat.write(small_notebook(), root / "sessions" / "s99_test" / "session.ipynb")
        (root / "sessions" / "s99_test" / "session.yaml").write_text(DESCRIPTION)
        save_file({"weight": torch.zeros(2)}, self.executed.with_suffix(".safetensors"))
        self.record = notebooks.results(ROOT / "sessions" / "s06_under_10k")[0]
        del self.record["source_sha256"]
        self.record |= {"session": "s99_test", "variant": "A", "seed": 0, "schema": VERSION, "executed": 3}
        self.record["params"] = {name: rule["default"] for name, rule in read_schema(PARAMETERS).items()}
        del self.record["params"]["weights"]
        self.record["metrics"]["parameters"] = 2
        self.record["weights"]["sha256"] = publish.hash_file(self.executed.with_suffix(".safetensors"))

    def publish(self, notebook):
        """Publish a notebook, given as JSON, and return the page; the folder is emptied afterwards."""
        self.executed.write_text(notebook if isinstance(notebook, str) else json.dumps(notebook))
        before = self.files()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(publish, "SESSIONS", self.root / "sessions")
            patch.setattr(publish, "ROOT", self.root)
            try:
                publish.publish([self.executed], self.page)
                return (self.page / "README.md").read_text()
            except (PublishError, ParameterError):
                assert not self.page.exists() or not list(self.page.iterdir())
                raise
            finally:
                for path in sorted(self.page.rglob("*"), reverse=True):
                    path.unlink() if path.is_file() else path.rmdir()
                assert self.files() == before, "something was written outside of the page's folder"

    def files(self):
        return sorted(path for path in self.root.rglob("*") if path.name != ".lock" and path != self.page)


# Tags that only lay out text. All others on a page must be there with harmless text too.
PLAIN = {"p", "table", "thead", "tbody", "tr", "th", "td", "ul", "ol", "li", "strong", "em", "code", "pre", "del", "hr"}
PLAIN |= {"h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "br"}


def live(markdown):
    """What a renderer makes from a page besides text: tags, links, images, attributes."""
    html = mistune.create_markdown(escape=False, plugins=["table", "url", "strikethrough"])(markdown)
    tags = BeautifulSoup(html, "html.parser").find_all(lambda tag: tag.name not in PLAIN)
    return {(tag.name, tag.get("href"), tag.get("src"), tuple(sorted(tag.attrs))) for tag in tags}


def outputs_with(text):
    """A text wherever an output may hold one."""
    shown = {"text/plain": text, "image/png": PIXEL}
    return [
        new_output("stream", name="stdout", text=f"{text}\n"),
        new_output("execute_result", data={"text/plain": text}, execution_count=1),
        new_output("display_data", data={"text/plain": text, "text/html": text, "image/svg+xml": text}),
        new_output("display_data", data={"text/plain": text, "text/markdown": text}),
        new_output("display_data", data=shown, metadata={"filename": "x.png", "alt": text}),
    ]


def places(value, at=()):
    """The path to each value inside a JSON structure."""
    yield at
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield from places(item, (*at, key))


def replaced(value, place, new):
    """A copy of a JSON structure with another value at a place."""
    if not place:
        return new
    value = copy.copy(value)
    value[place[0]] = replaced(value[place[0]], place[1:], new)
    return value


class Bomb:
    """Reading a pickle of this makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)
