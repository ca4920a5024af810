"""The form of a record as a JSON Schema: everything that a page relies on."""

import jsonschema

from common.record import VERSION, finite

KEYS = [
    *("schema", "session", "profile", "variant", "seed", "params", "dataset", "device", "threads", "versions"),
    *("common_sha256", "started", "finished", "seconds", "history", "metrics", "weights"),
]
NEW_KEYS = ["executed", "outputs_sha256"]  # of version 2
TEXT = {"type": "string"}
NAME = {"type": "string", "pattern": r"^[\w.-]+\Z"}
WORD = {"pattern": r"^\w+\Z"}  # of a key that a page shows
HASH = {"type": "string", "pattern": r"^[0-9a-f]+\Z"}
COUNT = {"type": "integer", "minimum": 1}
FRACTION = {"type": "number", "minimum": 0, "maximum": 1}
SECONDS = {"type": "number", "minimum": 0}
HISTORY = {"type": "array", "minItems": 1, "items": {"type": "object"}}
NUMBER = {"type": "integer", "minimum": 0}
# What storing the weights in half precision does: images classified correctly, and images classified differently.
STORED = {"type": "object", "properties": {"right": NUMBER, "changed": NUMBER}, "required": ["right", "changed"]}
MEASURES = {
    "type": "object",
    "propertyNames": WORD,
    "properties": {
        **{"part": TEXT, "parameters": COUNT, "receptive_field": COUNT, "seconds": SECONDS, "target": FRACTION},
        **{"draw": {"type": "integer"}, "history": HISTORY},
        **dict.fromkeys(["group", "targets", "device", "dataset"], False),  # a page uses these names for something else
    },
    "patternProperties": {"_accuracy\\Z": FRACTION},
    "required": ["test_accuracy"],
}
SCHEMA = {
    "type": "object",
    "required": KEYS,
    "propertyNames": {"enum": [*KEYS, *NEW_KEYS, "source_sha256"]},
    "if": {"properties": {"schema": {"const": VERSION}}},
    "then": {"required": NEW_KEYS},
    "properties": {
        **{"schema": {"enum": [1, VERSION]}, "session": NAME, "profile": {"enum": ["full", "quick"]}, "variant": TEXT},
        **{"seed": {"type": "integer"}, "device": TEXT, "threads": COUNT, "started": TEXT, "finished": TEXT},
        "params": {
            "type": "object",
            "additionalProperties": {"type": ["string", "number", "boolean"]},
            "patternProperties": {"(_|^)target\\Z": FRACTION},
            "required": ["target"],
        },
        "dataset": {
            "type": "object",
            "properties": {"name": TEXT, "train": COUNT, "test": COUNT, "sha256": HASH},
            "required": ["name", "train", "test", "sha256"],
        },
        "versions": {"type": "object", "additionalProperties": TEXT},
        "common_sha256": {"type": "object", "propertyNames": NAME, "additionalProperties": HASH},
        "seconds": {"type": "object", "propertyNames": WORD, "additionalProperties": SECONDS, "required": ["train"]},
        "history": HISTORY,
        "metrics": {
            **MEASURES,
            "properties": {
                **MEASURES["properties"],
                "parts": {"type": "array", "items": MEASURES},
                "stored": STORED,
            },
            "required": ["test_accuracy", "parameters"],
        },
        "weights": {
            "type": ["object", "null"],
            "properties": {"file": NAME, "bytes": COUNT, "sha256": HASH},
            "required": ["file", "sha256"],
        },
        **{"executed": {"type": "integer"}, "outputs_sha256": HASH, "source_sha256": HASH},
    },
}


def find_fault(record):
    """Where a record does not have this form and why, as text; None if it has."""
    error = next(jsonschema.Draft202012Validator(SCHEMA).iter_errors(record), None)
    if error:
        return f"{error.json_path}: {error.message}"
    return None if finite(record) == record else "a number is not finite"
