"""What is asked of each position of a draft path, against its definition in plain Python."""

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.engine.request import SamplingParams, ThinkingLimit
from leadline.engine.step import NewRequest, SchedulerOutput
from leadline.engine.worker.requests import HeldRequest, HeldRequests
from leadline.engine.worker.sampler import Sampler, SampleSpan
from leadline.engine.worker.thinking import Thinking
from leadline.kernels.sampling import SamplingBatch
from leadline.kernels.select import Platform, select_kernels

VOCAB, EOS, STOP, THINK, END_THINK = 40, 1, 2, 8, 9
LIMIT = ThinkingLimit(begin_id=THINK, end_id=END_THINK, budget=2)
KERNELS, _ = select_kernels(Platform(batch_invariant=True))

tokens = st.integers(0, 9)
texts = st.lists(tokens, max_size=8)


@st.composite
def rules(draw: st.DrawFn) -> SamplingParams:
    return SamplingParams(
        seed=draw(st.integers(0, 99)),
        max_tokens=50,
        min_tokens=draw(st.sampled_from([0, 2, 9])),
        temperature=draw(st.sampled_from([0.0, 0.7])),
        frequency_penalty=draw(st.sampled_from([0.0, 0.5])),
        presence_penalty=draw(st.sampled_from([0.0, -0.5])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.5])),
        logit_bias=draw(st.sampled_from([(), ((3, 1.5), (7, -2.0)), ((3, 1.0), (3, 4.0))])),
        bad_words_ids=tuple(
            tuple(ids) for ids in draw(st.lists(st.lists(tokens, min_size=1, max_size=4)))
        ),
        allowed_token_ids=draw(st.sampled_from([None, (EOS, STOP), (EOS, 3), (3, 33)])),
        stop_token_ids=(STOP,),
        eos_token_ids=(EOS,),
        thinking=draw(st.sampled_from([None, LIMIT])),
    )


def hold(
    held: HeldRequests,
    request_id: str,
    prompt: list[int],
    output: list[int],
    params: SamplingParams,
) -> HeldRequest:
    new = NewRequest(
        request_id=request_id,
        token_ids=prompt + output,
        num_prompt_tokens=len(prompt),
        params=params,
    )
    held.apply(SchedulerOutput(0, [new], [], [], 0))
    return held[request_id]


def banned_by_definition(params: SamplingParams, before: list[int], allowed: set[int]) -> set[int]:
    banned = set()
    for words in params.bad_words_ids:
        *head, last = words
        if not head or before[-len(head) :] == head:
            banned.add(last)
    ends = {EOS, STOP}
    if len(before) < params.min_tokens and allowed - banned - ends:
        banned |= ends
    return banned


def forced_by_definition(params: SamplingParams, text: list[int]) -> int:
    """Of `text`, prompt included: what was thought since the first mark that no end follows."""
    if params.thinking is None:
        return -1
    ends = [i for i, token_id in enumerate(text) if token_id == END_THINK]
    rest = text[ends[-1] + 1 :] if ends else text
    if THINK not in rest:
        return -1
    return END_THINK if len(rest) - rest.index(THINK) - 1 >= 2 else -1


def entries(batch: SamplingBatch, row: int) -> tuple[set[int] | None, set[int], dict[int, float]]:
    """Allowed tokens, banned ones and bias of one row."""
    allowed = None
    if batch.allowed is not None and row in batch.allowed.rows_R.tolist():
        words = batch.allowed.words_RW[batch.allowed.rows_R.tolist().index(row)].numpy()
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")
        allowed = set(np.flatnonzero(bits).tolist())
    banned, bias = set(), {}
    if batch.banned is not None:
        banned = set(batch.banned.tokens_N[batch.banned.rows_N == row].tolist())
    if batch.bias is not None:
        chosen = batch.bias.rows_N == row
        pairs = zip(batch.bias.tokens_N[chosen], batch.bias.values_N[chosen], strict=True)
        bias = {int(token_id): float(value) for token_id, value in pairs}
    return allowed, banned, bias


def assert_counts(batch: SamplingBatch, row: int, prompt: list[int], before: list[int]) -> None:
    assert batch.penalties is not None
    r = batch.penalties.rows_R.tolist().index(row)
    assert batch.penalties.counts_RV[r].tolist() == [before.count(t) for t in range(VOCAB)]
    assert batch.penalties.in_prompt_RV[r].tolist() == [t in prompt for t in range(VOCAB)]


