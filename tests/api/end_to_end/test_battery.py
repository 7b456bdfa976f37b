"""All bodies of the battery at a real server at once: well-behaved streams beside them go on."""

import importlib.util
import json
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

WAIT_S = 120.0  # generous: a starved machine is no failure
FIELDS = Path(__file__).parent.parent / "battery" / "test_fields.py"
MAX_BYTES = 2**20  # of a body: a few are larger, which is tried elsewhere
NUM_STREAMS = 4


@pytest.fixture(scope="module")
def bodies() -> list[tuple[str, str, bytes]]:
    """Name, path and body of each row of the battery's fields."""
    spec = importlib.util.spec_from_file_location("battery_fields", FIELDS)
    assert spec is not None
    assert spec.loader is not None
    fields: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fields)
    chat = {"model": "demo", "messages": [fields.USER], "max_tokens": 2}
    text = {"model": "demo", "prompt": "x", "max_tokens": 2}
    found = [("/v1/chat/completions", chat, row[0], row[1]) for row in [*fields.ROWS, *fields.GOOD]]
    found += [("/v1/completions", text, row[0], row[1]) for row in fields.TEXT_ROWS]
    made = [(name, path, fields.body_of(base, row)) for path, base, name, row in found]
    encoded = [(name, path, json.dumps(body).encode()) for name, path, body in made]
    return [row for row in encoded if len(row[2]) <= MAX_BYTES]


def stream(url: str, seed: int) -> tuple[str, list[str]]:
    """The text of a stream, and its finish reasons."""
    body = {
        "model": "demo",
        "messages": [{"role": "user", "content": "Tell me of lists."}],
        "stream": True,
        "temperature": 1.0,
        "seed": seed,
        "max_tokens": 100,
        "ignore_eos": True,
    }
    pieces, reasons = [], []
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=WAIT_S) as answer:
        *lines, done = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert done == "[DONE]"
    for line in lines:
        for choice in json.loads(line)["choices"]:
            pieces.append(choice["delta"].get("content") or "")
            reasons.append(choice["finish_reason"])
    return "".join(pieces), [reason for reason in reasons if reason]


def test_streams_go_on_while_the_battery_runs(
    service: Any, bodies: list[tuple[str, str, bytes]]
) -> None:
    assert len(bodies) > 230
    engine_pid = service.engine_pid()
    alone = [stream(service.url, seed) for seed in range(NUM_STREAMS)]
    assert {tuple(reasons) for _, reasons in alone} == {("length",)}
    beside: list[list[Future[Any]]] = []
    with (
        httpx.Client(base_url=service.url, timeout=WAIT_S) as http,
        ThreadPoolExecutor(4) as senders,
        ThreadPoolExecutor(NUM_STREAMS) as readers,
    ):

        def send(row: tuple[str, str, bytes]) -> tuple[str, int, bytes]:
            name, path, body = row
            response = http.post(path, content=body, headers={"content-type": "application/json"})
            return name, response.status_code, response.content

        answers = [senders.submit(send, row) for row in bodies]
        while not all(answer.done() for answer in answers):
            beside.append(
                [readers.submit(stream, service.url, seed) for seed in range(NUM_STREAMS)]
            )
            assert [each.result() for each in beside[-1]] == alone
    assert beside, "no stream ran beside the battery"
    for answer in answers:
        name, status, content = answer.result()
        assert status in (200, 400, 404), (name, content[:300])
        if status != 200:
            assert set(json.loads(content)) == {"error"}, name
    assert service.engine_pid() == engine_pid
    assert httpx.get(f"{service.url}/health", timeout=WAIT_S).json()["status"] == "ok"
