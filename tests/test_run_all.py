"""The notebook that executes the others: killed half-way, resumed elsewhere, and its zip published."""

import os
import re
import subprocess
import sys
import zipfile

import nbformat
import pytest
from conftest import Course, colab_modules
from test_batch import wait_for
from test_cli import kill_all_in

from course import notebooks
from course.sessions import all_sessions

# Seed 1 stops half-way while there is a file `hold`; its checkpoint later shows that it had begun.
WORK = """
import os, time
from pathlib import Path
begun = Path(checkpoint).exists()
Path(checkpoint).touch()
print("Epoch  1", flush=True)
while seed == 1 and os.path.exists("hold"):
    time.sleep(0.1)
with open("executed", "a") as file:
    print(seed, "carried on" if begun else "from the start", file=file)
accuracy = 0.9
"""


def start(course, modules, **parameters):
    """papermill, executing the notebook in the copy of the course as if in Colab."""
    environment = course.environment()
    environment["PYTHONPATH"] = os.pathsep.join([str(modules), environment["PYTHONPATH"]])
    options = [option for name, value in parameters.items() for option in ("-r", name, value)]
    command = [sys.executable, "-m", "papermill", "sessions/run_all.ipynb", "out.ipynb", "--no-progress-bar", *options]
    return subprocess.Popen(command, cwd=course.root, env=environment, stderr=subprocess.PIPE, text=True)


def printed(course):
    """The outputs of the executed notebook's cells."""
    notebook = nbformat.read(course.root / "out.ipynb", 4)
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))


def test_the_source_is_without_outputs_and_no_session():
    notebook = nbformat.read(notebooks.RUN_ALL, 4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells)
    assert list(notebooks.schema_of(notebook)) == ["sessions", "seeds", "profile", "drive"]
    assert notebooks.RUN_ALL not in [session.path for session in all_sessions()]


def test_after_a_kill_it_resumes_from_the_drive_on_another_machine(own_course, tmp_path):
    own_course.add_session("s99_test", WORK)
    modules = colab_modules(tmp_path / "modules")
    (own_course.root / "hold").touch()
    chosen = {"sessions": "s99", "profile": "quick"}
    start(own_course, modules, **chosen)
    checkpoint = (
        own_course.root / "drive" / "MyDrive" / "course" / "logs" / "quick" / "s99_test" / "A-seed-1.checkpoint"
    )
    wait_for(checkpoint.exists, seconds=300)
    kill_all_in(own_course.root)
    assert (own_course.root / "executed").read_text() == "0 from the start\n"

    other = Course(tmp_path / "other" / "course")
    other.add_session("s99_test", WORK)
    (own_course.root / "drive").rename(other.root / "drive")
    process = start(other, modules, **chosen)
    _, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    assert (other.root / "executed").read_text() == "1 carried on\n"
    assert "2 of 2 runs are finished, nothing is running." in printed(other)
    assert "downloaded runs.zip" in printed(other)
    assert "widgets" not in nbformat.read(other.root / "out.ipynb", 4).metadata

    archive = other.root / "drive" / "MyDrive" / "course" / "runs.zip"
    process = other("publish", archive)
    assert process.returncode == 1
    assert "quick profile" in process.stderr_text
    process = other("publish", archive, "--to", "pages")
    assert process.returncode == 0, process.stderr_text
    assert len(notebooks.results(other.root / "pages" / "s99_test")) == 2
    assert (other.root / "pages" / "s99_test" / "weights.safetensors").exists()


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A session whose seed 0 fails, executed with three seeds, and what it showed meanwhile."""
    course = Course(tmp_path_factory.mktemp("executed") / "course")
    course.add_session("s99_test", "print('Epoch  1', flush=True)\naccuracy = 0.9 / min(seed, 1)")
    show = "for status in run_all.execute(run_all.plan('s99', '0 1 2', 'quick')): print(status, end='---')"
    return course, python(course, show).split("---")[:-1]


def python(course, statement):
    """What a statement that uses `run_all` prints in a copy of the course."""
    command = [sys.executable, "-c", f"from course import run_all\n{statement}"]
    return subprocess.check_output(command, cwd=course.root, env=course.environment(), text=True)


def test_it_shows_what_runs_and_the_time_left_and_a_failure_stops_nothing(executed):
    _, steps = executed
    assert "s99_test               A seed 0: starting\n" in steps[0]
    assert "s99_test               A seed 1: waiting\n" in steps[0]
    assert steps[0].endswith("0 of 3 runs are finished, about 0:03:00 left at the pace of the published runs.")
    assert any("s99_test               A seed 2: Epoch  1\n" in step for step in steps)
    at_the_pace_of_this_machine = re.compile(r"\n1 of 3 runs are finished, about 0:\d\d:\d\d left\.$")
    assert any(at_the_pace_of_this_machine.search(step) for step in steps)
    assert "A seed 0: FAILED: course: quick/s99_test/A-seed-0 failed: in the cell 'work', ZeroDivision" in steps[-1]
    assert "s99_test               A seed 2: 90.00% in 0:" in steps[-1]
    assert steps[-1].endswith("2 of 3 runs are finished, nothing is running.")


def test_runs_of_other_code_or_parameters_do_not_count_as_finished(executed):
    course, _ = executed
    ask = "print([bool(job.record()) for job in run_all.plan('s99', '0 1', 'quick')], end='')"
    assert python(course, ask) == "[False, True]"
    path = course.root / "sessions" / "s99_test" / "session.ipynb"
    source = path.read_text()
    for old, new in (("0.9 / min", "0.8 / min"), ("target = 0.5", "target = 0.6")):
        assert old in source
        path.write_text(source.replace(old, new))
        assert python(course, ask) == "[False, False]"
    path.write_text(source)


@pytest.mark.parametrize("name", ["../evil.ipynb", "s99_test/../../evil.ipynb", "{}/evil.ipynb", "s99_test/evil.py"])
def test_a_zip_that_holds_anything_else_is_refused(course, tmp_path, name):
    name = name.format(tmp_path)
    with zipfile.ZipFile(tmp_path / "runs.zip", "w") as archive:
        archive.writestr("s99_test/A-seed-0.ipynb", "")
        archive.writestr(name, "evil")
    process = course("publish", tmp_path / "runs.zip", "--to", tmp_path / "pages")
    assert process.returncode == 1
    assert f"is not a zip of run_all.ipynb: it holds {name!r}" in process.stderr_text
    assert [path.name for path in tmp_path.iterdir()] == ["runs.zip"]


def test_a_damaged_or_empty_zip_is_refused(course, tmp_path):
    path = tmp_path / "runs.zip"
    zipfile.ZipFile(path, "w").close()
    assert "runs.zip is empty: no run was finished." in course("publish", path).stderr_text
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("s99_test/A-seed-0.ipynb", "a notebook" * 100)
    whole = path.read_bytes()
    middle = whole.index(b".ipynb") + 10
    for damaged in (whole[:50], whole[:middle] + b"XXX" + whole[middle + 3 :]):
        path.write_bytes(damaged)
        process = course("publish", path, "--to", tmp_path / "pages")
        assert process.returncode == 1
        assert "is not a readable zip" in process.stderr_text
        assert "Traceback" not in process.stderr_text
