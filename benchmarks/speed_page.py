"""The pages on speed, from speed.json: the tables in benchmarks/README.md, a summary and a plot in the README."""

import statistics
from pathlib import Path

from matplotlib.figure import Figure

from common.utils import ROOT
from course.index import between

RESULTS = Path(__file__).with_name("speed.json")
PLOT = ROOT / "images" / "speed.png"
NAMES = {
    "example": "PyTorch's example loop (no workers)",
    "workers": "usual loop (2 workers)",
    "lightning": "PyTorch Lightning (2 workers)",
    "session_6": "this course, session 6",
    "ours": "this course",
}


def write_page(results):
    """Write the plot, and the text between <!-- speed --> and <!-- /speed --> in both READMEs."""
    figure, alt = plot(results)
    figure.savefig(PLOT, dpi=100, facecolor="white", metadata={"Description": alt})
    picture = f"![{alt}]({{}}images/{PLOT.name})"
    for path, section in (
        (ROOT / "README.md", f"{summary(results)}\n\n{picture.format('')}"),
        (RESULTS.with_name("README.md"), f"{table(results)}\n\n{picture.format('../')}"),
    ):
        path.write_text(between(path.read_text(encoding="utf-8"), "speed", section), encoding="utf-8")


def summary(results):
    """How the course's loop compares on each data set, in two sentences."""
    texts = []
    for task in loop_tasks(results):
        loops = by_loop(task)
        ours = median(loops.pop(NAMES["ours"]), "train")
        ratios = [median(runs, "train") / ours for runs in loops.values()]
        texts.append(f"{min(ratios):.1f} to {max(ratios):.1f} times as long on {task['runs'][0]['dataset']}")
    return (
        "For an epoch, the usual training loops (PyTorch's example, one with workers, PyTorch Lightning) take "
        f"{' and '.join(texts)} as the course's. [`benchmarks/README.md`](benchmarks/README.md) has all figures, and "
        "how they were measured."
    )


def loop_tasks(results):
    """The trainings that compare loops; the others compare records of session 11."""
    return [task for task in results["tasks"].values() if "whole" not in task["runs"][0]]


def seconds_of(run, phase):
    """Mean seconds per epoch of a training: "train", its parts "data" and "step", or "eval"."""
    rows = run["epochs"]
    value = {"step": lambda row: row["train"] - row["data"]}.get(phase, lambda row: row[phase])
    return statistics.mean(value(row) for row in rows)


def by_loop(task):
    """The trainings of each loop, {name: list}, in the order of NAMES."""
    loops = {loop: [run for run in task["runs"] if run["loop"] == loop] for loop in NAMES}
    return {NAMES[loop]: runs for loop, runs in loops.items() if runs}


def spread(values, form="{:.1f}"):
    """Median and range as a text, or how many trainings have no such value."""
    if None in values:
        return f"not reached by {values.count(None)} of {len(values)}"
    texts = [form.format(value) for value in (statistics.median(values), min(values), max(values))]
    return "{} ({} to {})".format(*texts)


def table(results):
    """The section as Markdown: a table for each data set, then one line for each of the smaller measurements."""
    lines = []
    for task in loop_tasks(results):
        first, loops = task["runs"][0], by_loop(task)
        several = len(first["epochs"]) > 1  # after a single epoch nobody asks when the target was reached
        columns = ["loop", "training per epoch, s", "of which data, s", "evaluation per epoch, s"]
        columns += [f"training to {first['target']:.1%}, s"] if several else []
        columns += ["accuracy", "memory, MiB", "outside epochs, s"]
        lines += [
            f"**{first['dataset']}**, epochs: {len(first['epochs'])}, {first['device']}, {describe(task['machine'])}. "
            f"Median and range of {len(loops[NAMES['ours']])} trainings:",
            "",
            f"| {' | '.join(columns)} |",
            "| --- " * len(columns) + "|",
        ]
        for name, runs in loops.items():
            cells = [spread([seconds_of(run, phase) for run in runs]) for phase in ("train", "data", "eval")]
            if several:
                cells.append(spread([run["to_target"] for run in runs]))
            cells.append(spread([run["accuracy"] for run in runs], "{:.2%}"))
            cells.append(spread([run["memory"] for run in runs], "{:.0f}"))
            cells.append(spread([run["outside"] for run in runs]))
            lines.append(f"| {name} | {' | '.join(cells)} |")
        ours = median(loops[NAMES["ours"]], "train")
        ratios = [f"{name} {median(runs, 'train') / ours:.2f}" for name, runs in loops.items()]
        lines += ["", f"Training time relative to this course: {', '.join(ratios)}.", ""]
    lines += [line for task in results["tasks"].values() if task not in loop_tasks(results) for line in record(task)]
    if results["parts"]:
        lines += [f"**Smaller measurements**, {describe(results['parts']['machine'])}:", ""]
        for part, seconds in results["parts"]["seconds"].items():
            lines.append(f"- {part}: " + ", ".join(f"{name} {value:.3g} s" for name, value in seconds.items()))
    return "\n".join(lines)


def record(task):
    """A record of session 11 beside other ways to its target, as lines of Markdown."""
    first, loops = task["runs"][0], by_loop(task)
    own = "; session 6 has its own" if NAMES["session_6"] in loops else ""
    yield (
        f"**{first['dataset']}, to {first['target']:.1%}**, {first['device']}, {describe(task['machine'])}. The whole "
        "training is extrapolated: the seconds of an epoch, as median and range, times the epochs of the recipe. "
        f"Network and recipe are those of [session 11](../sessions/s11_speedrun/README.md){own}."
    )
    yield from ("", "| loop | epochs | training per epoch, s | whole training, s |", "| --- | --- | --- | --- |")
    for name, runs in loops.items():
        epochs, seconds = runs[0]["whole"], [seconds_of(run, "train") for run in runs]
        yield f"| {name} | {epochs} | {spread(seconds)} | {epochs * statistics.median(seconds):,.0f} |"
    yield ""


def median(runs, phase):
    """Median over trainings of their seconds per epoch."""
    return statistics.median(seconds_of(run, phase) for run in runs)


def describe(machine):
    """Processor, threads, load and PyTorch's version in words."""
    return (
        f"{machine['processor']}, threads: {machine['threads']}, cores: {machine['cores']}, load "
        f"{machine['load before']} before and {machine['load after']} after, PyTorch {machine['versions']['torch']}"
    )


def plot(results):
    """Seconds per epoch of each loop, as bars of data, step and evaluation; and the same in words."""
    tasks = loop_tasks(results)
    figure = Figure(figsize=(9, 2.5 * len(tasks)), layout="constrained")
    words = []
    for axes, task in zip(figure.subplots(len(tasks), squeeze=False)[:, 0], tasks, strict=True):
        dataset, groups = task["runs"][0]["dataset"], by_loop(task)
        left = [0.0] * len(groups)
        for phase, label in (("data", "data"), ("step", "step"), ("eval", "evaluation")):
            width = [median(runs, phase) for runs in groups.values()]
            axes.barh(list(groups), width, left=left, label=label)
            left = [start + length for start, length in zip(left, width, strict=True)]
        axes.set(title=dataset, xlabel="seconds per epoch (medians)")
        axes.invert_yaxis()
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))  # beside the bars
        words.append(f"{dataset}: " + ", ".join(f"{n} {s:.1f}" for n, s in zip(groups, left, strict=True)))
    return figure, "Seconds per epoch. " + "; ".join(words) + "."
