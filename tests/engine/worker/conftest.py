"""A small random model, and requests of any kind led through it step by step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from leadline.engine.model.deepseek import DeepseekModel
from leadline.engine.model.paged_memory import PagedMemory
from leadline.engine.model.rope import softmax_scale
from leadline.engine.model.weights import assemble
from leadline.engine.parallel.context import ParallelContext
from leadline.engine.request import Grammar, SamplingParams, TokenLogprobs
from leadline.engine.step import FOLLOWS, NewRequest, RowOutput, ScheduledRow, SchedulerOutput
from leadline.engine.worker.drafter import Drafter
from leadline.engine.worker.grammar_path import Words
from leadline.engine.worker.model_runner import ModelRunner
from leadline.kernels.api import KernelSet
from leadline.kernels.latent_cache import LatentCache, LatentLayout
from leadline.kernels.select import Platform, select_kernels
from leadline.loader.checkpoint import Checkpoint
from leadline.loader.load import load_weights
from leadline.loader.model_config import ModelConfig
from leadline.loader.synthetic import tiny_v3, write_checkpoint

PAGE_SIZE, PAGES_EACH, VOCAB, MAX_STEPS = 4, 12, 512, 42
EOS = 1
FEW = (EOS, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)
TOO_DEEP = "too deep"

Spoil = Callable[[list[int]], list[int]]


class FakeMatcher:
    """A grammar over token ids: whether a token may follow depends on all the tokens before it.

    After `length` tokens only end tokens may follow. `fatal` tokens that are accepted put it into
    error for good, as a grammar that is too complex would; with an even salt, some states have no
    continuation, which does so too.
    """

    def __init__(self, length: int, salt: int, fatal: int | None) -> None:
        self._length, self._salt, self._fatal = length, salt, fatal
        self._taken: list[int] = []
        self.error: str | None = None

    def allows(self, token_id: int) -> bool:
        if len(self._taken) >= self._length or EOS in self._taken:
            return token_id == EOS
        state = hash((self._salt, *self._taken))
        return token_id in FEW and token_id != EOS and (state >> token_id) % 3 != 0

    def accept(self, token_ids: Sequence[int]) -> int:
        for count, token_id in enumerate(token_ids):
            if self.error is not None or not self.allows(token_id):
                return count
            if token_id == self._fatal and len(self._taken) > 1:
                self.error = TOO_DEEP
                return count
            self._taken.append(token_id)
        return len(token_ids)

    def rollback(self, num_tokens: int) -> None:
        assert 0 <= num_tokens <= len(self._taken)
        del self._taken[len(self._taken) - num_tokens :]

    def fill_mask(self, row: Words) -> None:
        assert row.shape == (VOCAB // 32,)
        bits = np.zeros(VOCAB, np.uint8)
        bits[[t for t in range(VOCAB) if self.allows(t)]] = self.error is None
        state = hash((self._salt, len(self._taken), *self._taken[-1:]))
        if self._salt % 2 == 0 and state % 17 == 0:
            self.error = "it allows no token"
        if self.error is not None:
            bits[:] = 0
            bits[EOS] = 1
        row[:] = np.packbits(bits, bitorder="little").view(np.int32)


class FakeGrammars:
    """Reads a grammar's text: `length salt fatal`."""

    def matcher(self, grammar: Grammar) -> FakeMatcher:
        length, salt, fatal = map(int, grammar.text.split())
        return FakeMatcher(length, salt, fatal if fatal >= 0 else None)


