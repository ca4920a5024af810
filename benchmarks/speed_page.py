"""The README's section on speed, a table and a plot, from speed.json."""

import json
import statistics
from pathlib import Path

from matplotlib.figure import Figure

from common.index import between
from common.utils import ROOT

RESULTS = Path(__file__).with_name("speed.json")
PLOT = ROOT / "images" / "speed.png"
NAMES = {
    "example": "loop of PyTorch's example (no workers)",
    "workers": "usual loop (2 workers)",
    "lightning": "PyTorch Lightning (2 workers)",
    "ours": "this course",
}


def write_page():
    """Write the plot and, where the README has the markers <!-- speed --> and <!-- /speed -->, the section."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    figure, alt = plot(results)
    figure.savefig(PLOT, dpi=100, facecolor="white", metadata={"Description": alt})
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    if "<!-- speed -->" not in text:
        print("The README has no place for it: put <!-- speed --> and <!-- /speed --> where the section belongs.")
        return
    section = f"{table(results)}\n\n![{alt}](images/{PLOT.name})"
    readme.write_text(between(text, "speed", section), encoding="utf-8")


def seconds_of(run, phase):
    """Mean seconds an epoch of a training: "data", "step" or "eval"."""
    rows = run["epochs"]
    value = {"step": lambda row: row["train"] - row["data"]}.get(phase, lambda row: row[phase])
    return statistics.mean(value(row) for row in rows)


def by_loop(task):
    """The trainings of each loop, {name: list}, in the order of NAMES."""
    loops = {loop: [run for run in task["runs"] if run["loop"] == loop] for loop in NAMES}
    return {NAMES[loop]: runs for loop, runs in loops.items() if runs}


def spread(values, form="{:.1f} s"):
    """Median and range as a text; says how many trainings have no such value."""
    if None in values:
        return f"not reached by {values.count(None)} of {len(values)}"
    texts = [form.format(value) for value in (statistics.median(values), min(values), max(values))]
    return "{} ({} to {})".format(*texts)


def table(results):
    """The section as Markdown: a table for each data set, then one line for each of the smaller measurements."""
    lines = []
    for task in results["tasks"].values():
        machine, first = task["machine"], task["runs"][0]
        lines += [
            f"**{first['dataset']}**, {len(first['epochs'])} epochs, {first['device']}, {machine['processor']}, "
            f"{machine['threads']} of {machine['cores']} cores; load {machine['load before']} before and "
            f"{machine['load after']} after; PyTorch {machine['versions']['torch']}. Median and range of "
            f"{len(by_loop(task)[NAMES['ours']])} trainings, seconds an epoch:",
            "",
            f"| loop | data | step | evaluation | training to {first['target']:.1%} | accuracy | memory | start |",
            "| --- " * 8 + "|",
        ]
        for name, runs in by_loop(task).items():
            cells = [spread([seconds_of(run, phase) for run in runs]) for phase in ("data", "step", "eval")]
            cells.append(spread([run["to_target"] for run in runs]))
            cells.append(spread([run["accuracy"] for run in runs], "{:.2%}"))
            cells.append(spread([run["memory"] for run in runs], "{:.0f} MiB"))
            cells.append(spread([run["startup"] for run in runs]))
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    for part, seconds in results["parts"].items():
        lines.append(f"- **{part}:** " + ", ".join(f"{name} {value:.3g} s" for name, value in seconds.items()))
    return "\n".join(lines)


def plot(results):
    """Seconds an epoch of each loop, as bars of data, step and evaluation; and the same in words."""
    tasks = list(results["tasks"].values())
    figure = Figure(figsize=(9, 2.5 * len(tasks)), layout="constrained")
    words = []
    for axes, task in zip(figure.subplots(len(tasks), squeeze=False)[:, 0], tasks, strict=True):
        dataset, groups = task["runs"][0]["dataset"], by_loop(task)
        left = [0.0] * len(groups)
        for phase, label in (("data", "data"), ("step", "step"), ("eval", "evaluation")):
            width = [statistics.median(seconds_of(run, phase) for run in runs) for runs in groups.values()]
            axes.barh(list(groups), width, left=left, label=label)
            left = [start + length for start, length in zip(left, width, strict=True)]
        axes.set(title=dataset, xlabel="seconds an epoch (medians)")
        axes.invert_yaxis()
        axes.legend()
        words.append(f"{dataset}: " + ", ".join(f"{n} {s:.1f}" for n, s in zip(groups, left, strict=True)))
    return figure, "Seconds an epoch. " + "; ".join(words) + "."
