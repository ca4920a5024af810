"""The record of a run: what a session's notebook displays in its last cell."""

import hashlib
import json
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from common.files import hash_file, replacing
from common.outputs import Outputs, listen
from common.parameters import PLACE_PARAMETERS, find_parameters, find_variables, is_parameters_cell

VERSION = 2  # of the record's form; 1 had neither `executed` nor `outputs_sha256`
MIME = "application/vnd.course.record+json"


class Run:
    """One execution of a session's notebook, from its checked parameters to the record in its last cell."""

    def __init__(self, session, inputs, namespace):
        """`inputs` is IPython's `In`, see find_parameters; the parameters are set anew in `namespace`, `globals()`."""
        from IPython import get_ipython  # here, because the command `course` uses this module and needs no IPython

        check_installation()
        self.session, self.inputs, shell = session, inputs, get_ipython()
        self.parameters = find_parameters(inputs) if any(inputs) else find_variables(session, namespace)
        namespace.update(self.parameters)  # this cell may be run again after others changed these names
        if self.parameters["weights"]:  # find out now, not after training, if the folder cannot be written to
            Path(self.parameters["weights"]).parent.mkdir(parents=True, exist_ok=True)
        self.outputs = listen(shell) if shell else Outputs()
        if shell and any(inputs) and not is_parameters_cell(inputs[-1]):
            _run_after_parameters(shell, inputs[-1])
        self.started = _now()
        self.seconds = {}

    @contextmanager
    def time(self, part):
        """Measure the seconds that a part of the run takes, such as "data"."""
        started = time.perf_counter()
        yield
        self.seconds[part] = time.perf_counter() - started

    def finish(self, model, data, device, history, metrics, others=None):
        """Display the record of the run, the evidence from which it is published, and write the weights.

        `model` is written to the safetensors file that the parameter `weights` names, if any. `data` is a
        common.data.Dataset, `history` a common.train.History, `metrics` a dict with `test_accuracy` as a fraction,
        `parameters` as an integer, then the session's own. `others` {name: network} go into the same file; a tensor's
        name there is that of its network, a slash, and its own.
        """
        import torch  # here, because the command `course` uses this module and should not wait two seconds
        from IPython.display import display
        from safetensors.torch import save_file

        from common.utils import device_name, versions

        weights = self.parameters["weights"]
        if weights:
            weights = Path(weights)
            tensors = model.state_dict()
            for name, network in (others or {}).items():
                tensors |= {f"{name}/{key}": tensor for key, tensor in network.state_dict().items()}
            with replacing(weights) as unfinished:
                save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, unfinished)
        record = {
            "schema": VERSION,
            "session": self.session,
            "profile": self.parameters["profile"],
            "variant": self.parameters["variant"],
            "seed": self.parameters["seed"],
            "params": {name: value for name, value in self.parameters.items() if name not in PLACE_PARAMETERS},
            "dataset": {
                "name": data.name,
                "train": len(data.train.labels),
                "test": len(data.test.labels),
                "sha256": data.sha256,
            },
            "device": device_name(device),
            "threads": torch.get_num_threads(),
            "versions": versions(),
            "common_sha256": lesson_hashes(),
            "started": self.started,
            "finished": _now(),
            "executed": len(self.inputs) - 1,  # number of cells, this one included
            "outputs_sha256": self.outputs.sha256(),
            "seconds": self.seconds | history.seconds,
            "history": history.epochs,
            "metrics": metrics,
            "weights": None,
        }
        if weights:
            size = weights.stat().st_size
            record["weights"] = {"file": weights.name, "bytes": size, "sha256": hash_file(weights)}
        record = finite(record)
        display({MIME: record, "text/plain": record_line(record)}, raw=True)


def _run_after_parameters(shell, start):
    """Let an IPython shell run the cell `start`, which makes the Run, after each run of the parameters cell.

    So a learner may change a parameter and go on with any cell.
    """

    def follow(result):
        if is_parameters_cell(result.info.raw_cell):
            shell.run_cell(start, store_history=False)

    if known := getattr(shell, "course_follows", None):
        shell.events.unregister("post_run_cell", known)
    shell.events.register("post_run_cell", follow)
    shell.course_follows = follow


def check_installation():
    """Raise RuntimeError if the installed torchvision was made for another torch; imports neither."""
    torch, torchvision = metadata.version("torch"), metadata.version("torchvision")
    needs = [Requirement(line) for line in metadata.requires("torchvision")]
    fits = all(need.specifier.contains(torch, prereleases=True) for need in needs if need.name == "torch")
    if not fits or ("+cpu" in torch) != ("+cpu" in torchvision):
        raise RuntimeError(
            f"torch {torch} and torchvision {torchvision} do not match: install both in one command from the same "
            "place, `pip install --force-reinstall torch torchvision`."
        )


def lesson_hashes():
    """SHA-256 of each file of common/, {name: hash}."""
    return {path.name: hash_file(path) for path in sorted(Path(__file__).parent.glob("*.py"))}


def record_line(record):
    """A record in one line, for those who see nothing else; its checksum shows if a number was changed later."""
    accuracy = record["metrics"]["test_accuracy"]
    checksum = hashlib.sha256(json.dumps(_as_floats(record), sort_keys=True).encode()).hexdigest()[:16]
    run = f"{record['session']} {record['variant']} seed {record['seed']}"
    return f"{run}: test accuracy {accuracy:.2%}, checksum of the record {checksum}"


def _as_floats(value):
    """The same structure with every number as a float: Colab saves 1.0 as 1."""
    if isinstance(value, dict):
        return {key: _as_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_floats(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def finite(value):
    """The same dicts, lists and numbers, with null for what JSON does not know: infinities, NaN."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, int | float) and not abs(value) <= sys.float_info.max:
        return None
    return value


def _now():
    return datetime.now(UTC).isoformat(timespec="seconds")
