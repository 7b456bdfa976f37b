import json
import re
from typing import Any

import pytest

from leadline.server.body import parse_body
from leadline.server.completion_types import CompletionRequest
from leadline.server.errors import BadRequestError


def parse(prompt: Any) -> CompletionRequest:
    return parse_body(json.dumps({"model": "m", "prompt": prompt}).encode(), CompletionRequest)


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("text", ["text"]),
        (["one", "two"], ["one", "two"]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
    ],
)
def test_the_four_forms_of_a_prompt(prompt: Any, prompts: list[Any]) -> None:
    assert parse(prompt).prompts() == prompts


@pytest.mark.parametrize(
    "prompt",
    [
        None,
        3,
        {},
        [],
        [[]],
        [[1], []],
        [[1], "a"],
        ["a", 1],
        [-1],
        [2**31],
        [True],
        [1.5],
        [[[1]]],
    ],
)
def test_other_prompts_are_refused(prompt: Any) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse(prompt)
    assert caught.value.param is not None
    assert re.fullmatch(r"prompt(\[\d+\]){0,2}", caught.value.param)


def test_a_missing_prompt_is_named() -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_body(b'{"model": "m"}', CompletionRequest)
    assert (caught.value.param, caught.value.code) == ("prompt", "missing_required_parameter")
