"""Client and engine process over the real socket, with a simulated engine."""

import asyncio
import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from leadline.engine.client import EngineClient
from leadline.engine.control import PauseMode
from leadline.engine.engine_process import EngineProcess, RestartPolicy
from leadline.engine.errors import (
    EngineAsleepError,
    EngineDeadError,
    EngineRestartingError,
    InvalidRequestError,
    OrderRefusedError,
    PromptTooLongError,
)
from leadline.engine.request import (
    ABORTED_BY_OPERATOR,
    EngineRequest,
    FinishReason,
    RequestOutput,
)

HERE = Path(__file__).parent


class SimulatedConfig(msgspec.Struct, kw_only=True):
    step_s: float = 0.0
    failure: str = ""
    poison: int | None = None


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where sockets lie; also lets the engine process import the builder."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *filter(None, sys.path)]))
    directory = tempfile.mkdtemp(prefix="engine")  # pytest's own paths are too long for a socket
    monkeypatch.setattr(tempfile, "tempdir", directory)
    yield Path(directory)
    os.rmdir(directory)  # fails if anything was left behind


class Engine(EngineClient):
    """A client and the process it is attached to, which is not started again."""

    def __init__(
        self,
        *,
        max_restarts: int = 0,
        resume: bool = True,
        max_unread_outputs: int | None = None,
        **config: Any,
    ) -> None:
        self.process = EngineProcess(
            SimulatedConfig(**config),
            builder="simulated_builder:build",
            restarts=RestartPolicy(max_restarts=max_restarts),
        )
        super().__init__(self.process.address, resume=resume, max_unread_outputs=max_unread_outputs)

    @property
    def process_id(self) -> int:
        return self.process.process_id

    async def start(self, on_stage: Callable[[str], None] = lambda stage: None) -> Any:
        try:
            await self.process.start(on_stage)
        except BaseException:
            await self.close()
            raise
        return await self.attach()

    async def shutdown(self, timeout_s: float = 5.0) -> None:
        await self.process.shutdown(timeout_s)
        if self._follower is not None:
            await asyncio.wait((self._follower,), timeout=5)
        await self.close()


@contextlib.asynccontextmanager
async def running(**config: Any) -> AsyncIterator[EngineClient]:
    client = Engine(**config)
    await client.start()
    try:
        yield client
    finally:
        await client.shutdown()


async def collect(client: EngineClient, request: EngineRequest) -> list[RequestOutput]:
    return [output async for output in client.generate(request)]


def texts(outputs: list[RequestOutput]) -> list[int]:
    return [token_id for output in outputs for token_id in output.token_ids]


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to pass")


