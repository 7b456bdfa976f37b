"""Experts that move between ranks while these serve: the text before, during and after."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch

from leadline.engine.build import load_model, make_runner
from leadline.engine.config import ResolvedConfig
from leadline.engine.expert_balance.balancer import ExpertBalancer
from leadline.engine.expert_balance.decision import Decision
from leadline.engine.expert_balance.expert_map import ExpertMap, initial_map
from leadline.engine.grammar.compiler import GrammarStore
from leadline.engine.parallel.byte_checksum import checksum
from leadline.engine.parallel.expert_mover import ExpertMover, MovableLayer
from leadline.engine.parallel.make_balancer import balancer_of
from leadline.engine.parallel.rank_context import RankContext
from leadline.engine.request import SamplingParams
from leadline.engine.step import FOLLOWS, NewRequest, ScheduledRow, SchedulerOutput
from leadline.loader.synthetic import tiny_v3, write_checkpoint

UnitOf = Callable[..., Any]
NUM_STEPS = 36
ROUND_BYTES = 50_000  # what a rank gets takes several rounds


@pytest.fixture(scope="module", params=["float32", "fp8"])
def config(request: Any, tmp_path_factory: pytest.TempPathFactory) -> ResolvedConfig:
    path: Path = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(path, tiny_v3(), fmt=request.param)
    return ResolvedConfig(
        model=str(path),
        served_model_name="m",
        device="cpu",
        max_model_len=96,
        page_size=16,
        num_pages=8,
        kv_cache_dtype="float32",
        max_num_seqs=4,
        max_num_batched_tokens=64,
        prefix_caching=False,
        seed=0,
        num_threads=1,
        dtype="float32",
        kernels={},
        batch_invariant=True,
        speculative_tokens=1,
        expert_balance_steps=0,
    )


def texts(
    runner: Any, rank: int, num_steps: int, between_steps: Callable[[], None] = lambda: None
) -> list[int]:
    """Greedy text with a draft a step; the last rank has no request."""
    text: list[int] = []
    token_ids = [7 + rank, 30, 99, 200 + rank]
    for step_id in range(num_steps):
        plan = SchedulerOutput(step_id, [], [], [], 0)
        if rank < 3:
            row = ScheduledRow("a", FOLLOWS, 1, [], 1, True, num_drafts=1)
            if step_id == 0:
                params = SamplingParams(seed=0, max_tokens=90, temperature=0.0)
                request = NewRequest(
                    request_id="a", token_ids=token_ids, num_prompt_tokens=4, params=params
                )
                plan.new_requests.append(request)
                row = ScheduledRow("a", 0, 4, list(range(8)), 0, True, num_drafts=1)
            plan.rows.append(row)
        between_steps()
        for result in runner.run(plan).rows:
            assert result.error is None
            text += result.token_ids
    return text


def decided(new: dict[int, ExpertMap]) -> Callable[..., Future[Decision]]:
    """A first rank that always wants these maps."""

    def submit(*_: Any) -> Future[Decision]:
        future: Future[Decision] = Future()
        future.set_result(Decision(maps=new, balancedness=0.5, predicted=0.9))
        return future

    return submit


def rotated(layers: Any, num_redundant: int) -> dict[int, ExpertMap]:
    """Everything moves, the hottest experts' replicas included."""
    current = initial_map(16, 4, num_redundant)
    width = current.slots_per_rank
    slots = current.slots[width:] + current.slots[:width]
    return {layer: ExpertMap(16, 4, tuple((e + 3) % 16 for e in slots)) for layer in layers}


@pytest.mark.parametrize("num_redundant", [0, 4])
def test_text_before_during_and_after(
    unit_of: UnitOf, config: ResolvedConfig, num_redundant: int
) -> None:
    grammars = GrammarStore(Path(config.model))
    alone = load_model(config)
    wanted = [texts(make_runner(config, alone, grammars), rank, NUM_STEPS) for rank in range(3)]

    def work(rank: RankContext) -> Any:
        rank = dataclasses.replace(rank, num_redundant_experts=num_redundant)
        loaded = load_model(config, rank=rank)
        before = balancer_of(loaded.model, loaded.config, rank, 1000)
        assert before is not None
        moved = rotated(before.maps, num_redundant)
        balancer = ExpertBalancer(
            before.unit,
            before.layout,
            before.maps,
            window_steps=4,
            round_bytes=ROUND_BYTES,
            submit=decided(moved),
        )
        runner = make_runner(config, loaded, grammars)
        text = texts(runner, rank.rank, NUM_STEPS, balancer.between_steps)
        return text, balancer.maps == moved, balancer.counts, loaded.model.expert_load()

    results = unit_of(1, 4).run(work)
    for want, (text, *_) in zip(wanted, results, strict=False):
        assert text[: len(want)] == want
    assert all(has_moved for _, has_moved, _, _ in results)
    counts = results[0][2]
    assert counts.num_switched_layers == len(results[0][3])
    assert counts.num_refused_layers == 0
    total = [[sum(c) for c in zip(*(r[3][i].counts for r in results), strict=True)] for i in (0, 1)]
    assert all(sum(layer) > 0 for layer in total)
    grammars.close()


class Damaging:
    """Collectives that change a byte on the way."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.rank, self.size = inner.rank, inner.size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def all_to_all(self, x: torch.Tensor, send: Any, receive: Any) -> torch.Tensor:
        came = self._inner.all_to_all(x, send, receive)
        if self.rank == 2 and x.dtype == torch.uint8 and len(came):
            came[len(came) // 2] ^= 4
        return came


def test_damaged_weights_are_refused_by_all_ranks(unit_of: UnitOf, config: ResolvedConfig) -> None:
    def work(rank: RankContext) -> Any:
        loaded = load_model(config, rank=rank)
        layout = rank.expert_layout(loaded.config)
        assert layout is not None
        layers = {}
        for number, moe in loaded.model.moe_layers().items():
            dispatcher: Any = moe.dispatcher
            layers[number] = MovableLayer(moe, dispatcher, dispatcher.placement)
        mover = ExpertMover(Damaging(rank.parallel.ep), layers)
        before = [[part.clone() for part in layer.moe.expert_bytes()] for layer in layers.values()]
        balancer = ExpertBalancer(
            mover,
            layout,
            mover.maps,
            window_steps=1,
            round_bytes=ROUND_BYTES,
            submit=decided(rotated(layers, 0)),
        )
        for _ in range(40):
            balancer.between_steps()
        after = [layer.moe.expert_bytes() for layer in layers.values()]
        for was, now in zip(before, after, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(was, now, strict=True))
        return balancer.counts, balancer.maps == {n: initial_map(16, 4) for n in layers}

    for counts, is_unchanged in unit_of(1, 4).run(work):
        assert counts.num_refused_layers > 0
        assert counts.num_switched_layers == 0
        assert is_unchanged


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 70_001])
def test_the_checksum_notices_a_changed_byte(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (size,), generator=generator).to(torch.uint8)
    whole = checksum(x)
    assert checksum(x.clone()) == whole
    assert 0 <= whole < 2**62
    for index in {0, size // 2, size - 1} if size else ():
        changed = x.clone()
        changed[index] ^= 1
        assert checksum(changed) != whole
    if size > 1:
        assert checksum(torch.cat((x[1:], x[:1]))) != whole
