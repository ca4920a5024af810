"""The exercises of all sessions: solutions pass, stubs and wrong answers get the sentence that is meant for them."""

import ast
import contextlib
import io
import sys

import pytest
import torch
from conftest import ROOT
from IPython.core.interactiveshell import InteractiveShell

from common.checking import NotYet
from course import exercises, notebooks

SOLUTIONS = exercises.solutions()
each_session = pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.parent.name)
each_session_once = pytest.mark.parametrize("session", SOLUTIONS, ids=lambda path: path.parent.name, indirect=True)
# What a learner may have assigned by mistake.
ANYTHING = [None, ..., True, 10**9, float("nan"), "seven", b"", [], {}, (None, None), ["a", "b", "c", "d"], object()]
ANYTHING += [torch.zeros(0), torch.zeros(2, 3), torch.tensor(float("nan")), lambda *anything: "seven", print, int]


class Exercise:
    """An exercise of a solutions.ipynb: its cells, its check, its wrong answers, and the names known before it."""

    def __init__(self, known):
        self.cells, self.known = [], known
        self.check = None
        self.wrong = []
        self.answered = None  # the names known after its solution

    @property
    def id(self):
        return self.cells[0].id

    @property
    def solution(self):
        return "\n".join(cell.source for cell in self.cells)

    @property
    def stub(self):
        return "\n".join(exercises.stub(cell) for cell in self.cells)

    def answer(self, code):
        """What the check says, in the words of NotYet, or None if it passes."""
        names = dict(self.known)
        run(code, names)
        return self.judge(names)

    def judge(self, names):
        try:
            run(self.check.source, names)
        except NotYet as error:
            return str(error)
        return None


def run(code, names):
    """Execute a cell; returns what it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "<cell>", "exec"), names)
    return printed.getvalue()


@pytest.fixture(scope="module")
def session(request):
    """The exercises of a session; each knows the names from the solutions before it."""
    sys.path.insert(0, str(ROOT))
    names, found = {"__name__": "__main__"}, []
    for cell in notebooks.read_notebook(request.param).cells:
        kind = notebooks.tags(cell)
        if cell.cell_type == "markdown" or "bootstrap" in kind:
            continue
        if "exercise" in kind:
            if not found or found[-1].check:
                found.append(Exercise(dict(names)))
            found[-1].cells.append(cell)
        if "wrong" in kind:
            found[-1].wrong.append(cell)
            continue
        said = run(cell.source, names)
        if "check" in kind:
            found[-1].check, found[-1].answered = cell, dict(names)
            assert said.count("\n") == 1, f"a check says one line when all is right, not {said!r}"
    yield found
    sys.path.remove(str(ROOT))


@each_session_once
def test_every_solution_passes_its_check(session):
    assert 3 <= len(session) <= 5
    assert all(exercise.check for exercise in session)


@each_session_once
def test_every_stub_is_told_that_there_is_nothing_yet(session):
    for exercise in session:
        sentence = exercise.answer(exercise.stub)
        assert "nothing yet" in (sentence or ""), (exercise.id, sentence)


@each_session_once
def test_every_wrong_answer_gets_its_sentence(session):
    assert all(exercise.wrong for exercise in session)
    for exercise in session:
        for cell in exercise.wrong:
            first = cell.source.splitlines()[0]
            assert first.startswith("# wrong, answered with: "), cell.id
            sentence = exercise.answer(cell.source)
            assert first.removeprefix("# wrong, answered with: ") in (sentence or ""), (cell.id, sentence)


@each_session_once
def test_a_check_copes_with_any_answer(session):
    for exercise in session:
        (call,) = ast.parse(exercise.check.source).body
        for name in {node.id for node in ast.walk(call) if isinstance(node, ast.Name)} - {"checks"}:
            for value in ANYTHING:
                sentence = exercise.judge({**exercise.answered, name: value})
                assert sentence, (exercise.id, name, value)


@each_session_once
def test_no_sentence_shows_the_solution(session):
    for exercise in session:
        sentences = [exercise.answer(code) for code in [exercise.stub, *(cell.source for cell in exercise.wrong)]]
        for line in set(exercise.solution.splitlines()) - set(exercise.stub.splitlines()):
            value = line.removesuffix("  # solution").partition(" = ")[2] or line.strip()
            shown = [sentence for sentence in sentences if len(value) > 2 and value in sentence]
            assert not shown, (exercise.id, value)


@each_session
def test_the_exercises_are_up_to_date_with_their_solutions(path):
    made = path.with_name("exercises.ipynb")
    assert made.read_text(encoding="utf-8") == exercises.exercises()[made], "run `course exercises`"


@each_session
def test_a_learner_gets_stubs_and_checks_and_nothing_more(path):
    solved = notebooks.read_notebook(path)
    made = notebooks.read_notebook(path.with_name("exercises.ipynb"))
    kinds = [notebooks.tags(cell) for cell in made.cells]
    assert not any(kind & {"hint", "wrong"} for kind in kinds)
    assert sum(kind == {"exercise"} for kind in kinds) == sum("exercise" in notebooks.tags(c) for c in solved.cells)
    assert not any("# solution" in cell.source or cell.get("outputs") for cell in made.cells)
    for cell in solved.cells:
        assert cell.cell_type == "markdown" or (cell.outputs == [] and cell.execution_count is None)


def test_a_notebook_shows_one_line_and_no_stack_trace():
    shell = InteractiveShell.instance()
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        shell.run_cell("from common.checking import number\nnumber('width', 'seven')")
    assert shown.getvalue() == "Not yet: `width` must be a number; it is 'seven'.\n"
