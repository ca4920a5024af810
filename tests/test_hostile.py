"""Hostile and broken input: a sentence says what is wrong; nothing is lost, written elsewhere, executed or live."""

import contextlib
import copy
import hashlib
import io
import json
import math
import os
import pickle
import re
import struct
import tarfile
import zlib

import mistune
import nbformat
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from conftest import DESCRIPTION, ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from papermill.translators import PythonTranslator
from PIL import Image
from safetensors.torch import load_file, save_file
from test_data import folder  # noqa: F401 (a fixture)

from common import data, download, image_folder
from common.parameters import ParameterError, check_parameters, describe, find_parameters, read_schema
from common.record import MIME, VERSION, record_line
from course import cli, evidence, notebooks, page, publish, verify
from course.notebooks import PublishError
from course.sessions import UsageError, read_session


def few(examples):
    """The same few examples every time, however slow the machine is."""
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

# ---------------------------------------------------------------------------------------------------------------
# Parameters

CELL = """
dataset = "mnist"  # @param {"type": "string"}
variant = "A"  # @param ["A", "B"]
epochs = 20  # @param {"type": "integer", "min": 1, "max": 100}
lr = 0.1  # @param {"type": "number", "min": 0}
bfloat16 = False  # @param {"type": "boolean"}
profile = "full"  # @param ["full", "quick"]
seed = 0  # @param {"type": "integer", "min": 0}
weights = ""  # @param {"type": "string"}
"""
SCHEMA = read_schema(CELL)


@few(100)
@given(st.sampled_from([*SCHEMA]), anything)
def test_a_value_is_refused_or_reaches_the_notebook_as_it_is(name, value):
    """What passes the check has the right type and range, and papermill's cell says the same value."""
    try:
        checked = check_parameters(SCHEMA, {name: value})
    except ParameterError:
        return
    assert type(checked[name]) is type(SCHEMA[name]["default"])
    assert not isinstance(value, float) or math.isfinite(value)
    assert find_parameters([CELL, "# Parameters\n" + PythonTranslator.codify(checked, "")])[name] == checked[name]


@few(100)
@given(st.dictionaries(st.text() | hostile | st.integers(), anything, min_size=1, max_size=3))
def test_a_name_that_does_not_exist_is_refused(values):
    with pytest.raises(ParameterError, match="There is no parameter"):
        check_parameters(SCHEMA, values)


@few(100)
@given(st.text() | hostile)
@pytest.mark.parametrize("start", ["", "epochs = ", "epochs.x = ", "lr = __import__('os').system('touch outside')\n"])
def test_a_cell_with_code_for_parameters_is_not_executed(start, text):
    before = sorted(os.listdir())
    with contextlib.suppress(ParameterError):
        values = find_parameters([CELL, f"# Parameters\n{start}{text}"])
        assert values == check_parameters(SCHEMA, values)
    assert sorted(os.listdir()) == before


@few(100)
@given(anything | st.fixed_dictionaries({"type": st.sampled_from(["number", "file", 1])}, optional={"min": anything}))
def test_a_form_that_is_none_is_refused(form):
    try:
        schema = read_schema(f"x = 1  # @param {json.dumps(form)}")
        check_parameters(schema, {"x": 1})
    except ParameterError:
        return
    assert "x = 1" in describe(schema)


@pytest.fixture(scope="module")
def command():
    """The command in this process: (exit code, what stderr says, what would have been executed)."""

    def call(*arguments):
        executed, error = [], io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(error):
            patch.setattr(cli, "SIGNALS", ())
            patch.setattr(cli, "execute", lambda *values: executed.append(values))
            try:
                code = cli.main(list(arguments))
            except SystemExit as exit:  # argparse
                code = exit.code
        return code, error.getvalue(), executed

    return call


