"""A client's view of the engine: ask it, follow how it fares, go on where a dead one stopped."""

import asyncio
from collections.abc import AsyncGenerator

import msgspec
import zmq
import zmq.asyncio

from leadline.engine.control import Done, Order
from leadline.engine.delivery import Delivery, Push
from leadline.engine.engine_control import EngineControl
from leadline.engine.errors import EngineDeadError, EngineRestartingError, RequestError, id_in_use
from leadline.engine.messages import (
    EngineState,
    EngineStats,
    EngineStatus,
    Finish,
    FromEngine,
    Hello,
    PrefixCacheReset,
    Ready,
    Refused,
    ResetPrefixCache,
    StepOutputs,
    Submit,
    TakeSurvey,
    ToEngine,
)
from leadline.engine.open_request import OpenRequest
from leadline.engine.progress import Progress
from leadline.engine.request import EngineRequest, FinishReason, RequestOutput
from leadline.engine.shared_answer import SharedAnswer
from leadline.engine.survey import EngineSurvey

MAX_UNREAD_OUTPUTS = 4096  # of a request; one that nobody reads for so long is aborted
_LAST_OUTPUTS_MS = 50


class EngineClient:
    """Attaches to an engine that somebody else has started; for use within one event loop.

    Several clients may share an engine: each sees its own requests alone. When the engine dies and
    is started again (`EngineProcess`), open requests go on where they were.

    Attributes:
        stats: the engine's gauges and counters as of its last message.
        progress: whether it gets on with its work.
        control: an operator's hold on it.
    """

    def __init__(
        self, address: str, *, resume: bool = True, max_unread_outputs: int | None = None
    ) -> None:
        """Nothing is attached yet.

        Args:
            address: `EngineProcess.address`.
            resume: whether requests outlive an engine that is started again.
            max_unread_outputs: of a request; one that nobody reads for longer is aborted.
        """
        self._max_unread = max_unread_outputs or MAX_UNREAD_OUTPUTS
        self.stats = EngineStats()
        self.progress = Progress()
        self.control = EngineControl(self._order)
        self._address = address
        self._resume = resume
        self._open: dict[str, OpenRequest] = {}
        self._status: EngineStatus | None = None
        self._ready: asyncio.Future[Ready] | None = None
        self._context = zmq.asyncio.Context()
        self._socket: zmq.asyncio.Socket | None = None
        self._receiver: asyncio.Task[None] | None = None
        self._follower: asyncio.Task[None] | None = None
        self._delivery = Delivery(self._pass_on)
        self._resets = SharedAnswer[int]()
        self._surveys = SharedAnswer[EngineSurvey]()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(FromEngine)

    async def attach(self) -> Ready:
        """Wait until the engine can serve.

        Raises:
            EngineDeadError: it has ended.
        """
        self._ready = asyncio.get_running_loop().create_future()
        self._follower = asyncio.create_task(self._follow())
        return await self._ready

    @property
    def ready(self) -> Ready:
        """What the engine said when it was ready; only after `attach`."""
        assert self._ready is not None, "the client has not been attached"
        return self._ready.result()

    @property
    def alive(self) -> bool:
        """Whether requests can be served."""
        return self._socket is not None

    @property
    def is_restarting(self) -> bool:
        """Whether the engine has died and is being started again."""
        return self._status is not None and self._status.state is EngineState.RESTARTING

    @property
    def generation(self) -> int:
        """Counts the lives of the engine, from 1 on."""
        return self._status.generation if self._status else 0

    async def generate(
        self, request: EngineRequest, push: Push | None = None
    ) -> AsyncGenerator[RequestOutput, None]:
        """Submit a request and yield its outputs; the last one has a finish reason.

        Closing the generator early (`contextlib.aclosing`) aborts the request. If the engine dies
        and the request cannot go on, the last output's finish reason is `error`.

        Args:
            request: what the engine is asked.
            push: is offered what comes while the reader waits; what it takes the reader, who need
                not wake up, does not see.

        Raises:
            RequestError: at the first step, if the engine refuses the request.
            EngineDeadError: at the first step, if the engine is not running.
        """
        request_id = request.request_id
        self._check_alive()
        if request_id in self._open:
            raise id_in_use(request_id)
        open_request = self._open[request_id] = OpenRequest(request, push)
        is_over = False
        try:
            self._submit(request)
            while not is_over:
                output = await open_request.next_output()
                is_over = output.finish_reason is not None
                yield output
        except RequestError:
            is_over = True
            raise
        finally:
            if not is_over:
                self.finish(request_id, FinishReason.ABORT)
            del self._open[request_id]

    def finish(self, request_id: str, reason: FinishReason) -> None:
        """End a request, for example at a stop string; its final output comes from `generate`.

        Without effect if the request has ended, or if the engine has.
        """
        open_request = self._open.get(request_id)
        if open_request is not None:
            open_request.ending = reason
        if self.alive:
            self._send(Finish([request_id], reason))
        elif open_request is not None:
            open_request.end(reason)

    async def reset_prefix_cache(self) -> int:
        """Let the engine forget all cached pages; returns how many there were.

        Raises:
            EngineDeadError: the engine has ended.
        """
        self._check_alive()
        return await self._resets.wait(lambda: self._ask(ResetPrefixCache()))

    async def survey(self) -> EngineSurvey:
        """How pages, queue and experts stand; all who ask meanwhile get the same answer.

        Raises:
            EngineDeadError: the engine has ended.
        """
        self._check_alive()
        return await self._surveys.wait(lambda: self._ask(TakeSurvey()))

    async def close(self) -> None:
        """Leave the engine, which aborts what this client has open."""
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
        self._disconnect()
        self._context.term()

    def _order(self, order: Order) -> None:
        self._check_alive()
        self._ask(order)

    def _check_alive(self) -> None:
        if not self.alive:
            raise self._death()

    def _death(self) -> EngineDeadError:
        cause = self._status.cause if self._status is not None else "the engine is not running"
        return EngineRestartingError(cause) if self.is_restarting else EngineDeadError(cause)

    def _submit(self, request: EngineRequest) -> None:
        self._send(Submit(request))
        self.progress.ask(is_request=True)

    def _ask(self, message: ToEngine) -> None:
        self._send(message)
        self.progress.ask()

    def _send(self, message: ToEngine) -> None:
        assert self._socket is not None
        self._socket.send(self._encoder.encode(message), zmq.NOBLOCK)  # no limit: never blocks

    async def _follow(self) -> None:
        """Hear from the engine's parent, until the engine has ended for good."""
        decoder = msgspec.msgpack.Decoder(EngineStatus)
        with self._context.socket(zmq.SUB) as socket:
            socket.linger = 0
            socket.set_hwm(0)
            socket.subscribe(b"")
            socket.connect(self._address)
            while self._status is None or self._status.state is not EngineState.ENDED:
                status = decoder.decode(await socket.recv())
                known, self._status = self._status, status
                if known == status:
                    continue
                if status.state is EngineState.READY:
                    self._connect(status)
                elif status.state is not EngineState.STARTING:
                    await self._on_death(status)

    def _connect(self, status: EngineStatus) -> None:
        assert status.ready is not None
        assert self._ready is not None
        self._disconnect()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.set_hwm(0)
        self._socket.linger = 0
        self._socket.connect(status.address)
        self._receiver = asyncio.create_task(self._delivery.receive(self._socket, self._handle))
        self._send(Hello(self.stats.is_paused, self.stats.sleep_level))
        self.progress.restart()
        for open_request in self._open.values():
            self._submit(open_request.resumed())
        if not self._ready.done():
            self._ready.set_result(status.ready)

    def _disconnect(self) -> None:
        for open_request in self._open.values():
            open_request.unwatch()
        if self._receiver is not None:
            self._receiver.cancel()
            self._receiver = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._delivery.pass_on_all()

    async def _on_death(self, status: EngineStatus) -> None:
        """End what cannot go on."""
        socket, self._socket = self._socket, None
        if socket is not None:
            if self._receiver is not None:
                self._receiver.cancel()
            while status.is_shut_down and await socket.poll(_LAST_OUTPUTS_MS):
                self._handle(await socket.recv())
            socket.close()
        self._disconnect()
        self.progress.restart()
        assert self._ready is not None
        if not self._ready.done() and status.state is EngineState.ENDED:
            self._ready.set_exception(EngineDeadError(status.cause))
        self._resets.fail(self._death())
        self._surveys.fail(self._death())
        self.control.fail(self._death())
        for request_id, open_request in self._open.items():
            is_suspect = request_id in status.suspect_ids
            if open_request.survives(status, resume=self._resume, is_suspect=is_suspect):
                open_request.watch_deadline()

    def _handle(self, data: bytes) -> None:
        message: FromEngine = self._decoder.decode(data)
        match message:
            case StepOutputs(outputs, stats):
                self.stats = stats
                self.progress.hear(stats)
                self._delivery.add(outputs)
            case Refused(request_id):
                self.progress.answer(is_request=True)
                if (open_request := self._open.get(request_id)) is not None:
                    open_request.put(message.to_error())
            case PrefixCacheReset(num_pages):
                self.progress.answer()
                self._resets.give(num_pages)
            case EngineSurvey():
                self.progress.answer()
                self._surveys.give(message)
            case Done():
                self.progress.answer()
                self.control.hear(message)
            case Ready():
                pass  # the answer to Hello

    def _pass_on(self, outputs: list[RequestOutput]) -> None:
        last = outputs[-1]
        if last.finish_reason is not None:
            self.progress.answer(is_request=True)
        open_request = self._open.get(last.request_id)
        if open_request is not None and not open_request.give(outputs, self._max_unread):
            self.finish(last.request_id, FinishReason.ABORT)
            open_request.end(FinishReason.ABORT)
