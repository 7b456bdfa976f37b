"""Outputs are passed on in portions, a request's in their order."""

from hypothesis import given
from hypothesis import strategies as st

from leadline.engine.delivery import REQUESTS_A_PORTION, Delivery
from leadline.engine.request import RequestOutput


def output_of(name: int, token_id: int) -> RequestOutput:
    return RequestOutput(request_id=str(name), token_ids=[token_id])


def test_a_portion_has_all_that_waits_for_its_requests() -> None:
    passed: list[RequestOutput] = []
    delivery = Delivery(passed.extend)
    for step in range(3):
        delivery.add([output_of(name, step) for name in range(REQUESTS_A_PORTION + 5)])
    delivery.pass_on_portion()
    assert [o.token_ids[0] for o in passed] == [0, 1, 2] * REQUESTS_A_PORTION
    delivery.pass_on_all()
    assert len(passed) == 3 * (REQUESTS_A_PORTION + 5)


@given(steps=st.lists(st.sets(st.integers(0, 2 * REQUESTS_A_PORTION)) | st.none(), max_size=12))
def test_each_output_is_passed_on_once(steps: list[set[int] | None]) -> None:
    passed: list[RequestOutput] = []
    delivery = Delivery(passed.extend)
    told: dict[str, list[int]] = {}
    for number, names in enumerate(steps):
        if names is None:
            delivery.pass_on_portion()
            continue
        delivery.add([output_of(name, number) for name in names])
        for name in names:
            told.setdefault(str(name), []).append(number)
    delivery.pass_on_all()
    found: dict[str, list[int]] = {}
    for output in passed:
        found.setdefault(output.request_id, []).extend(output.token_ids)
    assert found == told
