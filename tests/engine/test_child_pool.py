"""Processes that can be killed: shared, killed where they hang, replaced where they end."""

import asyncio
import gc
import os
import signal
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from leadline.engine.child_pool import Child, ChildPool, PoolBusyError
from leadline.engine.errors import EngineError

MODULE = """
import sys, time
for line in sys.stdin:
    word = line.strip()
    if word == "hang":
        time.sleep(3600)
    if word == "end":
        sys.exit()
    print(word.upper(), flush=True)
"""
LONG_S = 30.0


async def greet(child: Child) -> None:
    assert await child.exchange(b"hello", LONG_S) == b"HELLO\n"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "upper_case.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "upper_case"


@pytest_asyncio.fixture
async def pool(module: str) -> AsyncIterator[ChildPool]:
    pool = ChildPool(module, 2, greet)
    yield pool
    process_ids = pool.process_ids
    await pool.close()
    for process_id in process_ids:
        with pytest.raises(ProcessLookupError):
            os.kill(process_id, 0)


async def ask(pool: ChildPool, word: str, timeout_s: float = LONG_S) -> bytes:
    return await pool.ask(word.encode(), timeout_s, wait_s=LONG_S)


async def test_they_answer_many_at_once(pool: ChildPool) -> None:
    answers = await asyncio.gather(*(ask(pool, f"a{number}") for number in range(20)))
    assert answers == [b"A%d\n" % number for number in range(20)]
    assert len(pool.process_ids) == 2


async def test_one_that_hangs_is_replaced(pool: ChildPool) -> None:
    await pool.ask(b"a", LONG_S, wait_s=LONG_S)
    await pool.wait_until_started()
    before = set(pool.process_ids)
    with pytest.raises(TimeoutError):
        await ask(pool, "hang", timeout_s=0.01)
    await pool.wait_until_started()
    assert len(set(pool.process_ids) & before) == 1
    assert await ask(pool, "a") == b"A\n"


async def test_those_that_were_killed_are_replaced(pool: ChildPool) -> None:
    """Whoever asks waits until one is there again, however short the wait for a busy one."""
    await ask(pool, "a")
    await pool.wait_until_started()
    for process_id in pool.process_ids:
        os.kill(process_id, signal.SIGKILL)
    assert await pool.ask(b"a", LONG_S, wait_s=0.0) == b"A\n"


async def test_what_ends_one_after_the_other_is_given_up(pool: ChildPool) -> None:
    with pytest.raises(EOFError):
        await ask(pool, "end")
    assert await ask(pool, "a") == b"A\n"


async def test_nobody_waits_for_ever(pool: ChildPool) -> None:
    pool.start()
    await pool.wait_until_started()
    hanging = [asyncio.create_task(ask(pool, "hang")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(PoolBusyError):
        await pool.ask(b"a", LONG_S, wait_s=0.01)
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)
    assert await ask(pool, "a") == b"A\n"


async def test_one_that_cannot_do_its_work(module: str) -> None:
    """All who ask are told so, those that wait among them."""

    async def fail(child: Child) -> None:
        raise EngineError("no tokenizer")

    pool = ChildPool(module, 2, fail)
    for result in await asyncio.gather(*(ask(pool, "a") for _ in range(5)), return_exceptions=True):
        assert str(result) == "no tokenizer"
    with pytest.raises(EngineError, match="no tokenizer"):
        await ask(pool, "a")
    await pool.close()
    assert pool.process_ids == []


def test_an_ended_child_leaves_nothing_open() -> None:
    async def main() -> None:
        child = Child("this", 16, is_silent=True)  # it says more than is read ahead
        await child.start()
        assert child._process is not None
        while child._process.returncode is None:
            await asyncio.sleep(0.01)
        await child.end()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        asyncio.run(main())
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
