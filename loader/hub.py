"""From what the user calls a model to the directory that holds it."""

import contextlib
import json
import re
from pathlib import Path

from leadline.loader.errors import ModelNotFoundError

BUILTIN_MODEL = "leadline-demo"
_HUB_NAME = re.compile(r"[^/]+/[^/]+")
_BUILTIN_DIRECTORY = Path(__file__).parent / "builtin"
_NEEDED = ["*.safetensors", "*.json", "*.jinja", "tiktoken.model"]
_NOT_NEEDED = ["*/*"]  # other formats and example code live in subfolders


def resolve_model(name: str, *, cache_directory: Path | None = None) -> Path:
    """The directory of a model; a model of the Hugging Face hub is downloaded if need be.

    Args:
        name: a directory, `leadline-demo`, or `org/name`. A directory named like a hub model wins.
        cache_directory: of the hub; None for its own choice.

    Raises:
        ModelNotFoundError: there is no such directory and no such model that can be had.
    """
    return find_model(name, cache_directory=cache_directory) or _download(name, cache_directory)


def find_model(name: str, *, cache_directory: Path | None = None) -> Path | None:
    """The same without a download; None if the model is not on this machine.

    Raises:
        ModelNotFoundError: no model can have the name.
    """
    if name == BUILTIN_MODEL:
        return _builtin()
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path
    if path.is_file():
        raise ModelNotFoundError(f"{name} is a file; give the directory that holds config.json")
    if _HUB_NAME.fullmatch(name):
        from huggingface_hub.errors import HFValidationError

        with contextlib.suppress(HFValidationError):
            return _cached(name, cache_directory)
    raise ModelNotFoundError(
        f"there is no directory {name!r}; give the directory of a checkpoint, a Hugging Face name "
        f"(org/name), or {BUILTIN_MODEL}"
    )


def hub_cache() -> Path:
    """Where models of the hub are kept."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _builtin() -> Path:
    directory = _BUILTIN_DIRECTORY / BUILTIN_MODEL
    if not (directory / "config.json").exists():
        raise ModelNotFoundError(
            f"the built-in model is missing from {directory}; install leadline again"
        )
    return directory


def _cached(name: str, cache_directory: Path | None) -> Path | None:
    """The model's directory in the hub's cache, if all of it is there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        path = snapshot_download(
            name,
            cache_dir=cache_directory,
            allow_patterns=_NEEDED,
            ignore_patterns=_NOT_NEEDED,
            local_files_only=True,
        )
    except LocalEntryNotFoundError:
        return None
    return Path(path) if _is_complete(Path(path)) else None


def _is_complete(directory: Path) -> bool:
    """Whether the config and every shard are there; a download may have been broken off."""
    if not (directory / "config.json").exists():
        return False
    index = directory / "model.safetensors.index.json"
    if not index.exists():
        return (directory / "model.safetensors").exists()
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError):
        return True  # whole but malformed: the loader has the words for it
    return all((directory / shard).exists() for shard in shards)


def _download(name: str, cache_directory: Path | None) -> Path:
    """Fetch a model, with the hub's own progress bars."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        raise ModelNotFoundError(
            f"{name} is neither a directory nor complete in the Hugging Face cache, and offline "
            "mode is on; unset HF_HUB_OFFLINE to download it, or give a directory"
        )
    # Of httpx or of httpx2, by the hub's version; raised where a connection breaks off.
    transport_error: type[Exception] = HfHubHTTPError.__bases__[0]
    try:
        return Path(
            snapshot_download(
                name,
                cache_dir=cache_directory,
                allow_patterns=_NEEDED,
                ignore_patterns=_NOT_NEEDED,
            )
        )
    except RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"neither a directory {name} nor a Hugging Face model of that name exists, or it is "
            "private: check the spelling, or log in with `hf auth login`"
        ) from error
    except (transport_error, OSError) as error:
        raise ModelNotFoundError(
            f"{name} is neither a directory nor complete in the Hugging Face cache, and cannot be "
            f"downloaded; check the network, or give a directory. {error}"
        ) from error
