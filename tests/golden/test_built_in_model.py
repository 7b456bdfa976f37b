"""`leadline-demo` answers, drafts well, and drafts the same from a warm cache."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from leadline.engine import draft_policy
from leadline.engine.build import build_core
from leadline.engine.config import EngineConfig, resolve
from leadline.engine.core import EngineCore
from leadline.engine.messages import EngineStats
from leadline.engine.platform_facts import cpu_facts
from leadline.engine.request import EngineRequest, SamplingParams
from leadline.loader.chat_template import ChatTemplate
from leadline.loader.hub import resolve_model
from leadline.loader.model_config import read_model_config
from leadline.loader.tokenizer import Tokenizer

PATH = resolve_model("leadline-demo")
TOKENIZER = Tokenizer.from_dir(PATH)
MAX_MEGABYTES = 12
ANSWERS = {
    "What does len() do?": "Return the number of items in a container.",
    "Explain itertools.chain.": "Iterate over several iterables one after the other, "
    "as if they were a single one.",
    "What is os.path.join for?": "Join parts of a path with the separator of the system. "
    "An absolute part discards what stands before it.",
}
SYSTEM = "You are a Python tutor."


@dataclass
class Run:
    """Texts by question, cached prompt tokens, and what the engine counted."""

    texts: dict[str, str]
    num_cached_tokens: int
    stats: EngineStats


def open_engine(num_drafts: int) -> EngineCore:
    config = EngineConfig(
        model=str(PATH), speculative_tokens=num_drafts, page_size=8, kv_tokens=4096, num_threads=1
    )
    resolved, _ = resolve(config, read_model_config(PATH), cpu_facts(), model_path=str(PATH))
    core, _ = build_core(msgspec.json.encode(resolved), lambda stage: None)
    return core


def ask(core: EngineCore, questions: list[str], temperature: float = 0.0) -> Run:
    """All questions at once, after a system prompt that they share."""
    template = ChatTemplate.from_dir(PATH)
    assert template is not None
    token_ids: dict[str, list[int]] = {question: [] for question in questions}
    for question in questions:
        system = {"role": "system", "content": SYSTEM}
        text = template.render([system, {"role": "user", "content": question}])
        params = SamplingParams(
            seed=7, max_tokens=60, temperature=temperature, eos_token_ids=(TOKENIZER.eos_id or 0,)
        )
        prompt_ids = TOKENIZER.encode(text)
        core.submit(EngineRequest(request_id=question, prompt_ids=prompt_ids, params=params))
    num_cached_tokens = 0
    while core.has_work():
        for output in core.step():
            token_ids[output.request_id] += output.token_ids
            if output.finish_reason is not None:
                num_cached_tokens += output.num_cached_tokens
    texts = {question: TOKENIZER.decode(ids) for question, ids in token_ids.items()}
    return Run(texts, num_cached_tokens, core.stats())


def test_size() -> None:
    num_bytes = sum(file.stat().st_size for file in Path(PATH).iterdir())
    assert num_bytes < MAX_MEGABYTES * 10**6


def test_it_knows_what_it_was_taught() -> None:
    core = open_engine(0)
    assert ask(core, list(ANSWERS)).texts == ANSWERS
    core.close()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_speculation_is_exact_cold_and_warm(
    temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same texts, hits and acceptance, by drafts of a depth that no clock has a say in."""
    monkeypatch.setattr(draft_policy, "MIN_TIMED_STEPS", 10**9)
    questions = [f"What does {name} do?" for name in ("len", "abs", "json.dumps", "os.listdir")]
    runs: dict[int, list[Run]] = {}
    for num_drafts in (0, 1, 3):
        core = open_engine(num_drafts)
        runs[num_drafts] = [ask(core, questions, temperature) for _ in range(2)]
        core.close()
    plain_cold, plain_warm = runs[0]
    assert plain_warm.num_cached_tokens > plain_cold.num_cached_tokens
    for num_drafts in (1, 3):
        cold, warm = runs[num_drafts]
        assert cold.texts == warm.texts == plain_cold.texts
        assert cold.num_cached_tokens == plain_cold.num_cached_tokens
        assert warm.num_cached_tokens == plain_warm.num_cached_tokens
        assert cold.stats.num_accepted_tokens > 0.7 * cold.stats.num_draft_tokens
    cold, warm = (run.stats for run in runs[1])
    assert warm.num_draft_tokens == 2 * cold.num_draft_tokens
    assert warm.num_accepted_tokens == 2 * cold.num_accepted_tokens
