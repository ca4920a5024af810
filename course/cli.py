"""The command `course`: run a session's notebook, publish what it produced, fetch data, list what there is."""

import argparse
import contextlib
import errno
import fcntl
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil
import yaml

from common.parameters import WHERE, ParameterError, check_parameters, describe
from common.record import check_installation
from course import index, notebooks, page, publish
from course.sessions import UsageError, all_sessions, find_session

ROOT = notebooks.ROOT
# `python -m papermill`, with what course/__init__.py does for its start
PAPERMILL = [sys.executable, "-c", "import course; from papermill.__main__ import papermill; papermill()"]
SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


class StoppedError(Exception):
    """Somebody ended the command, with Ctrl-C or `kill`."""


class RunError(Exception):
    """A notebook did not run to its end; the message says where and why."""


def main(arguments=None):
    """Entry point: exit code 0, 1 where the work failed, 2 where the command was wrong."""
    options = parse_arguments(arguments)
    for number in SIGNALS:
        signal.signal(number, raise_stopped)
    try:
        options.command(options)
    except (UsageError, ParameterError) as error:
        print(f"course: {error}", file=sys.stderr)
        return 2
    except (RunError, StoppedError, notebooks.PublishError, RuntimeError, OSError) as error:
        print(f"course: {error}", file=sys.stderr)
        return 1
    return 0


