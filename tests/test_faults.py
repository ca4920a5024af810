"""Faults while running, with real processes: full and read-only disks, signals, kills, two processes at once.

After each what was there before is whole, nothing stands by half where a finished file is expected, and the next call
goes on. Kernels that die or hang stand in test_cli.py, the batch in test_batch.py, checkpoints in test_train.py.
"""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Course
from filelock import FileLock
from test_cli import alive
from test_data import left_over, mnist, serve  # noqa: F401 (fixtures)

from common import data, download
from common.files import hash_file
from course import notebooks

SESSION = "s99_test"


@pytest.fixture
def disk():
    """Mount small file systems in memory, disk(path, options); they are unmounted after the test."""
    mounted = []

    def mount(path, options):
        path.mkdir(parents=True, exist_ok=True)
        action = "remount," if path in mounted else ""
        command = ["mount", "-t", "tmpfs", "-o", action + options, "tmpfs", str(path)]
        try:
            failed = subprocess.run(command, capture_output=True, text=True).stderr
        except FileNotFoundError:
            failed = "there is no program mount"
        if failed:
            pytest.skip(f"file systems cannot be mounted here: {failed.strip()}")
        if path not in mounted:
            mounted.append(path)

    yield mount
    for path in mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def contents(folder):
    """The files in a folder, with their bytes."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(process, reason):
    """Whether a command ended with a reason in one line, and no stack trace."""
    assert process.returncode == 1
    assert reason in process.stderr_text
    assert len(process.stderr_text.strip().splitlines()) == 1
    return True


# ---------------------------------------------------------------------------------------------------------------
# course run

FILL = """
import contextlib, os
if os.path.exists("trouble"):
    with contextlib.suppress(OSError), open("logs/fill", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
accuracy = 0.5
"""


def test_a_run_on_a_full_disk_fails_and_the_next_one_resumes(own_course, disk):
    own_course.add_session(SESSION, FILL)
    runs, logs = own_course.root / "runs" / "full" / SESSION, own_course.root / "logs"
    runs.mkdir(parents=True)
    (runs / "A-seed-0.ipynb").write_text("of an earlier run")
    before = contents(runs)
    disk(logs, "size=5m")
    (own_course.root / "trouble").touch()
    assert refused(own_course("run", "s99"), "No space left on device")
    assert contents(runs) == before
    (own_course.root / "trouble").unlink()
    (logs / "fill").unlink()
    process = own_course("run", "s99")
    assert process.returncode == 0, process.stderr_text
    assert whole(runs / "A-seed-0.ipynb")


REMOUNT = """
import os, subprocess
if os.path.exists("trouble"):
    subprocess.run(["mount", "-o", "remount,ro", "runs"], check=True)
accuracy = 0.5
"""


def test_results_reach_another_disk_even_after_it_was_read_only(own_course, disk):
    """runs/ is on a disk of its own, which turns read-only while the notebook runs."""
    own_course.add_session(SESSION, REMOUNT)
    runs = own_course.root / "runs"
    disk(runs, "size=10m")
    (runs / "full" / SESSION).mkdir(parents=True)
    (own_course.root / "trouble").touch()
    assert refused(own_course("run", "s99"), "Read-only file system")
    assert contents(runs) == {}
    assert (own_course.root / "logs" / "full" / SESSION / "A-seed-0.safetensors").exists()
    disk(runs, "rw")
    (own_course.root / "trouble").unlink()
    process = own_course("run", "s99")
    assert process.returncode == 0, process.stderr_text
    assert whole(runs / "full" / SESSION / "A-seed-0.ipynb")
    assert len(contents(runs)) == 2


def whole(path):
    """Whether an executed notebook holds a record and its weights lie beside it."""
    record = notebooks.read_record(notebooks.read_notebook(path), path)
    return record["weights"]["sha256"] == hash_file(path.with_suffix(".safetensors"))


STUBBORN = """
import os, signal, time
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
print("Epoch", os.getpid(), flush=True)
time.sleep(600)
accuracy = 0.5
"""


def test_an_impatient_user_leaves_no_kernel_behind(own_course):
    """Signal after signal, while the command tries to end a kernel that ignores it."""
    own_course.add_session(SESSION, STUBBORN)
    process = own_course.start("run", "s99")
    kernel = int(process.stdout.readline().split()[-1])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
        time.sleep(0.2)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.count("\n") == 1
    assert "stopped; the same command resumes" in error
    assert not alive(kernel)
    assert not (own_course.root / "runs" / "full" / SESSION / "A-seed-0.ipynb").exists()


# ---------------------------------------------------------------------------------------------------------------
# course publish


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A course with a toy session; two of its seeds were executed, and one is published under page/."""
    course = Course(tmp_path_factory.mktemp("faults"))
    course.add_session(SESSION, "accuracy = 0.5 + seed / 10")
    for seed in (0, 1):
        process = course("run", "s99", "--seed", seed)
        assert process.returncode == 0, process.stderr_text
    return course


@pytest.fixture
def paths(executed):
    return sorted((executed.root / "runs" / "full" / SESSION).glob("*.ipynb"))


@pytest.fixture
def page(executed, paths, tmp_path):
    """A folder with the page of the first run."""
    published = executed.root / "page"
    if not published.exists():
        process = executed("publish", paths[0], "--to", published)
        assert process.returncode == 0, process.stderr_text
    return shutil.copytree(published, tmp_path / "disk" / "page")


def fits_together(page):
    """Check that all files of a page come from the same runs; returns how many."""
    records = json.loads((page / "results.json").read_text())
    shown = notebooks.read_record(notebooks.read_notebook(page / "executed.ipynb"), "executed.ipynb")
    assert shown == records[0]
    assert hash_file(page / "weights.safetensors") == shown["weights"]["sha256"]
    assert f"(n = {len(records)})" in (page / "README.md").read_text()
    assert not list(page.rglob("*.unfinished"))
    return len(records)


@pytest.mark.parametrize(
    ("fault", "reason"), [("size=48k", "No space left on device"), ("size=10m,ro", "Read-only file system")]
)
def test_a_page_stays_whole_on_a_full_or_read_only_disk(executed, paths, page, disk, fault, reason):
    before = contents(page)
    target = page.parent / "mounted"
    disk(target, "size=10m")
    shutil.copytree(page, target, dirs_exist_ok=True)
    if "size=48k" in fault:
        with contextlib.suppress(OSError), open(target / "fill", "wb", buffering=0) as file:
            disk(target, f"size={sum(map(len, before.values())) // 1024 + 48}k")
            while True:
                file.write(bytes(4096))
    else:
        disk(target, "ro")
    assert refused(executed("publish", *paths, "--to", target), reason)
    disk(target, "rw,size=10m")
    (target / "fill").unlink(missing_ok=True)
    assert contents(target) == before
    assert executed("publish", *paths, "--to", target).returncode == 0
    assert fits_together(target) == 2


# The command `course`, which is killed with the signal argv[1] when it puts its second file into place
DIES = """
import os, sys
from course import cli

replace, steps = os.replace, []

def replace_or_die(*names):
    steps.append(names)
    if len(steps) == 2:
        os.kill(os.getpid(), int(sys.argv[1]))
    replace(*names)

os.replace = replace_or_die
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_publishing_leaves_whole_files_and_can_be_repeated(executed, paths, page, number):
    old = contents(page)
    command = [sys.executable, "-c", DIES, str(int(number)), "publish", *map(str, paths), "--to", str(page)]
    process = subprocess.run(command, cwd=executed.root, env=executed.environment(), timeout=120)
    assert process.returncode == {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 1}[number]
    killed = {name: content for name, content in contents(page).items() if ".unfinished" not in str(name)}
    assert killed != old, "it was killed before the first file had its place: this shows nothing"
    assert executed("publish", *paths, "--to", page).returncode == 0
    assert fits_together(page) == 2
    new = contents(page)
    assert all(content in (old.get(name), new.get(name)) for name, content in killed.items())
    assert killed.keys() >= old.keys()


def test_two_publishing_processes_take_turns(executed, paths, page):
    with FileLock(executed.root / ".lock"):
        processes = [executed.start("publish", *some, "--to", page) for some in (paths, paths[:1], paths)]
        with pytest.raises(subprocess.TimeoutExpired):
            processes[0].wait(timeout=8)
        assert fits_together(page) == 1, "they do not wait"
    for process in processes:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    assert fits_together(page) in (1, 2)


# ---------------------------------------------------------------------------------------------------------------
# Data


@pytest.mark.parametrize("size", [8, 36])  # kB: too small for the archive of 24, too small for it and its content
def test_a_download_to_a_full_disk_leaves_no_partial_file(tmp_path, serve, mnist, monkeypatch, disk, size):  # noqa: F811
    monkeypatch.setattr(download, "MNIST_MIRRORS", [serve(mnist)])
    disk(tmp_path / "data", f"size={size}k")
    with pytest.raises(
        data.DataError, match=r"(?s)(could not be downloaded|cannot be unpacked).*No space left on device"
    ):
        data.load("mnist", tmp_path / "data")
    archive = "train-images-idx3-ubyte.gz"  # the first file: with 36 kB it is there, but has no room to be unpacked
    whole = {Path("MNIST", "raw", archive): mnist[f"/{archive}"]} if size == 36 else {}
    assert {name: got for name, got in contents(tmp_path / "data").items() if name.name != ".lock"} == whole
    disk(tmp_path / "data", "size=10m")
    assert len(data.load("mnist", tmp_path / "data").train.labels) == 30


def test_a_download_to_a_read_only_disk_says_so(tmp_path, serve, mnist, monkeypatch, disk):  # noqa: F811
    monkeypatch.setattr(download, "MNIST_MIRRORS", [serve(mnist)])
    disk(tmp_path / "data", "ro")
    with pytest.raises(data.DataError, match=r"Cannot write to .*Read-only file system"):
        data.load("mnist", tmp_path / "data")
