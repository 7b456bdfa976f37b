"""Every collective operation against what it says, over gloo."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from leadline.engine.parallel.rank_context import RankContext

UnitOf = Callable[..., Any]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_sums_and_gathers(unit_of: UnitOf, size: int, ordered: bool, dtype: torch.dtype) -> None:
    def work(rank: RankContext) -> Any:
        tp = rank.parallel.tp
        x = torch.arange(size * 6).reshape(2 * size, 3).to(dtype) + tp.rank
        return (
            tp.all_reduce(x.clone()),
            tp.reduce_scatter(x.clone()),
            tp.all_gather(x, 0),
            tp.all_gather(x, -1),
            tp.all_reduce(x[:0]),
        )

    parts = [torch.arange(size * 6).reshape(2 * size, 3).to(dtype) + r for r in range(size)]
    total = sum(parts)
    for r, (summed, scattered, rows, columns, nothing) in enumerate(
        unit_of(size, 1, False, ordered=ordered).run(work)
    ):
        assert torch.equal(summed, total)
        assert torch.equal(scattered, total[2 * r : 2 * r + 2])
        assert torch.equal(rows, torch.cat(parts))
        assert torch.equal(columns, torch.cat(parts, -1))
        assert nothing.shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_all_to_all_with_counts_that_differ(unit_of: UnitOf, dtype: torch.dtype) -> None:
    counts = [[0, 2, 1], [0, 0, 0], [3, 0, 1]]  # from rank (row) to rank (column)

    def work(rank: RankContext) -> Any:
        me = rank.rank
        rows = [torch.full((n, 4), 10.0 * me + to) for to, n in enumerate(counts[me])]
        x = torch.cat(rows).to(dtype)
        return rank.parallel.dp.all_to_all(x, counts[me], [row[me] for row in counts])

    for me, received in enumerate(unit_of(1, 3).run(work)):
        expected = [torch.full((counts[r][me], 4), 10.0 * r + me) for r in range(3)]
        assert torch.equal(received.float(), torch.cat(expected).to(dtype).float())


def test_groups_of_a_layout(unit_of: UnitOf) -> None:
    def work(rank: RankContext) -> Any:
        groups = rank.parallel.tp, rank.parallel.dp, rank.parallel.ep
        return [group.all_gather(torch.tensor([rank.rank]), 0).tolist() for group in groups]

    assert unit_of(2, 2).run(work) == [
        [[0, 1], [0, 2], [0, 1, 2, 3]],
        [[0, 1], [1, 3], [0, 1, 2, 3]],
        [[2, 3], [0, 2], [0, 1, 2, 3]],
        [[2, 3], [1, 3], [0, 1, 2, 3]],
    ]


def test_a_sum_has_the_same_bits_on_all_ranks_and_for_any_number_of_rows(unit_of: UnitOf) -> None:
    def work(rank: RankContext) -> Any:
        generator = torch.Generator().manual_seed(rank.rank)
        x = torch.randn(33, 7, generator=generator)
        tp = rank.parallel.tp
        whole = tp.all_reduce(x.clone())
        parts = torch.cat([tp.all_reduce(part.clone()) for part in x.split([1, 13, 19])])
        scattered = tp.all_gather(tp.reduce_scatter(x[:32].clone()), 0)
        return whole, parts, scattered

    results = unit_of(4, 1).run(work)
    for whole, parts, scattered in results:
        assert torch.equal(whole, results[0][0])
        assert torch.equal(whole, parts)
        assert torch.equal(whole[:32], scattered)
