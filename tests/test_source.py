"""Rules about the source that no linter has."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("server", "engine", "loader", "kernels")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
NATIVE = sorted((ROOT / "kernels/native/src").iterdir())
MAX_LINES = 310


@pytest.mark.parametrize("path", [*FILES, *NATIVE], ids=lambda path: str(path.relative_to(ROOT)))
def test_file(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.isascii()
    assert text.count("\n") <= MAX_LINES


def test_architecture_names_every_file() -> None:
    """One sentence a file, under the heading of its folder."""
    sections = (ROOT / "ARCHITECTURE.md").read_text().split("\n### ")[1:]
    listed = {
        (section.split("/\n")[0], line.split("`")[1])
        for section in sections
        for line in section.splitlines()
        if line.startswith("| `")
    }
    expected = {
        (str(path.parent.relative_to(ROOT)), path.name)
        for path in FILES
        if path.name != "__init__.py"
    }
    assert listed == expected


def test_architecture_names_every_native_source() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    assert {path.suffix for path in NATIVE} == {".cpp", ".h"}
    assert [path.name for path in NATIVE if f"`{path.name}`" not in text] == []


def test_no_folder_hides_a_distribution() -> None:
    """A top-level importable `kernels` would break transformers."""
    spec = importlib.util.find_spec("kernels")
    assert spec is None or not str(spec.origin).startswith(str(ROOT))