@few(60)
@given(st.sampled_from(["epochs", "lr", "dataset", "variant", "seed"]) | st.text() | hostile, st.text() | hostile)
def test_a_parameter_of_the_command_is_refused_or_executed(command, name, value):
    code, error, executed = command("run", "s06", "-p", name, value)
    if code:
        assert code == 2
        assert not executed
        assert "course: " in error or "usage: course" in error
    else:
        _, values, path, _ = executed[0]
        assert values[name] == type(values[name])(value)
        assert len(path.parts) == 3  # whatever the value is, the files lie in the session's folder
        assert ".." not in path.parts


@pytest.mark.parametrize("limit", ["nan", "inf", "0", "-1", "x"])
def test_a_time_limit_that_is_none_is_refused(command, limit):
    code, error, executed = command("run", "s06", f"--time-limit={limit}")
    assert (code, executed) == (2, [])
    assert "--time-limit: invalid hours value" in error


@pytest.mark.parametrize(
    "quick",
    ["", "- epochs", "epochs: [", "1: 2", "epochs: !!python/object/apply:os.mkdir [outside]", "epochs: 1e3", "\xff"],
)
def test_a_broken_quick_profile_is_named(tmp_path, monkeypatch, quick):
    monkeypatch.chdir(tmp_path)
    nbformat.write(notebook_of(CELL), tmp_path / "session.ipynb")
    text = DESCRIPTION.replace("quick: {profile: quick}", f"quick:\n  {quick}")
    (tmp_path / "session.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises((UsageError, ParameterError)):
        read_session(tmp_path).parameters("quick")
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("teaches: nothing\n", "", "'teaches' is a required property"),
        ("claimed: 50 %", "claimed: 50", "claimed: 50 is not of type 'string'"),
        ("claimed: 50 %", "claimed: 50 %\nepochs: 3", "'epochs' was unexpected"),
        ("skeleton()", "__import__('os').mkdir('outside')", "network: "),
        ("seeds: {A: 2}", "seeds: 2", "seeds: 2 is not of type 'object'"),
    ],
)
def test_a_broken_description_of_a_session_is_named(tmp_path, old, new, message):
    assert old in DESCRIPTION
    (tmp_path / "session.yaml").write_text(DESCRIPTION.replace(old, new))
    with pytest.raises(UsageError, match=re.escape(message)):
        read_session(tmp_path)
    (tmp_path / "session.yaml").unlink()
    with pytest.raises(UsageError, match="No such file"):
        read_session(tmp_path)


# ---------------------------------------------------------------------------------------------------------------
# Records and notebooks

PARAMETERS = """
profile = "full"  # @param ["full", "quick"]
variant = "A"  # @param ["A"]
seed = 0  # @param {"type": "integer", "min": 0}
target = 0.5  # @param {"type": "number", "min": 0, "max": 1}
dataset = "mnist"  # @param {"type": "string"}
weights = ""  # @param {"type": "string"}
"""
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


def notebook_of(parameters=PARAMETERS, outputs=(), record=None):
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
        shown = f"{record['metrics']['test_accuracy']:.2%}"
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
        nbformat.write(notebook_of(), root / "sessions" / "s99_test" / "session.ipynb")
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


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    session = Session(tmp_path_factory.mktemp("hostile"))
    session.publish(notebook_of(record=session.record))
    return session


