"""A model cut over ranks against the whole one: the same routing, logits and greedy text."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from leadline.engine.build import LoadedModel, load_model, make_cache, make_runner
from leadline.engine.config import ResolvedConfig
from leadline.engine.grammar.compiler import GrammarStore
from leadline.engine.model.paged_memory import PagedMemory
from leadline.engine.model.rope import softmax_scale
from leadline.engine.parallel.rank_context import RankContext
from leadline.engine.request import SamplingParams
from leadline.engine.step import FOLLOWS, NewRequest, ScheduledRow, SchedulerOutput
from leadline.engine.worker.input_batch import Span, make_meta
from leadline.loader.synthetic import tiny_v2_lite, tiny_v3, write_checkpoint

UnitOf = Callable[..., Any]
PAGE_SIZE = 16
LENGTHS = [20, 3, 0, 33, 7, 1, 12, 5]  # of each data parallel rank's prompt; one rank is idle
LAYOUTS = [
    (2, 1, False),
    (4, 1, False),
    (1, 2, False),
    (2, 2, False),
    (2, 1, True),
    (4, 1, True),
    (1, 2, True),
    (1, 4, True),
    (1, 8, True),
    (2, 4, True),
    (2, 2, True),
]


@pytest.fixture(scope="module", params=["v3-float32", "v3-fp8", "v2-lite-float32"])
def config(request: Any, tmp_path_factory: pytest.TempPathFactory) -> ResolvedConfig:
    path: Path = tmp_path_factory.mktemp("checkpoint")
    shape, _, fmt = request.param.rpartition("-")
    raw = tiny_v3() if shape == "v3" else tiny_v2_lite()
    write_checkpoint(path, raw, fmt=fmt)
    return ResolvedConfig(
        model=str(path),
        served_model_name="m",
        device="cpu",
        max_model_len=80,
        page_size=PAGE_SIZE,
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
        speculative_tokens=2,
    )


def prompt(dp_rank: int) -> list[int]:
    generator = torch.Generator().manual_seed(dp_rank)
    return torch.randint(512, (LENGTHS[dp_rank],), generator=generator).tolist()


def logits_of(loaded: LoadedModel, config: ResolvedConfig, token_ids: Sequence[int]) -> Any:
    """Logits of every position, computed in two chunks; none for an idle rank."""
    model = loaded.model
    memory = PagedMemory(
        make_cache(config, loaded), loaded.kernels, scale=softmax_scale(loaded.config)
    )
    meta = make_meta([Span(range(8), 0, len(token_ids))], PAGE_SIZE)
    memory.plan(meta)
    step = model.step_context(meta.positions_T, memory)
    return model.compute_logits(model.forward(torch.tensor(token_ids), step))


def unit_logits(config: ResolvedConfig) -> Callable[[RankContext], Any]:
    def work(rank: RankContext) -> Any:
        loaded = load_model(config, rank=rank)
        assert loaded.exchange is not None
        dp_rank = rank.layout.dp_rank(rank.rank)
        loaded.exchange.plan(max(LENGTHS[: rank.layout.dp_size]))
        if LENGTHS[dp_rank] == 0:
            make_runner(config, loaded, GrammarStore(Path(config.model)))._take_part()
            return None, loaded.expert_load(), loaded.num_bytes
        return (
            logits_of(loaded, config, prompt(dp_rank)),
            loaded.expert_load(),
            loaded.num_bytes,
        )

    return work


@pytest.mark.parametrize(("tp", "dp", "whole"), LAYOUTS)
def test_logits_and_routing(
    unit_of: UnitOf, config: ResolvedConfig, tp: int, dp: int, whole: bool
) -> None:
    alone = load_model(config)
    wanted = [logits_of(alone, config, prompt(r)) if LENGTHS[r] else None for r in range(dp)]
    results = unit_of(tp, dp, whole).run(unit_logits(config))
    for number, (logits, _, num_bytes) in enumerate(results):
        want = wanted[number // tp]
        assert num_bytes < alone.num_bytes, "a rank holds no more than its share"
        if want is None:
            assert logits is None
        elif tp == 1 and whole:
            assert torch.equal(logits, want), "no bit depends on where an expert lies"
        else:
            torch.testing.assert_close(logits, want, rtol=0, atol=1e-4)
            assert torch.equal(logits.argmax(-1), want.argmax(-1))
    for layer, want_load in enumerate(alone.expert_load()):
        loads = [load[layer].counts for _, load, _ in results]
        if whole:
            assert [sum(counts) for counts in zip(*loads, strict=True)] == want_load.counts
        else:
            assert all(counts == want_load.counts for counts in loads)


def greedy(runner: Any, token_ids: list[int], num_steps: int, depth: int) -> list[int]:
    """Steps of one request, or of none, drafts included; as many on every rank."""
    text: list[int] = []
    for step_id in range(num_steps):
        plan = SchedulerOutput(step_id, [], [], [], 0)
        if token_ids:
            row = ScheduledRow("a", FOLLOWS, 1, [], depth, True, num_drafts=depth)
            if step_id == 0:
                params = SamplingParams(seed=0, max_tokens=60, temperature=0.0)
                plan.new_requests.append(
                    NewRequest(
                        request_id="a",
                        token_ids=token_ids,
                        num_prompt_tokens=len(token_ids),
                        params=params,
                    )
                )
                pages = list(range(8))
                row = ScheduledRow("a", 0, len(token_ids), pages, 0, True, num_drafts=depth)
            plan.rows.append(row)
        output = runner.run(plan)
        for result in output.rows:
            assert result.error is None
            text += result.token_ids
    return text


@pytest.mark.parametrize(("tp", "dp", "whole"), [(2, 2, True), (1, 4, True), (2, 2, False)])
def test_greedy_text_with_drafts(
    unit_of: UnitOf, config: ResolvedConfig, tp: int, dp: int, whole: bool
) -> None:
    """Ranks draft to different depths; one has no request, and one verifies no drafts."""
    grammars = GrammarStore(Path(config.model))
    alone = load_model(config)
    depth = 2 if alone.has_mtp else 0
    depths = [depth, 0, depth, min(1, depth)]
    wanted = []
    for r in range(dp):
        runner = make_runner(config, alone, grammars)
        wanted.append(greedy(runner, prompt(r), 8, 0) if LENGTHS[r] else [])

    def work(rank: RankContext) -> Any:
        runner = make_runner(config, load_model(config, rank=rank), grammars)
        dp_rank = rank.layout.dp_rank(rank.rank)
        return greedy(runner, prompt(dp_rank), 8, depths[dp_rank])

    for number, text in enumerate(unit_of(tp, dp, whole).run(work)):
        want = wanted[number // tp]
        assert text[: len(want)] == want
        assert len(text) >= len(want)
    grammars.close()
