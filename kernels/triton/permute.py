"""Rows sorted by expert and back, without a word to the host.

A stable counting sort: `count_kernel` counts the choices of each part by expert, `place_kernel`
adds up the parts before its own and deals the places.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from leadline.kernels.api import Permutation
from leadline.kernels.triton.launch import rows_of
from leadline.kernels.triton.numerics import narrow

CHUNK = 64  # choices that a program ranks at a time
MAX_PROGRAMS = 64
COLUMNS = 1024  # values of a row that a program copies at a time


@triton.jit
def count_kernel(
    ids_ptr,
    part_counts_ptr,
    num_choices,
    num_experts,
    part_size,
    chunk: tl.constexpr,
    experts: tl.constexpr,
):
    """Choices of each expert in one part: row p of [parts, E]."""
    expert = tl.arange(0, experts)
    counts = tl.zeros((experts,), tl.int32)
    first = tl.program_id(0) * part_size
    for begin in range(first, tl.minimum(first + part_size, num_choices), chunk):
        choice = begin + tl.arange(0, chunk)
        ids = tl.load(ids_ptr + choice, choice < num_choices, -1).to(tl.int32)
        counts += tl.sum((ids[:, None] == expert[None, :]).to(tl.int32), axis=0)
    counts_ptr = part_counts_ptr + tl.program_id(0) * num_experts
    tl.store(counts_ptr + expert, counts, expert < num_experts)


@triton.jit
def place_kernel(
    ids_ptr,
    part_counts_ptr,
    order_ptr,
    counts_ptr,
    num_choices,
    num_experts,
    num_parts,
    part_size,
    chunk: tl.constexpr,
    experts: tl.constexpr,
):
    """Which choice goes where: experts in order, within an expert choices in order."""
    expert = tl.arange(0, experts)
    is_expert = expert < num_experts
    before = tl.zeros((experts,), tl.int32)
    total = tl.zeros((experts,), tl.int32)
    for part in range(num_parts):
        counts = tl.load(part_counts_ptr + part * num_experts + expert, is_expert, 0)
        before += tl.where(part < tl.program_id(0), counts, 0)
        total += counts
    if tl.program_id(0) == 0:
        tl.store(counts_ptr + expert, total.to(tl.int64), is_expert)
    starts = tl.cumsum(total, axis=0) - total + before
    first = tl.program_id(0) * part_size
    for begin in range(first, tl.minimum(first + part_size, num_choices), chunk):
        choice = begin + tl.arange(0, chunk)
        is_choice = choice < num_choices
        ids = tl.load(ids_ptr + choice, is_choice, -1).to(tl.int32)
        is_mine = (ids[:, None] == expert[None, :]).to(tl.int32)
        places = starts[None, :] + tl.cumsum(is_mine, axis=0) - 1
        place = tl.sum(is_mine * places, axis=1)
        tl.store(order_ptr + place, choice.to(tl.int64), is_choice)
        starts += tl.sum(is_mine, axis=0)


@triton.jit
def gather_kernel(x_ptr, order_ptr, y_ptr, x_stride, num_columns, top_k, block: tl.constexpr):
    """y[r] = x[order[r] // top_k]."""
    row = tl.program_id(0).to(tl.int64)
    token = tl.load(order_ptr + row) // top_k
    column = tl.program_id(1) * block + tl.arange(0, block)
    mask = column < num_columns
    x = tl.load(x_ptr + token * x_stride + column, mask)
    tl.store(y_ptr + row * num_columns + column, x, mask)


@triton.jit
def combine_kernel(
    y_ptr,
    places_ptr,
    weights_ptr,
    sums_ptr,
    num_columns,
    top_k,
    block: tl.constexpr,
):
    """sums[t] = sum over k, in order, of weights[t, k] * y[places[t, k]]."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    mask = column < num_columns
    total = tl.zeros((block,), tl.float32)
    for k in range(top_k):
        place = tl.load(places_ptr + token * top_k + k).to(tl.int64)
        weight = tl.load(weights_ptr + token * top_k + k)
        total += weight * tl.load(y_ptr + place * num_columns + column, mask, 0.0).to(tl.float32)
    tl.store(
        sums_ptr + token * num_columns + column, narrow(total, sums_ptr.dtype.element_ty), mask
    )


def sort_by_expert(ids_TK: Tensor, num_experts: int) -> Permutation:
    """Order and counts, both on the device of the ids."""
    num_choices, device = ids_TK.numel(), ids_TK.device
    order = torch.empty(num_choices, dtype=torch.int64, device=device)
    if num_choices == 0:
        return Permutation(order, torch.zeros(num_experts, dtype=torch.int64, device=device))
    counts = torch.empty(num_experts, dtype=torch.int64, device=device)
    ids = ids_TK.contiguous()
    num_chunks = triton.cdiv(num_choices, CHUNK)
    part_size = triton.cdiv(num_chunks, MAX_PROGRAMS) * CHUNK
    num_parts = triton.cdiv(num_choices, part_size)
    part_counts = torch.empty(num_parts, num_experts, dtype=torch.int32, device=device)
    sizes = {"chunk": CHUNK, "experts": triton.next_power_of_2(num_experts), "num_warps": 8}
    sizes["part_size"] = part_size
    count_kernel[(num_parts,)](ids, part_counts, num_choices, num_experts, **sizes)
    place_kernel[(num_parts,)](
        ids, part_counts, order, counts, num_choices, num_experts, num_parts, **sizes
    )
    return Permutation(order, counts)


def permute(x_TD: Tensor, ids_TK: Tensor, num_experts: int) -> tuple[Tensor, Permutation]:
    """See `api.Permute`; the counts stay on the device."""
    permutation = sort_by_expert(ids_TK, num_experts)
    return gather_rows(x_TD, permutation, ids_TK.shape[1]), permutation


def gather_rows(x_TD: Tensor, permutation: Permutation, top_k: int) -> Tensor:
    """The row of each sorted choice's token: [T * K, D]."""
    order = permutation.order_R
    x, num_rows = rows_of(x_TD), len(order)
    y = torch.empty(num_rows, x.shape[1], dtype=x.dtype, device=x.device)
    if y.numel():
        grid = (num_rows, triton.cdiv(x.shape[1], COLUMNS))
        gather_kernel[grid](x, order, y, x.stride(0), x.shape[1], top_k, block=COLUMNS)
    return y


def unpermute(y_RD: Tensor, permutation: Permutation, weights_TK: Tensor) -> Tensor:
    """See `api.Unpermute`."""
    y = y_RD.contiguous()
    num_tokens, top_k = weights_TK.shape
    sums = torch.empty(num_tokens, y.shape[1], dtype=y.dtype, device=y.device)
    if sums.numel():
        order = permutation.order_R
        places = torch.empty(len(order), dtype=torch.int32, device=y.device)
        places[order] = torch.arange(len(order), dtype=torch.int32, device=y.device)
        grid = (num_tokens, triton.cdiv(y.shape[1], COLUMNS))
        combine_kernel[grid](
            y, places, weights_TK.contiguous(), sums, y.shape[1], top_k, block=COLUMNS
        )
    return sums
