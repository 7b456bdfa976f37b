"""Whatever the sampling parameters, drafts change no token, log-probability or error."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leadline.engine.model.deepseek import DeepseekModel
from leadline.engine.model.paged_memory import PagedMemory
from leadline.engine.model.rope import softmax_scale
from leadline.engine.model.weights import assemble
from leadline.engine.parallel.context import ParallelContext
from leadline.engine.request import (
    Grammar,
    GrammarKind,
    SamplingParams,
    ThinkingLimit,
    TokenLogprobs,
)
from leadline.engine.step import FOLLOWS, NewRequest, RowOutput, ScheduledRow, SchedulerOutput
from leadline.engine.worker import drafter as drafter_module
from leadline.engine.worker.drafter import Drafter
from leadline.engine.worker.model_runner import FAILED_ROWS, ModelRunner
from leadline.engine.worker.token_rules import Words
from leadline.kernels.api import KernelSet
from leadline.kernels.latent_cache import LatentCache, LatentLayout
from leadline.kernels.sampling import NO_TOKEN
from leadline.kernels.select import Platform, select_kernels
from leadline.loader.checkpoint import Checkpoint
from leadline.loader.load import load_weights
from leadline.loader.model_config import ModelConfig
from leadline.loader.synthetic import tiny_v3, write_checkpoint

PAGE_SIZE, PAGES_EACH, VOCAB = 4, 12, 512
THINK, END_THINK, EOS, STOP = 6, 7, 1, 9
FEW = (EOS, 3, 4, 5, THINK, END_THINK, 8, STOP, 10, 11, 12, 13)  # what most requests may sample
MAX_TOKENS = 14
TOO_DEEP = "too deep"

Loaded = tuple[ModelConfig, DeepseekModel, KernelSet]
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


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    path: Path = tmp_path_factory.mktemp("checkpoint")
    config = write_checkpoint(path, tiny_v3() | {"vocab_size": VOCAB}, fmt="float32")
    tree = assemble(load_weights(Checkpoint.open(path), config).tensors, config, has_mtp=True)
    kernels, _ = select_kernels(Platform(batch_invariant=True))
    return config, DeepseekModel(config, tree, kernels, ParallelContext(), max_len=64), kernels


def make_runner(
    loaded: Loaded, num_requests: int, *, speculates: bool, logprobs_mode: str = "raw"
) -> ModelRunner:
    config, model, kernels = loaded
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
        grammars=FakeGrammars(),
        logprobs_mode=logprobs_mode,
    )


def answer(
    loaded: Loaded,
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
    runner = make_runner(loaded, len(requests), speculates=depth > 0, logprobs_mode=logprobs_mode)
    answers = [Answer() for _ in requests]
    live, begin_anew = list(range(len(requests))), True
    for step_id in range(3 * MAX_TOKENS):
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


ids = st.sampled_from(FEW)
penalties = st.sampled_from([0.0, 0.0, 0.7, 2.0, -1.5])


@st.composite
def sampling_params(draw: st.DrawFn) -> SamplingParams:
    grammar = thinking = None
    if draw(st.booleans()):
        fatal = draw(st.sampled_from([-1, -1, 8]))
        text = f"{draw(st.integers(1, 9))} {draw(st.integers(0, 99))} {fatal}"
        grammar = Grammar(GrammarKind.REGEX, text)
    if draw(st.booleans()):
        budget = draw(st.sampled_from([None, 0, 1, 4]))
        thinking = ThinkingLimit(begin_id=THINK, end_id=END_THINK, budget=budget)
    return SamplingParams(
        seed=draw(st.integers(0, 2**64 - 1)),
        max_tokens=draw(st.integers(1, MAX_TOKENS)),
        min_tokens=draw(st.sampled_from([0, 0, 3, 20])),
        temperature=draw(st.sampled_from([0.0, 0.4, 1.0, 2.0])),
        top_k=draw(st.sampled_from([0, 0, 1, 4])),
        top_p=draw(st.sampled_from([1.0, 1.0, 0.8])),
        min_p=draw(st.sampled_from([0.0, 0.0, 0.1])),
        frequency_penalty=draw(penalties),
        presence_penalty=draw(penalties),
        repetition_penalty=draw(st.sampled_from([1.0, 1.0, 1.6, 0.7])),
        logit_bias=tuple((t, draw(st.sampled_from([-3.0, 2.0]))) for t in draw(st.sets(ids))),
        bad_words_ids=tuple(
            tuple(words) for words in draw(st.lists(st.lists(ids, min_size=1, max_size=3)))
        ),
        allowed_token_ids=draw(st.sampled_from([FEW, FEW, (3, 4, 10), None])),
        stop_token_ids=(STOP,),
        eos_token_ids=(EOS,),
        ignore_eos=draw(st.sampled_from([False, False, True])),
        num_logprobs=draw(st.sampled_from([None, 0, 3])),
        grammar=grammar,
        thinking=thinking,
    )


prompts = st.lists(st.sampled_from((*FEW, 300, 400)), min_size=1, max_size=9)
requests_of_a_batch = st.lists(st.tuples(prompts, sampling_params()), min_size=4, max_size=4)


def assert_kept(prompt: list[int], params: SamplingParams, got: Answer) -> None:
    """The answer keeps the rules, looked at from outside."""
    thought: int | None = None
    for token_id in prompt:
        thought = _think(thought, token_id)
    matcher = None if params.grammar is None else FakeGrammars().matcher(params.grammar)
    limit = params.thinking
    for index, token_id in enumerate(got.token_ids):
        is_thinking = limit is not None and thought is not None
        is_forced = is_thinking and limit.budget is not None and thought >= limit.budget
        if is_forced:
            assert token_id == END_THINK
        else:
            allowed = params.allowed_token_ids
            assert allowed is None or token_id in allowed
            end = got.token_ids[: index + 1]
            assert not any(tuple(end[-len(ids) :]) == ids for ids in params.bad_words_ids)
            if index < params.min_tokens and token_id in (EOS, STOP):
                assert matcher is not None
                assert not is_thinking
        if matcher is not None and not is_thinking and got.error is None:
            assert matcher.accept([token_id]) == 1
        thought = _think(thought, token_id)


def _think(thought: int | None, token_id: int) -> int | None:
    if thought is None:
        return 0 if token_id == THINK else None
    return None if token_id == END_THINK else thought + 1


@given(batch=requests_of_a_batch, dice=st.integers(0, 2**32), depth=st.integers(1, 3))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_drafts_change_nothing(
    batch: list[tuple[list[int], SamplingParams]],
    dice: int,
    depth: int,
    loaded: Loaded,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With drafts of the MTP layer, with drafts that are partly wrong, and after a preemption."""
    monkeypatch.setattr(drafter_module, "MIN_DRAFT_PROBABILITY", 0.0)
    rng = random.Random(dice)

    def spoil(draft_ids: list[int]) -> list[int]:
        """Some drafts are others, some of no vocabulary that is allowed, some chains are longer."""
        changed = [t if rng.random() < 0.6 else rng.choice((*FEW, 77)) for t in draft_ids]
        return [*changed, *rng.choices(FEW, k=depth - len(changed))]

    expected = answer(loaded, batch)
    for (prompt, params), got in zip(batch, expected, strict=True):
        assert_kept(prompt, params, got)
    wanted = [got.seen for got in expected]
    assert [got.seen for got in answer(loaded, batch, depth=depth)] == wanted
    assert [got.seen for got in answer(loaded, batch, depth=depth, spoil=spoil)] == wanted
    anew = answer(loaded, batch, depth=depth, spoil=spoil, preempt_at=rng.randint(1, 5))
    assert [got.seen for got in anew] == wanted
    alone = [answer(loaded, [one])[0] for one in batch[:2]]
    assert [got.seen for got in alone] == wanted[:2]


