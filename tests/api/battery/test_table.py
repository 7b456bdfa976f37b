"""The table of the battery names tests that exist, for every row."""

import re
from pathlib import Path

HERE = Path(__file__).parent
TESTS = HERE.parent.parent
TABLE = (HERE / "README.md").read_text()
_ROW = re.compile(r"^\| (\d+)(?:-(\d+))? \|.*\| (.*)\|$", re.MULTILINE)
_NAME = re.compile(r"`([\w/]+\.py)::(\w+|\*)`")


def test_all_rows_are_there_in_order() -> None:
    rows = [(int(row[1]), int(row[2] or row[1])) for row in _ROW.finditer(TABLE)]
    assert [number for first, last in rows for number in range(first, last + 1)] == [*range(1, 77)]


def test_every_test_exists() -> None:
    for row in _ROW.finditer(TABLE):
        names = _NAME.findall(row[3])
        assert names, row[0]
        for file, function in names:
            text = (TESTS / file).read_text()
            assert function == "*" or re.search(rf"def {function}\(", text), f"{file}::{function}"