# Tags that only lay out text. Everything else on a page must be there with harmless text too.
PLAIN = {"p", "table", "thead", "tbody", "tr", "th", "td", "ul", "ol", "li", "strong", "em", "code", "pre", "del", "hr"}
PLAIN |= {"h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "br"}


def live(markdown):
    """What a renderer makes of a page besides text: tags, links, images, attributes."""
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


def test_the_renderer_sees_what_is_live():
    assert {tag for tag, *_ in live("\n\n".join(HOSTILE))} >= {"script", "img", "iframe", "a"}


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_a_notebook_does_not_come_alive(session, text):
    """In the record, in a parameter, and in every kind of output."""

    def page_of(text):
        parameters = PARAMETERS.replace('dataset = "mnist"', f"dataset = {text!r}")
        record = copy.deepcopy(session.record)
        record |= {"device": text, "versions": {"torch": text, text: "1"}}
        record["dataset"]["name"] = record["params"]["dataset"] = text
        accuracy = record["metrics"]["test_accuracy"]
        record["metrics"]["parts"] = [{"part": part, "test_accuracy": accuracy} for part in (text, text, "b", "b")]
        return session.publish(notebook_of(parameters, outputs_with(text), record))

    page = page_of(text)
    assert live(page) == live(page_of("text"))
    words = text.split("evil")[0].split("://")[0].split("<")[0].strip(" `[]!()\\\n")[:5]
    assert words in page, "the text is lost"


def places(value, at=()):
    """The way to each value inside a JSON structure."""
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


@few(60)
@given(st.data())
def test_a_record_with_anything_in_it_is_refused_or_shown_as_text(session, data):
    place = data.draw(st.sampled_from([place for place in places(session.record) if "history" not in place][1:]))
    record = replaced(session.record, place, data.draw(anything))
    notebook = notebook_of(record=session.record)
    notebook.cells[-1].outputs[0].data[MIME] = record
    with contextlib.suppress(Exception):  # a forger who knows of the checksum
        notebook.cells[-1].outputs[0].data["text/plain"] = record_line(record)
    try:
        readme = session.publish(notebook)
    except (PublishError, ParameterError):
        return
    assert live(readme) <= live(session.publish(notebook_of(record=session.record)))


@few(25)
@given(st.data())
def test_a_notebook_with_anything_in_it_is_refused_or_shown_as_text(session, data):
    notebook = json.loads(nbformat.writes(notebook_of(outputs=outputs_with("text"), record=session.record)))
    expected = live(session.publish(notebook))
    place = data.draw(st.sampled_from([place for place in places(notebook) if MIME not in place]))
    with contextlib.suppress(PublishError, ParameterError):
        assert live(session.publish(replaced(notebook, place, data.draw(anything)))) <= expected


@few(60)
@given(st.binary(max_size=50) | anything.map(lambda value: json.dumps(value).encode()))
def test_files_that_are_something_else_are_named(session, content):
    """Notebook, results and note of the verification."""
    path = session.root / "runs" / "results.json"
    path.write_bytes(content)
    path.with_name("verified.json").write_bytes(content)
    with pytest.raises(PublishError, match="not a readable notebook"):
        notebooks.read_notebook(path)
    for read, form in ((notebooks.results, list), (notebooks.verification, dict)):
        try:
            assert isinstance(read(path.parent), form)
        except PublishError as error:
            assert ".json" in str(error)
    path.unlink()
    path.with_name("verified.json").unlink()


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        ("../../outside.png", PIXEL, "has the name"),
        ("x](javascript:alert(1)).png", PIXEL, "has the name"),
        ("a\0b", PIXEL, "has the name"),
        ("x.png", "abcde", "cannot be written"),
    ],
)
def test_an_image_of_a_notebook_with_a_bad_name_or_content_is_refused(session, name, image, message):
    output = new_output("display_data", data={"image/png": image}, metadata={"filename": name})
    with pytest.raises(PublishError, match=message):
        session.publish(notebook_of(outputs=[output], record=session.record))


def test_two_images_of_one_name_and_a_cell_that_failed_are_refused(session):
    image = new_output("display_data", data={"image/png": PIXEL}, metadata={"filename": "x.png"})
    with pytest.raises(PublishError, match="unique"):
        session.publish(notebook_of(outputs=[image, image], record=session.record))
    error = new_output("error", ename="E", evalue="<script>", traceback=["\n\n<script>"])
    with pytest.raises(PublishError, match="a cell ended with an error"):
        session.publish(notebook_of(outputs=[error], record=session.record))


def test_code_that_is_none_is_refused(session):
    notebook = notebook_of(record=session.record)
    notebook.cells[2].source = "%cd /\n!touch outside"
    with pytest.raises(PublishError, match="The cell 'work' is not plain Python"):
        session.publish(notebook)


def test_a_value_that_the_source_forbids_is_refused(session):
    """The parameters cell of an executed notebook may have been changed together with the record."""
    record = replaced(session.record, ("params", "seed"), -1) | {"seed": -1}
    with pytest.raises(PublishError, match="seed must be from 0"):
        session.publish(notebook_of(PARAMETERS.replace("seed = 0", "seed = -1"), record=record))


