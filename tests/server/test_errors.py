import msgspec
import pytest

from leadline.engine.errors import (
    ConfigError,
    EngineDeadError,
    EngineError,
    InvalidRequestError,
    PromptTooLongError,
    QueueFullError,
)
from leadline.server.errors import ApiError, BadRequestError, UnavailableError, from_engine_error


@pytest.mark.parametrize(
    "error",
    [
        ApiError(404, "no such thing"),
        BadRequestError("n is 0; allowed: 1 to 128", param="n", code="invalid_value"),
        UnavailableError("later", code="server_draining"),
    ],
)
def test_the_envelope_has_its_four_members(error: ApiError) -> None:
    body = msgspec.json.decode(error.body())
    assert list(body) == ["error"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"] == str(error)
    assert isinstance(body["error"]["type"], str)
    assert body["error"]["param"] == error.param
    assert body["error"]["code"] == error.code


def test_try_again_later_says_when() -> None:
    response = UnavailableError("later", code="server_draining").response()
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (PromptTooLongError("9 > 8", param="messages"), 400, "context_length_exceeded"),
        (InvalidRequestError("no", param="top_k"), 400, "invalid_value"),
        (QueueFullError("full"), 429, "rate_limit_exceeded"),
        (EngineDeadError("killed by signal 9 in /secret/path"), 503, "engine_dead"),
        (ConfigError("inner detail"), 500, "internal_error"),
    ],
)
def test_errors_of_the_engine(error: EngineError, status: int, code: str) -> None:
    answer = from_engine_error(error)
    assert (answer.status, answer.code) == (status, code)
    assert answer.param == getattr(error, "param", None)
    assert "secret" not in str(answer)
    assert "inner detail" not in str(answer)
