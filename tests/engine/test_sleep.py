"""Sleeping: memory is really given up and taken back, and the text stays the same."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from leadline.engine.build import build_core
from leadline.engine.config import EngineConfig, resolve
from leadline.engine.control import PauseMode
from leadline.engine.core import EngineCore
from leadline.engine.errors import EngineAsleepError
from leadline.engine.platform_facts import cpu_facts
from leadline.engine.request import EngineRequest, SamplingParams
from leadline.loader.errors import LoaderError
from leadline.loader.model_config import read_model_config
from leadline.loader.synthetic import tiny_v3, write_checkpoint


def test_a_sleeping_engine_takes_no_requests_and_keeps_those_that_wait(
    engine: Any, request_of: Any
) -> None:
    one = engine()
    one.core.submit(request_of("a", [1, 2], 10))
    one.run()
    text = one.text("a")
    one.core.submit(request_of("running", [1, 3], 10))
    one.step()
    one.core.pause(PauseMode.ABORT)
    one.core.submit(request_of("b", [1, 2], 10))
    while one.core.has_work():
        one.step()
    assert one.core.sleep(1) == 64 * 4
    stats = one.core.stats()
    assert (stats.sleep_level, stats.num_cached_pages, stats.num_waiting) == (1, 0, 1)
    with pytest.raises(EngineAsleepError):
        one.core.submit(request_of("c", [1, 2], 10))
    assert one.core.sleep(2) == 1  # deeper
    one.core.start_waking()
    assert one.core.finish_waking()
    one.core.resume()
    one.run()
    assert one.text("b") == text
    assert one.core.stats().sleep_level == 0


def test_a_sleep_is_restored_unless_it_was_told_otherwise(engine: Any) -> None:
    core = engine().core
    core.stay_paused(2)
    assert core.stats().sleep_level == 2
    core.start_waking()
    assert core.finish_waking()
    core.resume()
    core.stay_paused(2)
    assert core.stats().sleep_level == 0
    assert not core.is_paused


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sleeper")
    write_checkpoint(directory, tiny_v3())
    return directory


@pytest.fixture
def core(checkpoint: Path) -> Iterator[EngineCore]:
    path = str(checkpoint)
    asked = EngineConfig(
        model=path, kv_tokens=512, page_size=4, seed=0, num_threads=1, host_kv_tokens=64
    )
    config, _ = resolve(asked, read_model_config(checkpoint), cpu_facts(), model_path=path)
    core, _ = build_core(msgspec.json.encode(config), lambda stage: None)
    yield core
    core.close()


def text_of(core: EngineCore, request_id: str) -> list[int]:
    params = SamplingParams(seed=1, max_tokens=12, temperature=1.0)
    core.submit(EngineRequest(request_id=request_id, prompt_ids=list(range(30)), params=params))
    tokens = []
    while core.has_work():
        for output in core.step():
            tokens += output.token_ids
    return tokens


def wake(core: EngineCore) -> None:
    core.start_waking()
    assert core._waking is not None
    core._waking.exception()
    assert core.finish_waking()
    core.resume()


@pytest.mark.parametrize("level", [1, 2])
def test_memory_is_given_up_and_the_text_is_the_same(core: EngineCore, level: int) -> None:
    executor = core._executor
    text = text_of(core, "before")
    loads = executor.expert_load()
    whole = executor.num_bytes
    core.pause(PauseMode.ABORT)
    freed = core.sleep(level)
    assert executor.num_bytes == whole - freed
    assert (executor.num_bytes == 0) == (level == 2)
    assert freed > 512 * 4  # the pages of both tiers at least
    assert core.stats().num_cached_pages == 0
    wake(core)
    assert executor.num_bytes == whole
    assert text_of(core, "after") == text
    assert len(executor.expert_load()) == len(loads)
    assert text_of(core, "cached") == text


def test_an_engine_whose_weights_are_gone_sleeps_on(core: EngineCore, checkpoint: Path) -> None:
    text = text_of(core, "before")
    core.pause(PauseMode.ABORT)
    core.sleep(2)
    config = checkpoint / "config.json"
    hidden = config.rename(checkpoint / "hidden.json")
    core.start_waking()
    assert core._waking is not None
    core._waking.exception()
    with pytest.raises(LoaderError):
        core.finish_waking()
    assert core.stats().sleep_level == 2
    hidden.rename(config)
    wake(core)
    assert text_of(core, "after") == text
