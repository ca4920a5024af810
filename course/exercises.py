"""Exercises from their solutions: each session's solutions.ipynb becomes the exercises.ipynb that learners open."""

import re

import nbformat

from course.notebooks import SESSIONS, PublishError, read_notebook, tags
from course.publish import write_changed, write_files

STUB = "...  # your code"
BEGIN, END = "# solution", "# end of solution"
REGION = re.compile(rf"^( *){BEGIN}\n.*?^ *{END}$", re.MULTILINE | re.DOTALL)
LINE = re.compile(rf"^( *\w+ = ).*  {BEGIN}$", re.MULTILINE)
# What nbgrader must know about the marks in our notebooks.
NBGRADER_CONFIG = f"""\
c = get_config()
c.CourseDirectory.course_id = "convnet-course"
c.ClearSolutions.begin_solution_delimeter = "{BEGIN}"
c.ClearSolutions.end_solution_delimeter = "{END}"
c.ClearSolutions.code_stub = {{"python": "{STUB}"}}
"""


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
    write_changed(exercises())


def without_solutions(notebook):
    """The notebook for learners: stubs for solutions, no hints, no wrong answers."""
    notebook.cells = [cell for cell in notebook.cells if not tags(cell) & {"hint", "wrong"}]
    for cell in notebook.cells:
        if "exercise" in tags(cell):
            cell.source = stub(cell)
    return notebook


def stub(cell):
    """The code of an exercise with a stub for each solution.

    A solution is the lines between `# solution` and `# end of solution`, or the value in a line
    `name = value  # solution`. Raises PublishError if there is none.
    """
    source = REGION.sub(rf"\g<1>{STUB}", cell.source)
    source = LINE.sub(rf"\g<1>{STUB}", source)
    if STUB not in source or "solution" in source:
        raise PublishError(f"The exercise {cell.id!r} needs `# solution` and `# end of solution` around its solution.")
    return source


def write_assignments(folder):
    """Write an nbgrader course to `folder`: its configuration, and an assignment for each session."""
    for path in solutions():
        source = folder / "source" / path.parent.name
        source.mkdir(parents=True, exist_ok=True)
        write_files(source, {"exercises.ipynb": nbformat.writes(assignment(read_notebook(path))) + "\n"})
    if not (folder / "nbgrader_config.py").exists():  # else it may have been edited
        write_files(folder, {"nbgrader_config.py": NBGRADER_CONFIG})


def assignment(notebook):
    """The notebook with its solutions as nbgrader wants it: answers to write, and checks worth a point each.

    nbgrader would delete a line `name = value  # solution`, so it becomes a line with a stub and a region.
    """
    notebook.cells = [cell for cell in notebook.cells if not tags(cell) & {"hint", "wrong"}]
    for cell in notebook.cells:
        if not tags(cell) & {"exercise", "check"}:
            continue
        check = "check" in tags(cell)
        cell.source = LINE.sub(lambda line: _line_as_region(*line.group(0, 1)), cell.source)
        about = {"schema_version": 3, "grade_id": cell.id, "task": False}
        about |= {"grade": check, "locked": check, "solution": not check}
        cell.metadata.nbgrader = {**about, "points": 1} if check else about
    return notebook


def _line_as_region(line, beginning):
    return f"{beginning}{STUB}\n{BEGIN}\n{line.removesuffix(f'  {BEGIN}')}\n{END}"
