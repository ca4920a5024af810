"""The batch: killed, started twice, with a failing session. The sessions are stubs that take a second."""

import os
import signal
import time
from collections import Counter

import nbformat
import pytest
from test_cli import processes_in

from common.files import hash_file
from course import notebooks

NOTE = "with open('executed', 'a') as file:\n    print(run.session, seed, file=file)\naccuracy = 0.9\n"
HOLD = "import os, time\nwhile os.path.exists('hold'):\n    time.sleep(0.1)\n"
QUICK = ["--cores", "3", "quick", "--config", "seeds=2"]


@pytest.fixture
def stubs(own_course):
    """A copy of the course without its sessions."""
    own_course.keep_sessions()
    return own_course


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)


def executed(course):
    """How often each (session, seed) was executed."""
    return Counter(tuple(line.split()) for line in (course.root / "executed").read_text().splitlines())


def test_a_killed_batch_resumes_and_a_second_one_waits(stubs):
    """Two runs end and two are held; all is killed; then two batches at once execute those two, and only once."""
    stubs.add_session("s91_free", NOTE)
    stubs.add_session("s92_held", NOTE + HOLD)
    (stubs.root / "hold").touch()
    killed = stubs.start_batch(*QUICK)
    for line in killed.stdout:
        if line.startswith("3 of 7 steps"):  # two runs and their page
            break
    wait_for(lambda: len(executed(stubs)) == 4)
    plan = stubs.start_batch("-n", *QUICK)  # does not wait for the batch that is running
    assert "Another batch is running here" not in plan.communicate(timeout=60)[0]
    assert plan.returncode == 0
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    finished = results(stubs)
    assert len(finished) == 2
    wait_for(lambda: not processes_in(stubs.root))  # no run outlives the batch

    (stubs.root / "hold").unlink()
    batches = [stubs.start_batch(*QUICK) for _ in range(2)]
    outputs = [batch.communicate(timeout=300)[0] for batch in batches]
    assert [batch.returncode for batch in batches] == [0, 0], outputs
    assert sum("Another batch is running here" in output for output in outputs) == 1
    once, twice = {("s91_free", seed): 1 for seed in "01"}, {("s92_held", seed): 2 for seed in "01"}
    assert executed(stubs) == once | twice
    assert len(results(stubs)) == 4
    assert results(stubs).items() > finished.items()
    for session in ("s91_free", "s92_held"):
        assert "n = 2" in (stubs.root / "runs" / "quick" / session / "README.md").read_text()


def results(course):
    """The notebooks under runs/ and when each was written; they and their weights are complete."""
    found = {}
    for path in course.root.glob("runs/quick/*/*-seed-*.ipynb"):
        record = notebooks.read_record(nbformat.read(path, 4), path)
        assert record["weights"]["sha256"] == hash_file(path.with_suffix(".safetensors"))
        found[path.relative_to(course.root)] = path.stat().st_mtime_ns
    return found


def test_a_failed_run_is_retried_once_and_the_others_go_on(stubs):
    stubs.add_session("s91_fails", NOTE + "1 / 0")
    stubs.add_session("s92_good", NOTE)
    batch = stubs.start_batch("--cores", "2", "quick")
    output = batch.communicate(timeout=300)[0]
    assert batch.returncode == 1
    assert executed(stubs) == {("s91_fails", "0"): 2, ("s92_good", "0"): 1}
    assert (stubs.root / "runs" / "quick" / "s92_good" / "README.md").exists()
    assert "of 5 steps" in output
    end = [line for line in output.splitlines() if line.startswith("FAILED")]
    assert len(end) == 1
    assert "runs/quick/s91_fails/A-seed-0.ipynb" in end[0]
    assert "in the cell 'work', ZeroDivisionError: division by zero." in end[0]
    for ending in ("ipynb", "log"):
        assert (stubs.root / "logs" / "quick" / "s91_fails" / f"A-seed-0.{ending}").exists()
