import pytest

from leadline.server.bench.event import AnswerError, decode_event, refusal_text


def test_reasoning_calls_and_text_are_tokens() -> None:
    for delta, text in [
        ('{"content":"a"}', "a"),
        ('{"reasoning_content":"a","reasoning":"a"}', "a"),
        ('{"reasoning":"a"}', "a"),
        ('{"tool_calls":[{"index":0}]}', ""),
    ]:
        (choice,) = decode_event(f'{{"choices":[{{"delta":{delta}}}]}}'.encode()).choices
        assert choice.has_tokens
        assert choice.new_text == text
    for delta in ('{"role":"assistant","content":""}', '{"content":null}', "{}"):
        (choice,) = decode_event(f'{{"choices":[{{"delta":{delta}}}]}}'.encode()).choices
        assert not choice.has_tokens


def test_the_word_error_in_a_text_is_no_error() -> None:
    event = decode_event(b'{"choices":[{"text":"\\"error\\""}],"error":null}')
    assert event.choices[0].new_text == '"error"'


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'{"error":{"message":"m"}}', "m"),
        (b'{"error":"m"}', "m"),
        (b'{"error":{"code":3}}', "{'code': 3}"),
        (b'{"object":"error","message":"m"}', "m"),
    ],
)
def test_errors(data: bytes, text: str) -> None:
    with pytest.raises(AnswerError) as caught:
        decode_event(data)
    assert str(caught.value) == f"an error in the stream: {text}"


def test_refusals() -> None:
    assert refusal_text(404, b'{"error":{"message":"m"}}') == "status 404: m"
    assert refusal_text(404, b'{"detail":"Not Found"}') == "status 404: Not Found"
    assert refusal_text(502, b"<html>bad") == "status 502: <html>bad"
    assert refusal_text(502, b"") == "status 502"
    assert len(refusal_text(502, b"x" * 9999)) < 600
