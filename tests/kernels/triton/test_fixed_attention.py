"""Decode attention whose launches do not change: one object over steps of other lengths."""

import dataclasses

import pytest
import torch

from leadline.kernels.reference.mla import ReferenceMLA
from leadline.kernels.testing import (
    FLOAT32_TOLERANCE,
    AttentionCase,
    attention_case,
    relative_error,
    run_attention,
    to_device,
)

pytest.importorskip("triton", reason="triton is not installed; the extra `gpu` has it")
from leadline.kernels.triton import mla_decode
from leadline.kernels.triton.mla_fixed import DecodeShape, FixedMLA

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HEADS, PAGE_SIZE = 12, 16
STEPS = [[0, 70, 31, 3], [200, 1, 0, 15], [5, 5, 5, 5]]  # cached tokens of each row


def make(case: AttentionCase, max_pages: int = 20) -> FixedMLA:
    shape = DecodeShape(num_rows=4, query_len=2, num_heads=HEADS, max_pages=max_pages)
    return FixedMLA(shape, scale=case.scale, page_size=PAGE_SIZE, device=torch.device(DEVICE))


def step(cached: list[int], dtype: str) -> AttentionCase:
    torch.manual_seed(sum(cached))
    rows = [(n, 2) for n in cached]
    return attention_case(rows, heads=HEADS, page_size=PAGE_SIZE, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "fp8"])
def test_steps_of_any_length_have_the_same_launches(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grids, and addresses of what a launch reads of the plan, are those of the first step."""
    launches: set[tuple[int, ...]] = set()
    attend = mla_decode.decode_kernel

    class Recorded:
        def __getitem__(self, grid: tuple[int, ...]) -> object:
            def launch(*args: object, **kwargs: object) -> None:
                addresses = [args[i].data_ptr() for i in (3, 4)]  # type: ignore[attr-defined]
                launches.add((*grid, *addresses))
                attend[grid](*args, **kwargs)

            return launch

    monkeypatch.setattr(mla_decode, "decode_kernel", Recorded())
    attention = make(step(STEPS[0], dtype))
    for cached in STEPS:
        case = step(cached, dtype)
        for first_slot in (0, 1):
            expected = run_attention(ReferenceMLA, case, first_slot)
            on_device = to_device(case, DEVICE)
            attention.plan(on_device.meta)
            query = on_device.q_nope_THN, on_device.q_rope_THR
            o = attention.run(*query, on_device.cache, on_device.projection, first_slot)
            assert relative_error(o.cpu(), expected) < FLOAT32_TOLERANCE
    assert len(launches) == 1


def test_padding_rows_yield_zeros() -> None:
    """The last two rows have no tokens and no pages; what their table holds is not read."""
    case = step([40, 17], "bfloat16")
    expected = run_attention(ReferenceMLA, case, 0)
    meta = dataclasses.replace(
        case.meta,
        query_lens=[2] * 4,
        seq_lens=[*case.meta.seq_lens, 0, 0],
        page_table=torch.nn.functional.pad(case.meta.page_table, (0, 0, 0, 2), value=10**6),
    )
    padded = [torch.cat((q, torch.randn_like(q))) for q in (case.q_nope_THN, case.q_rope_THR)]
    attention = make(case)
    attention.plan(to_device(meta, DEVICE))
    o = attention.run(*to_device((*padded, case.cache, case.projection), DEVICE)).cpu()
    assert relative_error(o[:4], expected) < FLOAT32_TOLERANCE
    assert (o[4:] == 0).all()


def test_a_batch_of_another_shape_is_refused() -> None:
    case = step([40, 17], "bfloat16")
    with pytest.raises(ValueError, match=r"takes 4 rows of 2 new tokens, not \[2, 2\]"):
        make(case).plan(case.meta)
    four = step([40, 17, 1, 0], "bfloat16")
    with pytest.raises(ValueError, match="3 pages a row are more than 2"):
        make(four, max_pages=2).plan(four.meta)
