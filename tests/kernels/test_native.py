"""The C++ kernels: every format, shape, instruction set and number of threads."""

import math
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.kernels.native import library
from leadline.kernels.native.linear import linear, router_logits
from leadline.kernels.native.mla import NativeMLA
from leadline.kernels.native.moe import grouped_mlp, swiglu
from leadline.kernels.native.norm import add_rms_norm, rms_norm
from leadline.kernels.native.routing import permute
from leadline.kernels.reference.mla import ReferenceMLA
from leadline.kernels.reference.moe import GroupedMLP
from leadline.kernels.reference.moe import permute as reference_permute
from leadline.kernels.sampling import gumbel_noise
from leadline.kernels.testing import (
    FLOAT32_TOLERANCE,
    attention_case,
    random_quant,
    relative_error,
    run_attention,
)
from leadline.kernels.types import QuantTensor

pytestmark = pytest.mark.skipif(library.LIBRARY is None, reason=library.MISSING)

LEVELS = {"portable": 0, "AVX2": 1, "best": 2}
FORMATS = ["float32", "bfloat16", "fp8"]


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    torch.manual_seed(0)
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)
    library.library().limit_instructions(2)


def weight_of(fmt: str, *shape: int) -> torch.Tensor | QuantTensor:
    if fmt == "fp8":
        return random_quant(*shape)
    dense = torch.randn(shape) / math.sqrt(shape[-1])
    return dense if fmt == "float32" else dense.bfloat16()


def exact(weight: torch.Tensor | QuantTensor) -> torch.Tensor:
    return weight.dequantize().double() if isinstance(weight, QuantTensor) else weight.double()


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("fmt", FORMATS)
@settings(max_examples=40, deadline=None)
@given(
    num_rows=st.integers(0, 20),
    n=st.integers(1, 300),
    k=st.integers(1, 400),
    seed=st.integers(0, 99),
)
def test_products_of_ragged_shapes(
    fmt: str, level: str, num_rows: int, n: int, k: int, seed: int
) -> None:
    """Right, and each row as it is alone."""
    library.library().limit_instructions(LEVELS[level])
    torch.manual_seed(seed)
    x, weight = torch.randn(num_rows, k), weight_of(fmt, n, k)
    y = linear(x, weight)
    assert relative_error(y, x.double() @ exact(weight).T) < FLOAT32_TOLERANCE
    for row in range(num_rows):
        assert same_bits(linear(x[row : row + 1], weight), y[row : row + 1])


@pytest.mark.parametrize("fmt", FORMATS)
@settings(max_examples=15, deadline=None)
@given(num_rows=st.integers(1, 40), n=st.integers(500, 700), k=st.integers(800, 1100))
def test_threads_change_no_bit(fmt: str, num_rows: int, n: int, k: int) -> None:
    x, weight = torch.randn(num_rows, k), weight_of(fmt, n, k)
    torch.set_num_threads(1)
    alone = [linear(x[row : row + 1], weight) for row in range(num_rows)]
    for num_threads in (2, 5):
        torch.set_num_threads(num_threads)
        assert same_bits(linear(x, weight), torch.cat(alone))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize(("num_rows", "n", "k"), [(97, 70, 300), (130, 37, 1025), (200, 19, 2100)])
def test_many_rows_of_deep_weights(fmt: str, level: str, num_rows: int, n: int, k: int) -> None:
    """Rows in groups and columns in parts, on one thread or two; each row is as it is alone."""
    library.library().limit_instructions(LEVELS[level])
    x, weight = torch.randn(num_rows, k), weight_of(fmt, n, k)
    y = linear(x, weight)
    assert relative_error(y, x.double() @ exact(weight).T) < FLOAT32_TOLERANCE
    for row in range(0, num_rows, 7):
        assert same_bits(linear(x[row : row + 1], weight), y[row : row + 1])
    torch.set_num_threads(2)
    assert same_bits(linear(x, weight), y)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("column", [16, 77])
