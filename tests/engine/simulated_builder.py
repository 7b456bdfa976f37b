"""Engines for tests of the process: built there, by a dotted path."""

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future

import msgspec

from leadline.engine.core import EngineCore
from leadline.engine.errors import ConfigError
from leadline.engine.executor.base import Capacity
from leadline.engine.executor.simulated import SimulatedExecutor
from leadline.engine.messages import Ready
from leadline.engine.scheduler import Scheduler
from leadline.engine.step import ModelOutput, SchedulerOutput
from leadline.loader.errors import CheckpointError


class SimulatedConfig(msgspec.Struct, kw_only=True):
    """`failure`: at start-up `config`, `checkpoint`, `bug` or `exit`; in a step `step`; `wake_up`
    and `sleep`: takes for ever.

    `poison`: the engine is killed by a step of a request whose prompt holds this token.
    """

    step_s: float = 0.0
    failure: str = ""
    poison: int | None = None


class PacedExecutor(SimulatedExecutor):
    """Takes real time, and fails when told to."""

    config = SimulatedConfig()

    def sleep(self, level: int) -> None:
        if self.config.failure == "sleep":
            time.sleep(3600)
        super().sleep(level)

    def wake_up(self) -> Future[None]:
        return Future() if self.config.failure == "wake_up" else super().wake_up()

    def execute(self, plan: SchedulerOutput) -> Future[ModelOutput]:
        time.sleep(self.config.step_s)
        if self.config.failure == "step":
            raise RuntimeError("the device is on fire")
        for new in plan.new_requests:
            if self.config.poison in new.token_ids[: new.num_prompt_tokens]:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(plan)


def build(data: bytes, on_stage: Callable[[str], None]) -> tuple[EngineCore, Ready]:
    config = msgspec.json.decode(data, type=SimulatedConfig)
    on_stage("reading weights")
    match config.failure:
        case "config":
            raise ConfigError("kv_tokens is 3; allowed: at least 64")
        case "checkpoint":
            raise CheckpointError("x", ["model.norm.weight is missing"])
        case "bug":
            raise KeyError("model.embed_tokens")
        case "exit":
            os._exit(7)
    on_stage("warming up")
    capacity = Capacity(num_pages=200, page_size=4, max_model_len=400, max_num_seqs=16)
    executor = PacedExecutor(capacity, vocab_size=50)
    executor.config = config
    core = EngineCore(
        Scheduler(capacity, max_num_batched_tokens=64),
        executor,
        waking_stage=lambda: "reading weights",
    )
    ready = Ready(max_model_len=400, num_pages=200, page_size=4, summary=[("model", "simulated")])
    return core, ready
