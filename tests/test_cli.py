"""The command `course`, in processes of its own: wrong use, good runs, and what a failed run leaves."""

import json
import os
import signal
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest
from conftest import Course
from safetensors.torch import load_file

from course import notebooks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "s99"], "'s99' names 0 sessions; it must name one of s0"),
        (["run", "s06", "-p", "epoch", "3"], "There is no parameter epoch"),
        (["run", "s06", "-p", "epochs", "three"], "epochs must be an integer, not 'three'"),
        (["run", "s06", "-p", "lr", "nan"], "lr must be from 0 to 10, not nan"),
        (["run", "s06", "--seed", "-1"], "seed must be from 0"),
        (["run", "s06", "-p", "variant", "C"], "variant must be one of 'B', 'A', not 'C'"),
        (["run", "s06", "-p", "weights", "mine.safetensors"], "papermill lets you choose"),
        (["run", "s06", "-p", "profile", "quick"], "Choose the profile with --profile"),
        (["publish", "--rerender", "--to", "elsewhere"], "leave out --to"),
        (["data", "mnits"], "There is no data set mnits; there are mnist"),
        (["publish"], "Give the executed notebooks"),
        (["runn", "s06"], "invalid choice"),
        (["run", "s06", "--profile", "fast"], "invalid choice"),
    ],
)
def test_wrong_use_gives_one_sentence_and_exit_code_2(course, arguments, message):
    process = course(*arguments)
    assert process.returncode == 2
    assert message in process.stderr_text
    assert "Traceback" not in process.stderr_text
    assert not (course.root / "runs").exists()


def test_parameters_are_listed(course):
    process = course("params", "s06")
    assert process.returncode == 0
    assert "epochs = 20  (integer, at least 1, at most 1000)" in process.stdout_text


def test_data_are_fetched_or_the_error_says_why(course):
    assert "digits: 1437 + 360 images" in course("data", "digits").stdout_text
    process = course("data", "folder:nowhere")
    assert process.returncode == 1
    assert "expected a folder with <class>/<image>" in process.stderr_text


QUICK_RUN = ["run", "s06", "--profile", "quick", "-p", "epochs", "2", "--seed", "5"]
NAME = "B-seed-5-epochs-2"  # what was chosen besides the profile stands in the name


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory):
    """Session 6, executed for two epochs in a copy of the course."""
    course = Course(tmp_path_factory.mktemp("quick"))
    process = course(*QUICK_RUN)
    assert process.returncode == 0, process.stderr_text
    return course, process


def test_a_run_leaves_a_notebook_weights_and_a_log(quick_run):
    course, process = quick_run
    folder = course.root / "runs" / "quick" / "s06_under_10k"
    assert sorted(path.name for path in folder.iterdir()) == [f"{NAME}.ipynb", f"{NAME}.safetensors"]
    assert "Epoch  2" in process.stdout_text
    assert not list((course.root / "logs").rglob("*.checkpoint"))

    notebook = nbformat.read(folder / f"{NAME}.ipynb", 4)
    record = notebooks.read_record(notebook, NAME)
    assert record["params"]["epochs"] == 2
    assert record["params"]["dataset"] == "digits"
    assert record["seed"] == 5
    assert len(record["history"]) == 2
    assert record["metrics"]["parameters"] == 9404
    assert record["dataset"]["test"] == 360
    assert set(record["seconds"]) == {"data", "train", "eval"}
    tensors = load_file(folder / f"{NAME}.safetensors")
    # the parameters, and a mean and a variance for each of batch norm's 124 channels
    assert sum(tensor.numel() for key, tensor in tensors.items() if "num_batches" not in key) == 9404 + 2 * 124
    assert str(course.root) not in json.dumps(notebook), "a path of this machine"
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    last = record["history"][-1]
    assert f"Average loss: {last['test_loss']:.4f}, Accuracy: {round(last['test_accuracy'] * 360)}/360" in printed


def test_a_quick_run_is_published_elsewhere_but_not_among_the_results(quick_run):
    course, _ = quick_run
    notebook = course.root / "runs" / "quick" / "s06_under_10k" / f"{NAME}.ipynb"
    process = course("publish", notebook)
    assert process.returncode == 1
    assert "quick profile" in process.stderr_text
    process = course("publish", notebook, "--to", course.root / "page")
    assert process.returncode == 0, process.stderr_text
    readme = (course.root / "page" / "README.md").read_text()
    assert "This is the quick profile" in readme
    assert "epochs = 2 instead of 20" in readme
    for image in (course.root / "page" / "images").iterdir():
        assert f"](images/{image.name})" in readme
    assert "![png]" not in readme
    assert "Traceback" not in readme
    process = course("publish", notebook, "--to", "sessions/s06_under_10k")
    assert process.returncode == 1
    assert "quick profile" in process.stderr_text


