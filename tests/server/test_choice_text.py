from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.engine.request import FinishReason, RequestOutput, ThinkingLimit, TokenLogprobs
from leadline.server.choice_text import ChoiceText
from leadline.server.delta import Delta, TokenInText
from leadline.server.text_rules import TextRules
from leadline.server.thinking import ThinkingCounter

END = 256


def token_bytes(token_id: int) -> bytes:
    return bytes([token_id]) if token_id < END else b""


def output(
    data: bytes, reason: FinishReason | None = None, *, stop_token_id: int | None = None
) -> RequestOutput:
    token_ids = [*data, *([stop_token_id] if stop_token_id is not None else [])]
    return RequestOutput(
        request_id="r",
        token_ids=token_ids,
        finish_reason=reason,
        stop_token_id=stop_token_id,
        num_cached_tokens=3,
        logprobs=[TokenLogprobs(id_, -float(id_), 1, [], []) for id_ in token_ids],
    )


def follow(
    outputs: list[RequestOutput],
    stops: list[str],
    *,
    thinking: ThinkingCounter | None = None,
    **rules: Any,
) -> list[Delta]:
    text_rules = TextRules(stop_strings=stops, **rules)
    choice = ChoiceText(5, token_bytes, text_rules, thinking)
    deltas = []
    for item in outputs:
        deltas.append(choice.push(item))
        if deltas[-1].finish_reason is not None:
            break
    return deltas


def tokens_of(deltas: list[Delta]) -> list[TokenInText]:
    return [token for delta in deltas for token in delta.tokens]


@given(
    st.text(alphabet="ab\u4f60\U0001f600", max_size=12),
    st.lists(st.integers(0, 48), max_size=8),
    st.lists(st.text(alphabet="ab\u4f60", min_size=1, max_size=3), max_size=3),
    st.integers(0, 6),
    st.booleans(),
)
def test_the_grouping_of_tokens_changes_nothing(
    text: str, cuts: list[int], stops: list[str], min_tokens: int, includes_stop: bool
) -> None:
    data = text.encode()
    borders = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    parts = [output(data[start:end]) for start, end in pairwise(borders)]
    last = output(b"", FinishReason.STOP, stop_token_id=END)
    rules: Any = {
        "min_tokens": min_tokens,
        "includes_stop": includes_stop,
        "keeps_tokens": True,
    }
    whole = follow([output(data), last], stops, **rules)
    split = follow([*parts, last], stops, **rules)
    assert "".join(d.text for d in split) == "".join(d.text for d in whole)
    assert tokens_of(split) == tokens_of(whole)
    assert [token.token_id for token in tokens_of(whole)] == [*data, END][: whole[-1].num_tokens]
    assert split[-1].num_tokens == whole[-1].num_tokens == len(tokens_of(whole))
    assert split[-1].stop_reason == whole[-1].stop_reason
    assert split[-1].finish_reason == whole[-1].finish_reason == FinishReason.STOP
    passed = ""
    for delta in split[:-1]:  # tokens come with their text, or after it
        passed += delta.text
        for token in delta.tokens:
            shown = token_bytes(token.token_id).decode("ascii", "ignore")
            assert passed.startswith(shown, token.text_offset)


def test_a_stop_string_cuts_text_count_and_reason() -> None:
    (delta,) = follow([output(b"one two three", FinishReason.LENGTH)], ["two"])
    assert (delta.text, delta.num_tokens, delta.finish_reason) == ("one ", 7, FinishReason.STOP)
    assert (delta.index, delta.num_cached_tokens) == (5, 3)


@pytest.mark.parametrize("stop_token_id", [END, ord("!")])
def test_the_token_that_ends_the_text_counts_and_is_not_shown(stop_token_id: int) -> None:
    (delta,) = follow([output(b"ok", FinishReason.STOP, stop_token_id=stop_token_id)], [])
    assert (delta.text, delta.num_tokens) == ("ok", 3)


def test_the_end_releases_half_a_stop_string_and_half_a_character() -> None:
    deltas = follow([output(b"ab\xe4"), output(b"", FinishReason.LENGTH)], ["b\ufffdc"])
    assert [delta.text for delta in deltas] == ["a", "b\ufffd"]
    assert deltas[-1].finish_reason == FinishReason.LENGTH


def test_an_aborted_choice_keeps_its_reason() -> None:
    (delta,) = follow([output(b"half", FinishReason.ABORT)], [])
    assert (delta.text, delta.finish_reason) == ("half", FinishReason.ABORT)


def test_tokens_wait_for_their_text() -> None:
    outputs = [output(bytes([byte])) for byte in "x\u4f60aby".encode()]
    deltas = follow([*outputs, output(b"", FinishReason.LENGTH)], ["abc"], keeps_tokens=True)
    assert [delta.text for delta in deltas] == ["x", "", "", "\u4f60", "", "", "aby", ""]
    assert [len(delta.tokens) for delta in deltas] == [1, 0, 0, 3, 0, 0, 3, 0]
    assert [token.text_offset for token in tokens_of(deltas)] == [0, 1, 1, 1, 2, 3, 4]
    assert tokens_of(deltas)[0].logprobs == TokenLogprobs(ord("x"), -float(ord("x")), 1, [], [])


def test_the_end_brings_the_tokens_that_are_left() -> None:
    deltas = follow([output(b"ab\xe4"), output(b"", FinishReason.LENGTH)], [], keeps_tokens=True)
    assert [len(delta.tokens) for delta in deltas] == [2, 1]


def test_stop_strings_are_looked_for_after_the_first_tokens() -> None:
    data = b"ab ab ab"
    (delta,) = follow([output(data, FinishReason.LENGTH)], ["ab"], min_tokens=3)
    assert (delta.text, delta.num_tokens, delta.stop_reason) == ("ab ", 5, "ab")
    # A stop string that begins within the first tokens is none.
    (delta,) = follow([output(data, FinishReason.LENGTH)], ["ab"], min_tokens=4)
    assert (delta.text, delta.num_tokens) == ("ab ab ", 8)


def test_what_ends_the_text_may_be_part_of_it() -> None:
    (delta,) = follow([output(b"one two three", FinishReason.LENGTH)], ["two"], includes_stop=True)
    assert (delta.text, delta.num_tokens, delta.stop_reason) == ("one two", 7, "two")
    last = output(b"ok", FinishReason.STOP, stop_token_id=ord("!"))
    (delta,) = follow([last], [], includes_stop=True, stop_token_ids=[ord("!")])
    assert (delta.text, delta.stop_reason) == ("ok!", ord("!"))


def test_an_end_token_of_the_model_is_no_stop_reason() -> None:
    (delta,) = follow([output(b"ok", FinishReason.STOP, stop_token_id=END)], [], stop_token_ids=[1])
    assert delta.stop_reason is None


def test_thinking_is_counted_up_to_the_cut() -> None:
    limit = ThinkingLimit(begin_id=ord("<"), end_id=ord(">"))
    (delta,) = follow(
        [output(b"a<bcd>e<fg", FinishReason.LENGTH)], ["f"], thinking=ThinkingCounter(limit, [])
    )
    assert delta.num_thinking_tokens == 4
    assert delta.text == "a<bcd>e<"
