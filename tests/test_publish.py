"""Publishing: what a page says, what is refused, and that nothing is left by half."""

import dataclasses
import json
import statistics

import nbformat
import pytest
from conftest import Course

from common.record import MIME, record_line
from course import notebooks
from course.notebooks import find_cell
from course.sessions import find_session


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A course with a toy session, its two seeds executed: the accuracy is 0.5 + seed / 10."""
    course = Course(tmp_path_factory.mktemp("published"))
    course.keep_sessions("s06_under_10k")
    course.add_session("s99_test", "accuracy = 0.5 + seed / 10\nprint('\\n'.join(map(str, range(30))))")
    assert course("badges").returncode == 0
    for seed in (0, 1):
        process = course("run", "s99", "--seed", seed)
        assert process.returncode == 0, process.stderr_text
    return course


@pytest.fixture
def mine(executed, tmp_path):
    """A copy of that course, to be spoilt."""
    return Course(tmp_path / "course", executed)


def runs_of(course):
    return sorted((course.root / "runs" / "full" / "s99_test").glob("*.ipynb"))


def page(course):
    return course.root / "sessions" / "s99_test"


def change(path, edit):
    """Edit a notebook with a function."""
    notebook = nbformat.read(path, 4)
    edit(notebook)
    nbformat.write(notebook, path)


def change_record(path, edit):
    """Edit a record as a forger would who knows of the checksum."""

    def edit_record(notebook):
        data = notebook.cells[-1].outputs[0].data
        edit(data[MIME])
        data["text/plain"] = record_line(data[MIME]) if {"metrics", "session"} <= set(data[MIME]) else ""

    change(path, edit_record)


def set_target(notebook, target):
    cell = find_cell(notebook, "parameters")
    cell.source = cell.source.replace("target = 0.5 ", f"target = {target} ")


def test_an_altered_record_is_refused(mine):
    """One digit of a number; a number that a forger gave its checksum is found by what else the notebook says."""

    def alter(notebook):
        notebook.cells[-1].outputs[0].data[MIME]["metrics"]["test_accuracy"] += 0.001

    original = runs_of(mine)[0].read_text()
    change(runs_of(mine)[0], alter)
    process = mine("publish", *runs_of(mine))
    assert process.returncode == 1
    assert "A-seed-0.ipynb: the record was changed after the run: its checksum is another one." in process.stderr_text
    runs_of(mine)[0].write_text(original)
    for path in runs_of(mine):
        change_record(path, lambda record: record["params"].update(target=0.4))
    process = mine("publish", *runs_of(mine))
    assert process.returncode == 1
    assert "A-seed-0.ipynb: the record has other parameters than the notebook." in process.stderr_text
    assert not (page(mine) / "README.md").exists()


def test_a_record_saved_by_colab_is_the_same(mine):
    """JavaScript writes 1.0 as 1."""
    change_record(runs_of(mine)[0], lambda record: record["seconds"].update(data=2.0))
    for path in runs_of(mine):
        path.write_text(path.read_text().replace("2.0", "2"))
    assert '"data": 2,' in runs_of(mine)[0].read_text()
    assert mine("publish", *runs_of(mine)).returncode == 0


def test_a_page_shows_mean_and_spread_over_the_seeds(mine):
    process = mine("publish", *runs_of(mine))
    assert process.returncode == 0, process.stderr_text
    readme = (page(mine) / "README.md").read_text()
    mean, sd = statistics.mean([0.5, 0.6]), statistics.stdev([0.5, 0.6])
    assert f"| A | {100 * mean:.2f} % ± {100 * sd:.2f} (n = 2) | 50.00 % to 60.00 % | 50.00 % | 2 of 2 | 6 |" in readme
    assert "the target is reached" in readme
    assert "<details><summary>30 lines of output</summary>" in readme
    records = json.loads((page(mine) / "results.json").read_text())
    assert [record["seed"] for record in records] == [0, 1]
    assert records[0]["source_sha256"] == notebooks.source_digest(notebooks.read_notebook(page(mine) / "session.ipynb"))
    weights = (page(mine) / "weights.safetensors").read_bytes()
    assert weights == runs_of(mine)[0].with_suffix(".safetensors").read_bytes()
    assert "papermill" not in (page(mine) / "executed.ipynb").read_text()
    assert "55.00 ± 7.07 % (n = 2)" in (mine.root / "README.md").read_text()
    assert "s99_test                 A                 6" in mine("list").stdout_text


def test_named_parts_are_groups_and_their_differences_are_weighed(mine):
    def split(record):
        better = {"part": "better", "test_accuracy": 0.9 + record["seed"] / 100, "sum_accuracy": 0.8, "parameters": 7}
        worse = {"part": "worse", "test_accuracy": 0.5 + record["seed"] / 100, "sum_accuracy": 0.8, "parameters": 5}
        record["metrics"] = {**better, "parts": [worse, better]}

    for path in runs_of(mine):
        change_record(path, split)
    description = page(mine) / "session.yaml"
    description.write_text(description.read_text().replace("headline: A", "headline: better"))
    assert mine("publish", *runs_of(mine)).returncode == 0
    readme = (page(mine) / "README.md").read_text()
    assert "| worse | 50.50 % ± 0.71 (n = 2) | 50.00 % to 51.00 % | 50.00 % | 2 of 2 | 80.00 % ± 0.00 | 5 |" in readme
    assert "| worse → better | +40.00 points" in readme
    row = next(line for line in readme.splitlines() if line.startswith("| worse → better"))
    assert [cell.split(": ")[1].strip() for cell in row.split("|")[2:4]] == [
        "more than the noise between runs",
        "inside the noise between runs",
    ]


def test_a_missed_target_is_told_with_its_distance(mine):
    for path in runs_of(mine):
        change_record(path, lambda record: record["params"].update(target=0.58))
        change(path, lambda notebook: set_target(notebook, 0.58))
    assert mine("publish", *runs_of(mine)).returncode == 0
    readme = (page(mine) / "README.md").read_text()
    assert "3 points below the target" in readme
    assert "1 of 2" in readme
    assert "target = 0.58 instead of 0.5" in readme


def test_prose_changes_without_a_new_run(mine):
    mine("publish", *runs_of(mine))
    before = (page(mine) / "README.md").read_text()
    source = page(mine) / "session.ipynb"
    change(source, lambda notebook: notebook.cells[5].update(source="## What was learned\n\nPatience."))
    assert mine("publish", "--rerender").returncode == 0
    after = (page(mine) / "README.md").read_text()
    assert after == before.replace("Nothing.", "Patience.")


def run_other_code(course):
    change(page(course) / "session.ipynb", lambda notebook: notebook.cells[4].update(source="accuracy = 0.9"))


def remove_record(course):
    change(runs_of(course)[1], lambda notebook: notebook.cells[-1].update(outputs=[]))


REFUSED = [
    (run_other_code, "was executed from other code than session.ipynb"),
    (remove_record, "has no record: it was not executed to its end"),
    (
        lambda course: change_record(runs_of(course)[1], lambda record: record.update(seed=0)),
        "was given 2 times",
    ),
    (
        lambda course: change_record(runs_of(course)[0], lambda record: record.update(schema=0)),
        "of another form",
    ),
    (
        lambda course: change_record(runs_of(course)[0], lambda record: record.pop("history")),
        "of another form",
    ),
    (
        lambda course: change_record(runs_of(course)[0], lambda record: record.update(profile="quick")),
        "quick profile",
    ),
    (
        lambda course: change_record(runs_of(course)[1], lambda record: record["dataset"].update(sha256="0")),
        "used other data than",
    ),
    (
        lambda course: change_record(runs_of(course)[1], lambda record: record["params"].update(target=0.1)),
        "has other parameters than",
    ),
    (
        lambda course: change_record(runs_of(course)[1], lambda record: record["params"].update(rate=1)),
        "has parameters that session.ipynb does not have",
    ),
    (
        lambda course: change_record(runs_of(course)[1], lambda record: record.update(session="s06_under_10k")),
        "publish one session at a time",
    ),
    (
        lambda course: change(
            runs_of(course)[1], lambda notebook: find_cell(notebook, "parameters").update(source="x = 1  # @param {")
        ),
        "A-seed-1.ipynb: This line must have",
    ),
    (lambda course: runs_of(course)[0].write_text("{}"), "is not a readable notebook"),
    (lambda course: runs_of(course)[0].write_text("no json"), "is not a readable notebook"),
    (
        lambda course: runs_of(course)[0].with_suffix(".safetensors").unlink(),
        "safetensors is not there or not the file",
    ),
    (
        lambda course: runs_of(course)[0].with_suffix(".safetensors").write_bytes(b"x"),
        "not the file that A-seed-0",
    ),
]


@pytest.mark.parametrize(("spoil", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_what_does_not_fit_is_refused_and_nothing_is_written(mine, spoil, reason):
    spoil(mine)
    before = sorted(path.name for path in page(mine).iterdir())
    process = mine("publish", *runs_of(mine))
    assert process.returncode == 1
    assert reason in process.stderr_text
    assert "Traceback" not in process.stderr_text
    assert sorted(path.name for path in page(mine).iterdir()) == before


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        (".", "has a README.md or images that are no published page"),
        ("sessions", "choose a folder outside of sessions/"),
        ("sessions/s06_under_10k", "choose a folder outside of sessions/"),
    ],
)
def test_a_page_takes_the_place_of_nothing_else(mine, folder, reason):
    before = {path: path.read_bytes() for path in mine.root.rglob("*") if path.is_file()}
    process = mine("publish", *runs_of(mine), "--to", folder)
    assert process.returncode == 1
    assert reason in process.stderr_text
    after = {path: path.read_bytes() for path in mine.root.rglob("*") if path.is_file() and path.name != ".lock"}
    assert {**before, **after} == before


def test_runs_are_compared_before_they_are_published(executed):
    process = executed("compare", "runs/full/s99_test:A", "s06:B")
    assert process.returncode == 0, process.stderr_text
    assert "runs/full/s99_test:A: mean 55.00 %, 2 runs" in process.stdout_text
    process = executed("compare", "runs/full/s99_test", "s06:B")
    assert process.returncode == 2
    assert "'runs/full/s99_test': runs/full/s99_test has results of A." in process.stderr_text


def test_comments_and_layout_are_not_other_code(mine):
    code = "# a comment\naccuracy = (0.5 +\n    seed / 10)\n\nprint('\\n'.join(map(str, range(30))))  # another"
    change(page(mine) / "session.ipynb", lambda notebook: notebook.cells[4].update(source=code))
    assert mine("publish", *runs_of(mine)).returncode == 0


def test_text_in_a_record_does_not_come_alive(mine):
    name = "<script>alert(1)</script> [x](http://bad) | `code` **bold**"
    for path in runs_of(mine):
        change_record(path, lambda record: record["dataset"].update(name=name))
    assert mine("publish", *runs_of(mine)).returncode == 0
    readme = (page(mine) / "README.md").read_text()
    assert "<script" not in readme
    assert "[x](http" not in readme
    assert "**bold**" not in readme
    assert r"\[x\]\(http&#58;//bad\) \| \`code\`" in readme


def test_large_weights_are_not_committed_and_the_page_says_where_they_are(mine):
    mine("publish", *runs_of(mine))
    assert (page(mine) / "weights.safetensors").exists()
    for path in runs_of(mine):
        change_record(path, lambda record: record["weights"].update(bytes=44_700_000))
    assert mine("publish", *runs_of(mine)).returncode == 0
    assert not (page(mine) / "weights.safetensors").exists()
    readme = (page(mine) / "README.md").read_text()
    assert "too large to be committed (45 MB)" in readme
    assert "`runs/full/s99_test/A-seed-0.safetensors`" in readme
    before = readme
    assert mine("publish", "--rerender").returncode == 0
    assert (page(mine) / "README.md").read_text() == before


def test_another_width_than_that_of_the_full_profile_stands_in_the_title(mine):
    def set_width(notebook, width):
        cell = find_cell(notebook, "parameters")
        cell.source = cell.source.split("\nwidth")[0] + f'\nwidth = {width}  # @param {{"type": "integer"}}'

    change(page(mine) / "session.ipynb", lambda notebook: set_width(notebook, 64))
    for width, heading in ((64, "# A test\n"), (16, "# A test (width 16)\n")):
        for path in runs_of(mine):
            change(path, lambda notebook, width=width: set_width(notebook, width))
            change_record(path, lambda record, width=width: record["params"].update(width=width))
        assert mine("publish", *runs_of(mine)).returncode == 0
        assert (page(mine) / "README.md").read_text().startswith(heading)
    assert "[A test (width 16)](sessions/s99_test/README.md)" in (mine.root / "README.md").read_text()


def test_seeds_are_counted_or_listed():
    session = dataclasses.replace(find_session("s06"), headline="B", seeds={"all": [0], "one": [1, 2], "B": 2})
    assert session.runs() == [("B", 0), ("B", 1), ("all", 0), ("one", 1), ("one", 2)]


def test_a_page_is_replaced_as_a_whole(mine):
    (page(mine) / "images").mkdir()
    (page(mine) / "images" / "old.png").write_bytes(b"old")
    assert mine("publish", *runs_of(mine)).returncode == 0
    assert not (page(mine) / "images" / "old.png").exists()
    assert not list(page(mine).rglob("*.unfinished"))
