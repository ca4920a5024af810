"""One value is altered and its checksum renewed: this is found, or the page stays the same."""

import copy
import json
import re

import pytest
import torch
from conftest import ROOT
from hostile import few, places, replaced
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from common import data
from common.record import MIME, VERSION, record_line
from course import evidence, notebooks
from course.notebooks import PublishError
from course.page import render
from course.record_form import find_fault
from course.sessions import all_sessions, read_session

# What only a new training, or nothing at all, could confirm: see "What is not found" in README.md here.
NOT_FOUND = {
    *("seconds", "device", "threads", "versions", "common_sha256", "started", "finished"),
    *("receptive_field", "target"),
    "weights",  # compared with their file by `publish` and `check`
}


class Published:
    """The records of a session's page and its executed notebook, as today's course would write them."""

    def __init__(self, session):
        folder = ROOT / "sessions" / session
        self.session = read_session(folder)
        self.notebook = notebooks.read_notebook(folder / "executed.ipynb")
        self.records = notebooks.results(folder)
        for record in self.records:
            record |= {"schema": VERSION, "executed": 0, "outputs_sha256": "0"}
        self.record.update(
            executed=self.cell.execution_count, outputs_sha256=evidence.outputs_of(self.notebook).sha256()
        )
        self.write(self.record)
        self.page = self.render()

    @property
    def record(self):
        return self.records[0]

    @property
    def cell(self):
        return notebooks.find_cell(self.notebook, "record")

    @property
    def output(self):
        return next(output for output in self.cell.outputs if MIME in output.data)

    def write(self, record):
        """Put a record into the notebook, as a forger who knows about the checksum would."""
        self.records[0] = record
        written = {name: value for name, value in record.items() if name != "source_sha256"}
        self.output.data = type(self.output.data)({MIME: written, "text/plain": record_line(written)})

    def render(self):
        return render(self.session, self.notebook, self.records)["README.md"]

    def fault(self):
        """What `publish` and `check` find, or None."""
        for record in self.records:
            if why := find_fault(record):
                return why
        try:
            evidence.check_notebook(self.notebook, self.record, "executed.ipynb")
        except PublishError as error:
            return str(error)
        return next(evidence.contradictions(self.records), None)


@pytest.fixture(
    scope="module",
    params=["s02_digit_sum", "s04_three_iterations", "s05_grad_cam", "s06_under_10k", "s07_under_20k"],
)
def published(request):
    found = Published(request.param)
    assert found.fault() is None
    return found


def altered(value, data):
    """Another value in place of a number or a text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return data.draw(st.sampled_from(["", "x", 0, None, [], True]))
    return value + data.draw(st.sampled_from([-1, -0.001, 0.0001, 1, 7]))


@few(60)
@given(st.data())
def test_an_altered_value_of_a_record_is_found_or_changes_no_page(published, data):
    before = copy.deepcopy(published.record)
    place = data.draw(st.sampled_from([place for place in places(before) if place and place[0] != "source_sha256"]))
    value = before
    for key in place:
        value = value[key]
    try:
        published.write(replaced(before, place, altered(value, data)))
        if published.fault() is None and not NOT_FOUND & set(place) and not _is_of_another_network(place, before):
            assert published.render() == published.page, place
    except (TypeError, KeyError):
        assert find_fault(published.record), place  # it has no record's form: not even its checksum can be renewed
    finally:
        published.write(before)


def _is_of_another_network(place, record):
    """Whether this measures a part whose weights are not kept."""
    return place[:2] == ("metrics", "parts") and record["metrics"]["parts"][place[2]] != evidence.judged(record)


@few(60)
@given(st.data())
def test_an_altered_digit_of_the_outputs_is_found(published, data):
    """In a log, a table, or the text for a figure."""
    texts = []
    for cell in published.notebook.cells:
        if not notebooks.tags(cell) & {"bootstrap", "parameters", "injected-parameters", "record"}:
            for output in cell.get("outputs", []):
                texts += [(output, "text")] if output.get("name") == "stdout" else []
                texts += [
                    (output.data, kind) for kind in ("text/markdown", "text/plain") if kind in output.get("data", {})
                ]
                texts += [(output.metadata, "alt")] if "alt" in output.get("metadata", {}) else []
    holder, key = data.draw(st.sampled_from([(holder, key) for holder, key in texts if re.search(r"\d", holder[key])]))
    before = holder[key]
    digits = [match.start() for match in re.finditer(r"\d", before)]
    at = data.draw(st.sampled_from(digits))
    holder[key] = before[:at] + str((int(before[at]) + 1) % 10) + before[at + 1 :]
    try:
        assert published.fault() == "executed.ipynb: what the cells printed and showed was changed after the run."
    finally:
        holder[key] = before
    assert published.fault() is None


def test_loaded_data_sets_match_the_known_ones(digits):
    sizes = len(digits.train.labels), len(digits.test.labels)
    assert evidence.DATASETS["digits"] == ("digits", sizes, digits.sha256)
    assert {parameter for parameter, *_ in evidence.DATASETS.values()} == set(data.NAMES)
    for session in ("s06_under_10k", "s07_under_20k"):
        found = json.loads((ROOT / "sessions" / session / "results.json").read_text())[0]["dataset"]
        assert evidence.DATASETS["MNIST"] == ("mnist", (found["train"], found["test"]), found["sha256"])


def test_published_records_are_consistent():
    for session in all_sessions():
        assert list(evidence.contradictions(notebooks.results(session.folder))) == []


def test_a_file_of_weights_must_have_as_many_parameters_as_the_record_says(tmp_path):
    """The run's network, and its parts' with their names in front. Batch-norm statistics do not count."""
    path = tmp_path / "weights.safetensors"
    parts = [("step 1", 3), ("2", 6), ("sum, rounded", 5), ("sum, cut off", 5)]
    record = {"metrics": {"parameters": 6, "parts": [{"part": name, "parameters": count} for name, count in parts]}}
    own = {"0.weight": torch.zeros(2, 2), "0.bias": torch.zeros(2), "1.running_mean": torch.zeros(2)}
    save_file({**own, "step 1/0.weight": torch.zeros(3), "sum/0.weight": torch.zeros(5)}, path)
    evidence.check_weights(path, record)
    for tensors, message in (
        ({**own, "2.weight": torch.zeros(1)}, "its network has 7 parameters, but the record says 6"),
        ({**own, "step 1/0.weight": torch.zeros(4)}, "the network 'step 1' has 4 parameters, but the record says 3"),
        ({**own, "sum/0.weight": torch.zeros(6)}, "the network 'sum' has 6 parameters, but the record says 5"),
    ):
        save_file(tensors, path)
        with pytest.raises(PublishError, match=message):
            evidence.check_weights(path, record)
