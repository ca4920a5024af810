"""The assignments for nbgrader, given to nbgrader itself."""

import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

NBGRADER = os.environ.get("NBGRADER")  # a virtual environment with nbgrader and the packages of the course
pytestmark = [
    pytest.mark.nbgrader,
    pytest.mark.skipif(not NBGRADER, reason="`make test-nbgrader` sets up the environment with nbgrader"),
]
SESSION = "s03_first_convnet"


def nbgrader(folder, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "JUPYTER_PLATFORM_DIRS": "1"}
    environment["PATH"] = f"{Path(NBGRADER) / 'bin'}{os.pathsep}{environment['PATH']}"
    command = [Path(NBGRADER) / "bin" / "nbgrader", *arguments]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-3000:]


def test_a_solved_copy_gets_all_points_and_an_unsolved_one_none(own_course):
    """The folder lies in the checkout, where the notebooks find the course."""
    folder = own_course.root / "classroom"
    assert own_course("exercises", "--nbgrader", folder).returncode == 0
    nbgrader(folder, "generate_assignment", SESSION, "--create")
    source, released = (folder / kind / SESSION / "exercises.ipynb" for kind in ("source", "release"))
    assert "# end of solution" in source.read_text(encoding="utf-8")
    assert "# end of solution" not in released.read_text(encoding="utf-8")
    for student, notebook in {"solved": source, "unsolved": released}.items():
        submitted = folder / "submitted" / student / SESSION
        submitted.mkdir(parents=True)
        shutil.copy(notebook, submitted / "exercises.ipynb")
    nbgrader(folder, "autograde", SESSION, "--create")
    with sqlite3.connect(folder / "gradebook.db") as gradebook:
        points = gradebook.execute(
            "SELECT submitted_assignment.student_id, COUNT(*), SUM(grade.auto_score) FROM grade "
            "JOIN submitted_notebook ON grade.notebook_id = submitted_notebook.id "
            "JOIN submitted_assignment ON submitted_notebook.assignment_id = submitted_assignment.id "
            "GROUP BY submitted_assignment.student_id"
        ).fetchall()
    assert sorted(points) == [("solved", 5, 5.0), ("unsolved", 5, 0.0)]
