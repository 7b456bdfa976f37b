"""The whole engine: a request's tokens do not depend on what else the engine does."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from leadline.engine import draft_policy
from leadline.engine.config import ResolvedConfig
from leadline.engine.messages import EngineStats
from leadline.engine.process import load_builder
from leadline.engine.request import (
    EngineRequest,
    FinishReason,
    RequestOutput,
    SamplingParams,
    ThinkingLimit,
)
from leadline.engine.worker import drafter

NUM_REQUESTS = 64
VOCAB_SIZE = 512
PAGE_SIZE = 4
MAX_TOKENS = 12
MAX_MODEL_LEN = 80

CheckpointOf = Callable[..., Path]
Tokens = dict[str, list[int]]


def random_rules(dice: random.Random) -> dict[str, Any]:
    """Rules about single tokens, for about every second request."""
    tokens = dice.sample(range(VOCAB_SIZE), 60)
    rules: list[dict[str, Any]] = [
        {"frequency_penalty": dice.uniform(-2, 2)},
        {"presence_penalty": dice.uniform(-2, 2)},
        {"repetition_penalty": dice.uniform(0.5, 2)},
        {"logit_bias": tuple((token, dice.uniform(-5, 5)) for token in tokens)},
        {"bad_words_ids": ((1, 2), (7, 8, 9), *((token,) for token in tokens))},
        {"allowed_token_ids": tuple(dice.sample(range(VOCAB_SIZE), 300))},
        {"min_tokens": dice.randint(0, MAX_TOKENS)},
        {"num_logprobs": dice.randint(0, 3)},
        {"thinking": ThinkingLimit(begin_id=tokens[0], end_id=tokens[1], budget=2)},
    ]
    chosen = dice.sample(rules, dice.choice([0, 0, 1, 3]))
    return {name: value for rule in chosen for name, value in rule.items()}


def random_params(dice: random.Random) -> SamplingParams:
    greedy = dice.random() < 0.3
    rules = random_rules(dice)
    return SamplingParams(
        **rules,
        seed=dice.getrandbits(64),
        max_tokens=dice.randint(max(1, rules.get("min_tokens", 1)), MAX_TOKENS),
        temperature=0.0 if greedy else dice.choice([0.3, 0.8, 1.0, 1.7]),
        top_k=dice.choice([0, 0, 1, 5, 40, 1000]),
        top_p=dice.choice([1.0, 1.0, 0.9, 0.4]),
        min_p=dice.choice([0.0, 0.0, 0.02, 0.3]),
        stop_token_ids=tuple(dice.sample(range(VOCAB_SIZE), 20)),
    )


def random_requests() -> list[EngineRequest]:
    """Every second prompt begins like another one, so that prefixes are found again."""
    dice = random.Random(0)
    shared = [dice.randrange(VOCAB_SIZE) for _ in range(40)]
    requests = []
    for i in range(NUM_REQUESTS):
        prompt = [dice.randrange(VOCAB_SIZE) for _ in range(dice.randint(1, 24))]
        if i % 2:
            prompt = shared[: dice.randint(0, 40)] + prompt
        requests.append(
            EngineRequest(request_id=str(i), prompt_ids=prompt, params=random_params(dice))
        )
    return requests


REQUESTS = random_requests()


@dataclass
class Result:
    """What a run of all requests gave."""

    tokens: Tokens
    logprobs: dict[str, list[Any]]
    reasons: dict[str, FinishReason]
    num_cached_tokens: int
    stats: EngineStats


def run(path: Path, *, together: int = NUM_REQUESTS, **changes: Any) -> Result:
    """All requests through one engine, `together` at a time in its queue."""
    values: dict[str, Any] = {
        "model": str(path),
        "served_model_name": "m",
        "device": "cpu",
        "max_model_len": MAX_MODEL_LEN,
        "page_size": PAGE_SIZE,
        "num_pages": 600,
        "kv_cache_dtype": "float32",
        "max_num_seqs": 32,
        "max_num_batched_tokens": 512,
        "prefix_caching": False,
        "seed": 0,
        "num_threads": 1,
        "dtype": "float32",
        "kernels": {},
        "batch_invariant": True,
    }
    config = ResolvedConfig(**(values | changes))
    build = load_builder(config.builder)
    core, _ = build(msgspec.json.encode(config), lambda stage: None)
    result = Result({}, {}, {}, 0, core.stats())
    for begin in range(0, NUM_REQUESTS, together):
        for request in REQUESTS[begin : begin + together]:
            core.submit(request)
        while core.has_work():
            take(result, core.step())
    result.stats = core.stats()
    core.close()
    return result


def take(result: Result, outputs: Sequence[RequestOutput]) -> None:
    for output in outputs:
        assert output.request_id not in result.reasons, "output after the final one"
        result.tokens.setdefault(output.request_id, []).extend(output.token_ids)
        result.logprobs.setdefault(output.request_id, []).extend(output.logprobs or [])
        if output.finish_reason is not None:
            assert output.error is None
            result.reasons[output.request_id] = output.finish_reason
            result.num_cached_tokens += output.num_cached_tokens


@pytest.fixture(scope="module")
def alone(checkpoint_of: CheckpointOf) -> Result:
    """One request after the other, each in one piece."""
    return run(checkpoint_of("v3"), together=1)


def assert_same(result: Result, alone: Result) -> None:
    assert result.tokens == alone.tokens
    assert result.logprobs == alone.logprobs
    assert result.reasons == alone.reasons


def test_alone(alone: Result) -> None:
    """Every request has ended as it was asked to, and the texts are not all alike."""
    assert len(alone.reasons) == NUM_REQUESTS
    assert set(alone.reasons.values()) == {FinishReason.LENGTH, FinishReason.STOP}
    for request in REQUESTS:
        tokens, params = alone.tokens[request.request_id], request.params
        assert all(0 <= token < VOCAB_SIZE for token in tokens)
        if alone.reasons[request.request_id] is FinishReason.LENGTH:
            assert len(tokens) == params.max_tokens
        else:
            assert tokens[-1] in params.stop_token_ids
    assert len({token for tokens in alone.tokens.values() for token in tokens}) > 100
    assert alone.stats.num_preemptions == 0
    assert alone.num_cached_tokens == 0


@pytest.mark.parametrize("prefix_caching", [False, True])
def test_together(prefix_caching: bool, alone: Result, checkpoint_of: CheckpointOf) -> None:
    result = run(checkpoint_of("v3"), prefix_caching=prefix_caching)
    assert_same(result, alone)
    assert (result.num_cached_tokens > 0) == prefix_caching


@pytest.mark.parametrize("prefix_caching", [False, True])
def test_preempted(prefix_caching: bool, alone: Result, checkpoint_of: CheckpointOf) -> None:
    result = run(
        checkpoint_of("v3"), num_pages=MAX_MODEL_LEN // PAGE_SIZE, prefix_caching=prefix_caching
    )
    assert_same(result, alone)
    assert result.stats.num_preemptions > 0


@pytest.mark.parametrize("budget", [5, 33])
def test_chunked(budget: int, alone: Result, checkpoint_of: CheckpointOf) -> None:
    result = run(
        checkpoint_of("v3"), max_num_batched_tokens=budget, max_num_seqs=5, prefix_caching=True
    )
    assert_same(result, alone)


def test_found_again_much_later(alone: Result, checkpoint_of: CheckpointOf) -> None:
    """Pages of ended requests are taken over, and some of them reclaimed in between."""
    result = run(checkpoint_of("v3"), together=4, num_pages=60, prefix_caching=True)
    assert_same(result, alone)
    assert result.num_cached_tokens > 0


def test_fp8_cache_preempted_and_chunked(checkpoint_of: CheckpointOf) -> None:
    """The new tokens' latents are rounded before they are attended, in every order of work."""
    path = checkpoint_of("v3")
    alone = run(path, together=1, kv_cache_dtype="fp8")
    result = run(
        path,
        kv_cache_dtype="fp8",
        num_pages=MAX_MODEL_LEN // PAGE_SIZE,
        max_num_batched_tokens=7,
        max_num_seqs=7,
        prefix_caching=True,
    )
    assert_same(result, alone)
    assert result.stats.num_preemptions > 0


