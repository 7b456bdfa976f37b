"""A request whose final output has not come, as its client keeps it: enough to resume it."""

import asyncio
import time
from collections.abc import Sequence

from msgspec.structs import replace

from leadline.engine.deadlines import has_passed
from leadline.engine.delivery import Push
from leadline.engine.messages import EngineState, EngineStatus
from leadline.engine.request import (
    EngineRequest,
    FinishReason,
    RequestOutput,
    Resumption,
    SpeculationCounts,
)

MAX_DEATHS = 3


class OpenRequest:
    """The request, and what has been told of it.

    Attributes:
        outputs: for whoever reads them.
        ending: why its client has ended it; None if it has not.
    """

    def __init__(self, request: EngineRequest, push: Push | None = None) -> None:
        """`push`: see `EngineClient.generate`."""
        self.request = request
        self.outputs: asyncio.Queue[RequestOutput | Exception] = asyncio.Queue()
        self._push = push
        self._is_awaited = False  # by a reader who has read all
        self.ending: FinishReason | None = None
        self._token_ids: list[int] = []
        self._num_cached_tokens = 0
        self._verified: list[tuple[int, int]] = []
        self._num_deaths = 0
        self._is_suspect = False
        self._timer: asyncio.TimerHandle | None = None

    def take(self, output: RequestOutput) -> None:
        """Remember what the engine has told; it is not a suspect any more."""
        if output.token_ids:
            self._token_ids += output.token_ids
            self._num_cached_tokens = output.num_cached_tokens
            self._is_suspect = False
        if output.num_verified:
            self._verified.append((output.num_verified, output.num_accepted))

    def give(self, outputs: Sequence[RequestOutput], max_unread: int) -> bool:
        """Remember outputs and pass them on: at once as far as `push` takes them.

        Returns:
            False once, where the reader has left `max_unread` of them; what comes then is dropped.
        """
        for output in outputs:
            self.take(output)
        if self._is_awaited and self._push is not None:
            try:
                num_taken = self._push(outputs)
            except Exception as error:  # noqa: BLE001 # the reader's, who raises it
                self.put(error)
                return True
            outputs = outputs[num_taken:]
        for output in outputs:
            num_unread = self.outputs.qsize()
            if num_unread < max_unread or output.finish_reason is not None:
                self.put(output)
            elif num_unread == max_unread:
                return False
        return True

    def put(self, item: RequestOutput | Exception) -> None:
        """Leave something for the reader, who raises what is an exception."""
        self._is_awaited = False
        self.outputs.put_nowait(item)

    async def next_output(self) -> RequestOutput:
        """The next output that `push` has not taken.

        Raises:
            RequestError: the engine refuses the request.
        """
        self._is_awaited = self.outputs.empty()
        item = await self.outputs.get()
        self._is_awaited = False
        if isinstance(item, Exception):
            raise item
        return item

    def count_death(self) -> bool:
        """The engine died while it computed this request; False if it is not to be tried again.

        That is so if it died twice without a new token in between, or `MAX_DEATHS` times in all.
        """
        was_suspect, self._is_suspect = self._is_suspect, True
        self._num_deaths += 1
        return not was_suspect and self._num_deaths < MAX_DEATHS

    def survives(self, status: EngineStatus, *, resume: bool, is_suspect: bool) -> bool:
        """The engine has died: whether the request waits for the next one; if not, end it."""
        if self.ending is not None:
            self.end(self.ending)
        elif status.is_shut_down:
            self.end(FinishReason.ABORT, status.cause, is_lost=True)
        elif status.state is EngineState.ENDED or not resume:
            self.end(FinishReason.ERROR, status.cause, is_lost=True)
        elif is_suspect and not self.count_death():
            error = "the engine died each time that it computed this request; it is not tried again"
            self.end(FinishReason.ERROR, error)
        else:
            return True
        return False

    def watch_deadline(self) -> None:
        """End the request when its deadline passes, while there is no engine to do it."""
        if (deadline_s := self.request.deadline_s) is not None:
            wait_s = max(0.0, deadline_s - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._pass_deadline)

    def unwatch(self) -> None:
        """Leave the deadline to the engine again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pass_deadline(self) -> None:
        self.end(FinishReason.ABORT, has_passed(self.request))

    def resumed(self) -> EngineRequest:
        """The request as a new engine is to go on with it."""
        counts = SpeculationCounts()
        for num_verified, num_accepted in self._verified:
            counts.count(num_verified, num_accepted)
        resumption = Resumption(
            token_ids=list(self._token_ids),
            num_cached_tokens=self._num_cached_tokens,
            speculation=counts,
            is_suspect=self._is_suspect,
        )
        params = self.request.params
        if self._token_ids and params.num_prompt_logprobs is not None:
            params = replace(params, num_prompt_logprobs=None)  # they have been told
        return replace(self.request, params=params, resumption=resumption)

    def end(self, reason: FinishReason, error: str | None = None, *, is_lost: bool = False) -> None:
        """Give its reader the final output, without new tokens."""
        self.put(
            RequestOutput(
                request_id=self.request.request_id,
                token_ids=[],
                finish_reason=reason,
                num_cached_tokens=self._num_cached_tokens,
                error=error,
                is_lost=is_lost,
            )
        )
