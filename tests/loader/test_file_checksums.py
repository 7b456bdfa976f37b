"""A weight file that has changed is noticed before it is served, where that is asked for."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from leadline.loader.checkpoint import Checkpoint
from leadline.loader.errors import CheckpointError
from leadline.loader.file_checksums import SUMS_FILE, verify_files

Write = Callable[..., Path]


def sum_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def verify(path: Path) -> list[tuple[int, int]]:
    told: list[tuple[int, int]] = []
    verify_files(path, Checkpoint.open(path).files, lambda *numbers: told.append(numbers))
    return told


@pytest.fixture
def summed(write: Write) -> Path:
    path = write(sharded=True)
    lines = [f"{sum_of(file)}  {file.name}\n" for file in sorted(path.glob("*.safetensors"))]
    (path / SUMS_FILE).write_text("".join(lines))
    return path


def test_files_that_are_as_they_should_be(summed: Path) -> None:
    files = Checkpoint.open(summed).files
    assert len(files) > 1
    num_bytes = sum(file.stat().st_size for file in files)
    assert verify(summed)[-1] == (num_bytes, num_bytes)


def test_a_bit_that_flips_is_named_with_its_file(summed: Path) -> None:
    changed = max(Checkpoint.open(summed).files)
    flip_a_bit(changed)
    Checkpoint.open(summed)  # which notices nothing
    with pytest.raises(CheckpointError, match=f"{changed.name} has changed"):
        verify(summed)


def test_a_file_of_the_hubs_cache_bears_its_sum(write: Write, tmp_path: Path) -> None:
    path = write(sharded=False)
    file = path / "model.safetensors"
    blob = tmp_path / sum_of(file)
    file.rename(blob)
    file.symlink_to(blob)
    verify(path)
    flip_a_bit(blob)
    with pytest.raises(CheckpointError, match="has changed"):
        verify(path)


def test_without_a_sum_it_says_how_to_get_one(write: Write) -> None:
    with pytest.raises(CheckpointError, match="sha256sum"):
        verify(write(sharded=False))


def test_sums_that_cannot_be_read(summed: Path) -> None:
    (summed / SUMS_FILE).write_text("nonsense\n")
    with pytest.raises(CheckpointError, match="line 1 of SHA256SUMS"):
        verify(summed)