def raise_stopped(*_):
    for number in SIGNALS:  # the first one counts: impatience must not keep the kernel from being stopped too
        signal.signal(number, signal.SIG_IGN)
    raise StoppedError("stopped; the same command goes on, a run from its last finished epoch.")


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(prog="course", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("run", help="execute a session's notebook")
    command.add_argument("session", help="its name or the beginning of it, such as s06")
    command.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    command.add_argument("--profile", choices=["quick", "full"], default="full")
    command.add_argument("--seed", metavar="K", help="the same as -p seed K")
    command.add_argument(
        "--time-limit", type=hours, default=12, metavar="HOURS", help="for the whole run, 12 if not given"
    )
    command.set_defaults(command=run)

    command = commands.add_parser("publish", help="make a session's README, images and results from executed notebooks")
    command.add_argument("notebooks", nargs="*", type=Path, help="all runs of one session, or a zip of run_all.ipynb")
    command.add_argument("--to", type=Path, metavar="FOLDER", help="publish there; quick runs are refused elsewhere")
    command.add_argument("--rerender", action="store_true", help="make the published READMEs again with today's prose")
    command.set_defaults(command=run_publish)

    command = commands.add_parser("badges", help="write badges and bootstrap cell into every notebook")
    command.set_defaults(command=lambda options: index.write_badges())

    command = commands.add_parser("check", help="whether pages, results, code, badges and index fit together")
    command.set_defaults(command=run_check)

    command = commands.add_parser("verify", help="evaluate the committed weights with today's code")
    command.add_argument("session", nargs="?", help="all sessions if not given")
    command.add_argument("--note", action="store_true", help="write down on the session's page that it was verified")
    command.set_defaults(command=run_verify)

    command = commands.add_parser("demo", help="describe the networks for the demo, in docs/demo/networks.json")
    command.add_argument("--images", action="store_true", help="choose its test images anew too, from the data sets")
    command.set_defaults(command=describe_networks)

    command = commands.add_parser("compare", help="whether two sets of runs differ by more than noise")
    command.add_argument(
        "before", help="SESSION:VARIANT of the published results, or FOLDER:VARIANT of executed notebooks"
    )
    command.add_argument("after", help="the same")
    command.add_argument("--plot", type=Path, metavar="FILE", help="draw both distributions, as .png, .svg or .pdf")
    command.set_defaults(command=run_compare)

    command = commands.add_parser("data", help="download a data set, or check the one that is there")
    command.add_argument("name", help="mnist, cifar10, digits or folder:PATH")
    command.set_defaults(command=fetch_data)

    command = commands.add_parser("list", help="show the sessions and their results")
    command.add_argument("--quick", action="store_true", help="those of the quick profile, under runs/quick")
    command.set_defaults(command=list_sessions)

    command = commands.add_parser("params", help="show a session's parameters")
    command.add_argument("session", help="its name or the beginning of it, such as s06")
    command.set_defaults(command=list_parameters)
    return parser.parse_args(arguments)


def hours(text):
    """A time limit from the command line."""
    value = float(text)
    if not 0 < value < math.inf:  # with NaN there would be no limit at all
        raise ValueError
    return value


# ---------------------------------------------------------------------------------------------------------------
# course run


def run(options):
    check_installation()
    session = find_session(options.session)
    schema = session.schema
    chosen = dict(options.parameter) | ({"seed": options.seed} if options.seed is not None else {})
    if {"checkpoint", "weights"} & set(chosen):
        raise UsageError("`course run` itself says where checkpoint and weights lie; papermill lets you choose.")
    chosen = check_parameters(schema, {name: parse(schema, name, text) for name, text in chosen.items()})
    values = session.parameters(options.profile) | chosen
    name = run_name({name: rule["default"] for name, rule in schema.items()} | values, chosen)
    execute(session.path, values, Path(options.profile) / session.name / name, options.time_limit * 3600)


def parse(schema, name, text):
    """A parameter's value from the command line; what does not fit stays a text, and the check refuses it."""
    types = {"integer": int, "number": float, "boolean": {"true": True, "false": False}.__getitem__, "string": str}
    try:
        return types[schema[name]["type"]](text.lower() if schema[name]["type"] == "boolean" else text)
    except (ValueError, KeyError):
        return text


def run_name(values, chosen):
    """The name of a run's files: variant and seed, then what else was chosen."""
    others = [f"-{name}-{value}" for name, value in chosen.items() if name not in {"variant", "seed", *WHERE}]
    return re.sub(r"[^\w.-]", "_", f"{values['variant']}-seed-{values['seed']}" + "".join(others))


def execute(source, values, name, time_limit):
    """Execute a notebook with papermill into runs/<name>.ipynb, which appears only when it is complete.

    Until then notebook, log and checkpoint lie under logs/, and stay there if the run fails: the next one goes on from
    the checkpoint. Raises RunError.
    """
    logs, done = ROOT / "logs" / name, ROOT / "runs" / name
    logs.parent.mkdir(parents=True, exist_ok=True)
    done.parent.mkdir(parents=True, exist_ok=True)
    endings = ".ipynb", ".safetensors", ".checkpoint", ".log", ".lock"
    partial, weights, checkpoint, log, lock = (logs.with_name(logs.name + ending) for ending in endings)
    # Paths as the kernel sees them, which runs in ROOT: an executed notebook must not name folders of this machine.
    values = {"checkpoint": str(checkpoint.relative_to(ROOT)), "weights": str(weights.relative_to(ROOT))} | values
    command = [*PAPERMILL, str(source.relative_to(ROOT)), str(partial.relative_to(ROOT))]
    command += ["--parameters_yaml", yaml.safe_dump(values), "--log-output", "--no-progress-bar"]
    with only_one(lock) as held, open(log, "w", encoding="utf-8") as output:
        partial.unlink(missing_ok=True)
        # papermill holds the lock too: when only this process is killed, nobody starts a second one beside it. It stays
        # in this process group, so that what kills the group, such as a scheduler, leaves nothing behind.
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
        move(weights, done.with_name(weights.name))
        move(partial, done.with_name(partial.name))
        for finished in checkpoint.parent.glob(f"{checkpoint.name}*"):
            finished.unlink()
    print(f"{name}: test accuracy {record['metrics']['test_accuracy']:.2%}, runs/{name}.ipynb")


def move(source, target):
    """Move a file in one step, to another disk too: there is never half of it."""
    unfinished = target.with_name(f"{target.name}.unfinished")
    shutil.move(source, unfinished)
    os.replace(unfinished, target)


@contextlib.contextmanager
def only_one(path):
    """Hold a lock, an open file, for the time of the block, so that no run is executed twice at once."""
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{path.stem} is being executed already: wait for it, or stop it.") from None
        yield lock


def follow(process, log, prefix, deadline):
    """Show the log's epochs while the process runs; returns whether it ended before the deadline."""
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
    """End papermill and the kernel that it started, if they still run."""
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
    with contextlib.suppress(notebooks.PublishError):  # there may be none, or half of one
        for cell in notebooks.read_notebook(partial).cells:
            for output in cell.get("outputs", []):
                if output.output_type == "error":
                    return f"in the cell {cell.id!r}, {output.ename}: {output.evalue}."
    if shutil.disk_usage(log.parent).free < 1_000_000:  # then neither notebook nor log could say it
        return f"{os.strerror(errno.ENOSPC)}, in {log.parent.relative_to(ROOT)}."
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "no output") + "."


# ---------------------------------------------------------------------------------------------------------------
# The other commands