@pytest.mark.parametrize("num_rows", [1, 9, 100])
def test_deep_weights_cut_inside_their_blocks(num_rows: int, column: int, level: str) -> None:
    library.library().limit_instructions(LEVELS[level])
    whole = random_quant(300, 2300)
    cut = QuantTensor(whole.data[5:60, column : column + 2100], whole.scale, 5, column)
    x = torch.randn(num_rows, 2100)
    expected = whole.dequantize()[5:60, column : column + 2100].contiguous()
    assert same_bits(linear(x, cut), linear(x, expected))


def test_an_expert_with_many_rows_has_them_as_they_are_alone() -> None:
    counts = torch.tensor([2, 0, 150])
    weights = random_quant(3, 2 * 72, 1100), random_quant(3, 1100, 72)
    x = torch.randn(152, 1100)
    y = grouped_mlp(x, counts, *weights)
    for row in (0, 2, 98, 151):
        alone = torch.tensor([1, 0, 0] if row < 2 else [0, 0, 1])
        assert same_bits(grouped_mlp(x[row : row + 1], alone, *weights), y[row : row + 1])


@pytest.mark.parametrize("num_rows", [1, 6, 7])
def test_fp8_has_the_bits_of_its_dequantised_weight(num_rows: int) -> None:
    """So that holding weights as they are stored changes no text."""
    x, weight = torch.randn(num_rows, 300), random_quant(200, 300)
    assert same_bits(linear(x, weight), linear(x, weight.dequantize()))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("num_rows", [1, 40])
def test_every_fp8_value(level: str, num_rows: int) -> None:
    """Each byte times one, subnormals and both NaNs included."""
    library.library().limit_instructions(LEVELS[level])
    data = torch.arange(256, dtype=torch.uint8).view(256, 1).view(torch.float8_e4m3fn)
    scale = torch.tensor([[1.0], [0.5]])
    y = linear(torch.ones(num_rows, 1), QuantTensor(data, scale))
    expected = data.float().view(1, 256) * scale.repeat_interleave(128, 0).view(1, 256)
    assert torch.equal(y.isnan(), expected.isnan().expand(num_rows, -1))
    assert torch.equal(y.nan_to_num(), expected.nan_to_num().expand(num_rows, -1))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("num_rows", [2, 9])
def test_a_nan_reaches_what_it_is_summed_into_alone(level: str, num_rows: int) -> None:
    library.library().limit_instructions(LEVELS[level])
    x, weight = torch.randn(num_rows, 300), random_quant(70, 300)
    weight.data.view(torch.uint8)[33, 200] = 0xFF
    y = linear(x, weight)
    assert y[:, 33].isnan().all()
    y[:, 33] = 0
    assert y.isfinite().all()
    x[1, 5] = math.nan
    y = linear(x, random_quant(70, 300))
    assert y[1].isnan().all()
    assert y[0].isfinite().all()


@pytest.mark.parametrize("num_rows", [1, 5, 8])
@settings(max_examples=30, deadline=None)
@given(row=st.integers(0, 127), column=st.integers(0, 127))
def test_weights_cut_inside_their_blocks(num_rows: int, row: int, column: int) -> None:
    whole = random_quant(300, 400)
    cut = QuantTensor(whole.data[row : row + 150, column : column + 201], whole.scale, row, column)
    x = torch.randn(num_rows, 201)
    expected = x.double() @ whole.dequantize()[row : row + 150, column : column + 201].double().T
    assert relative_error(linear(x, cut), expected) < FLOAT32_TOLERANCE


def test_rows_may_lie_apart() -> None:
    wide, weight = torch.randn(5, 64), torch.randn(20, 32)
    assert same_bits(linear(wide[:, 32:], weight), linear(wide[:, 32:].contiguous(), weight))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("fmt", FORMATS)
