import logging
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from leadline.kernels.types import QuantTensor
from leadline.loader.checkpoint import SINGLE_FILE, Checkpoint
from leadline.loader.errors import CheckpointError, ShardingError
from leadline.loader.load import Weights, load_weights
from leadline.loader.model_config import read_model_config
from leadline.loader.sharding import ShardPlan
from leadline.loader.synthetic import random_tensors

Write = Callable[..., Path]
Edit = Callable[[Path, Callable[[dict[str, Tensor]], object]], None]

EMBED, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
MTP_EMBED = "model.layers.2.embed_tokens.weight"
MTP_HEAD = "model.layers.2.shared_head.head.weight"
O_PROJ = "model.layers.0.self_attn.o_proj.weight"
GATE = "model.layers.1.mlp.gate.weight"
BIAS = "model.layers.1.mlp.gate.e_score_correction_bias"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    directory: Path,
    plan: ShardPlan | None = None,
    *,
    dtype: torch.dtype | None = None,
    dequantize: bool = False,
) -> Weights:
    config = read_model_config(directory)
    return load_weights(
        Checkpoint.open(directory), config, plan, dtype=dtype, dequantize=dequantize
    )


def plain(weights: Weights, name: str) -> Tensor:
    tensor = weights.tensors[name]
    assert isinstance(tensor, Tensor)
    return tensor


def quantized(weights: Weights, name: str) -> QuantTensor:
    tensor = weights.tensors[name]
    assert isinstance(tensor, QuantTensor)
    return tensor


def values(weights: Weights) -> dict[str, Tensor]:
    return {
        name: tensor.dequantize() if isinstance(tensor, QuantTensor) else tensor
        for name, tensor in weights.tensors.items()
    }


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert tensor.dtype == right[name].dtype, name
        assert torch.equal(tensor, right[name]), name


@pytest.mark.parametrize("fmt", list(DTYPES))
def test_what_was_written_is_read(write: Write, fmt: str) -> None:
    directory = write(fmt)
    weights = load(directory)
    written = dict(random_tensors(read_model_config(directory), 0, with_mtp=True))
    assert weights.has_mtp
    assert weights.tensors.keys() == written.keys()
    for name, tensor in written.items():
        stored = tensor if name == BIAS or name.endswith("bias") else tensor.to(DTYPES[fmt])
        kept_in_float32 = tensor.dim() == 1 or name.endswith(".gate.weight")
        found = plain(weights, name)
        assert found.dtype == (torch.float32 if kept_in_float32 else DTYPES[fmt]), name
        assert torch.equal(found.float(), stored.float()), name


def test_dtype_casts_matrices_only(write: Write) -> None:
    directory = write("bfloat16")
    weights, stored = load(directory, dtype=torch.float32), load(directory)
    assert plain(weights, O_PROJ).dtype == torch.float32
    assert torch.equal(plain(weights, O_PROJ), plain(stored, O_PROJ).float())
    narrow = load(directory, dtype=torch.float16)
    assert plain(narrow, O_PROJ).dtype == torch.float16
    for name in (NORM, GATE, BIAS):
        assert plain(narrow, name).dtype == torch.float32


def test_fp8_is_kept_with_float32_scales(write: Write) -> None:
    weights = load(write("fp8"), dtype=torch.float32)
    o_proj = quantized(weights, O_PROJ)
    assert o_proj.data.dtype == torch.float8_e4m3fn
    assert (tuple(o_proj.shape), tuple(o_proj.scale.shape)) == ((136, 96), (2, 1))
    assert o_proj.scale.dtype == torch.float32
    assert not any(name.endswith("_scale_inv") for name in weights.tensors)
    # what the official format keeps out of FP8
    for name in (EMBED, HEAD, GATE, "model.layers.2.eh_proj.weight"):
        assert isinstance(weights.tensors[name], Tensor), name


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_dequantize(write: Write, dtype: torch.dtype | None) -> None:
    directory = write("fp8")
    weights = load(directory, dtype=dtype, dequantize=True)
    raw = load_file(directory / SINGLE_FILE)
    scale = raw[O_PROJ + "_scale_inv"]
    expected = raw[O_PROJ].float()
    for i in range(2):
        expected[i * 128 : (i + 1) * 128] *= scale[i, 0]
    assert plain(weights, O_PROJ).dtype == (dtype or torch.float32)
    assert torch.equal(plain(weights, O_PROJ), expected.to(dtype or torch.float32))


