"""The table of faults in tests/README.md names tests that exist."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent


def all_tests():
    """All tests, read without running them: (file::name, whether it is in a section on hostile input or faults)."""
    for path in HERE.glob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        before = text.split("\n# Hostile input: ")[0]
        first = 0 if path.name == "test_faults.py" else before.count("\n") + 1
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield f"{path.name}::{node.name}", node.lineno > first


def test_each_row_of_the_table_names_a_test_and_each_hostile_test_has_a_row():
    table = (HERE / "README.md").read_text(encoding="utf-8")
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.endswith(("| test |", "--- |"))]
    assert rows
    named = [re.findall(r"`(test_\w+\.py::\w+)`", row.split(" | ")[-1]) for row in rows]
    assert all(named), "a row without a test"
    there = dict(all_tests())
    assert {name for names in named for name in names} <= set(there)
    hostile = {name for name, is_hostile in there.items() if is_hostile}
    assert len(hostile) > 40
    guards = {"test_publish.py::test_the_renderer_recognises_active_content"}
    assert hostile - {name for names in named for name in names} == guards
