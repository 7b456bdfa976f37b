"""The built-in model under every sampling parameter: speculation never changes an answer.

Random combinations of all parameters, alone and together, without drafts and at depths 1, 2, 3 and
adaptive, cold and from the prefix cache, with pages so scarce that requests are preempted and come
back from the host: each time the same tokens, log-probabilities and reasons.
"""

import random
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from leadline.engine import draft_policy
from leadline.engine.build import build_core
from leadline.engine.config import EngineConfig, resolve
from leadline.engine.core import EngineCore
from leadline.engine.messages import EngineStats
from leadline.engine.platform_facts import cpu_facts
from leadline.engine.request import (
    EngineRequest,
    Grammar,
    GrammarKind,
    RequestOutput,
    Resumption,
    SamplingParams,
    SpeculationCounts,
    ThinkingLimit,
)
from leadline.loader.chat_template import ChatTemplate
from leadline.loader.hub import resolve_model
from leadline.loader.model_config import read_model_config
from leadline.loader.tokenizer import Tokenizer

PATH = resolve_model("leadline-demo")
TOKENIZER = Tokenizer.from_dir(PATH)
EOS = TOKENIZER.eos_id or 0
NUM_REQUESTS = 20
MAX_TOKENS = 24
PAGE_SIZE = 8
SCHEMA = (
    '{"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}, '
    '"required": ["name", "n"], "additionalProperties": false}'
)
QUESTIONS = ("len", "abs", "json.dumps", "os.listdir", "itertools.chain", "sorted")


def random_params(dice: random.Random, i: int) -> SamplingParams:
    """Two or three of the parameters at once; each appears several times over all requests."""
    extras: list[dict[str, Any]] = [
        {"frequency_penalty": dice.uniform(-1, 2), "presence_penalty": dice.uniform(-1, 1)},
        {"repetition_penalty": dice.choice([0.8, 1.3])},
        {"logit_bias": tuple((dice.randrange(4096), dice.uniform(-9, 9)) for _ in range(20))},
        {"min_p": 0.05, "top_k": dice.choice([0, 5, 50])},
        {"top_p": dice.choice([0.5, 0.95])},
        {"min_tokens": 9},
        {"bad_words_ids": ((11, 12), *((token,) for token in range(300, 500)))},
        {"allowed_token_ids": (EOS, *sorted(dice.sample(range(4, 4000), 900)))},
        {"num_logprobs": 2},
        {"grammar": Grammar(GrammarKind.JSON_SCHEMA, SCHEMA)},
        {"grammar": Grammar(GrammarKind.REGEX, r"(yes|no|[a-z ]{3,60})\.")},
        {"ignore_eos": True, "stop_token_ids": tuple(range(40, 60))},
        {"thinking": thinking(dice.choice([0, 3, None]))},
    ]
    params: dict[str, Any] = dict(extras[i % len(extras)])
    for extra in dice.sample(extras, 2):
        if not ("allowed_token_ids" in params | extra and "grammar" in params | extra):
            params |= extra
    return SamplingParams(
        seed=dice.getrandbits(64),
        max_tokens=dice.randint(params.get("min_tokens", 1), MAX_TOKENS),
        temperature=dice.choice([0.0, 0.7, 1.0, 1.4]),
        eos_token_ids=(EOS,),
        **params,
    )


def thinking(budget: int | None) -> ThinkingLimit:
    (begin,), (end,) = TOKENIZER.encode("<think>"), TOKENIZER.encode("</think>")
    return ThinkingLimit(begin_id=begin, end_id=end, budget=budget)


def random_requests() -> list[EngineRequest]:
    dice = random.Random(3)
    template = ChatTemplate.from_dir(PATH)
    assert template is not None
    requests = []
    for i in range(NUM_REQUESTS):
        content = f"What does {dice.choice(QUESTIONS)} do?"
        text = template.render([{"role": "user", "content": content}], thinking=i % 3 == 0)
        params = random_params(dice, i)
        requests.append(
            EngineRequest(request_id=str(i), prompt_ids=TOKENIZER.encode(text), params=params)
        )
    return requests


REQUESTS = random_requests()


@dataclass
class Result:
    """What one engine answered: everything that a user would see."""

    answers: dict[str, list[Any]] = field(default_factory=dict)
    num_cached_tokens: int = 0
    stats: EngineStats = field(default_factory=EngineStats)

    def take(self, output: RequestOutput) -> None:
        answer = self.answers.setdefault(output.request_id, [[], [], None])
        answer[0] += output.token_ids
        answer[1] += output.logprobs or []
        if output.finish_reason is not None:
            answer[2] = (output.finish_reason, output.stop_token_id, output.error)
            self.num_cached_tokens += output.num_cached_tokens


