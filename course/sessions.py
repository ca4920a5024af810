"""The sessions of the course: what each one's session.yaml says, which runs it has, and what decides them."""

import functools
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import jsonschema
import yaml

from common.parameters import PLACE_PARAMETERS, ParameterError, check_parameters
from common.record import lesson_hashes
from course.notebooks import SESSIONS, first_line, read_notebook, schema_of, source_digest

TEXT = {"type": "string"}
CALL = {"type": "string", "pattern": r"^[a-zA-Z]\w*\((\w+(=\w+)?(, \w+(=\w+)?)*)?\)\Z"}
SCHEMA = {
    "type": "object",
    "required": ["teaches", "claimed", "headline", "seeds", "network", "quick"],
    "additionalProperties": False,
    "properties": {
        **{"teaches": TEXT, "claimed": TEXT, "headline": TEXT, "network": CALL, "test_set": CALL, "loader": TEXT},
        "seeds": {"type": "object", "additionalProperties": {"type": ["integer", "array"]}},
        "scores": {"type": "object", "additionalProperties": {"type": "integer"}},
        "others": {"type": "object", "additionalProperties": CALL},
        "quick": {"type": "object"},
        "colab_minutes": {"type": "number"},
        "threads": {"type": "integer", "minimum": 1},
        "read_first": {"type": "boolean"},
        "compare_with": {"type": "array", "prefixItems": [TEXT, TEXT], "minItems": 2, "maxItems": 2},
    },
}


class UsageError(Exception):
    """The command cannot be carried out as given; the message is a sentence that says what to do."""


@dataclass(frozen=True)
class Session:
    """A session's folder, and what its session.yaml says.

    `network`, `others` and `test_set` are calls of functions in common/model.py and common/data.py, such as
    `resnet18(width)`; their arguments are parameters of the run, or a value such as `sums=1`.
    """

    folder: Path
    teaches: str
    claimed: str  # what others reported, in words
    headline: str  # the variant, or part of it, that stands for the session
    seeds: dict  # for each variant of the full profile, how many seeds from 0 on, or a list of them
    network: str  # makes the network of the weights
    quick: dict  # the parameters that the quick profile changes
    others: dict = field(default_factory=dict)  # its other networks by name, {step 1: skeleton()}
    test_set: str = ""  # makes the session's data set from the loaded one, if they differ
    loader: str = "Loader"  # the class in common/data.py whose batches the network takes
    colab_minutes: float | None = None  # an estimate for the full run on a Colab GPU
    threads: int = 1  # of a run of the full profile in a batch
    read_first: bool = False  # whether a reader begins with it, whatever its number
    compare_with: tuple = ()  # another session's folder and a variant of it, with which the page compares
    scores: dict = field(default_factory=dict)  # {accuracy: number of outputs}, if the network has several answers

    @property
    def name(self):
        return self.folder.name

    @property
    def path(self):
        """The path of its notebook."""
        return self.folder / "session.ipynb"

    @functools.cached_property
    def notebook(self):
        """Its notebook, the source."""
        return read_notebook(self.path)

    @property
    def title(self):
        """The first line of its notebook."""
        return self.notebook.cells[0].source.splitlines()[0].removeprefix("# ")

    @property
    def schema(self):
        """The schema of its parameters."""
        return schema_of(self.notebook)

    def runs(self):
        """The (variant, seed) pairs of the full profile, those of the headline first."""
        variants = sorted(self.seeds, key=lambda variant: (variant != self.headline, variant))
        seeds = {name: range(seeds) if isinstance(seeds, int) else seeds for name, seeds in self.seeds.items()}
        return [(variant, seed) for variant in variants for seed in seeds[variant]]

    def parameters(self, profile):
        """What a profile, "full" or "quick", changes in the parameters cell. Raises ParameterError for a bad value."""
        try:
            return check_parameters(self.schema, self.quick) if profile == "quick" else {}
        except ParameterError as error:
            raise ParameterError(f"{self.folder / 'session.yaml'}, quick profile: {error}") from None

    def decides(self, profile, variant, seed):
        """What decides a run, as it stands in its record. A run is done if its record says the same.

        For the quick profile this includes common/. For the full one it does not, because hours of training depend on
        it: there, the tests judge a change to common/.
        """
        params = {name: rule["default"] for name, rule in self.schema.items() if name not in PLACE_PARAMETERS}
        params |= self.parameters(profile) | {"variant": variant, "seed": seed}
        code = {"common_sha256": lesson_hashes()} if profile == "quick" else {}
        return {"params": params, "source_sha256": source_digest(self.notebook), **code}

    def digest(self, profile, variant, seed):
        """SHA-256 of what decides a run."""
        return hashlib.sha256(json.dumps(self.decides(profile, variant, int(seed))).encode()).hexdigest()


def read_session(folder):
    """The session in a folder; raises UsageError if its session.yaml is missing or malformed."""
    path = folder / "session.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{path} is not readable YAML: {first_line(error)}") from None
    if error := next(jsonschema.Draft202012Validator(SCHEMA).iter_errors(values), None):
        raise UsageError(f"{path} is malformed ({error.json_path}: {first_line(error.message)}).")
    return Session(folder, **values)


def all_sessions():
    """All sessions, in order."""
    return [read_session(path.parent) for path in sorted(SESSIONS.glob("s*/session.ipynb"))]


def in_reading_order(sessions):
    """Sessions in the order in which they are read."""
    return sorted(sessions, key=lambda session: (not session.read_first, session.name))


def find_session(name):
    """The session whose name begins with `name`; raises UsageError unless there is exactly one."""
    sessions = all_sessions()
    found = [session for session in sessions if session.name == name]
    found = found or [session for session in sessions if session.name.startswith(name)]
    if len(found) != 1:
        names = ", ".join(session.name for session in sessions)
        raise UsageError(f"{name!r} names {len(found)} sessions; it must name one of {names}.")
    return found[0]
