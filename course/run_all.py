"""What sessions/run_all.ipynb does: one run after another, kept on a drive, and all of them in one zip."""

import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from statistics import mean
from zipfile import ZIP_DEFLATED, ZipFile

from common.files import replacing
from course import notebooks
from course.execution import run_name
from course.measures import time_of
from course.sessions import all_sessions, find_session

ROOT = notebooks.ROOT


def keep_in(folder):
    """Keep runs/ and logs/, with finished runs and checkpoints, in `folder`, such as one on a drive."""
    for name in ("runs", "logs"):
        kept, here = folder / name, ROOT / name
        kept.mkdir(parents=True, exist_ok=True)
        if not here.exists():
            here.symlink_to(kept, target_is_directory=True)
        elif not here.samefile(kept):
            raise RuntimeError(f"{name}/ lies elsewhere already: move what it holds to {kept}, and delete it.")


@dataclass(frozen=True)
class Job:
    """One run: a session's notebook with a profile, a variant and a seed."""

    session: str
    profile: str
    variant: str
    seed: int

    @property
    def name(self):
        """The name of its files, as `course run` gives it."""
        return run_name({"variant": self.variant, "seed": self.seed}, {})

    @property
    def path(self):
        """Where its executed notebook appears."""
        return ROOT / "runs" / self.profile / self.session / f"{self.name}.ipynb"

    def record(self):
        """Its record if it was executed with today's code and parameters, else None."""
        try:
            record = notebooks.read_record(notebooks.read_notebook(self.path), self.path.name)
        except notebooks.PublishError:
            return None
        decides = find_session(self.session).decides(self.profile, self.variant, self.seed)
        return record if record | decides == record else None


def plan(sessions="", seeds="", profile="full"):
    """The runs of the named sessions, such as "s03 s06", with the named seeds, such as "0 1".

    By default these are all sessions, and the seeds of each session's page.
    """
    jobs = []
    for session in [find_session(name) for name in sessions.split()] or all_sessions():
        runs = session.runs()
        variants = dict.fromkeys(variant for variant, _ in runs)
        runs = [(variant, int(seed)) for variant in variants for seed in seeds.split()] or runs
        jobs += [Job(session.name, profile, variant, seed) for variant, seed in runs]
    return jobs


def execute(jobs):
    """Execute the unfinished runs; yields a text at each step: what is done, what runs, how much time is left.

    Each is a `course run`: after an interruption it resumes from its checkpoint; if it fails, the others still run.
    """
    records = {job: job.record() for job in jobs}
    states = dict.fromkeys(jobs, "waiting")
    expected = _expected(jobs)
    for job in jobs:
        if records[job]:
            continue
        started, states[job] = time.time(), "starting"
        yield _status(states, records, expected, started)
        for line in _run(job):
            states[job] = line.strip()
            yield _status(states, records, expected, started)
        records[job] = job.record()
        if not records[job]:
            states[job] = f"FAILED: {states[job]}"
    yield _status(states, records, expected)


def _run(job):
    """The lines that `course run` prints for a job; it is stopped when nobody reads them."""
    command = [sys.executable, "-m", "course", "run", job.session, "--profile", job.profile]
    command += ["-p", "variant", job.variant, "--seed", str(job.seed)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **options) as process:
        try:
            for line in process.stdout:
                yield line.removeprefix(f"{job.session} {job.name}")
        finally:
            process.terminate()


def _status(states, records, expected, started=None):
    """One line per run, and the time left; `started` is when the present run started, None at the end."""
    lines = []
    for job, state in states.items():
        if record := records[job]:
            state = f"{record['metrics']['test_accuracy']:.2%} in {_duration(time_of(record)[0])}"
        lines.append(f"{job.session:22} {job.variant} seed {job.seed}: {state}")
    done = sum(map(bool, records.values()))
    left = _time_left(states, records, expected, started) if started else "nothing is running"
    return "\n".join([*lines, "", f"{done} of {len(states)} runs are finished, {left}."])


def _expected(jobs):
    """The seconds that each run takes at the pace of its session's published runs, {job: seconds}."""
    published = {session: notebooks.results(notebooks.SESSIONS / session) for session in {job.session for job in jobs}}
    typical = {session: mean(time_of(record)[0] for record in found) for session, found in published.items() if found}
    return {job: typical.get(job.session, max(typical.values(), default=60)) for job in jobs}


def _time_left(states, records, expected, started):
    """The time until all runs are finished, estimated from the seconds of the finished and the published ones."""
    finished = [job for job in states if records[job]]
    speed = 1  # as on the machines of the published runs, until one has finished here
    if finished:
        speed = sum(time_of(records[job])[0] for job in finished) / sum(expected[job] for job in finished)
    begun = (job for job, state in states.items() if not state.startswith(("waiting", "FAILED")))
    running = next(job for job in begun if not records[job])
    waiting = sum(expected[job] for job, state in states.items() if not records[job] and state == "waiting")
    left = waiting * speed + max(0, expected[running] * speed - (time.time() - started))
    return f"about {_duration(left)} left" + ("" if finished else " at the pace of the published runs")


def _duration(seconds):
    return f"{timedelta(seconds=round(seconds))}"


def pack(jobs, path):
    """Write the finished runs, notebooks and weights, into a zip for `course publish`; returns its path."""
    with replacing(path) as unfinished, ZipFile(unfinished, "w", ZIP_DEFLATED) as archive:
        for job in jobs:
            if job.record():
                for file in (job.path, job.path.with_suffix(".safetensors")):
                    archive.write(file, f"{job.session}/{file.name}")
    return path