def test_a_record_that_contradicts_its_own_parameters_is_refused(session):
    with pytest.raises(PublishError, match="the record has other parameters than the notebook"):
        session.publish(notebook_of(record=session.record | {"seed": 7}))


def test_a_command_to_repeat_a_run_is_one_command():
    """It is there to be copied into a shell."""
    params = {"dataset": "folder:x; touch 'outside' $(touch outside)"}
    record = {"session": "s99_test", "profile": "full", "seed": 0, "device": "GPU", "params": params}
    found = page._command(record, read_schema(PARAMETERS))
    assert found == """course run s99_test -p dataset 'folder:x; touch '"'"'outside'"'"' $(touch outside)' --seed 0"""


def test_runs_that_measure_different_things_are_refused(session):
    whole = {"test_accuracy": session.record["metrics"]["test_accuracy"]}
    parts = [{**whole, "sum_accuracy": whole["test_accuracy"]}, whole]
    record = replaced(session.record, ("metrics",), {**session.record["metrics"], "parts": parts})
    with pytest.raises(PublishError, match="do not all measure the same accuracies"):
        session.publish(notebook_of(record=record))


# ---------------------------------------------------------------------------------------------------------------
# Weights


class Bomb:
    """A pickle of this makes a folder when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """The committed weights of session 6, in a folder of their own; data need not be there."""
    source = ROOT / "sessions" / "s06_under_10k"
    target = tmp_path / "s06_under_10k"
    target.mkdir()
    for name in ("session.yaml", "results.json", "weights.safetensors"):
        (target / name).write_bytes((source / name).read_bytes())
    dataset = type("Dataset", (), {"sha256": notebooks.results(source)[0]["dataset"]["sha256"]})
    monkeypatch.setattr(data, "load", lambda name: dataset)
    return target / "weights.safetensors"


def spoil_shape(path):
    tensors = load_file(path)
    save_file({name: tensor[None] for name, tensor in tensors.items()}, path)


def drop_a_layer(path):
    tensors = load_file(path)
    tensors.pop(next(name for name in tensors if tensors[name].dim() == 4))
    save_file(tensors, path)


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_shape,
        drop_a_layer,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * 64),  # a header of 18 million terabytes
        lambda path: path.write_bytes(pickle.dumps(Bomb(path.parent / "outside"))),
        lambda path: torch.save(Bomb(path.parent / "outside"), path),
    ],
)
def test_weights_of_another_form_are_refused_and_run_no_code(weights, spoil):
    spoil(weights)
    with pytest.raises(PublishError, match="not that of this network") as error:
        verify.verify(read_session(weights.parent), "cpu")
    assert "\n" not in str(error.value)
    assert not (weights.parent / "outside").exists()


def test_a_pickle_is_not_published_as_weights(session):
    path = session.executed.with_suffix(".safetensors")
    good = path.read_bytes()
    path.write_bytes(pickle.dumps(Bomb(session.root / "outside")))
    record = replaced(session.record, ("weights", "sha256"), publish.hash_file(path))
    with pytest.raises(PublishError, match="is no safetensors file"):
        session.publish(notebook_of(record=record))
    path.write_bytes(good)


def test_weights_without_a_record_are_not_verified(weights):
    (weights.parent / "results.json").write_text("[]")
    with pytest.raises(PublishError, match="there is no record of the run"):
        verify.verify(read_session(weights.parent), "cpu")


# ---------------------------------------------------------------------------------------------------------------
# Data


@few(30)
@given(st.binary(max_size=200))
@pytest.mark.parametrize("start", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM"])
def test_bytes_that_are_no_image_are_named(tmp_path_factory, start, content):
    path = tmp_path_factory.getbasetemp() / "image.png"
    path.write_bytes(start + content)
    with pytest.raises(data.DataError, match=r"image\.png"):
        image_folder._read_image(path)


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "CMYK", "LA"])
def test_images_with_other_channels_become_red_green_and_blue(folder, mode):  # noqa: F811
    path = folder / "pets" / "train" / "cat" / "0.tiff"
    path.with_suffix(".png").unlink()
    Image.new("RGB", (8, 6), "red").convert(mode).save(path)
    assert data.load("folder:pets", folder).train.images.shape == (6, 3, 6, 8)


@pytest.mark.parametrize("mode", ["I", "I;16", "F"])
def test_images_with_more_than_eight_bits_are_refused(folder, mode):  # noqa: F811
    """Converted, everything above 255 would be white."""
    path = folder / "pets" / "train" / "cat" / "0.tiff"
    Image.new(mode, (8, 6), 40000).save(path)
    with pytest.raises(data.DataError, match=r"0\.tiff (has more than 8 bits a channel|is not a readable image)"):
        data.load("folder:pets", folder)


def fine_png(channels):
    """The bytes of a PNG of 8 x 6 pixels with 16 bits a channel, which Pillow does not write."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">2I5B", 8, 6, 16, {3: 2, 4: 6}[channels], 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(6 * (b"\0" + 8 * channels * b"\x9c\x40")))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        ("png", fine_png(3)),
        ("png", fine_png(4)),
        ("ppm", b"P6 8 6 65535\n" + 8 * 6 * 3 * b"\x9c\x40"),
        ("ppm", b"P6 8 6 1023\n" + 8 * 6 * 3 * b"\x01\x40"),
    ],
)
def test_colour_images_with_more_than_eight_bits_are_refused(folder, ending, content):  # noqa: F811
    """Pillow says that these are plain red, green and blue, and rounds them."""
    path = folder / "pets" / "train" / "cat" / f"0.{ending}"
    path.with_suffix(".png").unlink()
    path.write_bytes(content)
    with pytest.raises(data.DataError, match=rf"0\.{ending} has more than 8 bits a channel: save it with 8"):
        data.load("folder:pets", folder)