def test_ue8m0_scales_of_either_dtype(write: Write, edit: Edit) -> None:
    directory = write("fp8", scale_fmt="ue8m0")
    as_float32 = load(directory)
    scale = quantized(as_float32, O_PROJ).scale
    assert torch.equal(torch.exp2(torch.log2(scale).round()), scale)

    def change(tensors: dict[str, Tensor]) -> None:
        for name in tensors:
            if name.endswith("_scale_inv"):
                tensors[name] = tensors[name].to(torch.float8_e8m0fnu)

    edit(directory / SINGLE_FILE, change)
    as_bytes = load(directory)
    assert quantized(as_bytes, O_PROJ).scale.dtype == torch.float32
    assert_same(values(as_bytes), values(as_float32))
    assert as_bytes.num_bytes < as_float32.num_bytes


@pytest.mark.parametrize("fmt", ["bfloat16", "fp8"])
def test_several_files_hold_what_one_holds(write: Write, fmt: str) -> None:
    one, several = load(write(fmt, name="one")), load(write(fmt, name="several", sharded=True))
    assert_same(values(one), values(several))
    assert one.num_bytes == several.num_bytes


def test_mtp_layer_absent(write: Write) -> None:
    weights = load(write(with_mtp=False))
    assert not weights.has_mtp
    assert not any(name.startswith("model.layers.2.") for name in weights.tensors)


@pytest.mark.parametrize("tied", [False, True])
def test_equal_mtp_copies_are_kept_once(write: Write, edit: Edit, tied: bool) -> None:
    directory = write(changes={"tie_word_embeddings": tied})
    head = EMBED if tied else HEAD
    edit(
        directory / SINGLE_FILE,
        lambda t: t.update({MTP_EMBED: t[EMBED].clone(), MTP_HEAD: t[head].clone()}),
    )
    weights = load(directory)
    assert weights.has_mtp
    assert not {MTP_EMBED, MTP_HEAD} & weights.tensors.keys()


def test_different_mtp_copies_are_kept(write: Write, edit: Edit) -> None:
    directory = write()
    edit(
        directory / SINGLE_FILE,
        lambda t: t.update({MTP_EMBED: t[EMBED] * 2, MTP_HEAD: t[HEAD].clone()}),
    )
    weights = load(directory)
    assert torch.equal(plain(weights, MTP_EMBED), plain(weights, EMBED) * 2)
    assert MTP_HEAD not in weights.tensors


