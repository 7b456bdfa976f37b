from hypothesis import given
from hypothesis import strategies as st

from leadline.server.bench.event_stream import EventStream

EVENTS = [b'{"a":1}', b"", b"two", b'{"text":"\xc3\xa9"}', b"[DONE]"]


@given(cuts=st.lists(st.integers(0, 100), max_size=8), end=st.sampled_from([b"\n", b"\r\n"]))
def test_pieces_of_any_size(cuts: list[int], end: bytes) -> None:
    lines = [b": comment" + end + end, b"event: x" + end]
    body = b"".join(lines + [b"data: " + event + end + end for event in EVENTS])
    places = sorted({0, len(body), *(min(cut, len(body)) for cut in cuts)})
    stream, events = EventStream(), []
    for begin, stop in zip(places, places[1:], strict=False):
        events += stream.feed(body[begin:stop])
    assert events == EVENTS


def test_lines_of_one_event_are_joined() -> None:
    assert EventStream().feed(b"data:a\ndata: b\nid: 3\n\n") == [b"a\nb"]


def test_an_event_without_its_end_is_none() -> None:
    assert EventStream().feed(b"data: a\n") == []
