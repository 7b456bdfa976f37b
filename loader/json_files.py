"""JSON files of a checkpoint."""

import json
from pathlib import Path
from typing import Any

from leadline.loader.errors import LoaderError
from leadline.loader.file_faults import fault_of


def read_json_object(path: Path, error_type: type[LoaderError]) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        LoaderError: of the given type; the file cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        fault = fault_of(path) or f"cannot be read: {error}"
        raise error_type(f"{path} {fault}") from error
    if not isinstance(value, dict):
        raise error_type(f"{path} holds {type(value).__name__}; it must be an object")
    return value
