import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.server.stop_strings import StopStringMatcher, touches

few_letters = st.text(alphabet="ab\u4f60", max_size=24)
stop_lists = st.lists(st.text(alphabet="ab\u4f60", min_size=1, max_size=4), max_size=4)


def cut(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The specification: the stop string that is complete first, the longest of several."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, None


def run(matcher: StopStringMatcher, pieces: list[str]) -> list[str]:
    passed = []
    for piece in pieces:
        passed.append(matcher.push(piece))
        if matcher.matched is not None:
            return passed
    return [*passed, matcher.flush()]


@given(st.lists(few_letters, max_size=8), stop_lists)
def test_any_pieces_give_the_text_before_the_first_stop_string(
    pieces: list[str], stops: list[str]
) -> None:
    matcher = StopStringMatcher(stops)
    passed = "".join(run(matcher, pieces))
    assert (passed, matcher.matched) == cut("".join(pieces), stops)


@given(few_letters, few_letters, stop_lists, st.booleans())
def test_a_piece_that_touches_no_stop_string_changes_nothing(
    before: str, piece: str, stops: list[str], is_included: bool
) -> None:
    matcher = StopStringMatcher(stops, is_included=is_included)
    matcher.push(before)
    if matcher.matched is None and matcher.is_idle:
        is_passed = matcher.push(piece) == piece and matcher.is_idle and matcher.matched is None
        assert touches(piece, stops) != is_passed


@given(st.lists(few_letters, max_size=8), stop_lists)
def test_only_what_may_begin_a_stop_string_is_held_back(
    pieces: list[str], stops: list[str]
) -> None:
    matcher = StopStringMatcher(stops)
    text = passed = ""
    for piece in pieces:
        text += piece
        passed += matcher.push(piece)
        if matcher.matched is not None:
            return
        held = text[len(passed) :]
        assert text == passed + held
        assert not held or any(stop.startswith(held) for stop in stops)


@pytest.mark.parametrize(
    ("pieces", "stops", "passed"),
    [
        (["Hello", " wor", "ld!", " more"], ["world"], ["Hello", " ", ""]),
        (["one\n", "\ntwo"], ["\n\n"], ["one", ""]),
        (["aab"], ["ab", "aab"], [""]),
        (["xab", "y"], ["abc"], ["x", "aby", ""]),
        (["stop"], ["stop"], [""]),
        (["a", "b"], [], ["a", "b", ""]),
    ],
)
def test_examples(pieces: list[str], stops: list[str], passed: list[str]) -> None:
    assert run(StopStringMatcher(stops), pieces) == passed


def test_the_end_of_a_text_releases_what_was_held_back() -> None:
    matcher = StopStringMatcher(["<end>"])
    assert matcher.push("so <en") == "so "
    assert matcher.flush() == "<en"
    assert matcher.matched is None


@given(st.lists(few_letters, max_size=8), stop_lists)
def test_a_stop_string_may_be_passed_on_and_nothing_is_held_back(
    pieces: list[str], stops: list[str]
) -> None:
    matcher = StopStringMatcher(stops, is_included=True)
    text = passed = ""
    for piece in pieces:
        text += piece
        passed += matcher.push(piece)
        if matcher.matched is not None:
            break
        assert passed == text
    before, found = cut("".join(pieces), stops)
    assert (passed, matcher.matched) == (before + (found or ""), found)