@dataclass
class Answer:
    """What a request got."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    error: str | None = None
    num_accepted: int = 0
    num_steps: int = 0

    @property
    def seen(self) -> tuple[list[int], list[TokenLogprobs], str | None]:
        """What a user could tell apart; the tokens of a request that fails are not shown."""
        return ([], [], self.error) if self.error else (self.token_ids, self.logprobs, None)


@dataclass
class Bench:
    """A model, and what leads requests through runners of it."""

    config: ModelConfig
    model: DeepseekModel
    kernels: KernelSet
    grammars: FakeGrammars = field(default_factory=FakeGrammars)
    few: tuple[int, ...] = FEW

    def make_runner(
        self, num_requests: int, *, speculates: bool, logprobs_mode: str = "raw"
    ) -> ModelRunner:
        """A runner with pages for so many requests."""
        config, model, kernels = self.config, self.model, self.kernels
        num_pages = num_requests * PAGES_EACH
        layout = LatentLayout(config.kv_lora_rank, config.qk_rope_head_dim, "float32")
        cache = LatentCache(config.num_hidden_layers + 1, num_pages, PAGE_SIZE, layout)
        memory = PagedMemory(cache, kernels, scale=softmax_scale(config))
        drafter = None
        if speculates:
            drafter = Drafter(
                model,
                memory,
                num_pages=num_pages,
                page_size=PAGE_SIZE,
                max_len=64,
                hidden_size=config.hidden_size,
                dtype=torch.float32,
            )
        return ModelRunner(
            model,
            memory,
            kernels,
            page_size=PAGE_SIZE,
            vocab_size=VOCAB,
            drafter=drafter,
            grammars=self.grammars,
            logprobs_mode=logprobs_mode,
        )

    def answer(
        self,
        requests: Sequence[tuple[list[int], SamplingParams]],
        *,
        depth: int = 0,
        spoil: Spoil | None = None,
        preempt_at: int | None = None,
        logprobs_mode: str = "raw",
    ) -> list[Answer]:
        """All requests in one batch, until each has ended.

        Args:
            depth: drafts a step.
            spoil: changes the drafts that the runner holds.
            preempt_at: in this step all requests are released, and begin anew.
        """
        runner = self.make_runner(len(requests), speculates=depth > 0, logprobs_mode=logprobs_mode)
        answers = [Answer() for _ in requests]
        live, begin_anew = list(range(len(requests))), True
        for step_id in range(MAX_STEPS):
            released = [str(i) for i in live] if step_id == preempt_at else []
            begin_anew = begin_anew or bool(released)
            new, rows = [], []
            for i in live:
                known = requests[i][0] + answers[i].token_ids
                row = ScheduledRow(str(i), FOLLOWS, 1, [], depth, True, num_drafts=depth)
                if begin_anew:
                    new.append(
                        NewRequest(
                            request_id=str(i),
                            token_ids=known,
                            num_prompt_tokens=len(requests[i][0]),
                            params=requests[i][1],
                        )
                    )
                    pages = list(range(i * PAGES_EACH, (i + 1) * PAGES_EACH))
                    row = ScheduledRow(str(i), 0, len(known), pages, 0, True, num_drafts=depth)
                rows.append(row)
            output = runner.run(SchedulerOutput(step_id, new, rows, released, 0))
            begin_anew = False
            for i, result in zip(list(live), output.rows, strict=True):
                _take(answers[i], result)
                if result.error is not None or _is_over(answers[i], requests[i][1]):
                    live.remove(i)
                elif spoil is not None:
                    runner._held[str(i)].draft_ids = spoil(runner._held[str(i)].draft_ids)
            if not live:
                return answers
        raise AssertionError("the requests do not end")


def _take(so_far: Answer, result: RowOutput) -> None:
    so_far.token_ids += result.token_ids
    so_far.logprobs += result.logprobs or []
    so_far.error = result.error
    so_far.num_accepted += result.num_accepted
    so_far.num_steps += 1


def _is_over(so_far: Answer, params: SamplingParams) -> bool:
    ends = [params.ends_text(token_id) for token_id in so_far.token_ids]
    assert not any(ends[:-1]), "tokens after the one that ends the text"
    assert len(so_far.token_ids) <= params.max_tokens
    return bool(ends and ends[-1]) or len(so_far.token_ids) == params.max_tokens


def _open_bench(path: Path, **overrides: str) -> Bench:
    config = write_checkpoint(path, tiny_v3() | {"vocab_size": VOCAB}, fmt="float32")
    tree = assemble(load_weights(Checkpoint.open(path), config).tensors, config, has_mtp=True)
    kernels, _ = select_kernels(Platform(batch_invariant=True), overrides)
    model = DeepseekModel(config, tree, kernels, ParallelContext(), max_len=64)
    return Bench(config, model, kernels)


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return _open_bench(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def bench_in_parts(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The same model, its layers run operation by operation."""
    path = tmp_path_factory.mktemp("checkpoint")
    return _open_bench(path, fuse_layers="reference", fuse_mtp="reference")