def run_publish(options):
    if options.rerender == bool(options.notebooks) or (options.rerender and options.to):
        raise UsageError("Give the executed notebooks of one session, a zip of run_all.ipynb, or --rerender.")
    if options.notebooks and options.notebooks[0].suffix == ".zip":
        return publish_zip(options)
    if options.rerender:
        for session in all_sessions():
            if notebooks.results(session.folder):
                publish.rerender(session.folder)
    else:
        print(f"{publish.publish(options.notebooks, options.to) / 'README.md'}")
    if not options.to:
        index.write_badges()


def publish_zip(options):
    """Publish each session of a zip; one that is refused leaves the others alone."""
    if len(options.notebooks) > 1:
        raise UsageError("Give one zip, and nothing else.")
    failed = 0
    with publish.unpacked(options.notebooks[0]) as folders:
        for folder in folders:
            to = options.to and options.to / folder.name
            try:
                print(f"{publish.publish(sorted(folder.glob('*.ipynb')), to) / 'README.md'}")
            except notebooks.PublishError as error:
                print(error)
                failed += 1
    if not options.to:
        index.write_badges()
    if failed:
        raise RunError(f"{failed} of {len(folders)} sessions could not be published.")


def run_check(options):
    from course.check import check

    problems = list(check())
    for problem in problems:
        print(problem)
    if problems:
        raise RunError(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}.")
    print(f"All {len(all_sessions())} sessions are complete, and everything fits together.")


def run_verify(options):
    from common import data
    from course import verify

    sessions = [find_session(options.session)] if options.session else all_sessions()
    failed = 0
    for session in sessions:
        try:
            print(verify.verify(session, note=options.note), flush=True)
        except (notebooks.PublishError, data.DataError) as error:
            print(error, flush=True)
            failed += 1
    if failed:
        raise RunError(f"{failed} of {len(sessions)} sessions could not be verified.")


def describe_networks(options):
    from common.download import DataError
    from course import demo

    if options.images:
        try:
            demo.write_images()
        except DataError as error:
            raise RunError(str(error)) from None
    print(demo.write_networks().relative_to(ROOT))


def run_compare(options):
    from course.compare import difference

    names = options.before, options.after
    before, after = (accuracies(name) for name in names)
    try:
        found = difference(before, after)
    except ValueError as error:
        raise UsageError(str(error)) from None
    for name, values in zip(names, (before, after), strict=True):
        print(f"{name}: mean {100 * statistics.mean(values):.2f} %, {len(values)} runs")
    print(f"{names[0]} → {names[1]}: {found}")
    if options.plot:
        from common.plots import distributions

        figure, _ = distributions({names[0]: before, names[1]: after})
        try:
            figure.savefig(options.plot)
        except ValueError as error:  # an ending that is no format
            raise UsageError(str(error)) from None


def accuracies(name):
    """The test accuracies of SESSION:VARIANT of the published results, or of FOLDER:VARIANT of executed notebooks."""
    where, variant = name.rsplit(":", 1) if ":" in name else (name, "")
    if Path(where).is_dir():
        paths = [path for path in sorted(Path(where).glob("*.ipynb")) if path.name != "executed.ipynb"]
        records = [notebooks.read_record(notebooks.read_notebook(path), path.name) for path in paths]
        if any(publish.recipe(record) != publish.recipe(records[0]) for record in records):
            raise UsageError(f"{where} has runs with different parameters: compare runs of one kind.")
    else:
        session = find_session(where)
        where, records = session.name, notebooks.results(session.folder)
    groups = {group["name"]: group["values"] for group in page.groups(records)}
    if variant not in groups:
        raise UsageError(f"{name!r}: {where} has results of {', '.join(groups) or 'no variant'}.")
    return groups[variant]


def fetch_data(options):
    from common import data

    if options.name not in data.NAMES and not options.name.startswith("folder:"):
        raise UsageError(f"There is no data set {options.name}; there are {', '.join(data.NAMES)} and folder:PATH.")
    try:
        found = data.load(options.name)
    except data.DataError as error:
        raise RunError(str(error)) from None
    print(f"{found.name}: {len(found.train.labels)} + {len(found.test.labels)} images, SHA-256 {found.sha256}")


def list_sessions(options):
    where = "runs/quick" if options.quick else "sessions"
    folders = {session.name: ROOT / where / session.name for session in all_sessions()}
    print(f"{'session':24} {'variant':8} {'parameters':>10} {'test accuracy':>22} {'seconds':>8}  where")
    for row in page.overview(folders):
        accuracy = f"{page.percent(row)} (n = {row['n']})"
        print(
            f"{row['session']:24} {row['name']:8} {row['parameters']:10,} {accuracy:>22} {row['seconds']:8.1f}  "
            f"{where}/{row['session']}/README.md"
        )


def list_parameters(options):
    print(describe(find_session(options.session).schema))
