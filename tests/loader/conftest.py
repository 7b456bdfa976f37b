"""Small checkpoints, and the means to break them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from leadline.loader.synthetic import tiny_v3, write_checkpoint

Edit = Callable[[dict[str, Tensor]], object]


@pytest.fixture
def two_layers() -> dict[str, Any]:
    """A dense layer, a MoE layer and the MTP layer; sizes that leave ragged FP8 blocks."""
    return tiny_v3() | {
        "num_hidden_layers": 2,
        "n_routed_experts": 8,
        "hidden_size": 136,
        "kv_lora_rank": 40,
        "moe_intermediate_size": 160,
    }


@pytest.fixture
def write(tmp_path: Path, two_layers: dict[str, Any]) -> Callable[..., Path]:
    """Writes `two_layers`, with changes, in a format; several files with `sharded`."""

    def write_one(
        fmt: str = "bfloat16",
        *,
        name: str = "model",
        sharded: bool = False,
        changes: dict[str, Any] | None = None,
        **options: Any,
    ) -> Path:
        if sharded:
            options["max_shard_bytes"] = 400_000
        write_checkpoint(tmp_path / name, two_layers | (changes or {}), fmt=fmt, **options)
        return tmp_path / name

    return write_one


@pytest.fixture
def edit() -> Callable[[Path, Edit], None]:
    """Changes the tensors of a safetensors file."""

    def edit_file(path: Path, change: Edit) -> None:
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        change(tensors)
        path.unlink()
        save_file(tensors, path)

    return edit_file