def is_running(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_many_concurrent_requests(engine: Any, request_of: Any) -> None:
    requests = [request_of(str(i), range(i % 30 + 1), i % 7 + 20, seed=i) for i in range(100)]

    async def main() -> Any:
        async with running() as client:
            assert client.alive
            assert client.ready.max_model_len == 400
            first = await asyncio.gather(*(collect(client, request) for request in requests))
            alone = await collect(client, requests[42])
            await until(lambda: client.stats.num_running == 0)
            return first, alone, client.stats

    all_outputs, alone, stats = asyncio.run(main())
    for outputs, request in zip(all_outputs, requests, strict=True):
        assert [o.finish_reason for o in outputs[:-1]] == [None] * (len(outputs) - 1)
        assert outputs[-1].finish_reason is FinishReason.LENGTH
        assert len(texts(outputs)) == request.params.max_tokens
    assert texts(alone) == texts(all_outputs[42])
    assert stats.page_usage == 0
    assert stats.generation_tokens == sum(r.params.max_tokens for r in requests) + 20


def test_stages_and_a_private_socket(directory: Path) -> None:
    stages = []

    async def main() -> None:
        client = Engine()
        ready = await client.start(stages.append)
        (private,) = directory.iterdir()
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert ready.summary == [("model", "simulated")]
        await client.shutdown()
        assert not client.alive

    asyncio.run(main())
    assert stages == ["reading weights", "warming up"]


def test_closing_early_aborts_and_finish_ends(request_of: Any) -> None:
    async def main() -> None:
        async with running(step_s=0.005) as client:
            async with contextlib.aclosing(client.generate(request_of("a", [1], 390))) as outputs:
                async for _ in outputs:
                    break
            await until(lambda: client.stats.num_running == 0)
            assert client.stats.generation_tokens < 390

            finals = []
            async for output in client.generate(request_of("b", [1], 390)):
                if not finals:
                    client.finish("b", FinishReason.STOP)
                finals.append(output.finish_reason)
            assert finals[-1] is FinishReason.STOP
            assert finals.count(None) == len(finals) - 1

    asyncio.run(main())


def test_what_nobody_reads_is_ended(request_of: Any) -> None:
    async def run() -> None:
        async with running(max_unread_outputs=16) as client:
            async with contextlib.aclosing(client.generate(request_of("a", [1], 390))) as outputs:
                await anext(outputs)
                await collect(client, request_of("b", [1], 390))  # read as it comes
                *others, last = [output async for output in outputs]
            assert last.finish_reason is FinishReason.ABORT
            assert len(others) == 16

    asyncio.run(run())


def test_push_is_offered_what_comes(request_of: Any) -> None:
    pushed: list[RequestOutput] = []

    def push(outputs: Sequence[RequestOutput]) -> int:
        is_taken = outputs[0].finish_reason is None and outputs[0].token_ids[-1] % 3 > 0
        pushed.extend(outputs[:is_taken])
        return int(is_taken)

    async def main() -> tuple[list[RequestOutput], list[RequestOutput]]:
        async with running() as client:
            read = [output async for output in client.generate(request_of("a", [1], 50), push)]
            return read, await collect(client, request_of("b", [1], 50))

    read, whole = asyncio.run(main())
    assert pushed
    assert read[-1].finish_reason is FinishReason.LENGTH
    assert sorted(texts(read) + texts(pushed)) == sorted(texts(whole))


def test_a_cancelled_task_aborts(request_of: Any) -> None:
    async def main() -> None:
        async with running(step_s=0.005) as client:
            task = asyncio.create_task(collect(client, request_of("a", [1], 390)))
            await until(lambda: client.stats.generation_tokens > 3)
            task.cancel()
            await until(lambda: client.stats.num_running == 0)
            assert client.stats.generation_tokens < 390

    asyncio.run(main())


def test_refusals_are_raised_at_the_first_step(request_of: Any) -> None:
    async def main() -> None:
        async with running(step_s=0.005) as client:
            with pytest.raises(PromptTooLongError, match="401") as info:
                await anext(client.generate(request_of("a", range(300), 101)))
            assert info.value.param == "max_tokens"
            with pytest.raises(InvalidRequestError, match="empty"):
                await collect(client, request_of("a", [], 1))
            outputs = client.generate(request_of("a", [1], 100))
            await anext(outputs)
            with pytest.raises(InvalidRequestError, match="in use"):
                await anext(client.generate(request_of("a", [1], 1)))
            await outputs.aclose()
            assert len(texts(await collect(client, request_of("b", [1], 5)))) == 5

    asyncio.run(main())


def test_a_killed_engine_ends_every_request_within_a_second(request_of: Any) -> None:
    async def main() -> list[Any]:
        async with running(step_s=0.005) as client:
            tasks = [
                asyncio.create_task(collect(client, request_of(str(i), [1], 390)))
                for i in range(20)
            ]
            await until(lambda: client.stats.generation_tokens > 3)
            os.kill(client.process_id, signal.SIGKILL)
            all_outputs = await asyncio.wait_for(asyncio.gather(*tasks), timeout=1)
            assert not client.alive
            with pytest.raises(EngineDeadError, match="exit code -9"):
                await collect(client, request_of("late"))
            client.finish("0", FinishReason.ABORT)
        return all_outputs

    for *others, final in asyncio.run(main()):
        assert all(output.finish_reason is None for output in others)
        assert final.finish_reason is FinishReason.ERROR
        assert "exit code -9" in final.error


def test_an_engine_that_fails_in_a_step_says_why(request_of: Any) -> None:
    async def main() -> None:
        async with running(failure="step") as client:
            (final,) = await collect(client, request_of())
            assert final.finish_reason is FinishReason.ERROR
            assert final.error == "RuntimeError: the device is on fire"
            with pytest.raises(EngineDeadError, match="on fire"):
                await collect(client, request_of())

    asyncio.run(main())


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("config", "kv_tokens is 3; allowed: at least 64"),
        ("checkpoint", "the checkpoint x cannot be served: model.norm.weight is missing"),
        ("bug", "KeyError: 'model.embed_tokens'"),
        ("exit", "the engine process ended unexpectedly with exit code 7"),
    ],
)
def test_a_failed_start_names_the_cause(failure: str, message: str) -> None:
    async def main() -> None:
        client = Engine(failure=failure)
        with pytest.raises(EngineDeadError) as info:
            await client.start()
        assert str(info.value) == message
        assert not client.alive

    asyncio.run(main())


