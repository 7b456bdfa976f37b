from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.engine.request import FinishReason, RequestOutput
from leadline.server.choice_text import ChoiceText, Delta

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
    )


def follow(outputs: list[RequestOutput], stops: list[str]) -> list[Delta]:
    choice = ChoiceText(5, token_bytes, stops)
    deltas = []
    for item in outputs:
        deltas.append(choice.push(item))
        if deltas[-1].finish_reason is not None:
            break
    return deltas


@given(
    st.text(alphabet="ab\u4f60\U0001f600", max_size=12),
    st.lists(st.integers(0, 48), max_size=8),
    st.lists(st.text(alphabet="ab\u4f60", min_size=1, max_size=3), max_size=3),
)
def test_the_grouping_of_tokens_changes_nothing(
    text: str, cuts: list[int], stops: list[str]
) -> None:
    data = text.encode()
    borders = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    parts = [output(data[start:end]) for start, end in pairwise(borders)]
    last = output(b"", FinishReason.STOP, stop_token_id=END)
    whole = follow([output(data), last], stops)
    split = follow([*parts, last], stops)
    assert "".join(d.text for d in split) == "".join(d.text for d in whole)
    assert split[-1].num_tokens == whole[-1].num_tokens
    assert split[-1].finish_reason == whole[-1].finish_reason == FinishReason.STOP


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
