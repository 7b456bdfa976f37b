"""Adapters to other projects' kernels, against stand-ins that hold to the documented signatures.

A stand-in checks shapes, dtypes and layouts as the real function documents them, and computes in
torch; so what reaches it must be what the reference computes. On a GPU the real ones are asked.
"""

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from leadline.kernels.reference.moe import route
from leadline.kernels.reference.quant import dequantize_groups
from leadline.kernels.select import KernelError, Platform, select_kernels
from leadline.kernels.types import QuantTensor
from leadline.kernels.vendor.packages import HOPPER, Package
from leadline.kernels.vendor.table import rejection, vendor_kernels

pytest.importorskip("triton", reason="triton is not installed; the extra `gpu` has it")
from leadline.kernels.vendor.experts import pad_rows
from leadline.kernels.vendor.proof import disagreement

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")

KERNELS = {(kernel.operation, kernel.name): kernel for kernel in vendor_kernels()}
ALIGNMENT = 128
FP8 = torch.float8_e4m3fn


def checked_product(x: Tensor, x_scale: Tensor, w: Tensor, w_scale: Tensor) -> Tensor:
    """`x @ w.T` of FP8 operands with scales [M, K / 128] and [N / 128, K / 128]."""
    (m, k), n = x.shape, w.shape[0]
    assert x.dtype == w.dtype == FP8
    assert x_scale.dtype == w_scale.dtype == torch.float32
    assert x_scale.shape == (m, k // 128)
    assert w_scale.shape == (n // 128, k // 128)
    return dequantize_groups(x, x_scale) @ QuantTensor(w, w_scale).dequantize().T


class FakeDeepGEMM(types.ModuleType):
    """`fp8_gemm_nt` and `m_grouped_fp8_gemm_nt_contiguous`; README of DeepGEMM, "Usage"."""

    @staticmethod
    def get_mk_alignment_for_contiguous_layout() -> int:
        return ALIGNMENT

    @staticmethod
    def fp8_gemm_nt(a: Any, b: Any, d: Tensor, *, disable_ue8m0_cast: bool) -> None:
        assert disable_ue8m0_cast
        assert d.dtype == torch.bfloat16
        assert b[1].is_contiguous()
        d.copy_(checked_product(*a, *b))

    @staticmethod
    def m_grouped_fp8_gemm_nt_contiguous(
        a: Any, b: Any, d: Tensor, layout: Tensor, *, disable_ue8m0_cast: bool
    ) -> None:
        assert disable_ue8m0_cast
        assert layout.dtype == torch.int32
        assert layout.shape == (a[0].shape[0],) == (d.shape[0],)
        assert len(layout) % ALIGNMENT == 0
        d.fill_(torch.nan)  # rows of nobody are left as they are
        for begin in range(0, len(layout), ALIGNMENT):
            tile = layout[begin : begin + ALIGNMENT]
            experts = set(tile[tile >= 0].tolist())
            assert len(experts) <= 1, "a tile has the rows of one expert"
            for expert in experts:
                rows = begin + (tile >= 0).nonzero().flatten()
                d[rows] = checked_product(a[0][rows], a[1][rows], b[0][expert], b[1][expert]).to(d)


def fp8_blockscale_gemm_sm90(
    input: Tensor, weight: Tensor, input_scale: Tensor, weight_scale: Tensor, out_dtype: Any = None
) -> Tensor:
    assert weight.shape[0] % 64 == 0
    assert weight_scale.is_contiguous()
    return checked_product(input, input_scale, weight, weight_scale).to(out_dtype)


def fused_topk_deepseek(
    scores: Tensor,
    bias: Tensor,
    n_group: int,
    topk_group: int,
    topk: int,
    routed_scaling_factor: float,
    topk_values: Tensor,
    topk_indices: Tensor,
) -> None:
    from leadline.kernels.types import RouterConfig

    assert scores.dtype == bias.dtype == topk_values.dtype
    assert topk_indices.dtype == torch.int32
    config = RouterConfig(
        "sigmoid", n_group, topk_group, topk, "top2_sum", True, routed_scaling_factor
    )
    ids, weights = route(scores, bias, config)
    topk_indices.copy_(ids)
    topk_values.copy_(weights)


def attend_row(q_THX: Tensor, keys_SX: Tensor, scale: float) -> Tensor:
    """Causal, the last query over all keys; only keys that are seen are read."""
    outputs = []
    for index, q_HX in enumerate(q_THX):
        seen = keys_SX[: max(0, len(keys_SX) - len(q_THX) + index + 1)].float()
        weights = torch.softmax(q_HX.float() @ seen.T * scale, -1)
        outputs.append(weights @ seen[:, :512])
    return torch.stack(outputs).to(q_THX.dtype)


class FakePlanMetadata:
    @classmethod
    def csr(cls, qo: Tensor, kv: Tensor, pages: Tensor, lengths: Tensor) -> "FakePlanMetadata":
        self = cls()
        assert all(t.dtype == torch.int32 for t in (qo, kv, pages, lengths))
        assert len(qo) == len(kv) == len(lengths) + 1
        assert kv[-1] == len(pages)
        self.qo, self.kv, self.pages, self.lengths = qo, kv, pages, lengths  # type: ignore[attr-defined]
        return self


class FakeWrapper:
    """`flashinfer.mla.BatchMLAPagedAttentionWrapper`, packed queries and cache."""

    def __init__(self, workspace: Tensor, backend: str) -> None:
        assert backend == "fa3"

    def plan(
        self, *, metadata: Any, num_heads: int, head_dim_ckv: int, head_dim_kpe: int, **kw: Any
    ) -> None:
        assert (head_dim_ckv, head_dim_kpe, kw["causal"]) == (512, 64, True)
        self.meta, self.heads, self.size, self.scale = (
            *(metadata, num_heads),
            *(kw["page_size"], kw["sm_scale"]),
        )

    def run(self, *, query: Tensor, kv_cache: Tensor) -> Tensor:
        assert query.shape[1:] == (self.heads, 576)
        assert kv_cache.shape[1:] == (self.size, 576)
        meta, outputs = self.meta, []
        for row, length in enumerate(meta.lengths.tolist()):
            pages = meta.pages[meta.kv[row] : meta.kv[row + 1]]
            keys = kv_cache[pages.long()].flatten(0, 1)[:length]
            outputs.append(attend_row(query[meta.qo[row] : meta.qo[row + 1]], keys, self.scale))
        return torch.cat(outputs)


def flash_mla_with_kvcache(
    q: Tensor,
    k_cache: Tensor,
    block_table: Tensor,
    cache_seqlens: Tensor,
    head_dim_v: int,
    tile_scheduler_metadata: Any,
    *,
    softmax_scale: float,
    causal: bool,
    is_fp8_kvcache: bool,
    use_legacy: bool,
) -> tuple[Tensor, None]:
    assert (head_dim_v, causal, is_fp8_kvcache, use_legacy) == (512, True, False, True)
    assert k_cache.shape[1:] == (64, 1, 576)
    assert block_table.dtype == cache_seqlens.dtype == torch.int32
    assert q.shape[0] == len(block_table) == len(cache_seqlens)
    rows = [
        attend_row(row, k_cache[pages.long()].flatten(0, 2)[:length], softmax_scale)
        for row, pages, length in zip(q, block_table, cache_seqlens.tolist(), strict=True)
    ]
    return torch.stack(rows), None


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages, as far as they are called."""

    def module(name: str, **names: Any) -> None:
        fake = types.ModuleType(name)
        for key, value in names.items():
            setattr(fake, key, value)
        monkeypatch.setitem(sys.modules, name, fake)

    monkeypatch.setitem(sys.modules, "deep_gemm", FakeDeepGEMM("deep_gemm"))
    module("flashinfer")
    module("flashinfer.gemm", fp8_blockscale_gemm_sm90=fp8_blockscale_gemm_sm90)
    module("flashinfer.fused_moe", fused_topk_deepseek=fused_topk_deepseek)
    module(
        "flashinfer.mla",
        BatchMLAPagedAttentionWrapper=FakeWrapper,
        MLAPlanMetadata=FakePlanMetadata,
    )
    module(
        "flash_mla",
        get_mla_metadata=lambda: (object(), None),
        flash_mla_with_kvcache=flash_mla_with_kvcache,
    )
    monkeypatch.setattr(torch.nn.functional, "scaled_mm", scaled_mm)


def scaled_mm(
    a: Tensor, b: Tensor, scale_a: Tensor, recipe_a: Any, scale_b: Tensor, recipe_b: Any, **kw: Any
) -> Tensor:
    """torch's own checks of layouts, on tensors without data; then the product."""
    device = [t.to("meta") for t in (a, b, scale_a, scale_b)]
    strided = [
        torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta")
        for t in (a, b, scale_a, scale_b)
    ]
    assert [t.shape for t in device] == [t.shape for t in strided]
    real = REAL_SCALED_MM(*strided[:2], strided[2], recipe_a, strided[3], recipe_b, **kw)
    (m, k), n = a.shape, b.shape[1]
    assert scale_a.stride() == (1, m) or m == 1
    padded = -(-k // 512) * 4
    assert scale_b.shape == (padded, n // 128)
    assert scale_b.stride() == (1, padded)
    result = checked_product(a, scale_a.contiguous(), b.T, scale_b[: k // 128].T)
    assert real.shape == result.shape
    return result.to(kw["output_dtype"])


REAL_SCALED_MM = torch.nn.functional.scaled_mm


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize(("operation", "name"), KERNELS)
def test_what_reaches_the_package_is_what_the_reference_computes(operation: str, name: str) -> None:
    function = KERNELS[operation, name].function.load()
    assert disagreement(operation, function, "cpu") is None


@pytest.mark.parametrize(("operation", "name"), KERNELS)
def test_on_a_gpu_it_agrees_with_the_reference(operation: str, name: str) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reason = KERNELS[operation, name].package.missing(device)
    if reason:
        pytest.skip(reason)
    assert rejection(KERNELS[operation, name], device) is None


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize(
    ("operation", "wrong"),
    [
        ("route", lambda *a: (torch.zeros(len(a[0]), 8, dtype=torch.int64), route(*a)[1])),
        ("linear_fp8", lambda x, w: x.new_zeros(len(x), len(w.data))),
        ("grouped_mlp", lambda x, *_: 1 / 0),
    ],
)
def test_one_that_disagrees_is_told(operation: str, wrong: Callable[..., Any]) -> None:
    reason = disagreement(operation, wrong, "cpu")
    assert reason is not None
    assert any(word in reason for word in ("differs", "other experts", "ZeroDivisionError"))


@pytest.mark.parametrize("counts", [[0, 0, 3], [1, 128, 0, 129], [5], [0, 2, 0]])
def test_padded_rows(counts: list[int]) -> None:
    num_rows = sum(counts)
    rows = pad_rows(torch.tensor(counts), num_rows, ALIGNMENT)
    wanted = [expert for expert, count in enumerate(counts) for _ in range(count)]
    assert rows.expert_M[rows.place_R].tolist() == wanted
    assert (rows.expert_M >= 0).sum() == num_rows
    assert len(set(rows.place_R.tolist())) == num_rows


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says to have one, for what is only asked."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (10, 0))


@pytest.mark.usefixtures("hopper")
def test_reasons() -> None:
    assert Package("nowhere", ("a-name",), (0, 1), HOPPER).missing("cpu") == (
        "needs a CUDA device, not cpu"
    )
    assert Package("nowhere", ("a-name",), (0, 1), HOPPER).missing("cuda") == (
        "nowhere is not installed: pip install a-name"
    )
    assert Package("torch", ("torch",), (99, 0), HOPPER).missing("cuda") == (
        f"torch is of version {'.'.join(torch.__version__.split('.')[:2])}; needs 99.0"
    )
    assert Package("torch", ("torch",), (2, 0), HOPPER).missing("cuda") == (
        "needs compute capability 9.0, not 10.0"
    )


def test_an_override_for_what_is_not_there() -> None:
    with pytest.raises(KernelError, match=r"linear_fp8=deep-gemm cannot be used: .*CUDA"):
        select_kernels(Platform(), {"linear_fp8": "deep-gemm"})
