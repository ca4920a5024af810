"""The course's training loop beside others: seconds, accuracy, memory; written to speed.json and a plot.

    python benchmarks/speed.py mnist     # an hour or more; on a machine with nothing else to do
    python benchmarks/speed.py cifar10   # hours
    python benchmarks/speed.py minute --epochs 1   # the records of session 11: one epoch of each loop
    python benchmarks/speed.py hour --epochs 1 --seeds 1
    python benchmarks/speed.py parts     # smaller measurements, minutes
    python benchmarks/speed.py digits    # a try in a minute; shown, not kept
    python benchmarks/speed.py page      # measures nothing: the pages and the plot, from speed.json

Results are added to speed.json, those of digits excepted. Every training is a process of its own, and the loops take
turns. The optional package pytorch-lightning is measured if it is installed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from loops import TASKS
from parts import PARTS
from speed_page import NAMES, RESULTS, table, write_page

from common import utils
from common.files import replacing


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*TASKS, "parts", "page"])
    parser.add_argument("--epochs", type=int, default=5, help="of each training")
    parser.add_argument("--seeds", type=int, default=3, help="trainings with each loop")
    parser.add_argument("--threads", type=int, default=cores(), help="of PyTorch, for the loops")
    options = parser.parse_args()
    if options.what == "digits":
        *_, measured = measure_loops(options)
        print(table({"tasks": {"digits": measured}, "parts": {}}))
        return
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"tasks": {}, "parts": {}}
    if options.what == "parts":
        results["parts"] = measure_parts()
        save(results)
    elif options.what in TASKS:
        for measured in measure_loops(options):
            results["tasks"][options.what] = measured
            save(results)  # after each round: if it is stopped, earlier rounds are kept
    if not results["tasks"]:
        sys.exit("No loop was measured yet.")
    write_page(results)


def save(results):
    with replacing(RESULTS) as unfinished:
        unfinished.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def measure_loops(options):
    """Train with each loop in turn, once for each seed; yield all measurements after each round."""
    task, epochs, machine = options.what, options.epochs, describe_machine(options.threads)
    left_out = set() if find_spec("pytorch_lightning") else {"lightning"}
    loops = [loop for loop in NAMES if loop not in left_out | (set() if task == "minute" else {"session_6"})]
    if left_out:
        print("pytorch-lightning is not installed: left out.")
    runs = []
    for seed in range(options.seeds):
        for loop in loops:
            arguments = {"loop": loop, "task": task, "seed": seed, "epochs": epochs, "threads": options.threads}
            runs.append(run("loops.py", {**arguments, "spawned": time.time()}))
            train = sum(row["train"] for row in runs[-1]["epochs"]) / epochs
            print(f"{task}, {loop}, seed {seed}: {train:.1f} s per epoch, {runs[-1]['accuracy']:.2%}", flush=True)
        yield {"machine": {**machine, "load after": load()}, "runs": runs}


def measure_parts():
    """The smaller measurements, which use one thread."""
    machine, parts = describe_machine(1), {}
    for part in PARTS:
        parts[part] = run("parts.py", {"part": part})
        print(part, {name: round(seconds, 3) for name, seconds in parts[part].items()}, flush=True)
    return {"machine": {**machine, "load after": load()}, "seconds": parts}


def run(script, arguments):
    """What a script of this folder prints in a fresh process, from JSON. Raises CalledProcessError if it fails."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name(script)), json.dumps(arguments)]
    environment = {**os.environ, "PYTHONPATH": str(utils.ROOT)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])  # Lightning prints advice before it


def describe_machine(threads):
    """Processor, usable cores, versions and load; waits for a quiet machine, and warns if it does not become one."""
    versions = utils.versions()
    for package in ("pytorch-lightning", "captum", "grad-cam", "torch-lr-finder"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    deadline = time.monotonic() + 180  # a benchmark that has just ended is forgotten by then
    while load() > 0.5 and time.monotonic() < deadline:
        time.sleep(5)
    before = load()
    if before > 0.5:
        print(f"Warning: the machine is not quiet (load {before}): these times mean little.")
    machine = {"processor": utils.processor(), "cores": cores(), "threads": threads}
    return {**machine, "versions": versions, "load before": before}


def cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def load():
    """How many processes wanted to run in the last minute, on average."""
    return round(os.getloadavg()[0], 2)


if __name__ == "__main__":
    main()
