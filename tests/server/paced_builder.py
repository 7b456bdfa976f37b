"""Engines without a model for tests of the whole server: built in the engine process."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import simulated_builder

from leadline.engine.core import EngineCore
from leadline.engine.messages import Ready

OnStage = Callable[[str], None]
POISON_ID = 87  # `x`


def paced(config: bytes, on_stage: OnStage) -> tuple[EngineCore, Ready]:
    """A token every 10 ms."""
    return simulated_builder.build(b'{"step_s": 0.01}', on_stage)


def held(config: bytes, on_stage: OnStage) -> tuple[EngineCore, Ready]:
    """As `paced`; not built while the model's folder has a file `hold`."""
    hold = Path(json.loads(config)["model"]) / "hold"
    while hold.exists():
        time.sleep(0.01)
    return paced(config, on_stage)


def poisoned(config: bytes, on_stage: OnStage) -> tuple[EngineCore, Ready]:
    """A token every 10 ms; killed by each step of a prompt that holds an `x`."""
    return simulated_builder.build(b'{"step_s": 0.01, "poison": %d}' % POISON_ID, on_stage)


def mortal(config: bytes, on_stage: OnStage) -> tuple[EngineCore, Ready]:
    """Dies in its first step."""
    return simulated_builder.build(b'{"failure": "step"}', on_stage)


def broken(config: bytes, on_stage: OnStage) -> tuple[EngineCore, Ready]:
    """Does not start."""
    return simulated_builder.build(b'{"failure": "checkpoint"}', on_stage)


def drowsy(config: bytes, on_stage: OnStage) -> tuple[EngineCore, Ready]:
    """Wakes up for ever."""
    return simulated_builder.build(b'{"failure": "wake_up"}', on_stage)


def sleepless(config: bytes, on_stage: OnStage) -> tuple[EngineCore, Ready]:
    """Falls asleep for ever."""
    return simulated_builder.build(b'{"failure": "sleep"}', on_stage)


def endless(config: bytes, on_stage: OnStage) -> tuple[EngineCore, Ready]:
    """Loads for ever."""
    on_stage("reading weights: 1 of 9 MB")
    time.sleep(3600)
    raise AssertionError
