"""Tokens to experts on other ranks and back: every form against the local dispatcher."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from leadline.engine.model.dispatch import LocalDispatcher
from leadline.engine.parallel.exchange import ExpertExchange
from leadline.engine.parallel.expert_dispatch import ExpertParallelDispatcher
from leadline.engine.parallel.payload import Payload
from leadline.engine.parallel.placement import LinearPlacement
from leadline.engine.parallel.rank_context import RankContext
from leadline.engine.parallel.sliced_dispatch import SlicedDispatcher
from leadline.kernels.select import Platform, select_kernels

UnitOf = Callable[..., Any]
NUM_EXPERTS, TOP_K, WIDTH, HIDDEN = 10, 3, 12, 256
KERNELS, _ = select_kernels(Platform(batch_invariant=True))


def weights() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    gate_up = torch.randn(NUM_EXPERTS, 2 * WIDTH, HIDDEN, generator=generator) / HIDDEN**0.5
    down = torch.randn(NUM_EXPERTS, HIDDEN, WIDTH, generator=generator) / WIDTH**0.5
    return gate_up, down


def tokens(dp_rank: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(dp_rank)
    x = torch.randn(count, HIDDEN, generator=generator)
    ids = torch.rand(count, NUM_EXPERTS, generator=generator).argsort(-1)[:, :TOP_K]
    return x, ids, torch.rand(count, TOP_K, generator=generator)


def expected(dp_rank: int, count: int) -> Tensor:
    local = LocalDispatcher(KERNELS, NUM_EXPERTS)
    sent = local.dispatch(*tokens(dp_rank, count))
    return local.combine(KERNELS.grouped_mlp(sent.x_RD, sent.counts, *weights()), sent.handle)


def exchange_of(rank: RankContext, *, exact: bool = True, is_fp8: bool = False) -> ExpertExchange:
    payload = Payload(KERNELS, is_fp8=is_fp8)
    return ExpertExchange(rank.parallel, KERNELS, payload, exact=exact)


COUNTS = {1: [5], 2: [0, 7], 4: [1, 0, 0, 6], 5: [3, 1, 4, 0, 2]}
LAYOUTS = [(1, 2), (1, 4), (1, 5), (2, 1), (2, 2), (4, 1), (2, 4)]


@pytest.mark.parametrize("capacity", [None, 7])
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(("tp", "dp"), LAYOUTS)
def test_whole_experts(unit_of: UnitOf, tp: int, dp: int, exact: bool, capacity: Any) -> None:
    placement = LinearPlacement(NUM_EXPERTS, tp * dp)

    def work(rank: RankContext) -> Any:
        exchange = exchange_of(rank, exact=exact)
        exchange.plan(capacity)
        dispatcher = ExpertParallelDispatcher(exchange, placement)
        dp_rank = rank.layout.dp_rank(rank.rank)
        sent = dispatcher.dispatch(*tokens(dp_rank, COUNTS[dp][dp_rank]))
        mine = list(dispatcher.expert_ids)
        gate_up, down = weights()
        y = KERNELS.grouped_mlp(sent.x_RD, sent.counts, gate_up[mine], down[mine])
        return dispatcher.combine(y, sent.handle), sent.counts, exchange.meter.take()

    results = unit_of(tp, dp).run(work)
    for number, (y, _, _) in enumerate(results):
        want = expected(number // tp, COUNTS[dp][number // tp])
        if exact:
            assert torch.equal(y, want)
        else:
            torch.testing.assert_close(y, want, rtol=0, atol=1e-5)
    counts = torch.cat([counts for _, counts, _ in results])
    ids = torch.cat([tokens(r, n)[1] for r, n in enumerate(COUNTS[dp])]).flatten()
    assert torch.equal(counts, ids.bincount(minlength=NUM_EXPERTS))
    meters = [meter for _, _, meter in results]
    assert sum(meter.num_tokens for meter in meters) == sum(COUNTS[dp])
    assert all(meter.num_layers == 1 and meter.seconds > 0 for meter in meters)


@pytest.mark.parametrize(("tp", "dp"), LAYOUTS)
def test_sliced_experts(unit_of: UnitOf, tp: int, dp: int) -> None:
    def work(rank: RankContext) -> Any:
        exchange = exchange_of(rank)
        exchange.plan(max(COUNTS[dp]))
        dispatcher = SlicedDispatcher(exchange, NUM_EXPERTS)
        dp_rank = rank.layout.dp_rank(rank.rank)
        sent = dispatcher.dispatch(*tokens(dp_rank, COUNTS[dp][dp_rank]))
        gate_up, down = weights()
        first, last = (WIDTH * i // (tp * dp) for i in (rank.rank, rank.rank + 1))
        gate_up = torch.cat([half[:, first:last] for half in gate_up.chunk(2, 1)], 1)
        y = KERNELS.grouped_mlp(
            sent.x_RD, sent.counts, gate_up, down[:, :, first:last].contiguous()
        )
        return dispatcher.combine(y, sent.handle)

    for number, y in enumerate(unit_of(tp, dp, False).run(work)):
        want = expected(number // tp, COUNTS[dp][number // tp])
        torch.testing.assert_close(y, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("capacity", [None, 7])
def test_activations_in_fp8(unit_of: UnitOf, capacity: Any) -> None:
    """What arrives is what quantisation in groups of 128 makes of it; the choice is exact."""

    def work(rank: RankContext) -> Any:
        exchange = exchange_of(rank, is_fp8=True)
        exchange.plan(capacity)
        dispatcher = ExpertParallelDispatcher(exchange, LinearPlacement(NUM_EXPERTS, 4))
        sent = dispatcher.dispatch(*tokens(rank.rank, COUNTS[4][rank.rank]))
        return dispatcher.combine(sent.x_RD, sent.handle), exchange.meter.take().num_bytes

    for number, (y, num_bytes) in enumerate(unit_of(1, 4).run(work)):
        x, _, factors = tokens(number, COUNTS[4][number])
        values, scales = KERNELS.quantize_fp8(x, "fp32")
        rounded = values.float() * scales.repeat_interleave(128, 1)
        torch.testing.assert_close(y, rounded * factors.sum(1, keepdim=True), rtol=0, atol=1e-5)
        assert capacity is not None or (num_bytes == 0) == (len(x) == 0) or num_bytes > 0


def test_a_token_goes_once_to_each_rank_that_it_needs(unit_of: UnitOf) -> None:
    def work(rank: RankContext) -> Any:
        exchange = exchange_of(rank)
        dispatcher = ExpertParallelDispatcher(exchange, LinearPlacement(8, 2))
        x = torch.zeros(1 - rank.rank, 4)
        ids = torch.tensor([[4, 5, 6]])[: len(x)]
        sent = dispatcher.dispatch(x, ids, torch.ones(len(x), 3))
        return sent.counts.tolist(), exchange.meter.take().num_bytes

    first, second = unit_of(1, 2).run(work)
    assert first == ([0, 0, 0, 0], 4 * 4 + 3 * (4 + 4))  # activations, slots, weights: once
    assert second == ([1, 1, 1, 0], 0)
