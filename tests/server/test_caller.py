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


def test_a_session_is_its_tenants_own() -> None:
    mine = {"authorization": "Bearer sk-one", "x-session-id": "chat 7"}
    session = caller_of(mine).session_id
    assert session == caller_of(mine | {"x-session-id": " chat 7 "}).session_id
    assert session != caller_of(mine | {"x-session-id": "chat 8"}).session_id
    assert session != caller_of(mine | {"authorization": "Bearer sk-two"}).session_id
    assert len(session) == 16
    for nothing in ({}, {"x-session-id": " "}):
        assert caller_of({"authorization": "Bearer sk-one", **nothing}).session_id == ""


def test_a_session_with_a_long_name_is_refused() -> None:
    assert caller_of({"x-session-id": "x" * 256}).session_id
    with pytest.raises(BadRequestError, match="X-Session-ID has 257 characters"):
        caller_of({"x-session-id": "x" * 257})
