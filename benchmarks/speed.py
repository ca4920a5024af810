"""The course's training loop beside others: seconds, accuracy, memory, start-up; written to speed.json and a plot.

    python benchmarks/speed.py                  # MNIST: an hour or more; on a machine with nothing else to do
    python benchmarks/speed.py --task cifar10   # adds CIFAR-10 to what speed.json holds; or cifar10-jpeg75
    python benchmarks/speed.py --quick          # a try in minutes, nothing is kept
    python benchmarks/speed.py --page           # only the section of the README, from speed.json

Every training is a process of its own, and the loops take turns. The optional package pytorch-lightning is measured
where it is installed.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from loops import TASKS
from parts import PARTS
from speed_page import RESULTS, table, write_page

from common import utils

LOOPS = ("example", "workers", "lightning", "ours")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="mnist", choices=TASKS, help="data set, with its network and recipe")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each loop")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of PyTorch")
    parser.add_argument("--quick", action="store_true", help="few images, two epochs, one seed: to see that it works")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the plot and the README's section")
    options = parser.parse_args()
    if not options.page:
        for results in measure(options):
            if not options.quick:  # after each round, so that little is lost when it is stopped
                RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        if options.quick:
            print(table(results))
            return
    write_page()


def measure(options):
    """Yield all measurements after each round of the loops, beside those that speed.json holds already."""
    task, epochs, seeds, images = options.task, options.epochs, options.seeds, 0
    if options.quick:
        task, epochs, seeds, images = "digits", 2, 1, 300
    machine = {**describe_machine(), "threads": options.threads, "load before": load()}
    if machine["load before"] > 0.5:
        print(f"Warning: the machine is not quiet (load {machine['load before']:.2f}): these times mean little.")
    loops = [loop for loop in LOOPS if loop != "lightning" or find_spec("pytorch_lightning")]
    if "lightning" not in loops:
        print("pytorch-lightning is not installed: left out.")
    results = {"tasks": {}, "parts": {}}
    if RESULTS.exists() and not options.quick:
        results = json.loads(RESULTS.read_text(encoding="utf-8"))
    runs = []
    results["tasks"][task] = {"machine": machine, "runs": runs}
    for seed in range(seeds):
        for loop in loops:
            arguments = {"loop": loop, "task": task, "seed": seed, "epochs": epochs, "images": images}
            runs.append(run("loops.py", {**arguments, "threads": options.threads, "spawned": time.time()}))
            train = sum(row["train"] for row in runs[-1]["epochs"]) / epochs
            print(f"{task}, {loop}, seed {seed}: {train:.1f} s an epoch, {runs[-1]['accuracy']:.2%}", flush=True)
        machine["load after"] = load()
        yield results
    for part in PARTS:
        results["parts"][part] = run("parts.py", {"part": part, "quick": options.quick, "threads": 1})
        print(part, {name: round(seconds, 3) for name, seconds in results["parts"][part].items()}, flush=True)
        yield results


def run(script, arguments):
    """What a script of this folder prints in a fresh process, from JSON. Raises CalledProcessError if it fails."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name(script)), json.dumps(arguments)]
    environment = {**os.environ, "PYTHONPATH": str(utils.ROOT)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])  # Lightning prints advice before it


def describe_machine():
    """Processor, its cores that may be used, and the versions that decide the speed."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    versions = utils.versions()
    for package in ("pytorch-lightning", "captum", "grad-cam", "torch-lr-finder"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {"processor": names[0] if names else platform.processor(), "cores": os.cpu_count(), "versions": versions}


def load():
    """How many processes wanted to run in the last minute, on average."""
    return round(os.getloadavg()[0], 2)


if __name__ == "__main__":
    main()
