"""A peer: a command line that serves a checkpoint, started, watched and stopped."""

import asyncio
import contextlib
import os
import shlex
import signal
import socket
import string
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.quiet import resident_bytes
from leadline.server.bench.http_client import HttpClient, HttpError, is_ok

PLACES = ("model", "bf16", "port")
_POLL_S = 0.05
_STOP_S = 30.0
_NUM_SHOWN_LINES = 8
_FIRST_PROMPT = [1000, 1001, 1002, 1003]


class PeerError(Exception):
    """A peer that cannot be measured: what it was asked, and what it said."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One server.

    Attributes:
        words: of its command line, with `{model}`, `{bf16}` and `{port}` in them.
    """

    name: str
    words: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Peer":
        """From `name=command`.

        Raises:
            PeerError: it has another form, or the command has no `{port}`.
        """
        name, equals, command = text.partition("=")
        name = name.strip()
        try:
            words = tuple(shlex.split(command))
            used = {field for word in words for _, field, *_ in string.Formatter().parse(word)}
        except ValueError as error:
            raise PeerError(f"the peer {text!r} is no command: {error}") from None
        if not (equals and name and words):
            raise PeerError(f"the peer is {text!r}; write it as name=command")
        unknown = sorted(field for field in used - {None} if field not in PLACES)
        if unknown:
            allowed = ", ".join(f"{{{place}}}" for place in PLACES)
            raise PeerError(f"the peer {name!r} has {{{unknown[0]}}}; allowed: {allowed}")
        if "port" not in used:
            raise PeerError(f"the command of the peer {name!r} has no {{port}}")
        return cls(name, words)

    def command(self, places: Mapping[str, Any]) -> list[str]:
        """With everything in its place."""
        return [word.format(**places) for word in self.words]


class MemoryWatch:
    """The most memory that a process and all below it held, looked at ten times a second."""

    def __init__(self, root: int, interval_s: float = 0.1) -> None:
        self.peak_bytes = 0
        self._root, self._interval_s = root, interval_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, resident_bytes(self._root))
            if self._over.wait(self._interval_s):
                return


@dataclass(frozen=True, slots=True)
class Server:
    """A peer that answers.

    Attributes:
        model: the first name in its list.
        start_s: from the command to the first token of a first answer.
    """

    url: str
    model: str
    start_s: float
    memory: MemoryWatch


@contextlib.contextmanager
def running(
    peer: Peer, places: Mapping[str, Any], log: Path, *, timeout_s: float = 600.0
) -> Iterator[Server]:
    """Start a peer on a free port, wait for its first token, and end it with all below it.

    Raises:
        PeerError: it ended, or did not answer in time; with its last words.
    """
    port = _free_port()
    command = peer.command({**places, "port": port})
    begin_s = time.monotonic()
    with log.open("w") as file:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise PeerError(f"{peer.name} does not start: {error}") from None
    with MemoryWatch(process.pid) as memory:
        try:
            url = f"http://127.0.0.1:{port}"
            model = asyncio.run(_first_answer(url, process, begin_s + timeout_s))
            yield Server(url, model, time.monotonic() - begin_s, memory)
        except PeerError as error:
            raise PeerError(f"{peer.name}: {error}\n{_last_lines(log)}") from None
        finally:
            _stop(process)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def _first_answer(url: str, process: "subprocess.Popen[bytes]", deadline_s: float) -> str:
    """Ask until there is an answer; gives the model's name."""
    http = HttpClient(url, {}, insecure=True)
    said = "it did not listen"
    try:
        while time.monotonic() < deadline_s:
            if (status := process.poll()) is not None:
                raise PeerError(f"it ended with status {status} before its first answer")
            with contextlib.suppress(HttpError, TimeoutError):
                async with asyncio.timeout(max(deadline_s - time.monotonic(), 0.0)):
                    model, said = await _try(http)
                if model:
                    return model
            await asyncio.sleep(_POLL_S)
    finally:
        await http.close()
    raise PeerError(f"no answer in time; its last one: {said}")


async def _try(http: HttpClient) -> tuple[str, str]:
    """The model's name if it answers a prompt, and what was said last."""
    status, body = await http.get("/v1/models")
    if not is_ok(status):
        return "", f"{status} {body[:200]!r}"
    try:
        model = str(msgspec.json.decode(body)["data"][0]["id"])
    except (msgspec.MsgspecError, LookupError, TypeError):
        return "", f"{status} {body[:200]!r}"
    question = {"model": model, "prompt": _FIRST_PROMPT, "max_tokens": 1, "temperature": 0}
    status, body = await http.post("/v1/completions", question)
    return model if is_ok(status) else "", f"{status} {body[:200]!r}"


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """First kindly; whatever is left of its session is killed."""
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_NUM_SHOWN_LINES:])
