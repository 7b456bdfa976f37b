"""Requests and small simulated engines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from leadline.engine.core import EngineCore
from leadline.engine.draft_policy import DraftPolicy
from leadline.engine.executor.base import Capacity
from leadline.engine.executor.simulated import SimulatedExecutor
from leadline.engine.request import EngineRequest, RequestOutput, SamplingParams
from leadline.engine.scheduler import Scheduler

VOCAB_SIZE = 20


@dataclass
class Engine:
    """A simulated engine and everything that it said."""

    core: EngineCore
    scheduler: Scheduler
    executor: SimulatedExecutor
    outputs: dict[str, list[RequestOutput]] = field(default_factory=dict)

    def take(self, outputs: Sequence[RequestOutput]) -> None:
        for output in outputs:
            self.outputs.setdefault(output.request_id, []).append(output)

    def step(self) -> None:
        self.take(self.core.step())
        self.scheduler.check()

    def run(self) -> None:
        while self.core.has_work():
            self.step()

    def text(self, request_id: str) -> list[int]:
        outputs = self.outputs.get(request_id, [])
        return [token_id for output in outputs for token_id in output.token_ids]


def make_engine(
    *,
    num_pages: int = 64,
    page_size: int = 4,
    max_model_len: int = 200,
    max_num_seqs: int = 8,
    max_num_batched_tokens: int = 16,
    prefix_caching: bool = True,
    num_drafts: int = 0,
    num_host_pages: int = 0,
    max_steps: int = 2,
    scheduling: dict[str, Any] | None = None,
    **simulation: Any,
) -> Engine:
    capacity = Capacity(
        num_pages=num_pages,
        page_size=page_size,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        num_host_pages=num_host_pages,
    )
    executor = SimulatedExecutor(capacity, vocab_size=VOCAB_SIZE, **simulation)
    scheduler = Scheduler(
        capacity,
        max_num_batched_tokens=max_num_batched_tokens,
        prefix_caching=prefix_caching,
        draft_policy=DraftPolicy(num_drafts, adaptive=False),
        **(scheduling or {}),
    )
    core = EngineCore(scheduler, executor, max_steps=max_steps)
    return Engine(core, scheduler, executor)


def make_request(
    request_id: str = "a",
    prompt_ids: Sequence[int] = (1, 2, 3),
    max_tokens: int = 5,
    *,
    cache_salt: str = "",
    request: dict[str, Any] | None = None,
    **params: Any,
) -> EngineRequest:
    params = {"seed": 0, **params}
    return EngineRequest(
        request_id=request_id,
        prompt_ids=list(prompt_ids),
        params=SamplingParams(max_tokens=max_tokens, **params),
        cache_salt=cache_salt,
        **(request or {}),
    )


@pytest.fixture(scope="session")
def engine() -> Callable[..., Engine]:
    return make_engine


@pytest.fixture(scope="session")
def request_of() -> Callable[..., EngineRequest]:
    return make_request
