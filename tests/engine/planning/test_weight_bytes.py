"""Sizes by part are those of the tensors that the model holds."""

from pathlib import Path
from typing import Any

import pytest
import torch

from leadline.engine.model.weights import assemble, storage_bytes
from leadline.engine.planning.layout import Layout
from leadline.engine.planning.weight_bytes import WeightBytes, WeightFormat
from leadline.loader.checkpoint import Checkpoint
from leadline.loader.family import known_config
from leadline.loader.load import load_weights
from leadline.loader.synthetic import tiny_v2_lite, tiny_v3, write_checkpoint

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ALIGNED = {"hidden_size": 128, "moe_intermediate_size": 128, "intermediate_size": 256}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("fmt", ["bfloat16", "fp8", "fp8, widened"])
@pytest.mark.parametrize(
    "raw",
    [tiny_v3(), tiny_v3() | ALIGNED, tiny_v2_lite(), tiny_v3() | {"tie_word_embeddings": True}],
    ids=["v3", "aligned", "v2-lite", "tied"],
)
def test_every_part_is_counted(raw: dict[str, Any], dtype: str, fmt: str, tmp_path: Path) -> None:
    config = write_checkpoint(tmp_path, raw, fmt=fmt.partition(",")[0])
    keeps_fp8 = fmt == "fp8"
    weights = load_weights(
        Checkpoint.open(tmp_path), config, dtype=DTYPES[dtype], dequantize=not keeps_fp8
    )
    tree = assemble(weights.tensors, config, has_mtp=weights.has_mtp)
    held = WeightFormat(dtype=dtype, keeps_fp8=keeps_fp8)
    parts = WeightBytes(config, Layout(), held).parts()
    assert sum(parts.values()) == storage_bytes(tree)
    assert parts.get("routed experts", 0) == sum(
        storage_bytes([layer.mlp.gate_up_E2FD, layer.mlp.down_EDF])
        for layer in [*tree.layers, *([] if tree.mtp is None else [tree.mtp.layer])]
        if hasattr(layer.mlp, "gate_up_E2FD")
    )


def test_deepseek_v3() -> None:
    """671 GB of FP8, plus what is held wider, and the MTP layer's own 11.6."""
    config = known_config("deepseek-ai/DeepSeek-V3")
    assert config is not None
    sizes = WeightBytes(config, Layout(), WeightFormat())
    total = sum(sizes.parts(has_mtp=False).values())
    assert total == pytest.approx(673.1e9 + 2.05e9 / 2, rel=0.001)
    with_mtp = sum(sizes.parts().values())
    assert with_mtp - total == pytest.approx(11.6e9, rel=0.02)


def test_a_rank_of_a_wide_unit() -> None:
    config = known_config("deepseek-v3")
    assert config is not None
    layout = Layout(data_parallel_size=32, expert_parallel=True, num_redundant_experts=32)
    parts = WeightBytes(config, layout, WeightFormat()).parts()
    assert layout.experts_per_rank(config) == 9
    assert sum(parts.values()) == pytest.approx(44.9e9, rel=0.02)
    cut = WeightBytes(config, Layout(tensor_parallel_size=8), WeightFormat()).parts()
    assert sum(cut.values()) == pytest.approx(85.9e9, rel=0.02)
