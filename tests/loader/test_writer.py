import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from leadline.loader.checkpoint import INDEX_FILE, SINGLE_FILE, Checkpoint
from leadline.loader.model_config import parse_model_config
from leadline.loader.synthetic import random_tensors, tiny_v3
from leadline.loader.writer import write_weights

V3 = parse_model_config(tiny_v3())


def test_files_are_bounded_named_and_indexed_as_the_official_ones(tmp_path: Path) -> None:
    tensors = random_tensors(V3, 0, with_mtp=True)
    write_weights(tmp_path, V3, tensors, max_shard_bytes=100_000)
    index = json.loads((tmp_path / INDEX_FILE).read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 3
    assert files == [f"model-{i + 1:05}-of-{len(files):06}.safetensors" for i in range(len(files))]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*files, INDEX_FILE])
    total = 0
    for file in files:
        held = load_file(tmp_path / file)
        size = sum(tensor.numel() * tensor.element_size() for tensor in held.values())
        assert size <= 100_000 or len(held) == 1
        assert held.keys() == {n for n, place in index["weight_map"].items() if place == file}
        total += size
    assert index["metadata"]["total_size"] == total


def test_tensors_are_taken_one_shard_at_a_time(tmp_path: Path) -> None:
    """A model larger than memory can be written: nothing is asked for before it is needed."""
    on_disk: list[int] = []

    def watched() -> Iterator[tuple[str, Tensor]]:
        for pair in random_tensors(V3, 0, with_mtp=True):
            on_disk.append(len(list(tmp_path.iterdir())))
            yield pair

    write_weights(tmp_path, V3, watched(), max_shard_bytes=100_000)
    assert on_disk[0] == 0
    assert on_disk[-1] >= 3


def test_a_single_file_replaces_an_index(tmp_path: Path) -> None:
    write_weights(tmp_path, V3, random_tensors(V3, 0, with_mtp=True), max_shard_bytes=100_000)
    write_weights(tmp_path, V3, random_tensors(V3, 1, with_mtp=True))
    assert (tmp_path / SINGLE_FILE).exists()
    checkpoint = Checkpoint.open(tmp_path)
    assert checkpoint.check(V3) == []
    assert {stored.file.name for stored in checkpoint.tensors.values()} == {SINGLE_FILE}


@pytest.mark.parametrize("scale_fmt", [None, "ue8m0"])
def test_fp8_where_the_official_format_has_it(tmp_path: Path, scale_fmt: str | None) -> None:
    quantization = {
        "quant_method": "fp8",
        "weight_block_size": [128, 128],
        "scale_fmt": scale_fmt,
    }
    config = parse_model_config(tiny_v3() | {"quantization_config": quantization})
    write_weights(tmp_path, config, random_tensors(config, 0, with_mtp=True))
    stored = load_file(tmp_path / SINGLE_FILE)
    fp8 = {name for name, tensor in stored.items() if tensor.dtype == torch.float8_e4m3fn}
    assert fp8 == {name.removesuffix("_scale_inv") for name in stored if "_scale_inv" in name}
    for name in sorted(stored):
        if name.endswith(("_proj.weight", "_with_mqa.weight")):
            assert (name in fp8) == ("eh_proj" not in name), name
        elif name.endswith("_scale_inv"):
            exponents = stored[name].log2()
            assert stored[name].dtype == torch.float32
            assert bool((exponents == exponents.round()).all()) == (scale_fmt == "ue8m0"), name
        elif name.endswith("e_score_correction_bias"):
            assert stored[name].dtype == torch.float32
        else:
            assert stored[name].dtype == torch.bfloat16, name
