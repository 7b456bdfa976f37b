import pytest

from leadline.server.caller import caller_of
from leadline.server.errors import BadRequestError


def test_a_tenant_is_a_hash_of_the_key() -> None:
    bearer = caller_of({"authorization": "Bearer sk-secret"}).tenant
    assert bearer == caller_of({"authorization": "bearer  sk-secret "}).tenant
    assert bearer == caller_of({"x-api-key": "sk-secret"}).tenant
    assert bearer != caller_of({"x-api-key": "sk-other"}).tenant
    assert len(bearer) == 16
    assert "secret" not in bearer


@pytest.mark.parametrize("headers", [{}, {"authorization": "Basic eDp5"}, {"x-api-key": " "}])
def test_without_a_key_there_is_no_tenant(headers: dict[str, str]) -> None:
    assert caller_of(headers).tenant == ""


@pytest.mark.parametrize(("text", "priority"), [("5", 5), ("-3", -3), (" 7 ", 7)])
def test_a_priority(text: str, priority: int) -> None:
    assert caller_of({"x-vllm-priority": text}).priority == priority
    assert caller_of({}).priority == 0


@pytest.mark.parametrize("text", ["", "high", "1.5", "2147483648", "9" * 5000, "\u0661"])
def test_a_bad_priority_is_named(text: str) -> None:
    with pytest.raises(BadRequestError, match="X-Vllm-Priority") as caught:
        caller_of({"x-vllm-priority": text})
    assert caught.value.param == "priority"
    assert len(str(caught.value)) < 200
