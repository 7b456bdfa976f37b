"""What a user sees is the same with drafts and without, to the last field."""

import itertools
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import zmq

QUESTION = "What does `itertools.chain` do?"
CASES: dict[str, dict[str, Any]] = {
    "stop strings": {"stop": ["able", "zz"], "logprobs": True, "top_logprobs": 2},
    "stop string shown": {"stop": ["ever"], "include_stop_str_in_output": True},
    "stop string after min_tokens": {"stop": ["e"], "min_tokens": 9, "return_token_ids": True},
    "penalties": {"frequency_penalty": 1.5, "presence_penalty": 0.4, "repetition_penalty": 1.1},
    "bias and cuts": {"logit_bias": {"20": 5, "30": -100}, "min_p": 0.1, "top_k": 30},
    "bad words": {"bad_words": ["single", "after the"], "logprobs": True},
    "thinking": {"chat_template_kwargs": {"thinking": True}, "thinking_token_budget": 5},
    "schema while thinking": {
        "chat_template_kwargs": {"thinking": True},
        "thinking_token_budget": 4,
        "structured_outputs": {"regex": "[a-z]{3,9} [0-9]+"},
    },
    "several": {"n": 3, "temperature": 1.2, "seed": 11},
}


def ask(http: httpx.Client, depth: int, fields: dict[str, Any]) -> dict[str, Any]:
    body = {
        "model": "demo",
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0.9,
        "seed": 5,
        "max_tokens": 30,
        "speculative_tokens": depth,
    }
    answer = http.post("/v1/chat/completions", json=body | fields)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


@pytest.fixture(scope="module")
def deep(model: str, start_service: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server that drafts up to three tokens, and publishes what it caches."""
    sockets = tmp_path_factory.mktemp("sockets")
    events = {"enable_kv_cache_events": True, "endpoint": f"ipc://{sockets}/events"}
    flags = ("--speculative-tokens", "3", "--page-size", "8", "--kv-events-config")
    with start_service(sockets / "log", model, *flags, json.dumps(events)) as process:
        yield process, events["endpoint"]


@pytest.mark.parametrize("fields", CASES.values(), ids=CASES)
def test_answers_are_equal(deep: Any, fields: dict[str, Any]) -> None:
    with httpx.Client(base_url=deep[0].url, timeout=120) as http:
        answers = [ask(http, depth, fields) for depth in (0, 1, 3)]
    assert "metrics" not in answers[0] or answers[0]["metrics"] != answers[2]["metrics"]
    for answer in answers:
        for name in ("id", "created", "metrics"):
            answer.pop(name, None)
        answer["usage"].pop("prompt_tokens_details")  # the first asked, the others found it
        answer["usage"].pop("prompt_cache_hit_tokens", None)
        answer["usage"].pop("prompt_cache_miss_tokens", None)
    assert answers[0] == answers[1] == answers[2]


def test_routers_are_told_of_cached_pages(deep: Any, tmp_path: Path) -> None:
    process, endpoint = deep
    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.connect(endpoint)
        subscriber.subscribe("")
        numbers = itertools.count()
        is_told = threading.Event()

        def keep_asking() -> None:
            with httpx.Client(base_url=process.url, timeout=120) as http:
                while not is_told.is_set():
                    question = f"Is {next(numbers)} more than a list of eight tokens can hold?"
                    ask(http, 0, {"messages": [{"role": "user", "content": question}]})

        asking = threading.Thread(target=keep_asking)
        asking.start()
        try:
            assert subscriber.poll(60_000)
            _, _, payload = subscriber.recv_multipart()
        finally:
            is_told.set()
            asking.join()
    _, events, rank = msgspec.msgpack.decode(payload)
    assert rank == 0
    name, hashes, _, token_ids, page_size, *_ = events[0]
    assert name == "BlockStored"
    assert page_size == 8
    assert len(token_ids) == 8 * len(hashes)