def test_a_picture_that_moves_is_refused_and_one_that_does_not_is_read(folder):  # noqa: F811
    """A GIF may be an image like any other: it is not left out in silence."""
    path = folder / "pets" / "train" / "cat" / "0.gif"
    path.with_suffix(".png").unlink()
    red, blue = (Image.new("RGB", (8, 6), colour) for colour in ("red", "blue"))
    red.save(path)
    assert data.load("folder:pets", folder).train.images[0, :, 0, 0].tolist() == [255, 0, 0]
    red.save(path, save_all=True, append_images=[blue])
    with pytest.raises(data.DataError, match=r"0\.gif has 2 pictures in it, expected one"):
        data.load("folder:pets", folder)


def test_a_file_that_is_no_image_is_named_and_a_hidden_one_left_alone(folder):  # noqa: F811
    (folder / "pets" / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    assert len(data.load("folder:pets", folder).train.labels) == 6
    (folder / "pets" / "train" / "cat" / "notes.txt").write_text("x")
    with pytest.raises(data.DataError, match=r"notes\.txt is not a readable image"):
        data.load("folder:pets", folder)


def test_a_photo_is_turned_upright(folder):  # noqa: F811
    """A camera stores how it was held beside the pixels, in Exif's tag 274: 6 is a quarter turn."""
    path = folder / "pets" / "train" / "cat" / "0.png"
    lying = np.zeros((8, 6, 3), dtype=np.uint8)
    lying[0, 0] = 255  # top left; turned, it is top right
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(lying).save(path, exif=exif)
    image = data.load("folder:pets", folder).train.images[0]
    assert image.shape == (3, 6, 8)
    assert image[0].nonzero().tolist() == [[0, 7]]


@pytest.mark.parametrize("renamed", ["pets/train/cat", "pets"])
def test_a_folder_whose_name_is_no_text_is_named_at_once(folder, renamed):  # noqa: F811
    (folder / "pets" / "name.txt").unlink()
    name = os.fsdecode(b"caf\xe9")  # Latin-1
    with pytest.raises(data.DataError, match=r"The name of the folder 'caf\\udce9' is not text in UTF-8") as error:
        for split in ("train", "test") if "cat" in renamed else ("",):
            path = folder / renamed.replace("train", split or "train")
            path.rename(path.with_name(name))
        data.load("folder:pets" if "cat" in renamed else f"folder:{name}", folder)
    str(error.value).encode()


def clear(path):
    for file in path.iterdir():
        file.unlink()


def paint_black(pets):
    for path in pets.glob("train/*/*.png"):
        Image.new("RGB", (8, 6)).save(path)


def keep_one_class(pets):
    for split in ("train", "test"):
        clear(pets / split / "dog")
        (pets / split / "dog").rmdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (keep_one_class, "needs two classes or more"),
        (lambda pets: clear(pets / "test" / "dog"), "expected a folder with <class>/<image>"),
        (lambda pets: (pets / "train" / "cat" / "0.png").write_bytes(b""), "is not a readable image"),
        (lambda pets: (pets / "name.txt").write_bytes(b"\xff\xfe\x00"), "name.txt is not text in UTF-8"),
        (paint_black, "all pixels of a colour channel are the same"),
    ],
)
def test_an_empty_or_meaningless_data_set_is_refused(folder, spoil, message):  # noqa: F811
    spoil(folder / "pets")
    with pytest.raises(data.DataError, match=message):
        data.load("folder:pets", folder)