@given(
    requests=st.lists(
        st.tuples(st.lists(tokens, min_size=1, max_size=6), texts, texts, rules()), max_size=4
    )
)
@settings(max_examples=150, deadline=None)
def test_every_position_sees_the_tokens_before_it(
    requests: list[tuple[list[int], list[int], list[int], SamplingParams]],
) -> None:
    held = HeldRequests(vocab_size=VOCAB)
    plain = SamplingParams(seed=0, max_tokens=9)
    everything = [*requests, ([1], [2], [3], plain)]
    spans = [
        SampleSpan(hold(held, str(i), prompt, output, params), path)
        for i, (prompt, output, path, params) in enumerate(everything)
    ]
    batch = Sampler(KERNELS, held.table, logprobs_mode="raw").make_batch(spans)
    row = 0
    for prompt, output, path, params in everything:
        for depth in range(len(path) + 1):
            before = output + path[:depth]
            allowed, banned, bias = entries(batch, row)
            forced = forced_by_definition(params, prompt + before)
            assert batch.positions_B[row] == len(prompt) + len(before)
            assert forced == (-1 if batch.forced_B is None else int(batch.forced_B[row]))
            if forced < 0:
                wanted = params.allowed_token_ids
                assert allowed == (None if wanted is None else set(wanted))
                anything = set(range(VOCAB)) if wanted is None else set(wanted)
                assert banned == banned_by_definition(params, before, anything)
            assert bias == dict(params.logit_bias)
            if (params.frequency_penalty, params.presence_penalty) != (0.0, 0.0):
                assert_counts(batch, row, prompt, before)
            row += 1
    assert len(batch.positions_B) == row


@given(prompt=st.lists(tokens, min_size=1, max_size=6), output=texts, path=texts, params=rules())
@settings(max_examples=80, deadline=None)
def test_output_taken_in_later_and_at_once_are_the_same(
    prompt: list[int], output: list[int], path: list[int], params: SamplingParams
) -> None:
    """A resumed request replays its output; the drafter asks for the last position alone."""
    held = HeldRequests(vocab_size=VOCAB)
    at_once, later = hold(held, "a", prompt, output, params), hold(held, "b", prompt, [], params)
    later.token_ids += output
    for token_id in output:
        if later.rules is not None:
            later.rules.advance([token_id])
    sampler = Sampler(KERNELS, held.table, logprobs_mode="raw")
    logits = torch.randn(len(path) + 1, VOCAB, generator=torch.Generator().manual_seed(1))
    whole = sampler.sample(logits, sampler.make_batch([SampleSpan(at_once, path)]))
    assert sampler.sample(logits, sampler.make_batch([SampleSpan(later, path)])) == whole
    last = sampler.make_batch([SampleSpan(at_once, path, first=len(path))])
    assert sampler.sample(logits[-1:], last) == whole[-1:]


def test_requests_without_rules_cost_nothing() -> None:
    held = HeldRequests(vocab_size=VOCAB)
    spans = [SampleSpan(hold(held, "a", [1], [], SamplingParams(seed=0, max_tokens=9)), [2, 3])]
    batch = Sampler(KERNELS, held.table, logprobs_mode="raw").make_batch(spans)
    assert (batch.allowed, batch.banned, batch.bias) == (None, None, None)
    assert (batch.penalties, batch.forced_B) == (None, None)


def thinks(text: Sequence[int]) -> tuple[bool, int]:
    thinking = Thinking.after(LIMIT, text)
    return thinking.is_open, thinking.num_tokens if thinking.is_open else 0


@given(text=st.lists(st.sampled_from([3, THINK, END_THINK]), max_size=9), cut=st.integers(0, 9))
def test_thinking_of_a_whole_text_and_token_by_token(text: list[int], cut: int) -> None:
    thinking = Thinking.after(LIMIT, text[:cut])
    for token_id in text[cut:]:
        thinking.take(token_id)
    assert (thinking.is_open, thinking.num_tokens if thinking.is_open else 0) == thinks(text)


def test_what_counts_as_thinking() -> None:
    assert thinks([3, 3]) == (False, 0)
    assert thinks([3, THINK]) == (True, 0)
    assert thinks([THINK, 3, THINK, 3]) == (True, 3)
    assert thinks([THINK, 3, END_THINK, 3]) == (False, 0)
    assert thinks([END_THINK, THINK, 3]) == (True, 1)
