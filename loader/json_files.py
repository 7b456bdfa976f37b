"""JSON files of a checkpoint."""

import json
from pathlib import Path
from typing import Any

from leadline.loader.errors import LoaderError


def read_json_object(path: Path, error_type: type[LoaderError]) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        LoaderError: of the given type; the file cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise error_type(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise error_type(f"{path} holds {type(value).__name__}; it must be an object")
    return value
