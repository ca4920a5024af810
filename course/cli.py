"""The command `course`: run a session's notebook, publish its results, fetch data, list what there is."""

import argparse
import math
import signal
import statistics
import sys
from pathlib import Path

from common.parameters import ParameterError, check_parameters, describe
from common.record import check_installation
from course import index, measures, notebooks, publish
from course.execution import RunError, execute, run_name
from course.exercises import write_assignments, write_exercises
from course.sessions import UsageError, all_sessions, find_session

ROOT = notebooks.ROOT
SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


class StoppedError(Exception):
    """Somebody ended the command, with Ctrl-C or `kill`."""


def main(arguments=None):
    """Entry point: exit code 0, 1 if the work failed, 2 if the command was wrong."""
    options = parse_arguments(arguments)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
            signal.signal(number, raise_stopped)
    try:
        options.command(options)
    except (UsageError, ParameterError) as error:
        print(f"course: {shorten(error)}", file=sys.stderr)
        return 2
    except (RunError, StoppedError, notebooks.PublishError, RuntimeError, OSError) as error:
        print(f"course: {shorten(error)}", file=sys.stderr)
        return 1
    return 0


def shorten(message):
    """A message with long lines cut: a value from a user may have any length."""
    lines = str(message).splitlines()
    return "\n".join(line if len(line) <= 1000 else f"{line[:300]}… ({len(line):,} characters)" for line in lines)


class Parser(argparse.ArgumentParser):
    """Argparse's parser, which would repeat a wrong value in full."""

    def error(self, message):
        super().error(shorten(message))


def raise_stopped(*_):
    for number in SIGNALS:  # only the first counts: later ones must not keep us from stopping the kernel
        signal.signal(number, signal.SIG_IGN)
    raise StoppedError("stopped; the same command resumes, a run after its last finished epoch.")


def parse_arguments(arguments):
    parser = Parser(prog="course", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("run", help="execute a session's notebook")
    command.add_argument("session", help="its name or the beginning of it, such as s06")
    command.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter; `course params SESSION` lists them",
    )
    command.add_argument(
        "--profile",
        choices=["quick", "full"],
        default="full",
        help="quick: small embedded data, under a minute; full, if not given: what the page shows",
    )
    command.add_argument("--seed", metavar="K", help="the same as -p seed K")
    command.add_argument(
        "--time-limit", type=hours, default=12, metavar="HOURS", help="for the whole run, 12 if not given"
    )
    command.set_defaults(command=run)

    command = commands.add_parser("publish", help="make a session's README, images and results from executed notebooks")
    command.add_argument("notebooks", nargs="*", type=Path, help="all runs of one session, or a zip of run_all.ipynb")
    command.add_argument(
        "--to", type=named_path, metavar="FOLDER", help="write the page there, not into sessions/; quick runs need it"
    )
    command.add_argument("--add", action="store_true", help="keep the runs that are published, and add these")
    command.add_argument("--rerender", action="store_true", help="make the published READMEs again, with today's prose")
    command.set_defaults(command=run_publish)

    command = commands.add_parser("index", help="write the index, and badges and bootstrap cell into every notebook")
    command.set_defaults(command=lambda options: index.write_index())

    command = commands.add_parser("check", help="whether pages, results, code, badges and index fit together")
    command.set_defaults(command=run_check)

    command = commands.add_parser("exercises", help="make each session's exercises from its solutions")
    command.add_argument(
        "--nbgrader", type=named_path, metavar="FOLDER", help="write a course for nbgrader there instead"
    )
    command.set_defaults(command=make_exercises)

    command = commands.add_parser("verify", help="evaluate the committed weights with today's code")
    command.add_argument("session", nargs="?", help="all sessions if not given")
    command.add_argument("--note", action="store_true", help="note the verification on the session's page")
    command.set_defaults(command=run_verify)

    command = commands.add_parser("demo", help="describe the networks for the demo, in docs/demo/networks.json")
    command.add_argument("--images", action="store_true", help="choose its test images anew too, from the data sets")
    command.set_defaults(command=describe_networks)

    command = commands.add_parser("compare", help="whether two sets of runs differ by more than noise")
    command.add_argument(
        "before", help="SESSION:VARIANT of the published results, or FOLDER:VARIANT of executed notebooks"
    )
    command.add_argument("after", help="the same")
    command.add_argument(
        "--plot", type=named_path, metavar="FILE", help="draw both distributions, as .png, .svg or .pdf"
    )
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


