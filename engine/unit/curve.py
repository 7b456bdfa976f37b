"""Who may speak with the head of a unit of several nodes: whoever has the unit's key file.

Both key pairs of ZeroMQ's CURVE are derived from the file: what goes between nodes is encrypted,
and both ends know each other.
"""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import zmq
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils import z85

from leadline.engine.errors import ConfigError

MIN_KEY_BYTES = 16
_KEY_BYTES = 32
Context = zmq.Context[zmq.Socket[bytes]]


@dataclass(frozen=True, slots=True)
class UnitKey:
    """The key pairs of head and ranks."""

    head_public: bytes
    head_secret: bytes
    rank_public: bytes
    rank_secret: bytes

    @classmethod
    def read(cls, path: str) -> "UnitKey":
        """From a file that all nodes have a copy of.

        Raises:
            ConfigError: it cannot be read, or holds too little.
        """
        try:
            content = Path(path).read_bytes().strip()
        except OSError as error:
            raise ConfigError(f"unit_key is {path!r}, which cannot be read: {error}") from error
        if len(content) < MIN_KEY_BYTES:
            raise ConfigError(
                f"unit_key {path!r} holds {len(content)} bytes; give at least {MIN_KEY_BYTES} "
                "random ones, for example of `openssl rand -hex 32`"
            )
        head, rank = (_secret(content, name) for name in (b"head", b"rank"))
        return cls(zmq.curve_public(head), head, zmq.curve_public(rank), rank)

    def guard(self, context: Context) -> "Guard":
        """Let the context's sockets accept ranks alone; close it before the context."""
        return Guard(context, self.rank_public)

    def serve_with(self, socket: "zmq.Socket[bytes]") -> None:
        """Before it is bound."""
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = self.head_public, self.head_secret

    def connect_with(self, socket: "zmq.Socket[bytes]") -> None:
        """Before it is connected."""
        socket.curve_serverkey = self.head_public
        socket.curve_publickey, socket.curve_secretkey = self.rank_public, self.rank_secret


class Guard:
    """Refuses connections without the ranks' key."""

    def __init__(self, context: Context, allowed: bytes) -> None:
        self._allowed = allowed
        self._authenticator = ThreadAuthenticator(context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback("*", credentials_provider=self)

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether a client with this public key may connect; ZeroMQ's thread asks."""
        return key == self._allowed

    def close(self) -> None:
        """Stop the thread that answers."""
        self._authenticator.stop()


def _secret(content: bytes, name: bytes) -> bytes:
    return z85.encode(blake2b(content, digest_size=_KEY_BYTES, person=name).digest())
