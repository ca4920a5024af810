"""The command `course`: executes, publishes and checks notebooks. It imports `common`, never the other way round."""

import sys

import common  # noqa: F401 (first of all: it says so where Python is too old)

# With this package jsonschema, which nbformat imports, reads a grammar of web addresses at each start: 1.3 seconds.
sys.modules.setdefault("rfc3987_syntax", None)
