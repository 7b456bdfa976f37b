"""The server of `benchmarks.frontend`: all of the front, over an engine that only says numbers."""

import array
import asyncio
import mmap
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import uvloop
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from leadline.engine.client import EngineClient
from leadline.engine.engine_process import EngineProcess
from leadline.engine.messages import EngineStats, Ready
from leadline.engine.request import EngineRequest, FinishReason, RequestOutput, TokenLogprobs
from leadline.loader.chat_template import ChatTemplate
from leadline.loader.tokenizer import Tokenizer
from leadline.server.app import create_app
from leadline.server.garbage import settle
from leadline.server.http_server import HttpServer
from leadline.server.listener import bind, listen
from leadline.server.state import ServerState

NUM_NUMBERS = 8192  # a token each; step s says the number s % NUM_NUMBERS
MODEL = "numbers"
_TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
_BUILDER = "benchmarks.frontend_server:build"
_MAX_MODEL_LEN = 1 << 20


class ScriptConfig(msgspec.Struct, kw_only=True):
    """What the engine does.

    Attributes:
        step_s: seconds a step.
        num_tokens: tokens that each running request gets in a step.
        times_path: where the engine writes when it passed on each number (`time.monotonic()`), a
            float64 for each.
    """

    step_s: float
    num_tokens: int
    times_path: str


class ScriptedCore:
    """Stands for `EngineCore`: at each step every running request gets the step's number."""

    num_steps_in_flight = 1
    is_paused = is_waking = is_holding = False
    sleep_level = 0
    activity = ""

    def __init__(self, config: ScriptConfig) -> None:
        self._config = config
        self._left: dict[str, int] = {}
        self._num_logprobs: dict[str, int | None] = {}
        self._step = 0
        self._due_s = 0.0
        size = NUM_NUMBERS * 8
        with Path(config.times_path).open("r+b") as file:
            self._times = memoryview(mmap.mmap(file.fileno(), size)).cast("d")

    def leave_trace(self, path: Path) -> None:
        """It does not die."""

    def submit(self, request: EngineRequest) -> None:
        """Take a request; it gets exactly `max_tokens` tokens."""
        self._left[request.request_id] = request.params.max_tokens
        self._num_logprobs[request.request_id] = request.params.num_logprobs

    def finish(self, request_id: str, reason: FinishReason) -> RequestOutput | None:
        """End a request."""
        if self._left.pop(request_id, None) is None:
            return None
        del self._num_logprobs[request_id]
        return RequestOutput(request_id=request_id, token_ids=[], finish_reason=reason)

    def finish_all(self, reason: FinishReason) -> list[RequestOutput]:
        """End all."""
        finals = [self.finish(request_id, reason) for request_id in list(self._left)]
        return [final for final in finals if final is not None]

    def sweep(self) -> list[RequestOutput]:
        """Nothing ends by itself."""
        return []

    def idle_s(self) -> float | None:
        """Without work there is nothing to wake up for."""
        return None

    def has_work(self) -> bool:
        """Whether a request runs."""
        return bool(self._left)

    def can_step(self) -> bool:
        """Always."""
        return True

    def start_steps(self) -> None:
        """There is nothing to prepare."""

    def complete_step(self) -> list[RequestOutput]:
        """Wait until the step is due, and say its number to all."""
        now_s = time.monotonic()
        self._due_s = max(self._due_s + self._config.step_s, now_s - self._config.step_s)
        time.sleep(max(0.0, self._due_s - now_s))
        number = self._step % NUM_NUMBERS
        self._step += 1
        outputs = [self._output(request_id, number) for request_id in list(self._left)]
        self._times[number] = time.monotonic()
        return outputs

    def _output(self, request_id: str, number: int) -> RequestOutput:
        num_tokens = min(self._config.num_tokens, self._left[request_id])
        self._left[request_id] -= num_tokens
        is_last = self._left[request_id] == 0
        num_tops = self._num_logprobs[request_id]
        if is_last:
            del self._left[request_id], self._num_logprobs[request_id]
        return RequestOutput(
            request_id=request_id,
            token_ids=[number] * num_tokens,
            finish_reason=FinishReason.LENGTH if is_last else None,
            logprobs=None if num_tops is None else [_logprobs(number, num_tops)] * num_tokens,
        )

    def reset_prefix_cache(self) -> int:
        """There is none."""
        return 0

    def publish_events(self) -> None:
        """There are none."""

    def stats(self) -> EngineStats:
        """How many run."""
        return EngineStats(num_running=len(self._left))

    def close(self) -> None:
        """Nothing is held."""


def _logprobs(number: int, num_tops: int) -> TokenLogprobs:
    """Of a number, and of as many after it."""
    top_ids = [(number + place) % NUM_NUMBERS for place in range(num_tops)]
    top_logprobs = [-0.3515625 - place for place in range(num_tops)]
    return TokenLogprobs(number, -0.3515625, 1, top_ids, top_logprobs)


def build(data: bytes, on_stage: Callable[[str], None]) -> tuple[ScriptedCore, Ready]:
    """The engine, in its process."""
    config = msgspec.json.decode(data, type=ScriptConfig)
    return ScriptedCore(config), Ready(_MAX_MODEL_LEN, num_pages=1, page_size=64, summary=[])


def number_tokenizer() -> Tokenizer:
    """Each number below `NUM_NUMBERS` is a token: its digits, and a space."""
    vocab = {f"{number:04d}\u0120": number for number in range(NUM_NUMBERS)}
    vocab |= {c: len(vocab) + i for i, c in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    backend = Backend(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<eos>", special=True)])
    marks = ("<think>", "</think>")  # so that answers are read as those of a real chat
    backend.add_tokens([AddedToken(mark, special=False) for mark in marks])
    return Tokenizer(backend, {"eos_token": "<eos>"})


def times_of(path: Path) -> memoryview:
    """When each number was last passed on."""
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), NUM_NUMBERS * 8)).cast("d")


def make_times_file(path: Path) -> None:
    """An empty table for `ScriptConfig.times_path`."""
    path.write_bytes(array.array("d", [0.0] * NUM_NUMBERS).tobytes())


async def _serve(config: ScriptConfig, on_port: Callable[[int], None]) -> None:
    engine = EngineProcess(config, builder=_BUILDER)
    await engine.start()
    client = EngineClient(engine.address)
    await client.attach()
    state = ServerState(
        engine=client,
        tokenizer=number_tokenizer(),
        template=ChatTemplate(_TEMPLATE, {}),
        model_names=(MODEL,),
        max_model_len=_MAX_MODEL_LEN,
        seed_source=lambda: 0,
    )
    with bind("127.0.0.1", 0) as listener:
        listen(listener)
        server = HttpServer(create_app(state), access_log=False)
        server.start(listener)
        settle()
        on_port(listener.getsockname()[1])
        await asyncio.Event().wait()


def run(config: ScriptConfig, on_port: Callable[[int], None]) -> None:
    """Serve until the process is ended; `on_port` gets the port."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # the engine's finds `build`
    uvloop.run(_serve(config, on_port))
