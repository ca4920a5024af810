"""What a session's runs reached: means and spreads over seeds or draws."""

import statistics
from dataclasses import dataclass
from datetime import datetime

from course.notebooks import PublishError


def percent(fraction, digits=2):
    """A fraction as a text, as in "99.40 %"."""
    return f"{100 * fraction:.{digits}f} %"


@dataclass(frozen=True)
class Measure:
    """An accuracy in several runs, as fractions, and its target or None."""

    values: list[float]
    target: float | None

    @property
    def mean(self):
        return statistics.mean(self.values)

    @property
    def reached(self):
        """How many runs reached the target."""
        return sum(value >= self.target for value in self.values)

    @property
    def verdict(self):
        """The target, and whether the mean reaches it or by how much it misses it."""
        missing = 100 * (self.target - self.mean)
        verdict = "reached" if missing <= 0 else f"missed by {missing:.2g} points"
        return f"target {percent(self.target)}, {verdict}"

    def __str__(self):
        """Mean and standard deviation, as in "99.55 ± 0.04 %"."""
        return self.rounded(2)

    def rounded(self, digits):
        if len(self.values) == 1:
            return percent(self.mean, digits)
        return f"{100 * self.mean:.{digits}f} ± {percent(statistics.stdev(self.values), digits)}"

    def beside_target(self):
        """With three digits if two would hide on which side of the target the mean is."""
        return self.rounded(3 if percent(self.mean) == percent(self.target) else 2)


@dataclass(frozen=True)
class Group:
    """The results of one variant of a session, or of one named part if its runs have parts."""

    name: str
    over: str  # what its results differ in: "seeds" or "draws"
    accuracy: Measure  # on the test images
    others: dict[str, Measure]  # other accuracies
    parameters: int
    receptive_field: int | str  # "" if the runs do not say
    seconds: list[float]  # of training, in each run
    device: str
    dataset: str

    @property
    def n(self):
        return len(self.accuracy.values)

    @property
    def mean_seconds(self):
        return statistics.mean(self.seconds)

    @property
    def time(self):
        """How long a training took, as a text: the mean over the runs and, of several, their range."""
        times = f"{min(self.seconds):.1f} to {max(self.seconds):.1f}"
        return f"{self.mean_seconds:.1f} s" + (f" ({times})" if self.n > 1 else "")

    @property
    def measures(self):
        """All its accuracies, {name: Measure}."""
        return {"test accuracy": self.accuracy, **self.others}


def groups(records):
    """The groups of a session's records, in order of appearance.

    Raises PublishError if the runs do not measure the same.
    """
    results = [result for record in records for result in _results(record)]
    if len({frozenset(key for key in result if key.endswith("_accuracy")) for result in results}) > 1:
        raise PublishError(f"The runs of {records[0]['session']} do not all measure the same accuracies.")
    return [
        _group(name, [result for result in results if result["group"] == name])
        for name in dict.fromkeys(result["group"] for result in results)
    ]


def headline(session, groups):
    """The group that stands for the session: the one that its session.yaml names, else the first."""
    return next((group for group in groups if group.name == session.headline), groups[0])


def device(record):
    """The device of a run, with the number of threads for a CPU."""
    if record["device"] != "CPU":
        return record["device"]
    return f"CPU with {record['threads']} thread{'s' if record['threads'] > 1 else ''}"


def time_of(record):
    """The seconds that a run took, and whether it was resumed: then it took longer, these are its trainings."""
    try:
        started, finished = (datetime.fromisoformat(record[name]) for name in ("started", "finished"))
        seconds = (finished - started).total_seconds()
    except (ValueError, TypeError):  # not a date; only one has a time zone
        raise PublishError(f"A record of {record['session']} does not say when its run started and finished.") from None
    parts = record["metrics"].get("parts", [])
    trainings = {part.get("seconds", 0) for part in parts}  # two readings of one network have the same seconds
    training = max(sum(trainings), record["seconds"]["train"])
    return max(seconds, training), training > seconds


def _results(record):
    """The results of a run to be averaged: the run, its draws, or its named parts, each in a group of its own."""
    whole = {
        "group": record["variant"],
        "target": record["params"]["target"],
        "targets": {  # of the other accuracies: that of sum_accuracy is the parameter sum_target
            name.replace("_target", "_accuracy"): value
            for name, value in record["params"].items()
            if name.endswith("_target")
        },
        "seconds": record["seconds"]["train"],
        "device": device(record),
        "dataset": record["dataset"]["name"],
        **record["metrics"],
    }
    parts = record["metrics"].get("parts", [])
    return [{**whole, "group": part.get("part", whole["group"]), **part} for part in parts] or [whole]


def _group(name, results):
    first = results[0]
    others = [key for key in first if key.endswith("_accuracy") and key != "test_accuracy"]
    return Group(
        name=name,
        over="draws" if "draw" in first else "seeds",
        accuracy=Measure([result["test_accuracy"] for result in results], first["target"]),
        others={
            key.replace("_", " "): Measure([result[key] for result in results], first["targets"].get(key))
            for key in others
        },
        parameters=first["parameters"],
        receptive_field=first.get("receptive_field", ""),
        seconds=[result["seconds"] for result in results],
        device=" or ".join(sorted({result["device"] for result in results})),
        dataset=first["dataset"],
    )
