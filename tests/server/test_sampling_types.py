import json
from typing import Any

import pytest

from leadline.server.body import parse_body
from leadline.server.completion_types import CompletionRequest
from leadline.server.errors import BadRequestError
from leadline.server.field_limits import check_limits
from leadline.server.limits import Limits

LIMITS = Limits()


def parse(**fields: Any) -> CompletionRequest:
    body = {"model": "m", "prompt": "x", **fields}
    return parse_body(json.dumps(body).encode(), CompletionRequest)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"x"',
        b"null",
        b'{"model": "m"',
        b'{"model": "m"} x',
        b'{"temperature": NaN}',
        b'{"temperature": 1e400}',
        b'{"seed": ' + b"9" * 5000 + b"}",
        b'{"prompt": "\xff"}',
        b'{"prompt": "\\ud800"}',
        "{}".encode("utf-16"),
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_body(body, CompletionRequest)
    assert caught.value.status == 400
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 3}, "model"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"min_p": -0.1}, "min_p"),
        ({"top_k": -2}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": True}, "n"),
        ({"n": "2"}, "n"),
        ({"n": 10**18}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 2**63}, "max_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"seed": -(2**63) - 1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": [None]}, "stop[0]"),
        ({"stop": ["x"] * (LIMITS.stop_strings + 1)}, "stop"),
        ({"stop": "x" * 1_000_000}, "stop"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"stop_token_ids": [True]}, "stop_token_ids[0]"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"ignore_eos": "no"}, "ignore_eos"),
        ({"frequency_penalty": 2.1}, "frequency_penalty"),
        ({"frequency_penalty": "1"}, "frequency_penalty"),
        ({"presence_penalty": -2.1}, "presence_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repetition_penalty": 2.1}, "repetition_penalty"),
        ({"repetition_penalty": -1}, "repetition_penalty"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"logit_bias": {"5": -101}}, "logit_bias"),
        ({"logit_bias": {"5": None}}, "logit_bias"),
        ({"logit_bias": [5]}, "logit_bias"),
        ({"logit_bias": {str(i): 1 for i in range(LIMITS.logit_bias + 1)}}, "logit_bias"),
        ({"bad_words": "word"}, "bad_words"),
        ({"bad_words": ["a", ""]}, "bad_words[1]"),
        ({"bad_words": ["x"] * (LIMITS.bad_words + 1)}, "bad_words"),
        ({"bad_words": ["x" * 1000]}, "bad_words[0]"),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"allowed_token_ids": [-1]}, "allowed_token_ids[0]"),
        ({"allowed_token_ids": [1] * (LIMITS.allowed_token_ids + 1)}, "allowed_token_ids"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"include_stop_str_in_output": 1}, "include_stop_str_in_output"),
        ({"skip_special_tokens": 0}, "skip_special_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"prompt_logprobs": 21}, "prompt_logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"prompt_logprobs": 0, "stream": True}, "prompt_logprobs"),
        ({"echo": 1}, "echo"),
        ({"return_token_ids": "yes"}, "return_token_ids"),
        ({"return_tokens_as_token_ids": "yes"}, "return_tokens_as_token_ids"),
        ({"priority": 1.5}, "priority"),
        ({"priority": 2**31}, "priority"),
        ({"deadline_s": 0}, "deadline_s"),
        ({"deadline_s": -1}, "deadline_s"),
        ({"deadline_s": 1e9}, "deadline_s"),
        ({"thinking_token_budget": -1}, "thinking_token_budget"),
        ({"thinking_token_budget": 1.5}, "thinking_token_budget"),
    ],
)
def test_a_value_out_of_range_is_named(fields: dict[str, Any], param: str) -> None:
    def look() -> None:
        request = parse(**fields)
        request.check()
        check_limits(request, LIMITS)

    with pytest.raises(BadRequestError) as caught:
        look()
    assert caught.value.param == param
    assert len(str(caught.value)) < 300


def test_a_missing_field_is_named() -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_body(b'{"prompt": "x"}', CompletionRequest)
    assert (caught.value.param, caught.value.code) == ("model", "missing_required_parameter")


@pytest.mark.parametrize(
    "fields",
    [
        {"suffix": "end"},
        {"repetition_detection": {"min_count": 3}},
        {"stream_interval": 4},
        {"watermarking": True},
        {"return_token_offsets": True},
        {"ec_transfer_params": {"x": 1}},
        {"extra_key": "x"},
        {"prompt_embeds": "x"},
        {"best_of": 2},
        {"best_of": 0},
        {"store": True},
        {"use_beam_search": True},
        {"length_penalty": 2},
        {"top_logprobs": 3},
        {"reasoning_effort": "high"},
        {"stop_regex": "a"},
        {"spaces_between_special_tokens": False},
    ],
)
def test_a_known_field_that_is_not_honoured_is_refused_by_name(fields: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse(**fields).check()
    assert caught.value.param == next(iter(fields))
    assert caught.value.code == "unsupported_parameter"


def test_values_that_ask_for_nothing_are_accepted() -> None:
    request = parse(
        logprobs=None,
        echo=False,
        suffix=None,
        best_of=1,
        presence_penalty=0,
        frequency_penalty=0.0,
        repetition_penalty=1.0,
        logit_bias={},
        min_tokens=0,
        response_format={"type": "text"},
        store=False,
        user="somebody",
        metadata={"a": "b"},
        stop=None,
        seed=None,
        max_tokens=None,
        temperature=0,
        top_k=-1,
    )
    assert request.check() == []
    assert request.stop_strings == []


def test_a_field_that_nobody_knows_is_reported() -> None:
    assert parse(frobnicate=1, user="u").check() == ["frobnicate"]


def test_stream_options_that_nobody_knows_are_reported() -> None:
    request = parse(stream=True, stream_options={"include_usage": True, "include_x": True})
    assert request.check() == ["stream_options.include_x"]


def test_the_last_of_equal_keys_counts() -> None:
    request = parse_body(b'{"model": "a", "model": "b", "prompt": "x"}', CompletionRequest)
    assert request.model == "b"


@pytest.mark.parametrize(("stop", "strings"), [("a", ["a"]), (["a", "b"], ["a", "b"]), ([], [])])
def test_stop_is_always_a_list(stop: Any, strings: list[str]) -> None:
    assert parse(stop=stop).stop_strings == strings
