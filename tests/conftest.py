"""Fixtures: the embedded digits, and a copy of the course in which tests run, break and publish things."""

import contextlib
import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from common import data

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)  # these networks are small: more threads only wait for each other


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")


DESCRIPTION = """
teaches: nothing
claimed: 50 %
headline: A
seeds: {A: 2}
network: skeleton()
quick: {profile: quick}
"""

COLAB = """
import sys
import types
from pathlib import Path

sys.modules[__name__ + ".drive"] = drive = types.ModuleType("drive")
sys.modules[__name__ + ".files"] = files = types.ModuleType("files")
drive.mount = lambda path: (Path(path) / "MyDrive").mkdir(parents=True, exist_ok=True)
files.download = lambda path: print("downloaded", Path(path).name)
"""


def colab_modules(folder):
    """A folder for PYTHONPATH with a stand-in for google.colab, imported at once as in Colab's kernels."""
    (folder / "google").mkdir(parents=True)
    (folder / "google" / "colab.py").write_text(COLAB)
    (folder / "sitecustomize.py").write_text("import google.colab\n")
    return folder


class Course:
    """A copy of the course or of another copy, and its command in a process of its own."""

    def __init__(self, root, original=None):
        self.root = root
        if original:
            shutil.copytree(original.root, root)
            return
        for name in ("common", "course", "sessions", "benchmarks", "profiles"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "Snakefile"):
            shutil.copy(ROOT / name, root / name)

    def keep_sessions(self, *names):
        """Delete the other sessions, which only take time."""
        for folder in (self.root / "sessions").glob("*/"):
            if folder.name not in names:
                shutil.rmtree(folder)

    def environment(self):
        programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        modules = os.pathsep.join([str(self.root), os.environ.get("PYTHONPATH", "")])
        return {**os.environ, "PATH": programs, "PYTHONPATH": modules, "OMP_NUM_THREADS": "1"}

    def start(self, *arguments):
        command = [sys.executable, "-m", "course", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.root, env=self.environment(), **pipes)

    def start_batch(self, *arguments):
        """Snakemake in a process group of its own; all that it prints is in stdout."""
        command = [sys.executable, "-m", "snakemake", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
        return subprocess.Popen(command, cwd=self.root, env=self.environment(), **pipes)

    def __call__(self, *arguments):
        process = self.start(*arguments)
        process.stdout_text, process.stderr_text = process.communicate(timeout=300)
        return process

    def add_session(self, name, code):
        """A session whose one deciding cell is `code`, which must define `accuracy`; it takes a second to run."""
        parameters = [
            'profile = "full"  # @param ["full", "quick"]',
            'variant = "A"  # @param ["A"]',
            'target = 0.5  # @param {"type": "number", "min": 0, "max": 1}',
            'checkpoint = ""  # @param {"type": "string"}',
            'weights = ""  # @param {"type": "string"}',
            'seed = 0  # @param {"type": "integer", "min": 0}',
        ]
        record = (
            "import torch\n"
            "from torch import nn\n"
            "from common.data import Dataset, Split\n"
            "from common.train import History\n"
            "few = Split(torch.zeros(360, 1, 2, 2, dtype=torch.uint8), torch.zeros(360).long())\n"
            "toy = Dataset('toys', few, few, ('a', 'b'), (0.5,), (0.5,), 64 * '0')\n"
            "torch.manual_seed(seed)  # two seeds give two networks and two histories\n"
            "history = History([{'epoch': 1, 'train_loss': seed, 'test_accuracy': accuracy}])\n"
            "metrics = {'test_accuracy': accuracy, 'parameters': 6}\n"
            "run.finish(nn.Linear(2, 2), toy, 'cpu', history, metrics)"
        )
        cells = [
            new_markdown_cell("# A test\n\n<!-- badges -->\n<!-- /badges -->", id="title"),
            new_code_cell("", id="bootstrap", metadata={"tags": ["bootstrap"]}),
            new_code_cell("\n".join(parameters), id="parameters", metadata={"tags": ["parameters"]}),
            new_code_cell(f"from common.record import Run\nrun = Run({name!r}, In, globals())", id="start"),
            new_code_cell(code, id="work"),
            new_markdown_cell("## What was learned\n\nNothing.", id="learnings"),
            new_code_cell("print(f'{accuracy:.2%}')", id="shown", metadata={"tags": ["show"]}),
            new_code_cell(record, id="record", metadata={"tags": ["record"]}),
        ]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel})
        folder = self.root / "sessions" / name
        folder.mkdir()
        nbformat.write(notebook, folder / "session.ipynb")
        (folder / "session.yaml").write_text(DESCRIPTION)


@pytest.fixture(scope="session")
def course(tmp_path_factory):
    """One copy for tests that do not change it."""
    return Course(tmp_path_factory.mktemp("course"))


@pytest.fixture
def own_course(tmp_path):
    """A copy for one test alone."""
    return Course(tmp_path / "course")


SITE = ROOT / "docs" / "_build" / "html"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, as any plain file server does, and prints nothing."""

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served(folder):
    """The address of a folder, served on this machine during the block."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session")
def site():
    """The address of the built site."""
    if not (SITE / "index.html").exists():
        pytest.skip("`make site` makes the site")
    with served(SITE) as address:
        yield address


@pytest.fixture(scope="session")
def browser():
    """A Chromium without a window, driven by Selenium; `browser.get_log("browser")` reads its console."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="`make test-browser` installs Selenium")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(programs):
        pytest.skip("Debian's packages chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    quiet = "no-first-run", "disable-quic", "disable-background-networking", "disable-component-update", "disable-sync"
    for argument in ("headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1280,900", *quiet):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    yield driver
    driver.quit()
