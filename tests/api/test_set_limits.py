"""Each limit can be set, and is kept to."""

import dataclasses
import socket
from pathlib import Path
from typing import Any

import pytest

from leadline.engine.errors import ConfigError
from leadline.server import limits as module
from leadline.server.app import create_app
from leadline.server.limits import Limits

DOCS = Path(__file__).parents[2] / "docs" / "security.md"
LABEL = "x" * 9
# Elsewhere: those of connections in test_limits.py, of templates in test_template_process.py.
FIELDS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"n": 2}, {"n": 3}, "n"),
    ({"choices": 2}, {"n": 3}, "n"),
    ({"prompts": 1}, {"prompt": ["a", "b"]}, "prompt"),
    ({"prompt_tokens": 3}, {"prompt": "abc"}, "prompt"),
    ({"stop_strings": 1}, {"stop": ["a", "b"]}, "stop"),
    ({"stop_chars": 2}, {"stop": ["a", "abc"]}, "stop[1]"),
    ({"stop_token_ids": 1}, {"stop_token_ids": [1, 2]}, "stop_token_ids"),
    ({"bad_words": 1}, {"bad_words": ["a", "b"]}, "bad_words"),
    ({"bad_word_chars": 2}, {"bad_words": ["abc"]}, "bad_words[0]"),
    ({"logit_bias": 1}, {"logit_bias": {"1": 1, "2": 1}}, "logit_bias"),
    ({"allowed_token_ids": 1}, {"allowed_token_ids": [1, 2]}, "allowed_token_ids"),
    ({"logprobs": 1}, {"logprobs": 2}, "logprobs"),
    ({"logprobs": 1}, {"prompt_logprobs": 2}, "prompt_logprobs"),
    ({"label_bytes": 8}, {"user": LABEL}, "user"),
    ({"label_bytes": 8}, {"user_id": LABEL}, "user_id"),
    ({"label_bytes": 8}, {"cache_salt": LABEL}, "cache_salt"),
    ({"metadata_pairs": 1}, {"metadata": {"a": "b", "c": "d"}}, "metadata"),
    ({"metadata_key_chars": 2}, {"metadata": {"abc": "d"}}, "metadata"),
    ({"metadata_value_chars": 2}, {"metadata": {"a": "bcd"}}, "metadata"),
    ({"deadline_s": 5}, {"deadline_s": 6}, "deadline_s"),
    ({"grammar_choices": 1}, {"guided_choice": ["a", "b"]}, "guided_choice"),
    ({"grammar_bytes": 64}, {"guided_regex": "x" * 65}, "structured_outputs"),
]


@pytest.mark.parametrize(("limits", "fields", "param"), FIELDS)
def test_a_field(service: Any, limits: dict[str, Any], fields: dict[str, Any], param: str) -> None:
    assert service.complete(**fields).status_code == 200
    service.state.limits = Limits.of(f"{name}={value}" for name, value in limits.items())
    response = service.complete(**fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert service.complete("a").status_code == 200


def test_depth_and_size_of_a_body(service: Any) -> None:
    service.state.limits = Limits.of(["json_depth=8", "body_bytes=1K"])
    assert service.complete(x=[[[[[[[[1]]]]]]]]).json()["error"]["code"] == "invalid_json"
    assert service.complete(x="x" * 1024).status_code == 413


def test_tools(service: Any) -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in "ab"]
    assert service.chat(tools=tools, tool_choice="none").status_code == 200
    service.state.limits = Limits.of(["tools=1"])
    response = service.chat(tools=tools, tool_choice="none")
    assert (response.status_code, response.json()["error"]["param"]) == (400, "tools")
    assert "--limit tools" in response.json()["error"]["message"]
    assert service.chat(tools=tools[:1], tool_choice="none").status_code == 200


def test_an_idle_connection_is_closed(service: Any, served: Any) -> None:
    """One that has said nothing yet, and one whose request has been answered."""
    head = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    with served(create_app(service.state), Limits.of(["idle_s=0.2"])) as (address, _):
        for request, answer in ((b"", b""), (head, b"HTTP/1.1 200 OK")):
            with socket.create_connection(address, timeout=20) as client:
                client.sendall(request)
                received = b""
                while data := client.recv(2**16):
                    received += data
                assert received.startswith(answer)


def test_how_much_is_kept_for_a_client_that_does_not_read(service: Any, served: Any) -> None:
    for text, num_bytes in (("unread_bytes=2K", 2048), ("unread_bytes=1M", 2**20)):
        limits = Limits.of([text])
        with (
            served(create_app(service.state), limits) as (address, server),
            socket.create_connection(address, timeout=20) as client,
        ):
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(2**16)
            (connection,) = server.server_state.connections
            assert connection.transport.get_write_buffer_limits()[1] == num_bytes


def test_suffixes() -> None:
    limits = Limits.of(["body_bytes=1M", "head_bytes=2k", "head_s=0.5"])
    assert (limits.body_bytes, limits.head_bytes, limits.head_s) == (2**20, 2000, 0.5)


@pytest.mark.parametrize(
    "text", ["frogs=1", "n", "n=", "n=x", "n=-1", "n=1.5", "n=0", "head_s=nan"]
)
def test_what_is_no_limit_is_answered_with_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"allowed|stop_strings") as caught:
        Limits.of([text])
    assert "\n" not in str(caught.value)


def test_the_documents_list_all() -> None:
    assert module.table() in DOCS.read_text()


@pytest.mark.parametrize("limit", dataclasses.fields(Limits), ids=lambda limit: limit.name)
def test_defaults_are_in_range(limit: Any) -> None:
    assert limit.metadata["at_least"] <= getattr(Limits(), limit.name) <= limit.metadata["at_most"]
