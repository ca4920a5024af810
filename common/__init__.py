"""The lesson: what a notebook imports and a learner reads."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (a notebook may be opened with any Python)
    raise ImportError(
        f"The course needs Python 3.11 or newer, this is {sys.version.split()[0]}: choose another kernel."
    )