@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    hidden=st.integers(1, 150),
    width=st.integers(1, 70),
)
def test_experts(fmt: str, level: str, counts: list[int], hidden: int, width: int) -> None:
    library.library().limit_instructions(LEVELS[level])
    gate_up = weight_of(fmt, len(counts), 2 * width, hidden)
    down = weight_of(fmt, len(counts), hidden, width)
    x = torch.randn(sum(counts), hidden)
    y = grouped_mlp(x, torch.tensor(counts), gate_up, down)
    wide = [exact(w).float() for w in (gate_up, down)]
    expected = GroupedMLP()(x, torch.tensor(counts), *wide)
    assert relative_error(y, expected) < FLOAT32_TOLERANCE


def test_experts_are_shared_by_threads_without_a_trace() -> None:
    counts = torch.tensor([3, 0, 40, 1])
    weights = random_quant(4, 512, 256), random_quant(4, 256, 256)
    x = torch.randn(44, 256)
    torch.set_num_threads(1)
    alone = grouped_mlp(x, counts, *weights)
    torch.set_num_threads(2)
    assert same_bits(grouped_mlp(x, counts, *weights), alone)


def test_bfloat16_is_no_worse_than_the_reference() -> None:
    x, weight = torch.randn(20, 500).bfloat16(), torch.randn(300, 500).bfloat16()
    expected = x.double() @ weight.double().T
    assert relative_error(linear(x, weight), expected) < 2 * relative_error(x @ weight.T, expected)
    gate_up, down = (torch.randn(shape).bfloat16() / 9 for shape in ((2, 160, 90), (2, 90, 80)))
    x, counts = torch.randn(9, 90).bfloat16(), torch.tensor([4, 5])
    expected = GroupedMLP()(x.float(), counts, gate_up.float(), down.float())
    reference = relative_error(GroupedMLP()(x, counts, gate_up, down), expected)
    assert relative_error(grouped_mlp(x, counts, gate_up, down), expected) < 2 * reference


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 90), st.integers(1, 12)), min_size=1, max_size=4),
    heads=st.sampled_from([1, 3, 40]),
    sizes=st.sampled_from([(128, 16, 32, 32), (60, 6, 20, 33), (256, 32, 17, 16)]),
    page_size=st.sampled_from([16, 64]),
    dtype=st.sampled_from(["float32", "bfloat16", "fp8"]),
    first_slot=st.integers(0, 1),
)
def test_attention(
    rows: list[tuple[int, int]],
    heads: int,
    sizes: tuple[int, int, int, int],
    page_size: int,
    dtype: str,
    first_slot: int,
) -> None:
    """Every slot that is not to be seen holds NaN."""
    latent, rope, nope, value = sizes
    shape = {"latent": latent, "rope": rope, "nope": nope, "value": value}
    case = attention_case(rows, heads=heads, page_size=page_size, dtype=dtype, **shape)
    expected = run_attention(ReferenceMLA, case, first_slot)
    results = []
    for level in LEVELS.values():
        library.library().limit_instructions(level)
        for num_threads in (1, 2):
            torch.set_num_threads(num_threads)
            results.append(run_attention(NativeMLA, case, first_slot))
            assert relative_error(results[-1], expected) < FLOAT32_TOLERANCE
        assert same_bits(*results[-2:])


def test_attention_over_many_pages_is_shared_without_a_trace() -> None:
    case = attention_case([(700, 1), (0, 70), (300, 2)], heads=16)
    torch.set_num_threads(1)
    alone = run_attention(NativeMLA, case, 0)
    torch.set_num_threads(2)
    assert same_bits(run_attention(NativeMLA, case, 0), alone)


