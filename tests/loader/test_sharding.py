import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.kernels.types import QuantTensor
from leadline.loader.errors import ShardingError
from leadline.loader.fp8 import quantize_blocks
from leadline.loader.model_config import parse_model_config
from leadline.loader.sharding import ShardPlan, scale_slices
from leadline.loader.synthetic import tiny_v2_lite, tiny_v3
from leadline.loader.tensor_specs import expected_tensors

V3 = parse_model_config(tiny_v3())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.embed_tokens.weight", (slice(256, 512), slice(0, 64))),
        ("lm_head.weight", (slice(256, 512), slice(0, 64))),
        ("model.layers.3.embed_tokens.weight", (slice(256, 512), slice(0, 64))),
        ("model.layers.3.shared_head.head.weight", (slice(256, 512), slice(0, 64))),
        ("model.layers.0.self_attn.q_b_proj.weight", (slice(64, 128), slice(0, 32))),
        ("model.layers.0.self_attn.kv_b_proj.weight", (slice(80, 160), slice(0, 32))),
        ("model.layers.0.self_attn.o_proj.weight", (slice(0, 64), slice(48, 96))),
        ("model.layers.0.mlp.gate_proj.weight", (slice(80, 160), slice(0, 64))),
        ("model.layers.0.mlp.up_proj.weight", (slice(80, 160), slice(0, 64))),
        ("model.layers.0.mlp.down_proj.weight", (slice(0, 64), slice(80, 160))),
        ("model.layers.1.mlp.shared_experts.up_proj.weight", (slice(20, 40), slice(0, 64))),
        ("model.layers.1.mlp.shared_experts.down_proj.weight", (slice(0, 64), slice(20, 40))),
        ("model.layers.1.mlp.experts.15.up_proj.weight", (slice(0, 40), slice(0, 64))),
        ("model.layers.1.mlp.gate.weight", (slice(0, 16), slice(0, 64))),
        ("model.layers.1.mlp.gate.e_score_correction_bias", (slice(0, 16),)),
        ("model.layers.0.self_attn.q_a_proj.weight", (slice(0, 32), slice(0, 64))),
        ("model.layers.0.self_attn.kv_a_proj_with_mqa.weight", (slice(0, 48), slice(0, 64))),
        ("model.layers.3.eh_proj.weight", (slice(0, 64), slice(0, 128))),
        ("model.norm.weight", (slice(0, 64),)),
    ],
)
def test_second_of_two_ranks(name: str, expected: tuple[slice, ...]) -> None:
    shape = expected_tensors(V3)[name].shape
    assert ShardPlan(tp_rank=1, tp_size=2).slices(name, shape) == expected


def test_query_projection_without_compression() -> None:
    config = parse_model_config(tiny_v2_lite())
    name = "model.layers.0.self_attn.q_proj.weight"
    shape = expected_tensors(config)[name].shape
    slices = ShardPlan(tp_rank=3, tp_size=4).slices(name, shape)
    assert slices == (slice(96, 128), slice(0, 64))


def test_experts_are_placed_whole_by_id() -> None:
    plan = ShardPlan(tp_rank=0, tp_size=2, expert_ids=(1, 12))
    name = "model.layers.2.mlp.experts.{}.down_proj.weight"
    kept = [i for i in range(16) if plan.slices(name.format(i), (64, 40)) is not None]
    assert kept == [1, 12]
    assert plan.slices(name.format(12), (64, 40)) == (slice(0, 64), slice(0, 40))
    nothing = ShardPlan(expert_ids=())
    assert all(nothing.slices(name.format(i), (64, 40)) is None for i in range(16))


def test_solo_takes_everything() -> None:
    for name, spec in expected_tensors(V3).items():
        slices = ShardPlan.solo().slices(name, spec.shape)
        assert slices == tuple(slice(0, size) for size in spec.shape)


def test_cuts_that_the_sizes_do_not_allow() -> None:
    with pytest.raises(ShardingError) as error:
        ShardPlan(tp_rank=0, tp_size=3).check(V3)
    for part in ("size 3", "heads = 4", "vocab_size = 512", "= 160", "n_shared_experts = 40"):
        assert part in str(error.value)
    ShardPlan(tp_rank=3, tp_size=4).check(V3)


def test_experts_and_ranks_that_do_not_exist() -> None:
    with pytest.raises(ShardingError, match=r"experts \[16, -1\] do not exist; allowed: 0 to 15"):
        ShardPlan(expert_ids=(3, 16, -1)).check(V3)
    for rank, size in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ShardingError, match="does not exist"):
            ShardPlan(tp_rank=rank, tp_size=size).check(V3)


@settings(max_examples=60, deadline=None)
@given(
    tp_size=st.sampled_from([2, 4]),
    width=st.integers(1, 150),
    other=st.integers(1, 200),
    columns=st.booleans(),
)
def test_fp8_shards_joined_are_the_whole(
    tp_size: int, width: int, other: int, columns: bool
) -> None:
    """Cuts fall anywhere inside of 128x128 blocks; each shard dequantises on its own."""
    shape = (other, tp_size * width) if columns else (tp_size * width, other)
    name = "model.layers.0.mlp." + ("down_proj.weight" if columns else "up_proj.weight")
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(width))
    # magnitudes that differ from block to block, so that a wrong scale is seen
    weight *= torch.arange(shape[0])[:, None] // 128 + 1
    weight *= 10.0 ** (torch.arange(shape[1]) // 128)
    whole = quantize_blocks(weight)
    parts = []
    for rank in range(tp_size):
        slices = ShardPlan(tp_rank=rank, tp_size=tp_size).slices(name, shape)
        assert slices is not None
        blocks, offsets = scale_slices(slices)
        shard = QuantTensor(whole.data[slices], whole.scale[blocks], *offsets)
        expected = tuple(
            -(-(offset + size) // 128) for offset, size in zip(offsets, shard.shape, strict=True)
        )
        assert tuple(shard.scale.shape) == expected
        parts.append(shard.dequantize())
    assert torch.equal(torch.cat(parts, dim=int(columns)), whole.dequantize())
