"""What becomes of a request when its engine dies, and how it goes on."""

import asyncio
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import pytest

from leadline.engine.messages import EngineState, EngineStatus
from leadline.engine.open_request import MAX_DEATHS, OpenRequest
from leadline.engine.request import FinishReason, RequestOutput

RESTARTING = EngineStatus(EngineState.RESTARTING, 1, "", "it died")


def final_of(open_request: OpenRequest) -> RequestOutput:
    output = open_request.outputs.get_nowait()
    assert isinstance(output, RequestOutput)
    assert open_request.outputs.empty()
    return output


def told(*token_ids: int, **fields: Any) -> RequestOutput:
    return RequestOutput(request_id="a", token_ids=list(token_ids), **fields)


def test_it_goes_on_after_the_tokens_that_were_told(request_of: Any) -> None:
    open_request = OpenRequest(request_of("a", [1, 2], 20, num_prompt_logprobs=1))
    assert open_request.resumed().params.num_prompt_logprobs == 1  # not told yet
    open_request.take(told(5, 6, num_cached_tokens=1, num_verified=2, num_accepted=1))
    open_request.take(told(7, num_cached_tokens=1, num_verified=1, num_accepted=0))
    resumed = open_request.resumed()
    assert resumed.prompt_ids == [1, 2]
    assert resumed.params.num_prompt_logprobs is None
    resumption = resumed.resumption
    assert resumption is not None
    assert resumption.token_ids == [5, 6, 7]
    assert resumption.num_cached_tokens == 1
    assert resumption.speculation.num_steps == 2
    assert resumption.speculation.num_draft_tokens == 3
    assert resumption.speculation.num_accepted_per_pos == [1, 0]
    assert not resumption.is_suspect


@pytest.mark.parametrize(
    ("status", "resume", "reason", "is_lost"),
    [
        (RESTARTING, False, FinishReason.ERROR, True),
        (EngineStatus(EngineState.ENDED, 1, "", "it died"), True, FinishReason.ERROR, True),
        (
            EngineStatus(EngineState.ENDED, 1, "", "bye", is_shut_down=True),
            True,
            FinishReason.ABORT,
            True,
        ),
    ],
)
def test_it_ends_where_it_cannot_go_on(
    request_of: Any, status: EngineStatus, resume: bool, reason: FinishReason, is_lost: bool
) -> None:
    open_request = OpenRequest(request_of())
    assert not open_request.survives(status, resume=resume, is_suspect=False)
    final = final_of(open_request)
    assert (final.finish_reason, final.error) == (reason, status.cause)
    assert final.is_lost == is_lost


def test_what_its_client_has_ended_ends_so(request_of: Any) -> None:
    open_request = OpenRequest(request_of())
    open_request.ending = FinishReason.STOP
    assert not open_request.survives(RESTARTING, resume=True, is_suspect=False)
    assert final_of(open_request).finish_reason is FinishReason.STOP


def test_who_is_not_suspect_survives_any_number_of_deaths(request_of: Any) -> None:
    open_request = OpenRequest(request_of())
    assert all(open_request.survives(RESTARTING, resume=True, is_suspect=False) for _ in range(10))
    assert open_request.outputs.empty()


def test_two_deaths_without_a_token_in_between_are_enough(request_of: Any) -> None:
    open_request = OpenRequest(request_of())
    assert open_request.survives(RESTARTING, resume=True, is_suspect=True)
    assert open_request.resumed().resumption.is_suspect
    assert not open_request.survives(RESTARTING, resume=True, is_suspect=True)
    final = final_of(open_request)
    assert final.finish_reason is FinishReason.ERROR
    assert "each time" in final.error
    assert not final.is_lost


def test_tokens_in_between_help_only_so_often(request_of: Any) -> None:
    open_request = OpenRequest(request_of())
    for count in range(MAX_DEATHS - 1):
        assert open_request.survives(RESTARTING, resume=True, is_suspect=True)
        open_request.take(told(count))
        assert not open_request.resumed().resumption.is_suspect
    assert not open_request.survives(RESTARTING, resume=True, is_suspect=True)


def test_its_deadline_passes_without_an_engine(request_of: Any) -> None:
    async def main() -> None:
        past = OpenRequest(request_of("a", request={"deadline_s": 1.0}))
        past.watch_deadline()
        saved = OpenRequest(request_of("b", request={"deadline_s": 1.0}))
        saved.watch_deadline()
        saved.unwatch()
        output = await asyncio.wait_for(past.outputs.get(), 5)
        assert isinstance(output, RequestOutput)
        assert output.finish_reason is FinishReason.ABORT
        assert "deadline" in output.error
        assert saved.outputs.empty()
        OpenRequest(request_of("c")).watch_deadline()  # it has none

    asyncio.run(main())


async def read(open_request: OpenRequest, num_outputs: int) -> list[list[int]]:
    return [(await open_request.next_output()).token_ids for _ in range(num_outputs)]


async def test_what_push_takes_the_reader_does_not_see(request_of: Any) -> None:
    pushed: list[list[int]] = []

    def push(outputs: Sequence[RequestOutput]) -> int:
        odd = list(takewhile(lambda output: output.token_ids[0] % 2 == 1, outputs))
        pushed.extend(output.token_ids for output in odd)
        return len(odd)

    open_request = OpenRequest(request_of("a", [1, 2], 20), push)
    open_request.give([told(1)], 16)  # nobody waits yet
    reader = asyncio.create_task(read(open_request, 4))
    await asyncio.sleep(0)
    for token_ids in ([3], [5, 6, 7], [9]):  # 9 comes while the reader has not seen 6 yet
        open_request.give([told(token_id) for token_id in token_ids], 16)
    assert await reader == [[1], [6], [7], [9]]
    assert pushed == [[3], [5]]
    resumption = open_request.resumed().resumption
    assert resumption is not None
    assert resumption.token_ids == [1, 3, 5, 6, 7, 9]


async def test_the_reader_raises_what_push_raises(request_of: Any) -> None:
    def push(outputs: Sequence[RequestOutput]) -> int:
        raise ZeroDivisionError

    open_request = OpenRequest(request_of("a", [1, 2], 20), push)
    reader = asyncio.create_task(read(open_request, 1))
    await asyncio.sleep(0)
    assert open_request.give([told(1)], 16)
    with pytest.raises(ZeroDivisionError):
        await reader


def test_what_is_unread_is_bounded_and_told_once(request_of: Any) -> None:
    open_request = OpenRequest(request_of("a", [1, 2], 20))
    given = [open_request.give([told(token_id)], 2) for token_id in (3, 4, 5)]
    assert given == [True, True, False]
    open_request.end(FinishReason.ABORT)
    assert open_request.give([told(6)], 2)
    assert open_request.outputs.qsize() == 3