# ---------------------------------------------------------------------------------------------------------------
# Failures


def files(course, name):
    return sorted(str(path.relative_to(course.root)) for path in course.root.glob(f"runs/full/{name}/*"))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("accuracy = 1 / 0", "in the cell 'work', ZeroDivisionError: division by zero. Notebook and log:"),
        ("raise ValueError('It is damaged: delete it.')", "ValueError: It is damaged: delete it. Notebook and log:"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "Kernel died"),
    ],
)
def test_a_failing_notebook_says_where_and_leaves_no_result(own_course, code, reason):
    own_course.add_session("s99_test", code)
    process = own_course("run", "s99")
    assert process.returncode == 1
    assert reason in process.stderr_text
    assert "Traceback" not in process.stderr_text
    assert files(own_course, "s99_test") == []
    for ending in ("ipynb", "log"):
        assert (own_course.root / "logs" / "full" / "s99_test" / f"A-seed-0.{ending}").exists()


def test_a_notebook_that_hangs_is_stopped(own_course):
    own_course.add_session("s99_test", f"import os, time\nprint('Epoch', os.getpid(), flush=True)\n{HANG}")
    process = own_course("run", "s99", "--time-limit", "0.003")
    assert process.returncode == 1
    assert "took longer than 0.003 hours" in process.stderr_text
    assert files(own_course, "s99_test") == []
    kernel = int(process.stdout_text.split()[-1])
    assert not alive(kernel)


HANG = "time.sleep(600)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_the_command_stops_its_kernel(own_course, number):
    own_course.add_session("s99_test", f"import os, time\nprint('Epoch', os.getpid(), flush=True)\n{HANG}")
    process = own_course.start("run", "s99")
    kernel = int(process.stdout.readline().split()[-1])
    assert alive(kernel)
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "stopped" in error
    assert not alive(kernel)
    assert files(own_course, "s99_test") == []


def test_the_same_run_is_not_executed_twice_at_once(own_course):
    own_course.add_session("s99_test", f"import os, time\nprint('Epoch', os.getpid(), flush=True)\n{HANG}")
    first = own_course.start("run", "s99")
    first.stdout.readline()
    second = own_course("run", "s99")
    assert second.returncode == 1
    assert "is being executed already" in second.stderr_text
    first.terminate()
    first.communicate(timeout=30)


def test_a_killed_run_resumes_from_its_checkpoint_to_the_same_result(own_course, quick_run):
    """SIGKILL for everything in the middle of a real session; run again, it ends as if never killed."""
    killed = own_course.start(*QUICK_RUN)
    for line in killed.stdout:
        if "Epoch  1" in line:
            break
    killed.kill()
    killed.wait()
    beside = own_course(*QUICK_RUN)  # papermill lives on, and nobody may start a second one beside it
    assert "is being executed already" in beside.stderr_text
    kill_all_in(own_course.root)
    folder = Path("runs", "quick", "s06_under_10k")
    assert list((own_course.root / folder).iterdir()) == []
    resumed = own_course(*QUICK_RUN)
    assert resumed.returncode == 0, resumed.stderr_text
    log = (own_course.root / "logs" / "quick" / "s06_under_10k" / f"{NAME}.log").read_text()
    assert "Resuming after epoch" in log
    one, two = (
        notebooks.read_record(nbformat.read(course.root / folder / f"{NAME}.ipynb", 4), NAME)
        for course in (own_course, quick_run[0])
    )
    assert one["history"] == two["history"]
    assert one["weights"]["sha256"] == two["weights"]["sha256"]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def processes_in(folder):
    """Processes with this working folder: papermill and its kernel."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/cwd") == str(folder):
                found.append(int(pid))
        except OSError:
            continue
    return found


def kill_all_in(folder):
    """SIGKILL until no process with this working folder is left."""
    while running := processes_in(folder):  # a kernel may have been starting
        for process in running:
            with suppress(ProcessLookupError):  # it may have ended with the one before
                os.kill(process, signal.SIGKILL)
