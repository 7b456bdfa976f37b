from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from leadline.server.detokenizer import Detokenizer

WORDS = (
    "\uc548\ub155\ud558\uc138\uc694 \ud55c\uad6d\uc5b4",  # Korean syllables
    "\u4f60\u597d\uff0c\u4e16\u754c",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f1f0\U0001f1f7",
    "e\u0301 \u0926\u0947\u0935\u0928\u093e\u0917\u0930\u0940 a\u0308\u0304",
    "\r\n\t\u2028 plain\x00text",
)
texts = st.one_of(st.text(), st.lists(st.sampled_from(WORDS)).map("".join))


def pieces_of(chunks: list[bytes]) -> list[str]:
    """What is passed on after each chunk, each chunk being one token, and at the end."""
    detokenizer = Detokenizer(chunks.__getitem__)
    return [*(detokenizer.push(index) for index in range(len(chunks))), detokenizer.flush()]


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    borders = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(borders)]


@given(texts, st.lists(st.integers(0, 10_000), max_size=40))
def test_any_split_of_a_text_gives_the_text_in_whole_characters(text: str, cuts: list[int]) -> None:
    pieces = pieces_of(split(text.encode(), cuts))
    assert "".join(pieces) == text
    assert text.startswith("".join(pieces[:1]))
    assert sum(piece.count("\ufffd") for piece in pieces) == text.count("\ufffd")


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=20))
def test_any_split_of_any_bytes_gives_the_decoding_of_the_whole(
    data: bytes, cuts: list[int]
) -> None:
    assert "".join(pieces_of(split(data, cuts))) == data.decode(errors="replace")


def test_a_character_comes_with_its_last_byte() -> None:
    chunks = [bytes([byte]) for byte in "\uac00".encode()]
    assert pieces_of(chunks) == ["", "", "\uac00", ""]


def test_a_text_that_ends_within_a_character_ends_with_the_replacement() -> None:
    assert pieces_of([b"a\xec", b"\x95"]) == ["a", "", "\ufffd"]


def test_bytes_that_begin_no_character_are_not_held_back() -> None:
    assert pieces_of([b"\xff", b"ok"]) == ["\ufffd", "ok", ""]


def test_a_token_without_text_adds_none() -> None:
    assert pieces_of([b"\xe4\xbd", b"", b"\xa0"]) == ["", "", "\u4f60", ""]
