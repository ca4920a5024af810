"""The table of faults in tests/README.md names tests that exist."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent


def all_tests():
    """All tests as file::name, read without running them."""
    for path in HERE.glob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield f"{path.name}::{node.name}"


def test_each_row_of_the_table_names_a_test_and_each_hostile_test_has_a_row():
    table = (HERE / "README.md").read_text(encoding="utf-8")
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.endswith(("| test |", "--- |"))]
    assert rows
    named = [re.findall(r"`(test_\w+\.py::\w+)`", row.split(" | ")[-1]) for row in rows]
    assert all(named), "a row without a test"
    there = set(all_tests())
    assert {name for names in named for name in names} <= there
    hostile = {name for name in there if name.startswith(("test_hostile.py", "test_faults.py"))}
    guards = {"test_hostile.py::test_the_renderer_sees_what_is_live"}
    assert hostile - {name for names in named for name in names} == guards