def named_path(text):
    """A file or folder from the command line; an empty text would mean the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("give a name; the current folder is .")
    return Path(text)


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
    if "profile" in chosen:
        raise UsageError("Choose the profile with --profile.")
    if {"checkpoint", "weights"} & set(chosen):
        raise UsageError("`course run` sets checkpoint and weights itself; papermill lets you choose.")
    chosen = check_parameters(schema, {name: parse(schema, name, text) for name, text in chosen.items()})
    values = session.parameters(options.profile) | chosen
    if not (ROOT / values.get("log_dir", "")).resolve().is_relative_to(ROOT.resolve()):
        raise UsageError(f"log_dir must be a folder inside {ROOT}, such as logs/tensorboard.")
    name = run_name({name: rule["default"] for name, rule in schema.items()} | values, chosen)
    execute(session.path, values, Path(options.profile) / session.name / name, options.time_limit * 3600)


def parse(schema, name, text):
    """A parameter's value from the command line; what does not fit stays text, which the check refuses."""
    types = {"integer": int, "number": float, "boolean": {"true": True, "false": False}.__getitem__, "string": str}
    try:
        return types[schema[name]["type"]](text.lower() if schema[name]["type"] == "boolean" else text)
    except (ValueError, KeyError):
        return text


# ---------------------------------------------------------------------------------------------------------------
# The other commands


def run_publish(options):
    if options.rerender and options.to:
        raise UsageError("--rerender makes the pages in sessions/ again: leave out --to.")
    if options.rerender == bool(options.notebooks):
        raise UsageError("Give the executed notebooks of one session, a zip of run_all.ipynb, or --rerender.")
    zipped = [path for path in options.notebooks if path.suffix == ".zip"]
    if zipped and len(options.notebooks) > 1:
        raise UsageError("Give one zip, and nothing else.")
    if options.add and (zipped or options.rerender):
        raise UsageError("--add needs the executed notebooks of one session.")
    if zipped:
        pages = publish.publish_zip(zipped[0], options.to)
    elif options.rerender:
        pages = publish.rerender_all()
    else:
        pages = [publish.publish(options.notebooks, options.to, options.add) / "README.md"]
    published = refused = 0
    for page in pages:  # as they come
        if isinstance(page, notebooks.PublishError):
            print(page, file=sys.stderr)
            refused += 1
        else:
            print(page)
            published += 1
    if not options.to:
        index.write_index()
    if refused:
        raise RunError(f"{refused} of {published + refused} sessions could not be published.")


def run_check(options):
    from course.check import check

    problems = list(check())
    for problem in problems:
        print(problem)
    if problems:
        raise RunError(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}.")
    print(f"All {len(all_sessions())} sessions are complete, and everything fits together.")


def make_exercises(options):
    if options.nbgrader:
        write_assignments(options.nbgrader)
    else:
        write_exercises()


def run_verify(options):
    from common import data
    from course import verify

    sessions = [find_session(options.session)] if options.session else all_sessions()
    failed = 0
    for session in sessions:
        try:
            print(verify.verify(session, note=options.note), flush=True)
        except (notebooks.PublishError, data.DataError) as error:
            print(error, file=sys.stderr)
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
    from common.compare import difference
    from course.compare import accuracies

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
        except ValueError as error:  # the ending is not a format
            raise UsageError(str(error)) from None


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
    rows = [("session", "variant", "parameters", "test accuracy", "training", "where")]
    for session in all_sessions():
        for group in measures.groups(notebooks.results(ROOT / where / session.name)):
            accuracy = f"{group.accuracy} (n = {group.n})"
            numbers = f"{group.parameters:,}", accuracy, group.time
            rows.append((session.name, group.name, *numbers, f"{where}/{session.name}/README.md"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        texts = zip(row, "<<>>><", widths, strict=True)  # numbers to the right
        print("  ".join(f"{text:{side}{width}}" for text, side, width in texts).rstrip())


def list_parameters(options):
    print(describe(find_session(options.session).schema))
