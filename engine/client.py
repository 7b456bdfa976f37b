"""The server's view of the engine process: start it, ask it, notice when it dies."""

import asyncio
import contextlib
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import msgspec
import zmq
import zmq.asyncio

from leadline.engine.errors import EngineDeadError, InvalidRequestError, RequestError
from leadline.engine.messages import (
    EngineStats,
    Failed,
    Finish,
    FromEngine,
    Hello,
    Launch,
    Loading,
    PrefixCacheReset,
    Ready,
    Refused,
    ResetPrefixCache,
    Shutdown,
    StepOutputs,
    Submit,
    ToEngine,
)
from leadline.engine.progress import Progress
from leadline.engine.request import EngineRequest, FinishReason, RequestOutput

MAX_UNREAD_OUTPUTS = 4096
_LAST_WORDS_MS = 50


class EngineClient:
    """Owns one engine process; for use within one event loop.

    Attributes:
        stats: the engine's gauges and counters as of its last message.
        progress: whether it gets on with its work.
    """

    def __init__(
        self,
        *,
        builder: str = "leadline.engine.build:build_core",
        max_unread_outputs: int | None = None,
    ) -> None:
        """`builder`: `module:function` for the engine; `max_unread_outputs`: of a request."""
        self._max_unread = max_unread_outputs or MAX_UNREAD_OUTPUTS
        self.stats = EngineStats()
        self.progress = Progress()
        self._builder = builder
        self._queues: dict[str, asyncio.Queue[RequestOutput | RequestError]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._directory: Path | None = None
        self._context = zmq.asyncio.Context()
        self._socket: zmq.asyncio.Socket | None = None
        self._receiver: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._started: asyncio.Future[Ready] | None = None
        self._on_stage: Callable[[str], None] = lambda stage: None
        self._last_words = ""
        self._death: EngineDeadError | None = None
        self._is_closing = False
        self._resets: deque[asyncio.Future[int]] = deque()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(FromEngine)

    async def start(
        self, config: msgspec.Struct, on_stage: Callable[[str], None] = lambda stage: None
    ) -> Ready:
        """Start the process and wait until it can serve.

        Args:
            config: given to the builder, as JSON.
            on_stage: told what the engine is busy with, in a few words for people.

        Raises:
            EngineDeadError: the engine did not start; the cause is in the message.
        """
        assert self._process is None, "an engine client is started once"
        self._on_stage = on_stage
        self._started = asyncio.get_running_loop().create_future()
        self._directory = Path(tempfile.mkdtemp(prefix="leadline-"))  # mode 0700
        address = f"ipc://{self._directory}/engine"
        launch = Launch(
            address=address,
            builder=self._builder,
            config=msgspec.Raw(msgspec.json.encode(config)),
        )
        try:
            await self._start_process(launch)
            return await self._started
        except BaseException:
            await self.shutdown(timeout_s=0)
            raise

    @property
    def ready(self) -> Ready:
        """What the engine said when it was ready; only after `start`."""
        assert self._started is not None, "the engine has not been started"
        return self._started.result()

    @property
    def alive(self) -> bool:
        """Whether requests can be served."""
        return (
            self._started is not None
            and self._started.done()
            and self._death is None
            and not self._is_closing
        )

    @property
    def process_id(self) -> int:
        """The engine's operating system process."""
        assert self._process is not None, "the engine has not been started"
        return self._process.pid

    async def generate(self, request: EngineRequest) -> AsyncGenerator[RequestOutput, None]:
        """Submit a request and yield its outputs; the last one has a finish reason.

        Closing the generator early (`contextlib.aclosing`) aborts the request. If the engine dies,
        the last output's finish reason is `error`.

        Raises:
            RequestError: at the first step, if the engine refuses the request.
            EngineDeadError: at the first step, if the engine has ended before.
        """
        request_id = request.request_id
        if not self.alive:
            raise self._death or EngineDeadError("the engine is not running")
        if request_id in self._queues:
            raise InvalidRequestError(
                f"request id {request_id!r} is in use by a running request; "
                "give each request an id of its own",
                param="request_id",
            )
        queue: asyncio.Queue[RequestOutput | RequestError] = asyncio.Queue()
        self._queues[request_id] = queue
        is_over = False
        try:
            self._send(Submit(request))
            self.progress.ask()
            while not is_over:
                item = await queue.get()
                if isinstance(item, RequestError):
                    is_over = True
                    raise item
                is_over = item.finish_reason is not None
                yield item
        finally:
            del self._queues[request_id]
            if not is_over:
                self.finish(request_id, FinishReason.ABORT)

    def finish(self, request_id: str, reason: FinishReason) -> None:
        """End a request, for example at a stop string; its final output comes from `generate`.

        Without effect if the request has ended, or if the engine has.
        """
        if self.alive:
            self._send(Finish([request_id], reason))

    async def reset_prefix_cache(self) -> int:
        """Let the engine forget all cached pages; returns how many there were.

        Raises:
            EngineDeadError: the engine has ended.
        """
        if not self.alive:
            raise self._death or EngineDeadError("the engine is not running")
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._resets.append(answer)
        self._send(ResetPrefixCache())
        self.progress.ask()
        return await answer

    def kill(self, cause: str) -> None:
        """End an engine that hangs; open requests end with `error` and the cause."""
        if self.alive:
            assert self._process is not None, "a living engine has a process"
            self._last_words = cause
            self._process.kill()

    async def shutdown(self, timeout_s: float = 5.0) -> None:
        """End the engine and release everything; open requests end with `abort`.

        An engine that is not gone after `timeout_s` seconds is killed.
        """
        if self.alive:
            self._send(Shutdown())
        self._is_closing = True
        if self._process is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), timeout_s)
            if self._process.returncode is None:
                self._process.kill()
        if self._watcher is not None:
            await self._watcher
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._context.term()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    async def _start_process(self, launch: Launch) -> None:
        # -P: the working directory must not hide installed packages.
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "leadline.engine.process",
            stdin=asyncio.subprocess.PIPE,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(launch) + b"\n")
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.set_hwm(0)
        self._socket.linger = 0
        self._socket.connect(launch.address)
        self._send(Hello())
        self._receiver = asyncio.create_task(self._receive(self._socket))
        self._watcher = asyncio.create_task(self._watch(self._process, self._socket))

    def _send(self, message: ToEngine) -> None:
        assert self._socket is not None
        self._socket.send(self._encoder.encode(message), zmq.NOBLOCK)  # no limit: never blocks

    async def _receive(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            self._handle(self._decoder.decode(await socket.recv()))

    async def _watch(self, process: asyncio.subprocess.Process, socket: zmq.asyncio.Socket) -> None:
        """Wait for the process to end, hear its last words, and end every open request."""
        exit_code = await process.wait()
        assert self._receiver is not None
        self._receiver.cancel()
        while await socket.poll(_LAST_WORDS_MS):
            self._handle(self._decoder.decode(await socket.recv()))
        if self._is_closing:
            cause = "the engine has been shut down"
        elif self._last_words:
            cause = self._last_words
        else:
            cause = f"the engine process ended unexpectedly with exit code {exit_code}"
        self._death = EngineDeadError(cause)
        assert self._started is not None
        if not self._started.done():
            self._started.set_exception(self._death)
        for answer in self._resets:
            if not answer.done():
                answer.set_exception(self._death)
        reason = FinishReason.ABORT if self._is_closing else FinishReason.ERROR
        for request_id, queue in self._queues.items():
            queue.put_nowait(
                RequestOutput(
                    request_id=request_id, token_ids=[], finish_reason=reason, error=cause
                )
            )

    def _handle(self, message: FromEngine) -> None:
        match message:
            case StepOutputs(outputs, stats):
                self.stats = stats
                self.progress.hear(stats)
                for output in outputs:
                    self._pass_on(output)
            case Refused(request_id):
                self.progress.answer()
                if (queue := self._queues.get(request_id)) is not None:
                    queue.put_nowait(message.to_error())
            case Loading(stage):
                self._on_stage(stage)
            case Ready():
                assert self._started is not None
                if not self._started.done():
                    self.progress.restart()
                    self._started.set_result(message)
            case PrefixCacheReset(num_pages):
                self.progress.answer()
                answer = self._resets.popleft()
                if not answer.done():
                    answer.set_result(num_pages)
            case Failed(text):
                self._last_words = text

    def _pass_on(self, output: RequestOutput) -> None:
        is_final = output.finish_reason is not None
        if is_final:
            self.progress.answer()
        if (queue := self._queues.get(output.request_id)) is None:
            return
        if is_final or queue.qsize() < self._max_unread:
            queue.put_nowait(output)
        elif queue.qsize() == self._max_unread:
            self.finish(output.request_id, FinishReason.ABORT)
            queue.put_nowait(
                RequestOutput(
                    request_id=output.request_id, token_ids=[], finish_reason=FinishReason.ABORT
                )
            )