@pytest.mark.parametrize("fmt", ["bfloat16", "fp8"])
@pytest.mark.parametrize("tp_size", [2, 4])
def test_shards_joined_are_the_whole(write: Write, fmt: str, tp_size: int) -> None:
    directory = write(fmt, sharded=True)
    whole = values(load(directory))
    ranks = [values(load(directory, ShardPlan(rank, tp_size))) for rank in range(tp_size)]
    for name, tensor in whole.items():
        parts = [rank[name] for rank in ranks]
        if parts[0].shape == tensor.shape:
            assert all(torch.equal(part, tensor) for part in parts), name
        else:
            cut = next(d for d in range(2) if parts[0].shape[d] != tensor.shape[d])
            assert torch.equal(torch.cat(parts, dim=cut), tensor), name
    assert ranks[0][O_PROJ].shape == (136, 96 // tp_size)
    assert ranks[0][EMBED].shape == (512 // tp_size, 136)


def test_a_cut_inside_a_block_keeps_every_scale_it_touches(write: Write) -> None:
    """gate_proj has 160 rows: rank 1 of 2 has rows 80 to 159, of blocks 0 and 1."""
    gate = quantized(load(write("fp8"), ShardPlan(1, 2)), "model.layers.0.mlp.gate_proj.weight")
    assert (tuple(gate.shape), tuple(gate.scale.shape)) == ((80, 136), (2, 2))
    assert (gate.row_offset, gate.col_offset) == (80, 0)


def test_experts_by_id(write: Write) -> None:
    directory = write("fp8")
    weights = load(directory, ShardPlan(expert_ids=(2, 5)))
    ids = {
        int(match[1])
        for name in weights.tensors
        if (match := re.search(r"\.experts\.(\d+)\.", name)) is not None
    }
    assert ids == {2, 5}
    whole = load(directory)
    for name, tensor in weights.tensors.items():
        full = whole.tensors[name]
        if isinstance(tensor, QuantTensor) and isinstance(full, QuantTensor):
            assert torch.equal(tensor.dequantize(), full.dequantize())
    assert weights.num_bytes < whole.num_bytes


class CountingCheckpoint(Checkpoint):
    """Counts the bytes of what is read, and of the memory that it holds on to."""

    num_bytes = 0
    held_bytes = 0

    def read(self, name: str, slices: tuple[slice, ...]) -> Tensor:
        tensor = super().read(name, slices)
        self.num_bytes += tensor.numel() * tensor.element_size()
        self.held_bytes += tensor.untyped_storage().nbytes()
        return tensor


@pytest.mark.parametrize("fmt", ["bfloat16", "fp8"])
def test_only_needed_slices_are_read(write: Write, fmt: str) -> None:
    """The bytes that are read and held are those of the plan's share, computed from its rules."""
    directory = write(fmt, sharded=True)
    config = read_model_config(directory)
    plan = ShardPlan(tp_rank=1, tp_size=4, expert_ids=(0, 7))
    share = 0
    for name, stored in Checkpoint.open(directory).tensors.items():
        item = {"F32": 4, "BF16": 2, "F8_E4M3": 1}[stored.dtype]
        weight = name.removesuffix("_scale_inv")
        slices = plan.slices(weight, Checkpoint.open(directory).tensors[weight].shape)
        if slices is None:
            continue
        unit = 1 if weight == name else 128
        share += item * math.prod(
            len({position // unit for position in range(part.start, part.stop)}) for part in slices
        )
    checkpoint = CountingCheckpoint.open(directory)
    weights = load_weights(checkpoint, config, plan)
    assert checkpoint.num_bytes == share == weights.num_bytes
    assert checkpoint.held_bytes == share


def test_weights_outlive_their_files(write: Write) -> None:
    """No mapping of a file stays behind, so that replacing it cannot end the process."""
    directory = write()
    weights = load(directory)
    before = plain(weights, O_PROJ).clone()
    (directory / SINGLE_FILE).write_bytes(b"\0" * 10)
    assert torch.equal(plain(weights, O_PROJ), before)
    assert plain(weights, O_PROJ).is_contiguous()


@pytest.mark.parametrize("fmt", ["bfloat16", "fp8"])
def test_progress_is_monotone_and_ends_at_the_total(write: Write, fmt: str) -> None:
    directory = write(fmt)
    calls: list[tuple[int, int]] = []
    weights = load_weights(
        Checkpoint.open(directory),
        read_model_config(directory),
        ShardPlan(0, 2, expert_ids=(1,)),
        progress=lambda done, total: calls.append((done, total)),
    )
    done = [call[0] for call in calls]
    assert done == sorted(set(done))
    assert {call[1] for call in calls} == {weights.num_bytes}
    assert done[-1] == weights.num_bytes


def test_log_line(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    directory = write()
    with caplog.at_level(logging.INFO, logger="leadline.loader.load"):
        weights = load(directory)
    (line,) = [r.getMessage() for r in caplog.records if r.name == "leadline.loader.load"]
    match = re.fullmatch(r"loaded (\d+\.\d) MB in \d+\.\d\d s \(\d+\.\d\d GB/s\)", line)
    assert match is not None, line
    assert float(match[1]) == pytest.approx(weights.num_bytes / 1e6, abs=0.05)
    stored = sum(t.numel() * t.element_size() for t in load_file(directory / SINGLE_FILE).values())
    assert weights.num_bytes == stored


def test_nothing_is_read_from_what_does_not_fit(write: Write, edit: Edit) -> None:
    directory = write()
    edit(directory / SINGLE_FILE, lambda tensors: tensors.pop(NORM))
    with pytest.raises(CheckpointError, match=f"{NORM} is missing"):
        load(directory)
    checkpoint = CountingCheckpoint.open(write(name="good"))
    config = read_model_config(checkpoint.directory)
    with pytest.raises(ShardingError, match="tensor parallel size 3"):
        load_weights(checkpoint, config, ShardPlan(0, 3))
    assert checkpoint.num_bytes == 0


def test_dense_model_without_query_compression(write: Write) -> None:
    changes = {
        "architectures": ["DeepseekV2ForCausalLM"],
        "n_routed_experts": None,
        "q_lora_rank": None,
        "scoring_func": "softmax",
        "norm_topk_prob": False,
        "num_nextn_predict_layers": 0,
    }
    weights = load(write(changes=changes))
    assert "model.layers.1.mlp.gate_proj.weight" in weights.tensors
    assert "model.layers.0.self_attn.q_proj.weight" in weights.tensors
    assert not any("experts" in name or "q_a" in name for name in weights.tensors)