@few(50)
@given(st.lists(st.integers(-3, 5), max_size=4), st.integers(0, 4))
def test_labels_must_be_those_of_classes(labels, images):
    split = data.Split(torch.zeros(images, 1, 2, 2, dtype=torch.uint8), torch.tensor(labels, dtype=torch.int64))
    dataset = data.Dataset("x", split, split, ("a", "b"), (0.0,), (1.0,), "0")
    if labels and len(labels) == images and set(labels) <= {0, 1}:
        assert data.with_splits(dataset, split, split, ("a", "b")).train is split
    else:
        with pytest.raises(data.DataError, match=r"(?i)label"):
            data.with_splits(dataset, split, split, ("a", "b"))


def member(name, **options):
    found = tarfile.TarInfo(name)
    for key, value in options.items():
        setattr(found, key, value)
    return found


@pytest.mark.parametrize(
    "bad",
    [
        member("../outside"),
        member("cifar-10-batches-py/../../outside"),
        member("cifar-10-batches-py/link", type=tarfile.SYMTYPE, linkname="../../outside"),
        member("cifar-10-batches-py/device", type=tarfile.CHRTYPE),
        None,
    ],
)
def test_an_archive_writes_nothing_elsewhere(tmp_path, monkeypatch, bad):
    """Not even one whose checksum is right. None stands for an archive that ends too early."""
    root = tmp_path / "deep" / "data"
    root.mkdir(parents=True)
    archive = root / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as target:
        target.addfile(member("cifar-10-batches-py/first"))
        if bad:
            target.addfile(bad)
    if not bad:
        archive.write_bytes(archive.read_bytes()[:60])
    content = archive.read_bytes()
    monkeypatch.setattr(download, "CIFAR10_PYTHON", (archive.name, len(content), hashlib.md5(content).hexdigest()))
    with pytest.raises(data.DataError, match=r"cifar-10-python\.tar\.gz cannot be unpacked"):
        data.load("cifar10", root)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"] == [archive]
    assert not (root / "cifar-10-batches-py").exists()


@pytest.mark.parametrize("mirror", ["nonsense", "ftp://127.0.0.1", "file:///etc", "http://[::1", "http://.example"])
def test_a_mirror_that_is_none_is_named(tmp_path, monkeypatch, mirror):
    monkeypatch.setenv("COURSE_MIRROR", mirror)
    monkeypatch.setattr(download, "MNIST_MIRRORS", [])
    with pytest.raises(data.DataError, match=r"could not be downloaded.*COURSE_MIRROR") as error:
        data.load("mnist", tmp_path)
    assert mirror in str(error.value)