def open_engine(num_drafts: int, **changes: Any) -> EngineCore:
    values = {"page_size": PAGE_SIZE, "kv_tokens": 8192, "num_threads": 1} | changes
    config = EngineConfig(model=str(PATH), speculative_tokens=num_drafts, **values)
    resolved, _ = resolve(config, read_model_config(PATH), cpu_facts(), model_path=str(PATH))
    core, _ = build_core(msgspec.json.encode(resolved), lambda stage: None)
    return core


def answer(core: EngineCore, together: int = NUM_REQUESTS) -> Result:
    result = Result()
    for begin in range(0, NUM_REQUESTS, together):
        for request in REQUESTS[begin : begin + together]:
            core.submit(request)
        while core.has_work():
            for output in core.step():
                result.take(output)
    result.stats = core.stats()
    return result


@pytest.fixture(scope="module")
def alone() -> Result:
    """No drafts, no cache, one request after the other."""
    core = open_engine(0, prefix_caching=False)
    result = answer(core, together=1)
    core.close()
    return result


def test_the_requests_are_worth_asking(alone: Result) -> None:
    reasons = [end[0] for _, _, end in alone.answers.values()]
    assert {"stop", "length"} <= set(reasons)
    assert sum(len(tokens) for tokens, _, _ in alone.answers.values()) > 100
    assert any(logprobs for _, logprobs, _ in alone.answers.values())
    failed = [end for _, _, end in alone.answers.values() if end[0] == "error"]
    assert not failed


@pytest.mark.parametrize("num_drafts", [0, 1, 2, 3])
def test_cold_and_warm_at_every_depth(
    num_drafts: int, alone: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft_policy, "MIN_TIMED_STEPS", 10**9)
    core = open_engine(num_drafts)
    cold, warm = answer(core), answer(core)
    core.close()
    assert cold.answers == alone.answers
    assert warm.answers == alone.answers
    assert warm.num_cached_tokens > cold.num_cached_tokens
    assert (cold.stats.num_drafts > 0) == (num_drafts > 0)


def test_adaptive(alone: Result) -> None:
    core = open_engine(3)
    results = [answer(core) for _ in range(2)]
    core.close()
    assert all(result.answers == alone.answers for result in results)


def test_processed_log_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is sampled from: the same at every depth too, and other than those of the model."""
    monkeypatch.setattr(draft_policy, "MIN_TIMED_STEPS", 10**9)
    results = []
    for num_drafts in (0, 2):
        core = open_engine(num_drafts, logprobs_mode="processed")
        results.append(answer(core))
        core.close()
    assert results[0].answers == results[1].answers
    for request in REQUESTS:
        if request.params.temperature == 0 or request.params.num_logprobs is None:
            continue
        for entry in results[0].answers[request.request_id][1]:
            assert -20 < entry.logprob <= 0, "what was sampled was likely enough to be"


def test_preempted_and_back_from_the_host(alone: Result) -> None:
    """Pages for two or three requests: the others lose theirs, and find some in the host tier."""
    core = open_engine(2, kv_tokens=10 * PAGE_SIZE, host_kv_tokens=200 * PAGE_SIZE, max_num_seqs=8)
    results = [answer(core) for _ in range(2)]
    core.close()
    assert all(result.answers == alone.answers for result in results)
    assert results[1].stats.num_preemptions > 0
    assert results[1].stats.host_cache_hits > 0


def test_hits_and_acceptance_do_not_depend_on_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same cached tokens with drafts and without; the same acceptance cold and warm."""
    monkeypatch.setattr(draft_policy, "MIN_TIMED_STEPS", 10**9)
    hits = {}
    for num_drafts in (0, 1, 3):
        core = open_engine(num_drafts)
        cold, warm = (answer(core, together=1) for _ in range(2))
        core.close()
        hits[num_drafts] = (cold.num_cached_tokens, warm.num_cached_tokens)
        first, both = cold.stats, warm.stats
        assert both.num_draft_tokens == 2 * first.num_draft_tokens
        assert both.num_accepted_per_pos == [2 * count for count in first.num_accepted_per_pos]
    assert hits[0] == hits[1] == hits[3]


@pytest.mark.parametrize("num_drafts", [0, 3])
def test_resumed_at_any_token(num_drafts: int, alone: Result) -> None:
    """Another engine goes on from a random number of tokens: the same answer."""
    dice = random.Random(5)
    core = open_engine(num_drafts)
    result = Result()
    for request in REQUESTS:
        tokens, logprobs, _ = alone.answers[request.request_id]
        num_told = dice.randrange(len(tokens))
        result.answers[request.request_id] = [tokens[:num_told], logprobs[:num_told], None]
        resumption = Resumption(
            token_ids=tokens[:num_told], num_cached_tokens=0, speculation=SpeculationCounts()
        )
        core.submit(msgspec.structs.replace(request, resumption=resumption))
    while core.has_work():
        for output in core.step():
            result.take(output)
    core.close()
    assert result.answers == alone.answers
