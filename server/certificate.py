"""The server's certificate: read at start, and again where its files change or on SIGHUP."""

import asyncio
import contextlib
import logging
import os
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

from leadline.engine.errors import ConfigError

logger = logging.getLogger(__name__)

_CERTIFICATE, _KEY = b"-----BEGIN CERTIFICATE-----", b"PRIVATE KEY-----"


class Certificate:
    """A certificate and its key; connections that are open keep the one they began with.

    Attributes:
        context: for new connections.
    """

    def __init__(
        self, certfile: str, keyfile: str | None = None, *, check_interval_s: float = 5.0
    ) -> None:
        """Read the files.

        Args:
            certfile: PEM: the certificate, then those of its authorities.
            keyfile: PEM: its private key; None if that is in `certfile` too.
            check_interval_s: how often `watched` looks for new files.

        Raises:
            ConfigError: a file that cannot be used; says which, why, and what to do.
        """
        self._certfile = Path(certfile).expanduser()
        self._keyfile = self._certfile if keyfile is None else Path(keyfile).expanduser()
        self._check_interval_s = check_interval_s
        self._state = self._stat()
        self.context = _new_context()
        self._load(self.context)

    @classmethod
    def of(cls, certfile: str | None, keyfile: str | None) -> "Certificate | None":
        """As the flags have it; None for plain HTTP.

        Raises:
            ConfigError: as the constructor.
        """
        return None if certfile is None else cls(certfile, keyfile)

    def reload(self) -> bool:
        """Use the files as they are now; False, and a warning, where they cannot be used."""
        self._state = self._stat()
        try:
            self._load(_new_context())  # a context that fails half-way would be of no use
            self._load(self.context)
        except ConfigError as error:
            logger.warning("the certificate stays as it was: %s", error)
            return False
        logger.info("new connections use the certificate of %s as it is now", self._certfile)
        return True

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Within it the certificate follows its files."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        task = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            task.cancel()
            loop.remove_signal_handler(signal.SIGHUP)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._check_interval_s)
            if self._stat() != self._state:
                self.reload()

    def _stat(self) -> list[tuple[int, ...]]:
        """Changes with the files; a file that is not there counts as another one."""
        state: list[tuple[int, ...]] = []
        for path in (self._certfile, self._keyfile):
            try:
                stat = os.stat(path)
                state.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
            except OSError:
                state.append(())
        return state

    def _load(self, context: ssl.SSLContext) -> None:
        _check_pem(self._certfile, _CERTIFICATE, "--ssl-certfile", "certificate")
        _check_pem(self._keyfile, _KEY, "--ssl-keyfile", "private key")
        try:
            context.load_cert_chain(self._certfile, self._keyfile, password=_refuse_password)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise ConfigError(
                    f"--ssl-keyfile: the key in {self._keyfile} is not that of the certificate in "
                    f"{self._certfile}; give the two that were made together, the server's own "
                    "certificate first in its file"
                ) from None
            raise ConfigError(
                f"--ssl-certfile, --ssl-keyfile: {self._certfile} and {self._keyfile} cannot be "
                f"used: {error.reason or error}; write them again in PEM"
            ) from None


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _check_pem(path: Path, mark: bytes, flag: str, content: str) -> None:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{flag}: {path} cannot be read: {error.strerror}") from None
    if mark not in data:
        raise ConfigError(f"{flag}: {path} holds no {content} in PEM; give a file that does")


def _refuse_password() -> NoReturn:
    raise ConfigError(
        "--ssl-keyfile: the key is encrypted; give one without a password, as `openssl pkey -in "
        "KEY -out NEW` writes it"
    )
