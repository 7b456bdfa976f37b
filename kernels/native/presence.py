"""Where the built library is, for those that do not load it."""

from pathlib import Path

FOLDER = Path(__file__).parent


def library_file(folder: Path = FOLDER) -> Path | None:
    """The library's file; whether it can be loaded is another question."""
    return next(iter([*folder.glob("_native*.so"), *folder.glob("_native*.pyd")]), None)
