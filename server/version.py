"""Leadline's version."""

from importlib import metadata


def version() -> str:
    """The installed distribution's version; a bare checkout has none."""
    try:
        return metadata.version("leadline")
    except metadata.PackageNotFoundError:
        return "0+checkout"
