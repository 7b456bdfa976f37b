"""Two thousand streams that have nothing to say, and one that has."""

import asyncio
import contextlib
import json
import resource
from typing import Any

import pytest

NUM_IDLE = 2000
IDLE = "idle"


@pytest.fixture
def many_files() -> Any:
    """Both ends of each stream are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * NUM_IDLE + 200
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} open files; this process may have {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def request_of(salt: str) -> bytes:
    fields = {"model": "tiny", "prompt": "x", "stream": True, "cache_salt": salt}
    body = json.dumps(fields).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def idle_stream(address: tuple[str, int]) -> tuple[Any, Any]:
    """A stream whose first event has come."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request_of(IDLE))
    await reader.readuntil(b"data: ")
    return reader, writer


def test_streams_go_on_beside_two_thousand_idle_ones(
    service: Any, address: tuple[str, int], many_files: None
) -> None:
    """Row 43."""
    script = service.engine._outputs

    async def outputs(request: Any) -> Any:
        num_sent = 0
        async for output in script(request):
            num_sent += 1
            if request.cache_salt == IDLE and num_sent > 1:
                await asyncio.Event().wait()
            yield output

    service.engine._outputs = outputs

    async def main() -> None:
        streams = []
        for _ in range(0, NUM_IDLE, 100):
            streams += await asyncio.gather(*(idle_stream(address) for _ in range(100)))
        assert service.state.in_flight.count == NUM_IDLE + 1  # and the canary
        reader, writer = await asyncio.open_connection(*address)
        for _ in range(3):
            writer.write(request_of(""))
            text = await reader.readuntil(b"data: [DONE]\n\n")
            assert text.count(b"data: {") == 14
            await reader.readuntil(b"0\r\n\r\n")
        while service.state.in_flight.count != NUM_IDLE + 1:  # the last has yet to be counted out
            await asyncio.sleep(0.01)
        assert not any(stream.at_eof() for stream, _ in streams)
        writer.close()
        for _, idle in streams:
            idle.transport.abort()
        for each in [writer, *(idle for _, idle in streams)]:
            with contextlib.suppress(ConnectionError):
                await each.wait_closed()
        while service.state.in_flight.count > 1:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(main(), 120))
    assert len(service.engine.wait_finished(NUM_IDLE)) == NUM_IDLE