def test_right_drafts_are_accepted_under_every_rule(loaded: Loaded) -> None:
    """Told the answer, a request takes it in few steps: every position saw its own rules."""
    everything = SamplingParams(
        seed=5,
        max_tokens=13,
        min_tokens=4,
        temperature=1.0,
        top_p=0.95,
        frequency_penalty=0.5,
        presence_penalty=0.3,
        repetition_penalty=1.2,
        logit_bias=((3, 2.0),),
        bad_words_ids=((4, 4), (12,)),
        allowed_token_ids=FEW,
        eos_token_ids=(EOS,),
        thinking=ThinkingLimit(begin_id=THINK, end_id=END_THINK, budget=3),
        grammar=Grammar(GrammarKind.REGEX, "8 3 -1"),
    )
    request = ([300, THINK], everything)
    (slow,) = answer(loaded, [request])
    assert slow.error is None
    told = iter([slow.token_ids[i : i + 3] for i in range(1, 14, 4)])
    (fast,) = answer(loaded, [request], depth=3, spoil=lambda draft_ids: next(told))
    assert fast.token_ids == slow.token_ids
    assert fast.num_steps == 1 + -(-(len(slow.token_ids) - 1) // 4)
    assert fast.num_accepted == len(slow.token_ids) - fast.num_steps


def test_the_drafter_keeps_to_the_rules(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the grammar leaves one token at a time, every draft is right."""
    monkeypatch.setattr(FakeMatcher, "allows", lambda self, t: t == 10 + len(self._taken) % 9)
    monkeypatch.setattr(
        FakeMatcher,
        "fill_mask",
        lambda self, row: row.__setitem__(
            slice(None), np.int32(1 << (10 + len(self._taken) % 9)) * (np.arange(VOCAB // 32) == 0)
        ),
    )
    params = SamplingParams(seed=1, max_tokens=13, grammar=Grammar(GrammarKind.REGEX, "99 0 -1"))
    (got,) = answer(loaded, [([5, 6], params)], depth=3)
    assert got.token_ids == [10 + i % 9 for i in range(13)]
    assert got.num_steps == 4, "the model thinks little of these tokens, yet there are no others"


def test_where_nothing_is_allowed_a_request_fails_alone(loaded: Loaded) -> None:
    barred = SamplingParams(seed=1, max_tokens=5, allowed_token_ids=(3,), bad_words_ids=((3, 3),))
    fine = SamplingParams(seed=1, max_tokens=5)
    failed, good = answer(loaded, [([5], barred), ([5], fine)])
    assert failed.error == FAILED_ROWS[NO_TOKEN]
    assert failed.token_ids == [3]
    assert (good.error, len(good.token_ids)) == (None, 5)


@pytest.mark.parametrize("mode", ["raw", "processed"])
def test_logprobs_are_those_of_their_mode(mode: str, loaded: Loaded) -> None:
    params = SamplingParams(
        seed=3, max_tokens=6, allowed_token_ids=FEW, temperature=0.5, num_logprobs=4
    )
    (got,) = answer(loaded, [([5, 300], params)], logprobs_mode=mode)
    assert [entry.token_id for entry in got.logprobs] == got.token_ids
    shares = [sum(np.exp(entry.top_logprobs)) for entry in got.logprobs]
    outsiders = [t for entry in got.logprobs for t in entry.top_ids if t not in FEW]
    assert all(entry.top_logprobs == sorted(entry.top_logprobs)[::-1] for entry in got.logprobs)
    if mode == "processed":
        assert not outsiders
        assert min(shares) > 0.5
    else:
        assert outsiders
        assert max(shares) < 0.5
