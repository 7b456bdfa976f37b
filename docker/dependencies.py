"""Print what a project depends on, for an image layer of its own: FILE [EXTRA]..."""

import sys
import tomllib
from pathlib import Path


def dependencies(pyproject: Path, extras: list[str]) -> list[str]:
    """The requirements in a pyproject.toml, with those of its extras."""
    project = tomllib.loads(pyproject.read_text())["project"]
    names: list[str] = list(project["dependencies"])
    for extra in extras:
        names += project["optional-dependencies"][extra]
    return names


if __name__ == "__main__":
    print("\n".join(dependencies(Path(sys.argv[1]), sys.argv[2:])))
