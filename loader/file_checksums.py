"""SHA-256 sums of a checkpoint's weight files, against those that are known of them.

A safetensors file holds no sum of its own: a bit that flips on a disk changes answers, and nothing
else tells. Sums are known from a `SHA256SUMS` beside the files, as `sha256sum` writes it, or from
Hugging Face's cache, whose files bear their sum as their name.
"""

import hashlib
import re
from collections.abc import Callable, Collection
from pathlib import Path

from leadline.loader.errors import CheckpointError

SUMS_FILE = "SHA256SUMS"
_SUM = re.compile(r"[0-9a-f]{64}")
_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")
_CHUNK_BYTES = 1 << 24


def verify_files(
    directory: Path, files: Collection[Path], progress: Callable[[int, int], None]
) -> None:
    """Check the sum of each file.

    Args:
        directory: the checkpoint's.
        files: those that are to be read.
        progress: told how many bytes have been summed, and how many there are.

    Raises:
        CheckpointError: a sum is another than is known, or none is; names every such file.
    """
    known = _read_sums(directory)
    problems: list[str] = []
    total_bytes, done_bytes = sum(path.stat().st_size for path in files), 0
    for path in sorted(files):
        expected = known.get(path.name, _name_in_cache(path))
        if expected is None:
            problems.append(
                f"no checksum is known of {path.name}; where the files are good, write them with "
                f"`sha256sum *.safetensors > {SUMS_FILE}`, or leave out --verify-weights"
            )
            continue
        actual = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                actual.update(chunk)
                done_bytes += len(chunk)
                progress(done_bytes, total_bytes)
        if actual.hexdigest() != expected:
            problems.append(
                f"{path.name} has changed: its SHA-256 is {actual.hexdigest()[:16]}..., and should "
                f"be {expected[:16]}...; fetch it again"
            )
    if problems:
        raise CheckpointError(directory, problems)


def _read_sums(directory: Path) -> dict[str, str]:
    path = directory / SUMS_FILE
    if not path.exists():
        return {}
    sums = {}
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        if (found := _LINE.fullmatch(line)) is None:
            raise CheckpointError(
                directory, [f"line {number} of {SUMS_FILE} is none that sha256sum writes"]
            )
        sums[found[2]] = found[1].lower()
    return sums


def _name_in_cache(path: Path) -> str | None:
    """The sum as the name of the file that a link leads to."""
    name = path.resolve().name
    return name if _SUM.fullmatch(name) else None