SPECULATION = {
    "plain": {},
    "page pool too small": {"num_pages": 30},
    "chunks": {"max_num_batched_tokens": 16, "max_num_seqs": 8},
    "prefix cache": {"prefix_caching": True},
    "verified pages": {
        "prefix_caching": True,
        "verify_pages": True,
        "num_pages": 60,
        "num_host_pages": 100,
    },
    "larger pages": {"page_size": 8, "num_pages": 300},
}


@pytest.mark.parametrize("changes", SPECULATION.values(), ids=SPECULATION)
@pytest.mark.parametrize("depth", [1, 3])
def test_drafts_never_change_a_token(
    depth: int,
    changes: dict[str, Any],
    alone: Result,
    checkpoint_of: CheckpointOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With drafts of any quality verified at every step: the same tokens and finish reasons."""
    monkeypatch.setattr(drafter, "MIN_DRAFT_PROBABILITY", 0.0)
    monkeypatch.setattr(draft_policy, "MIN_TIMED_STEPS", 10**9)
    result = run(checkpoint_of("v3"), together=16, speculative_tokens=depth, **changes)
    assert result.stats.num_drafts > 100
    assert result.stats.num_corrupted_pages == 0
    if "page_size" in changes:  # attention is reduced page by page: other pages, other last bits
        alone = run(checkpoint_of("v3"), together=1, **changes)
    assert_same(result, alone)


@pytest.mark.parametrize(("dp", "depth"), [(2, 3), (4, 0)])
def test_a_unit_of_processes(
    dp: int, depth: int, alone: Result, checkpoint_of: CheckpointOf
) -> None:
    """Requests are spread over ranks that share the experts, with few pages each."""
    result = run(
        checkpoint_of("v3"),
        data_parallel_size=dp,
        enable_expert_parallel=True,
        prefix_caching=True,
        speculative_tokens=depth,
        num_pages=30,
        max_num_seqs=12,
        max_num_batched_tokens=40,
    )
    assert_same(result, alone)
    assert result.stats.num_preemptions > 0
    assert result.num_cached_tokens > 0
    assert result.stats.dispatch.num_tokens > 0
    assert (result.stats.num_drafts > 0) == (depth > 0)
