import pytest
from starlette.datastructures import Headers

from leadline.server.edge import request_id_of


def request_id(value: bytes) -> str:
    return request_id_of(Headers(raw=[(b"x-request-id", value)]))


@pytest.mark.parametrize(
    "value", ["abc-123", "01:ab/cd.ef=_+", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"]
)
def test_a_client_s_id_is_kept(value: str) -> None:
    assert request_id(value.encode()) == value


def test_an_id_is_cut_and_cleaned() -> None:
    assert request_id(b"a\r\nb<script>\x00\xff c") == "abscriptc"
    assert request_id(b"x" * 10_000) == "x" * 128


@pytest.mark.parametrize("value", [b"", b"  ", b"\xff\r\n"])
def test_an_id_is_made_where_none_is_left(value: bytes) -> None:
    made = request_id(value)
    assert made.isalnum()
    assert made != request_id(value)
