"""Executes one notebook: runs papermill in a process of its own, watches it, stops it in time, stores its result."""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import psutil
import yaml

from common.files import replacing
from common.parameters import PLACE_PARAMETERS
from course import notebooks
from course.notebooks import ROOT

PAPERMILL = [sys.executable, "-m", "course.engine"]


class RunError(Exception):
    """A notebook did not run to its end; the message says where and why."""


def run_name(values, chosen):
    """The name of a run's files: variant and seed, then what else was chosen."""
    others = [
        f"-{name}-{value}" for name, value in chosen.items() if name not in {"variant", "seed", *PLACE_PARAMETERS}
    ]
    name = f"{values['variant']}-seed-{values['seed']}" + "".join(others)
    safe = re.sub(r"[^\w.-]", "_", name)[:150]
    if safe != name:  # different names must stay different: folder:a/b and folder:a_b
        safe += f"-{hashlib.sha256(name.encode(errors='backslashreplace')).hexdigest()[:8]}"
    return safe


def execute(source, values, name, time_limit):
    """Execute a notebook with papermill into runs/<name>.ipynb, which appears only when it is complete.

    Until then notebook, log and checkpoint lie under logs/. If the run fails they stay there, and the next one resumes
    from the checkpoint. Raises RunError.
    """
    logs, done = ROOT / "logs" / name, ROOT / "runs" / name
    logs.parent.mkdir(parents=True, exist_ok=True)
    done.parent.mkdir(parents=True, exist_ok=True)
    endings = ".ipynb", ".safetensors", ".checkpoint", ".log", ".lock"
    partial, weights, checkpoint, log, lock = (logs.with_name(logs.name + ending) for ending in endings)
    # Relative to ROOT, where the kernel runs: an executed notebook must not name folders of this machine.
    values = {"checkpoint": str(checkpoint.relative_to(ROOT)), "weights": str(weights.relative_to(ROOT))} | values
    command = [*PAPERMILL, str(source.relative_to(ROOT)), str(partial.relative_to(ROOT))]
    command += ["--parameters_yaml", yaml.safe_dump(values), "--log-output", "--no-progress-bar"]
    with only_one(lock) as held, open(log, "w", encoding="utf-8") as output:
        partial.unlink(missing_ok=True)
        # papermill holds the lock too: if only this process is killed, nobody starts a second papermill beside it. It
        # stays in this process group: a scheduler that kills the group leaves nothing behind.
        options = {"stdout": output, "stderr": subprocess.STDOUT, "pass_fds": [held.fileno()]}
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "TQDM_DISABLE": "1"}, **options)
        try:
            in_time = follow(process, log, f"{name.parent.name} {name.name}", time.monotonic() + time_limit)
        finally:
            stop(process)
        where = f"Notebook and log: {partial.relative_to(ROOT)}, {log.name}"
        if not in_time:
            raise RunError(f"{name} took longer than {time_limit / 3600:g} hours and was stopped. {where}")
        if process.returncode:
            raise RunError(f"{name} failed: {reason(partial, log)} {where}")
        record = notebooks.read_record(notebooks.read_notebook(partial), partial.name)
        for finished in (weights, partial):
            with replacing(done.with_name(finished.name)) as arrived:
                shutil.move(finished, arrived)  # perhaps to another disk
        for useless in checkpoint.parent.glob(f"{checkpoint.name}*"):
            useless.unlink()
    print(f"{name}: test accuracy {record['metrics']['test_accuracy']:.2%}, runs/{name}.ipynb")


@contextlib.contextmanager
def only_one(path):
    """Hold a lock, an open file, during the block, so that no run is executed twice at once."""
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{path.stem} is being executed already: wait for it, or stop it.") from None
        yield lock


def follow(process, log, prefix, deadline):
    """Show the log's epochs while the process runs; return whether it ended before the deadline."""
    with open(log, encoding="utf-8", errors="replace") as lines:
        while True:
            ended = process.poll() is not None
            for line in lines:
                if line.startswith("Epoch"):
                    print(f"{prefix}  {line.rstrip()}", flush=True)
            if ended or time.monotonic() > deadline:
                return ended
            time.sleep(0.2)


def stop(process):
    """End papermill and the kernel that it started, if they are still running."""
    if process.poll() is not None:
        return
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


def reason(partial, log):
    """Why a notebook failed, in a sentence: its last error, else the last line of the log."""
    with contextlib.suppress(notebooks.PublishError):  # it may be missing or incomplete
        for cell in notebooks.read_notebook(partial).cells:
            for output in cell.get("outputs", []):
                if output.output_type == "error":
                    return f"in the cell {cell.id!r}, {output.ename}: {output.evalue.rstrip('.')}."
    if shutil.disk_usage(log.parent).free < 1_000_000:  # then neither notebook nor log can say so
        return f"{os.strerror(errno.ENOSPC)}, in {log.parent.relative_to(ROOT)}."
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.rstrip(".") for line in reversed(lines) if line.strip()), "no output") + "."
