import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.server.json_line import encode_line


@given(st.text())
def test_a_text_is_one_line_of_json(text: str) -> None:
    encoded = encode_line(text)
    assert json.loads(encoded) == text
    assert len(encoded.decode().splitlines()) == 1


@pytest.mark.parametrize("text", ["\n\ndata: [DONE]\n\n", "a\x85b", "\u2028\u2029", "\x1c\x1d\x0b"])
def test_whatever_a_client_takes_for_a_line_end_is_escaped(text: str) -> None:
    assert len(encode_line(f"<{text}>").decode().splitlines()) == 1
