"""A notebook alone, as Colab opens it: with Colab's package versions, and the repository only to clone."""

import json
import os
import subprocess
import tomllib
from pathlib import Path
from zipfile import ZipFile

import nbformat
import pytest
from conftest import ROOT, Course, colab_modules
from nbformat.v4 import new_code_cell

from course import exercises, notebooks
from course.sessions import all_sessions

PACKAGES = os.environ.get("COLAB_PACKAGES")  # a virtual environment with the packages of tests/colab.txt
pytestmark = [
    pytest.mark.colab,
    pytest.mark.skipif(not PACKAGES, reason="`make test-colab` sets up the environment with Colab's packages"),
]
KEPT = ("torch", "numpy", "ipython", "ipykernel")


class Colab:
    """A Colab machine: packages, except those in `without`, an empty folder, and the course at its address."""

    def __init__(self, folder, remote, without=()):
        self.content, self.prefix = folder / "content", folder / "packages"
        self.content.mkdir()
        # The packages are linked, so what a notebook installs stays in here.
        python = Path(PACKAGES) / "bin" / "python"
        subprocess.run([python, "-m", "venv", "--without-pip", self.prefix], check=True)
        (self.prefix / "share").symlink_to(Path(PACKAGES) / "share")
        (linked,) = self.prefix.glob("lib/python*/site-packages")
        for path in Path(PACKAGES).joinpath(linked.relative_to(self.prefix)).iterdir():
            if not path.name.startswith(without):
                (linked / path.name).symlink_to(path)
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("COURSE_")},
            "PYTHONPATH": str(colab_modules(folder / "modules")),
            "OMP_NUM_THREADS": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.file://{remote}.insteadOf",
            "GIT_CONFIG_VALUE_0": project["urls"]["Repository"],
        }

    def python(self, *arguments):
        """What Python prints there, in the empty folder."""
        command = [self.prefix / "bin" / "python", *arguments]
        process = subprocess.run(command, cwd=self.content, env=self.environment, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr[-3000:]
        return process.stdout

    def versions(self):
        listed = json.loads(self.python("-m", "pip", "list", "--format=json"))
        return {package["name"].lower(): package["version"] for package in listed}

    def run(self, source, parameters):
        """Execute a notebook alone in the folder, and return it."""
        notebook = nbformat.read(source, 4)
        position = notebook.cells.index(notebooks.find_cell(notebook, "parameters"))
        lines = [f"{name} = {value!r}" for name, value in parameters.items()]
        notebook.cells.insert(position + 1, new_code_cell("\n".join(["# Parameters", *lines])))
        return self.execute(notebook, source.name)

    def execute(self, notebook, name, *options):
        """Execute a notebook alone in the folder under this name, with nbclient's options, and return it."""
        path = self.content / name
        nbformat.write(notebook, path)
        self.python("-c", "from nbclient.cli import main; main()", "--inplace", *options, path.name)
        return nbformat.read(path, 4)


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    """The course as a git repository, on the branch or tag that the notebooks clone."""
    root = Course(tmp_path_factory.mktemp("remote") / "course").root
    release = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["course"]["release"]
    git = ["git", "-C", root, "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q", "-b", release], ["add", "."], ["commit", "-q", "-m", "course"]):
        subprocess.run([*git, *command], check=True)
    return root


@pytest.mark.parametrize("session", all_sessions(), ids=lambda session: session.name)
def test_a_session_alone_runs_to_its_end_and_changes_no_package(session, remote, tmp_path):
    colab = Colab(tmp_path, remote)
    before = colab.versions()
    two_epochs = {name: 2 for name in session.schema if name.endswith("epochs")}
    notebook = colab.run(session.path, session.quick | two_epochs)
    assert colab.versions() == before
    record = notebooks.read_record(notebook, session.name)
    assert record["session"] == session.name
    assert record["versions"]["torch"].startswith(before["torch"])
    assert len(record["history"]) == 2
    assert "widgets" not in notebook.metadata
    assert sorted(path.name for path in colab.content.iterdir()) == ["convnet-course", "session.ipynb"]


@pytest.mark.parametrize("solutions", exercises.solutions(), ids=lambda path: path.parent.name)
def test_exercises_alone_say_what_is_missing_and_run_to_their_end_once_solved(solutions, remote, tmp_path):
    colab = Colab(tmp_path, remote)
    before = colab.versions()
    unsolved = nbformat.read(solutions.with_name("exercises.ipynb"), 4)
    for cell in colab.execute(unsolved, "exercises.ipynb", "--allow-errors").cells:
        errors = [output for output in cell.get("outputs", []) if output.output_type == "error"]
        expected = ["NotYet"] if "check" in notebooks.tags(cell) else []
        assert [error.ename for error in errors] == expected, cell.id
        assert all(error.traceback == [f"Not yet: {error.evalue}"] for error in errors)
    solved = nbformat.read(solutions, 4)
    solved.cells = [cell for cell in solved.cells if "wrong" not in notebooks.tags(cell)]
    colab.execute(solved, "solutions.ipynb")
    assert colab.versions() == before


def test_missing_packages_are_installed_and_no_other_changes(remote, tmp_path):
    """Not even if the newest release needs another numpy: then pip takes an older release."""
    missing = ("torchsummary", "safetensors", "pooch", "sklearn", "scikit_learn")
    colab = Colab(tmp_path, remote, without=missing)
    before = colab.versions()
    with ZipFile(tmp_path / "pooch-99-py3-none-any.whl", "w") as wheel:
        metadata = f"Metadata-Version: 2.1\nName: pooch\nVersion: 99\nRequires-Dist: numpy!={before['numpy']}\n"
        wheel.writestr("pooch-99.dist-info/METADATA", metadata)
        wheel.writestr("pooch-99.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("pooch-99.dist-info/RECORD", "")
    colab.environment["PIP_FIND_LINKS"] = f"{os.environ.get('PIP_FIND_LINKS', '')} {tmp_path}"
    assert not {"torchsummary", "safetensors", "pooch", "scikit-learn"} & set(before)
    notebook = all_sessions()[0].notebook
    colab.python("-c", notebooks.find_cell(notebook, "bootstrap").source + "\nimport common.utils")
    after = colab.versions()
    assert {"torchsummary", "safetensors", "pooch", "scikit-learn"} <= set(after)
    assert {name: after[name] for name in before} == before


def test_the_whole_course_installs_papermill_and_returns_a_zip_to_publish(remote, tmp_path, course):
    colab = Colab(tmp_path, remote)
    before = colab.versions()
    assert "papermill" not in before
    assert set(KEPT) <= set(before)
    notebook = colab.run(notebooks.RUN_ALL, {"sessions": "s06", "seeds": "0", "profile": "quick"})
    after = colab.versions()
    assert "papermill" in after
    assert {name: after[name] for name in before} == before
    assert "widgets" not in notebook.metadata
    drive = colab.content / "drive" / "MyDrive" / "convnet-course"
    process = course("publish", drive / "runs.zip", "--to", tmp_path / "pages")
    assert process.returncode == 0, process.stderr_text
    executed = nbformat.read(tmp_path / "pages" / "s06_under_10k" / "executed.ipynb", 4)
    assert "widgets" not in executed.metadata
    assert "stderr" not in {output.get("name") for cell in executed.cells for output in cell.get("outputs", [])}