def test_a_start_can_be_given_up() -> None:
    async def main() -> None:
        client = Engine()
        task = asyncio.create_task(client.start())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not is_running(client.process_id)

    asyncio.run(main())


@pytest.mark.parametrize("timeout_s", [5.0, 0.0])
def test_shutdown_ends_open_requests(request_of: Any, timeout_s: float) -> None:
    async def main() -> None:
        client = Engine(step_s=0.005)
        await client.start()
        task = asyncio.create_task(collect(client, request_of("a", [1], 390)))
        await until(lambda: client.stats.generation_tokens > 3)
        await client.shutdown(timeout_s)
        outputs = await task
        assert [o.finish_reason for o in outputs].count(FinishReason.ABORT) == 1
        assert outputs[-1].finish_reason is FinishReason.ABORT
        assert (outputs[-1].error is None) == (timeout_s > 0)  # said by the engine, if it has time
        assert not is_running(client.process_id)

    asyncio.run(main())


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_whole_group_leave_the_engine_to_its_parent(
    request_of: Any, signum: signal.Signals
) -> None:
    async def main() -> None:
        async with running() as client:
            os.kill(client.process_id, signum)
            assert len(texts(await collect(client, request_of("a", [1], 5)))) == 5

    asyncio.run(main())


PARENT = """
import asyncio
from leadline.engine.engine_process import EngineProcess
from simulated_builder import SimulatedConfig

async def main():
    client = EngineProcess(SimulatedConfig(), builder="simulated_builder:build")
    await client.start()
    print(client.process_id, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_the_engine_dies_with_its_parent(directory: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(directory)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, env=environment
    )
    with parent:
        engine_id = int(parent.stdout.readline())
        assert is_running(engine_id)
        parent.kill()
    asyncio.run(until(lambda: not is_running(engine_id)))
    (left_over,) = directory.iterdir()  # nobody was left to remove it
    shutil.rmtree(left_over)


def test_progress_is_seen_from_outside(request_of: Any) -> None:
    async def main() -> None:
        async with running(step_s=0.02) as client:
            assert client.progress.waiting_s == 0
            await collect(client, request_of("a", [1], 30))
            assert client.progress.waiting_s == 0
            with pytest.raises(InvalidRequestError):
                await collect(client, request_of("refused", [], 1))
            assert await client.reset_prefix_cache() >= 0
            assert client.progress.waiting_s == 0

            os.kill(client.process_id, signal.SIGSTOP)
            task = asyncio.create_task(collect(client, request_of("b", [1], 3)))
            await until(lambda: client.progress.waiting_s > 0.1)
            task.cancel()
            await asyncio.sleep(0.05)
            assert client.progress.waiting_s > 0.1  # nobody waits, and yet it hangs
            os.kill(client.process_id, signal.SIGCONT)
            await until(lambda: client.progress.waiting_s == 0)

    asyncio.run(main())


def test_an_engine_that_hangs_can_be_killed(request_of: Any) -> None:
    async def main() -> None:
        async with running(step_s=0.005) as client:
            task = asyncio.create_task(collect(client, request_of("a", [1], 390)))
            await until(lambda: client.stats.generation_tokens > 3)
            os.kill(client.process_id, signal.SIGSTOP)
            client.process.kill("it hung")
            final = (await asyncio.wait_for(task, timeout=5))[-1]
            assert (final.finish_reason, final.error) == (FinishReason.ERROR, "it hung")
            with pytest.raises(EngineDeadError, match="it hung"):
                await collect(client, request_of("late"))
            client.process.kill("again")

    asyncio.run(main())


def test_outputs_that_nobody_reads_end_their_request(
    request_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leadline.engine.client.MAX_UNREAD_OUTPUTS", 20)

    async def main() -> None:
        async with running() as client:
            async with contextlib.aclosing(client.generate(request_of("a", [1], 390))) as outputs:
                first = await anext(outputs)
                await until(lambda: client.stats.num_running == 0)
                rest = [output async for output in outputs]
            assert client.stats.generation_tokens < 390
            assert len(rest) == 21
            assert rest[-1].finish_reason is FinishReason.ABORT
            tokens = texts([first, *rest])
            assert len(tokens) == 21
            whole = texts(await collect(client, request_of("a", [1], 390)))
            assert whole[:21] == tokens
            await until(lambda: client.stats.num_running == 0)
            assert client.progress.waiting_s == 0

    asyncio.run(main())


def test_requests_go_on_in_the_next_engine(request_of: Any) -> None:
    requests = [request_of(str(i), [i, 2], 60, seed=i) for i in range(5)]

    async def main() -> None:
        async with running() as client:
            whole = [texts(await collect(client, request)) for request in requests]
        async with running(max_restarts=3, step_s=0.01) as client:
            tasks = [asyncio.create_task(collect(client, request)) for request in requests]
            await until(lambda: client.stats.generation_tokens > 20)
            os.kill(client.process_id, signal.SIGKILL)
            all_outputs = await asyncio.wait_for(asyncio.gather(*tasks), timeout=30)
            assert client.generation == 2
        assert [texts(outputs) for outputs in all_outputs] == whole
        assert all(outputs[-1].finish_reason is FinishReason.LENGTH for outputs in all_outputs)

    asyncio.run(main())


def test_without_resumption_requests_end_and_new_ones_are_served(request_of: Any) -> None:
    async def main() -> None:
        async with running(max_restarts=3, resume=False, step_s=0.01) as client:
            task = asyncio.create_task(collect(client, request_of("a", [1], 390)))
            await until(lambda: client.stats.generation_tokens > 3)
            os.kill(client.process_id, signal.SIGKILL)
            final = (await task)[-1]
            assert final.finish_reason is FinishReason.ERROR
            assert final.is_lost
            with pytest.raises(EngineRestartingError):
                await collect(client, request_of("b", [1], 5))
            await until(lambda: client.alive)
            assert len(texts(await collect(client, request_of("b", [1], 5)))) == 5

    asyncio.run(main())


def test_two_clients_do_not_mix(request_of: Any) -> None:
    async def main() -> None:
        async with running(step_s=0.002) as client:
            other = EngineClient(client.process.address)
            await other.attach()
            both = await asyncio.gather(
                collect(client, request_of("a", [1], 30)), collect(other, request_of("b", [2], 20))
            )
            assert [len(texts(outputs)) for outputs in both] == [30, 20]
            await other.close()

    asyncio.run(main())


def test_a_request_that_kills_the_engine_ends_alone(request_of: Any) -> None:
    requests = [request_of(str(i), [i + 1, 2], 60, seed=i) for i in range(5)]

    async def main() -> None:
        async with running() as client:
            whole = [texts(await collect(client, request)) for request in requests]
        async with running(max_restarts=3, step_s=0.01, poison=49) as client:
            tasks = [asyncio.create_task(collect(client, request)) for request in requests]
            await until(lambda: client.stats.generation_tokens > 20)
            (final,) = await collect(client, request_of("poison", [3, 49], 10))
            assert final.finish_reason is FinishReason.ERROR
            assert "the engine died each time" in final.error
            assert not final.is_lost
            all_outputs = await asyncio.wait_for(asyncio.gather(*tasks), timeout=30)
            assert client.generation == 3
            assert client.alive
        assert [texts(outputs) for outputs in all_outputs] == whole

    asyncio.run(main())


def test_a_pause_reaches_the_process_and_outlives_it(
    request_of: Any,
) -> None:
    async def main() -> None:
        async with running(max_restarts=3, step_s=0.01) as client:
            task = asyncio.create_task(collect(client, request_of("a", [1], 60)))
            await until(lambda: client.stats.generation_tokens > 3)
            assert await client.control.pause(PauseMode.KEEP)
            assert client.stats.is_paused
            num_tokens = client.stats.generation_tokens
            late = asyncio.create_task(collect(client, request_of("b", [2], 5)))
            await client.survey()
            assert client.stats.generation_tokens == num_tokens
            assert client.progress.waiting_s == 0

            os.kill(client.process_id, signal.SIGKILL)
            await until(lambda: client.is_restarting)
            with pytest.raises(EngineDeadError):
                await client.control.resume()
            await until(lambda: client.alive)
            await client.survey()
            assert client.stats.is_paused
            assert client.stats.generation_tokens == 0
            await client.control.resume()
            outputs = await asyncio.wait_for(asyncio.gather(task, late), timeout=20)
            tokens = [sum(len(output.token_ids) for output in each) for each in outputs]
            assert tokens == [60, 5]

    asyncio.run(main())


def test_a_pause_that_waits_is_answered_when_it_begins_or_is_given_up(
    request_of: Any,
) -> None:
    async def main() -> None:
        async with running(step_s=0.01) as client:
            task = asyncio.create_task(collect(client, request_of("a", [1], 40)))
            await until(lambda: client.stats.num_running == 1)
            assert await client.control.pause(PauseMode.WAIT)
            assert len(await task) == 40
            await client.control.resume()

            task = asyncio.create_task(collect(client, request_of("b", [1], 390)))
            await until(lambda: client.stats.num_running == 1)
            pause = asyncio.create_task(client.control.pause(PauseMode.WAIT))
            await until(lambda: client.stats.holds_requests)
            assert not client.stats.is_paused
            await client.control.resume()
            assert not await pause
            await client.control.abort()
            assert (await task)[-1].error == ABORTED_BY_OPERATOR

    asyncio.run(main())


def test_sleep_over_the_socket(request_of: Any) -> None:
    async def main() -> None:
        async with running(max_restarts=3, step_s=0.01) as client:
            task = asyncio.create_task(collect(client, request_of("a", [1], 390)))
            await until(lambda: client.stats.num_running == 1)
            freed = await client.control.sleep(1, PauseMode.ABORT)
            assert freed == 200 * 4
            assert (await task)[-1].error == ABORTED_BY_OPERATOR
            assert client.stats.sleep_level == 1
            with pytest.raises(EngineAsleepError, match="wake_up"):
                await collect(client, request_of("b", [1], 5))
            with pytest.raises(OrderRefusedError, match="wake_up"):
                await client.control.resume()

            os.kill(client.process_id, signal.SIGKILL)
            await until(lambda: client.generation == 2 and client.alive)
            await client.survey()
            assert client.stats.sleep_level == 1

            await client.control.wake_up()
            assert not client.stats.is_paused
            assert len(texts(await collect(client, request_of("b", [1], 5)))) == 5
            await client.control.wake_up()  # it is awake

            task = asyncio.create_task(collect(client, request_of("c", [1], 390)))
            await until(lambda: client.stats.num_running == 1)
            sleep = asyncio.create_task(client.control.sleep(1, PauseMode.WAIT))
            await until(lambda: client.stats.holds_requests)
            await client.control.resume()
            assert await sleep is None
            await client.control.abort()
            await task

    asyncio.run(main())


CLIENT = """
import asyncio
import sys
from leadline.engine.client import EngineClient
from leadline.engine.request import EngineRequest, SamplingParams

async def main():
    client = EngineClient(sys.argv[1])
    await client.attach()
    params = SamplingParams(seed=0, max_tokens=390)
    request = EngineRequest(request_id="theirs", prompt_ids=[1], params=params)
    async for output in client.generate(request):
        print(output.token_ids, flush=True)

asyncio.run(main())
"""


def test_requests_of_a_killed_client_are_aborted(request_of: Any) -> None:
    async def main() -> None:
        async with running(step_s=0.01) as client:
            other = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", CLIENT, client.process.address),
                stdout=asyncio.subprocess.PIPE,
            )
            assert other.stdout is not None
            assert await other.stdout.readline()
            assert client.stats.num_running == 1
            other.kill()
            await other.communicate()  # closes the pipe too
            await until(lambda: client.stats.num_running == 0 and client.stats.page_usage == 0)
            assert client.stats.generation_tokens < 390
            assert len(texts(await collect(client, request_of("a", [1], 5)))) == 5

    asyncio.run(main())
