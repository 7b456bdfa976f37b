"""The listening socket: taken before anything is loaded, opened when all is."""

import errno
import socket

from leadline.engine.errors import ConfigError

_BACKLOG = 2048


def bind(host: str, port: int) -> socket.socket:
    """Take the port, without listening yet.

    Raises:
        ConfigError: it cannot be had; says why and what to do.
    """
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise ConfigError(
            f"the host {host!r} cannot be resolved ({error.strerror}); give an address of this "
            "machine with --host"
        ) from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        # A port whose last connections still linger can be taken again at once.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _bind_error(error, host, port) from error
    return listener


def listen(listener: socket.socket) -> None:
    """Accept connections from now on.

    Raises:
        ConfigError: somebody else has begun to listen on the port in the meantime.
    """
    host, port = listener.getsockname()[:2]
    try:
        listener.listen(_BACKLOG)
    except OSError as error:
        raise _bind_error(error, host, port) from error


def url_of(listener: socket.socket, *, scheme: str = "http") -> str:
    """Where this machine's own programs find the server."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _bind_error(error: OSError, host: str, port: int) -> ConfigError:
    match error.errno:
        case errno.EADDRINUSE:
            advice = "it is in use: stop the program that has it, or give another --port (0: any)"
        case errno.EACCES | errno.EPERM:
            advice = "permission denied: give a --port from 1024 on"
        case errno.EADDRNOTAVAIL:
            advice = "this machine has no such address: give another --host"
        case _:
            advice = f"{error.strerror}: give another --host or --port"
    return ConfigError(f"cannot listen on port {port} of {host}; {advice}")
