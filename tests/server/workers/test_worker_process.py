"""A worker that cannot be started is given up, with the reason."""

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from leadline.engine.config import EngineConfig, resolve
from leadline.engine.engine_process import RestartPolicy
from leadline.engine.platform_facts import cpu_facts
from leadline.loader.model_config import read_model_config
from leadline.server.config import ServerConfig
from leadline.server.server_info import ServerInfo
from leadline.server.workers.messages import Launch
from leadline.server.workers.worker_process import WorkerProcess

AT_ONCE = RestartPolicy(max_restarts=1, first_delay_s=0.0)


def worker_of(
    model: Path, directory: Path, environment: dict[str, str], **options: Any
) -> WorkerProcess:
    """One that is to serve a directory which may not be there."""
    resolved, _ = resolve(
        EngineConfig(), read_model_config(model), cpu_facts(), model_path=str(directory)
    )

    def launch(worker: WorkerProcess, connections_fd: int) -> Launch:
        return Launch(
            number=worker.number,
            name=worker.name,
            config=ServerConfig(api_key=("sk-secret-1",)),
            resolved=resolved,
            directory=str(directory),
            engine_address="ipc:///nowhere",
            responses_directory="/nowhere",
            created_s=0,
            connections_fd=connections_fd,
            stall_limits=None,
        )

    return WorkerProcess(
        3,
        launch,
        environment=environment,
        on_death=deaths.append,
        restarts=AT_ONCE,
        **{"on_change": lambda worker: None} | options,
    )


def running(program: str, folder: Path) -> dict[str, str]:
    """An environment in which a worker runs a program of the test's: instead of a library."""
    (folder / "uvloop.py").write_text(program)
    return {"PYTHONPATH": os.pathsep.join((str(folder), os.environ["PYTHONPATH"]))}


deaths: list[WorkerProcess] = []


@pytest.fixture(autouse=True)
def _no_deaths() -> None:
    deaths.clear()


async def test_a_reason_that_stays_is_told_at_once(
    model: Path, importable: None, tmp_path: Path
) -> None:
    worker = worker_of(model, tmp_path / "nothing", {})
    cause = await worker.live()
    assert str(tmp_path / "nothing") in cause
    assert deaths == [worker]
    assert worker.process_id is None


async def test_one_that_keeps_dying_is_given_up(
    model: Path, importable: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = worker_of(model, model, running("raise SystemExit(9)", tmp_path))
    cause = await worker.live()
    assert cause.startswith("API worker 3 could not be started 2 times in a row: ")
    assert "exit code 9" in cause
    assert len(deaths) == worker.num_lives == 2
    assert caplog.text.count("API worker 3 has died and is started again") == 1


async def test_a_machine_without_room_for_it_counts_as_a_failure(
    model: Path, importable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*arguments: object, **options: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
    cause = await worker_of(model, model, {}).live()
    assert cause.startswith("API worker 3 could not be started 2 times in a row: ")
    assert "Resource temporarily unavailable" in cause


async def test_one_that_hangs_before_it_is_prepared_is_killed(
    model: Path, importable: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In its imports, which it does not come back from."""
    program = running("import time; time.sleep(3600)", tmp_path)
    worker = worker_of(model, model, program, silent_s=0.05, loading_timeout_s=0.2)
    cause = await worker.live()
    why = "it told of nothing new for 0.2 s (--loading-timeout) while it was busy with: starting"
    assert cause == f"API worker 3 could not be started 2 times in a row: {why}; it was killed"
    assert f"API worker 3 has died and is started again: {why}" in caplog.text
    assert len(deaths) == 2
    assert worker.process_id is None


async def test_one_that_waits_for_the_engine_says_so(
    model: Path, importable: None, tmp_path: Path
) -> None:
    stages: list[str] = []
    worker = worker_of(model, model, {}, on_change=lambda worker: stages.append(worker.stage))
    life = asyncio.create_task(worker.live())
    async with asyncio.timeout(60):
        while stages.count("waiting for the engine") < 3:
            await asyncio.sleep(0.01)
    await worker.end(timeout_s=0)
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)
    assert stages[0] == "reading the tokenizer"


SILENT = """
import socket, time
parent = socket.socket(fileno=0)
parent.send(b'{"type":"prepared"}\\n')
time.sleep(3600)
"""


async def test_one_that_hangs_is_passed_over_and_then_killed(
    model: Path, importable: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[bool] = []

    def on_change(worker: WorkerProcess) -> None:
        if worker.is_prepared and not worker.is_open:
            worker.open(ServerInfo())
        seen.append(worker.takes_connections)

    worker = worker_of(
        model, model, running(SILENT, tmp_path), on_change=on_change, silent_s=0.05, hung_s=0.2
    )
    life = asyncio.create_task(worker.live())
    async with asyncio.timeout(60):
        while not deaths:
            await asyncio.sleep(0.01)
    await worker.end(timeout_s=0)
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)
    assert seen[:2] == [True, False]
    assert "API worker 3 tells of nothing; it gets no more" in caplog.text
    assert "it told of nothing for 0.2 s, and was killed" in caplog.text
