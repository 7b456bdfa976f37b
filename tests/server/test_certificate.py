"""TLS with real certificates, over real sockets."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
import trustme
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from leadline.engine.errors import ConfigError
from leadline.server.certificate import Certificate
from leadline.server.http_server import HttpServer
from leadline.server.limits import Limits
from leadline.server.listener import bind, listen


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def other() -> trustme.CA:
    return trustme.CA()


def write(authority: trustme.CA, directory: Path) -> tuple[str, str]:
    """Put a new certificate for this machine in place, as rotations do: by renaming."""
    issued = authority.issue_cert("127.0.0.1")
    paths = str(directory / "cert.pem"), str(directory / "key.pem")
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    for path, data in zip(paths, (chain, issued.private_key_pem.bytes()), strict=True):
        Path(path + ".new").write_bytes(data)
        os.replace(path + ".new", path)
    return paths


def trusting(authority: trustme.CA) -> httpx.AsyncClient:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return httpx.AsyncClient(verify=context, trust_env=False, timeout=10)


class Dripping:
    """An application whose answer goes on until `end` is set."""

    def __init__(self) -> None:
        self.end = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        scheme = request.url.scheme

        async def drip() -> AsyncIterator[str]:
            yield f"{scheme}\n"
            if request.url.path == "/slow":
                await self.end.wait()
            yield "end\n"

        await StreamingResponse(drip())(scope, receive, send)


class Running:
    """A server with a certificate.

    Attributes:
        url: where it listens.
    """

    def __init__(
        self,
        directory: Path,
        authority: trustme.CA,
        check_interval_s: float,
        limits: Limits | None = None,
    ) -> None:
        self.app = Dripping()
        self.certificate = Certificate(
            *write(authority, directory), check_interval_s=check_interval_s
        )
        self.server = HttpServer(
            self.app, access_log=False, certificate=self.certificate, limits=limits
        )
        self.listener = bind("127.0.0.1", 0)
        self.url = f"https://127.0.0.1:{self.listener.getsockname()[1]}"

    async def __aenter__(self) -> "Running":
        listen(self.listener)
        self.server.start(self.listener)
        while not self.server.started:
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.app.end.set()
        await self.server.stop()


@pytest_asyncio.fixture
async def running(tmp_path: Path, authority: trustme.CA) -> AsyncIterator[Running]:
    async with Running(tmp_path, authority, check_interval_s=3600) as server:
        yield server


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01"])
async def test_a_handshake_that_does_not_come_to_an_end(
    tmp_path: Path, authority: trustme.CA, said: bytes
) -> None:
    limits = Limits(head_s=0.2)
    async with Running(tmp_path, authority, check_interval_s=3600, limits=limits) as running:
        reader, writer = await asyncio.open_connection(*running.listener.getsockname())
        writer.write(said)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
        ours, theirs = socket.socketpair()
        with ours:
            lost = asyncio.Event()
            ours.sendall(said)
            await running.server.take(theirs, lost.set, has_room=True)
            await asyncio.wait_for(lost.wait(), 20)
        async with trusting(authority) as http:
            assert (await http.get(running.url)).status_code == 200


async def test_https_is_answered_and_http_is_not(running: Running, authority: trustme.CA) -> None:
    async with trusting(authority) as http:
        assert (await http.get(running.url)).text == "https\nend\n"
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get(running.url.replace("https", "http"))
        assert (await http.get(running.url)).status_code == 200


async def test_old_versions_of_tls_are_refused(running: Running, authority: trustme.CA) -> None:
    assert running.certificate.context.minimum_version == ssl.TLSVersion.TLSv1_2
    async with trusting(authority) as http:
        response = await http.get(running.url)
        stream = response.extensions["network_stream"]
        assert stream.get_extra_info("ssl_object").version() in ("TLSv1.2", "TLSv1.3")


async def test_a_signal_brings_a_new_certificate_without_cutting_streams(
    running: Running, authority: trustme.CA, other: trustme.CA, tmp_path: Path
) -> None:
    async with trusting(authority) as old, trusting(other) as new:
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            await new.get(running.url)
        async with old.stream("GET", f"{running.url}/slow") as response:
            lines = response.aiter_lines()
            assert await anext(lines) == "https"
            write(other, tmp_path)
            os.kill(os.getpid(), signal.SIGHUP)
            while True:
                try:
                    assert (await new.get(running.url)).status_code == 200
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0)
            running.app.end.set()
            assert await anext(lines) == "end"
        async with trusting(authority) as later:
            with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
                await later.get(running.url)


async def test_changed_files_are_noticed(
    tmp_path: Path, authority: trustme.CA, other: trustme.CA
) -> None:
    async with (
        Running(tmp_path, authority, check_interval_s=0.01) as running,
        trusting(other) as new,
        asyncio.timeout(10),
    ):
        write(other, tmp_path)
        while True:
            try:
                assert (await new.get(running.url)).status_code == 200
                break
            except httpx.ConnectError:
                await asyncio.sleep(0.01)


async def test_files_that_do_not_fit_leave_the_old_certificate(
    running: Running,
    authority: trustme.CA,
    other: trustme.CA,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As between the two renames of a rotation."""
    key = (tmp_path / "key.pem").read_bytes()
    write(other, tmp_path)
    (tmp_path / "key.pem").write_bytes(key)
    assert not running.certificate.reload()
    (tmp_path / "cert.pem").unlink()
    assert not running.certificate.reload()
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "is not that of the certificate" in caplog.records[0].message
    async with trusting(authority) as http:
        assert (await http.get(running.url)).status_code == 200


def test_one_file_may_hold_both(tmp_path: Path, authority: trustme.CA) -> None:
    path = tmp_path / "both.pem"
    path.write_bytes(authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.bytes())
    assert Certificate(str(path)).reload()


def test_what_cannot_be_used_is_named(
    tmp_path: Path, authority: trustme.CA, other: trustme.CA
) -> None:
    certfile, keyfile = write(authority, tmp_path)
    empty, locked, broken = tmp_path / "empty", tmp_path / "locked.pem", tmp_path / "broken.pem"
    empty.write_bytes(b"")
    (tmp_path / "other").mkdir()
    _, other_key = write(other, tmp_path / "other")
    broken.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    locked.write_bytes(_locked(Path(keyfile).read_bytes()))
    cases: list[tuple[str, str | None, str]] = [
        ("/nowhere", keyfile, "--ssl-certfile: /nowhere cannot be read: No such file"),
        (certfile, "/nowhere", "--ssl-keyfile: /nowhere cannot be read: No such file"),
        (str(empty), keyfile, f"--ssl-certfile: {empty} holds no certificate in PEM"),
        (certfile, certfile, f"--ssl-keyfile: {certfile} holds no private key in PEM"),
        (certfile, None, f"--ssl-keyfile: {certfile} holds no private key in PEM"),
        (certfile, other_key, f"the key in {other_key} is not that of the certificate"),
        (str(broken), keyfile, f"{broken} and {keyfile} cannot be used"),
        (certfile, str(locked), "the key is encrypted; give one without a password"),
    ]
    for cert, key, words in cases:
        with pytest.raises(ConfigError) as caught:
            Certificate(cert, key)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def _locked(pem: bytes) -> bytes:
    """The same key with a password."""
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(pem, password=None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
