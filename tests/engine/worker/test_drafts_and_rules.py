"""Whatever the sampling parameters, drafts change no token, log-probability or error."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from leadline.engine.errors import InvalidRequestError
from leadline.engine.request import Grammar, GrammarKind, SamplingParams, ThinkingLimit
from leadline.engine.worker import drafter as drafter_module
from leadline.engine.worker.grammar_path import Words
from leadline.engine.worker.model_runner import FAILED_ROWS
from leadline.kernels.sampling import NO_TOKEN

MAX_TOKENS = 14
THINK, END_THINK, EOS, STOP = 6, 7, 1, 9
FEW = (EOS, 3, 4, 5, THINK, END_THINK, 8, STOP, 10, 11, 12, 13)  # what most requests may sample

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


def assert_kept(prompt: list[int], params: SamplingParams, bench: Any, got: Any) -> None:
    """The answer keeps the rules, looked at from outside."""
    thought: int | None = None
    for token_id in prompt:
        thought = _think(thought, token_id)
    matcher = None if params.grammar is None else bench.grammars.matcher(params.grammar)
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
            is_last = index == len(got.token_ids) - 1
            assert matcher.accept([token_id]) == 1 or (is_last and matcher.error)
        thought = _think(thought, token_id)


def _think(thought: int | None, token_id: int) -> int | None:
    if thought is None:
        return 0 if token_id == THINK else None
    return None if token_id == END_THINK else thought + 1


@given(batch=requests_of_a_batch, dice=st.integers(0, 2**32), depth=st.integers(1, 3))
@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_drafts_change_nothing(
    batch: list[tuple[list[int], SamplingParams]],
    dice: int,
    depth: int,
    bench: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With drafts of the MTP layer, with drafts that are partly wrong, and after a preemption."""
    monkeypatch.setattr(drafter_module, "MIN_DRAFT_PROBABILITY", 0.0)
    rng = random.Random(dice)

    def spoil(draft_ids: list[int]) -> list[int]:
        """Some drafts are others, some of no vocabulary that is allowed, some chains are longer."""
        changed = [t if rng.random() < 0.6 else rng.choice((*FEW, 77)) for t in draft_ids]
        return [*changed, *rng.choices(FEW, k=depth - len(changed))]

    expected = bench.answer(batch)
    for (prompt, params), got in zip(batch, expected, strict=True):
        assert_kept(prompt, params, bench, got)
    wanted = [got.seen for got in expected]
    assert [got.seen for got in bench.answer(batch, depth=depth)] == wanted
    assert [got.seen for got in bench.answer(batch, depth=depth, spoil=spoil)] == wanted
    anew = bench.answer(batch, depth=depth, spoil=spoil, preempt_at=rng.randint(1, 5))
    assert [got.seen for got in anew] == wanted
    alone = [bench.answer([one])[0] for one in batch[:2]]
    assert [got.seen for got in alone] == wanted[:2]


def test_right_drafts_are_accepted_under_every_rule(bench: Any) -> None:
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
    (slow,) = bench.answer([request])
    assert slow.error is None
    told = iter([slow.token_ids[i : i + 3] for i in range(1, 14, 4)])
    (fast,) = bench.answer([request], depth=3, spoil=lambda draft_ids: next(told))
    assert fast.token_ids == slow.token_ids
    assert fast.num_steps == 1 + -(-(len(slow.token_ids) - 1) // 4)
    assert fast.num_accepted == len(slow.token_ids) - fast.num_steps


class OneAtATime:
    """A grammar that leaves one token at a time: 10, 11, ... 18, and again.

    It fails once it has taken `fails_at` tokens, and then allows an end token alone.
    """

    def __init__(self, fails_at: int = 99) -> None:
        self._num_taken, self._fails_at = 0, fails_at
        self.error: str | None = None

    def accept(self, token_ids: list[int]) -> int:
        (token_id,) = token_ids
        is_right = token_id == 10 + self._num_taken % 9
        self._num_taken += is_right
        return int(is_right)

    def rollback(self, num_tokens: int) -> None:
        self._num_taken -= num_tokens

    def fill_mask(self, row: Words) -> None:
        if self._num_taken >= self._fails_at:
            self.error = "too complex"
        row[:] = 0
        row[0] = np.int32(1 << (EOS if self.error else 10 + self._num_taken % 9))


def test_the_drafter_keeps_to_the_rules(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every draft is right where there is but one token, though the model thinks little of it."""
    monkeypatch.setattr(bench.grammars, "matcher", lambda grammar: OneAtATime())
    params = SamplingParams(seed=1, max_tokens=13, grammar=Grammar(GrammarKind.REGEX, "a"))
    (got,) = bench.answer([([5, 6], params)], depth=3)
    assert got.token_ids == [10 + i % 9 for i in range(13)]
    assert got.num_steps == 4


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_grammar_that_fails_does_so_in_its_place(
    depth: int, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as soon as a draft has come there, and the end token that it then allows is not taken."""
    monkeypatch.setattr(bench.grammars, "matcher", lambda grammar: OneAtATime(4))
    grammar = Grammar(GrammarKind.REGEX, "a")
    params = SamplingParams(seed=1, max_tokens=9, eos_token_ids=(EOS,), grammar=grammar)
    (got,) = bench.answer([([5, 6], params)], depth=depth)
    assert got.error == "too complex"
    if depth == 0:
        assert got.token_ids == [10, 11, 12, 13]


def test_nothing_can_fail_behind_the_end_of_the_text(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fifth token ends the text; as a draft, it leads where the grammar fails."""
    monkeypatch.setattr(bench.grammars, "matcher", lambda grammar: OneAtATime(5))
    grammar = Grammar(GrammarKind.REGEX, "a")
    params = SamplingParams(seed=1, max_tokens=9, stop_token_ids=(14,), grammar=grammar)
    (got,) = bench.answer([([5, 6], params)], depth=4, spoil=lambda ids: [11, 12, 13, 14])
    assert (got.token_ids, got.error) == ([10, 11, 12, 13, 14], None)


def test_where_nothing_is_allowed_a_request_fails_alone(bench: Any) -> None:
    barred = SamplingParams(seed=1, max_tokens=5, allowed_token_ids=(3,), bad_words_ids=((3, 3),))
    fine = SamplingParams(seed=1, max_tokens=5)
    failed, good = bench.answer([([5], barred), ([5], fine)])
    assert failed.error == FAILED_ROWS[NO_TOKEN]
    assert failed.token_ids == [3]
    assert (good.error, len(good.token_ids)) == (None, 5)


def test_a_grammar_that_cannot_be_had_fails_its_request_alone(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(grammar: Grammar) -> None:
        raise InvalidRequestError("the grammar is too large")

    monkeypatch.setattr(bench.grammars, "matcher", refuse)
    params = SamplingParams(seed=1, max_tokens=4, grammar=Grammar(GrammarKind.REGEX, "a"))
    plain = SamplingParams(seed=1, max_tokens=4)
    failed, good = bench.answer([([5], params), ([6], plain)], depth=2)
    assert (failed.error, failed.token_ids) == ("the grammar is too large", [])
    assert (good.error, len(good.token_ids)) == (None, 4)