def test_what_cannot_be_computed_is_named() -> None:
    x, weight = torch.randn(4, 64), torch.randn(8, 64)
    with pytest.raises(ValueError, match=r"x of shape \(64, 4\) has strides \(1, 64\)"):
        linear(x.T, torch.randn(8, 4))
    with pytest.raises(ValueError, match="weight of shape"):
        linear(torch.randn(4, 8), weight.T)
    with pytest.raises(ValueError, match="x has 64 columns, the weight 32"):
        linear(x, weight[:, :32].contiguous())
    with pytest.raises(ValueError, match=r"x is torch\.float64 on cpu"):
        linear(x.double(), weight)
    with pytest.raises(ValueError, match="x wants a gradient"):
        rms_norm(x.clone().requires_grad_(), torch.ones(64), 1e-6)
    with pytest.raises(ValueError, match=r"\[3, 2\] do not add up to 4 rows"):
        grouped_mlp(x, torch.tensor([3, 2]), torch.zeros(2, 8, 64), torch.zeros(2, 64, 4))
    with pytest.raises(ValueError, match=r"an expert's id is not in \[0, 3\)"):
        permute(x, torch.tensor([[0, 3]] * 4), 3)
    with pytest.raises(ValueError, match="an odd number"):
        swiglu(torch.randn(2, 5))
    with pytest.raises(ValueError, match="its residual"):
        add_rms_norm(x, x.bfloat16(), torch.ones(64), 1e-6)


def test_router_logits_of_bfloat16_are_float32() -> None:
    x, gate = torch.randn(3, 200).bfloat16(), torch.randn(16, 200)
    logits = router_logits(x, gate)
    assert logits.dtype == torch.float32
    assert relative_error(logits, x.double() @ gate.double().T) < FLOAT32_TOLERANCE


def test_permutation_has_the_reference_order() -> None:
    x, ids = torch.randn(50, 7), torch.randint(0, 9, (50, 4))
    rows, permutation = permute(x, ids, 9)
    expected, reference = reference_permute(x, ids, 9)
    assert torch.equal(rows, expected)
    assert torch.equal(permutation.order_R, reference.order_R)
    assert torch.equal(permutation.counts, reference.counts)


@pytest.mark.parametrize("level", LEVELS)
def test_noise_is_that_of_the_reference(level: str) -> None:
    library.library().limit_instructions(LEVELS[level])
    vocab_size = 129_280
    noise = torch.empty(vocab_size)
    for seed, position in ((0, 0), (-1, 5), (2**62 + 12345, 2**31)):
        library.library().gumbel_noise(seed, position, vocab_size, noise.data_ptr())
        expected = gumbel_noise(torch.tensor([seed]), torch.tensor([position]), vocab_size)[0]
        assert (noise - expected).abs().max() < 4e-6
        assert relative_error(noise.exp(), expected.exp()) < FLOAT32_TOLERANCE


def test_calls_beside_one_another() -> None:
    """The one that finds the team at work goes on alone."""
    torch.set_num_threads(2)
    x, weight = torch.randn(8, 900), torch.randn(900, 900)
    expected = linear(x, weight)

    def many(_: int) -> bool:
        return all(same_bits(linear(x, weight), expected) for _ in range(60))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(many, range(4)))


FORK = """
import os, torch
from leadline.kernels.native.linear import linear
torch.set_num_threads(2)
x, weight = torch.randn(8, 900), torch.randn(900, 900)
expected = linear(x, weight)
child = os.fork()
same = torch.equal(linear(x, weight), expected)
if child == 0:
    os._exit(0 if same else 1)
_, status = os.waitpid(child, 0)
raise SystemExit(0 if same and status == 0 else 1)
"""


def test_a_forked_process_has_a_team_of_its_own() -> None:
    assert subprocess.run([sys.executable, "-c", FORK], timeout=100, check=False).returncode == 0


def test_a_library_that_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    assert library.load(tmp_path) == (None, f"not built: {library.HOW_TO_BUILD}")
    (tmp_path / "_native.so").write_bytes(b"no library")
    found, reason = library.load(tmp_path)
    assert found is None
    assert reason.startswith("_native.so cannot be used (")
