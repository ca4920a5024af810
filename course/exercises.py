"""Exercises from their solutions: each session's solutions.ipynb becomes the exercises.ipynb that learners open."""

import re

import nbformat

from course.notebooks import SESSIONS, PublishError, read_notebook, tags
from course.publish import write_files

STUB = "...  # your code"
REGION = re.compile(r"^( *)# solution\n.*?^ *# end of solution$", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"^( *\w+ = ).*  # solution$", re.MULTILINE)


def solutions():
    """The solutions.ipynb of all sessions that have one, in order."""
    return sorted(SESSIONS.glob("s*/solutions.ipynb"))


def exercises():
    """What each session's exercises.ipynb should be today: {path: text}."""
    return {
        path.with_name("exercises.ipynb"): nbformat.writes(without_solutions(read_notebook(path))) + "\n"
        for path in solutions()
    }


def write_exercises():
    """Write each session's exercises.ipynb."""
    for path, text in exercises().items():
        write_files(path.parent, {path.name: text})


def without_solutions(notebook):
    """The notebook for learners: stubs for solutions, and neither hints nor wrong answers."""
    notebook.cells = [cell for cell in notebook.cells if not tags(cell) & {"hint", "wrong"}]
    for cell in notebook.cells:
        if "exercise" in tags(cell):
            cell.source = stub(cell)
    return notebook


def stub(cell):
    """The code of an exercise with a stub for each solution.

    A solution is the lines between `# solution` and `# end of solution`, or the value in a line
    `name = value  # solution`. Raises PublishError where there is none.
    """
    source = REGION.sub(rf"\g<1>{STUB}", cell.source)
    source = LINE.sub(rf"\g<1>{STUB}", source)
    if STUB not in source or "solution" in source:
        raise PublishError(f"The exercise {cell.id!r} needs `# solution` and `# end of solution` around its solution.")
    return source
