"""What an API worker and its parent say to each other: a line of JSON each, on a private socket."""

import msgspec

from leadline.engine.config import ResolvedConfig
from leadline.server.config import ServerConfig
from leadline.server.health import StallLimits
from leadline.server.server_info import ServerInfo


class Launch(msgspec.Struct, kw_only=True):
    """Parent -> worker, the first line: what it is to serve.

    Attributes:
        number: of the worker, from 1 on.
        name: of this life of it.
        config: with the keys themselves.
        directory: of the model's files.
        engine_address: `EngineProcess.address`.
        responses_directory: where all workers keep their responses.
        created_s: when the server was started, seconds since the epoch.
        connections_fd: descriptor of the socket on which connections come, a byte with each.
        stall_limits: None for the usual ones.
    """

    number: int
    name: str
    config: ServerConfig
    resolved: ResolvedConfig
    directory: str
    engine_address: str
    responses_directory: str
    created_s: int
    connections_fd: int
    stall_limits: StallLimits | None


class Open(msgspec.Struct, tag="open"):
    """Parent -> worker: answer requests from now on."""

    info: ServerInfo


class Others(msgspec.Struct, tag="others"):
    """Parent -> worker: since when other workers have had work for the engine, if they have any.

    Attributes:
        pending_since_s: by `time.monotonic`, which all processes of a machine share.
    """

    pending_since_s: float | None


class Drain(msgspec.Struct, tag="drain"):
    """Parent -> worker: refuse new requests. Answered by a `Report` that says so."""


class Stop(msgspec.Struct, tag="stop"):
    """Parent -> worker: write out what has been answered, and end."""


class Starting(msgspec.Struct, tag="starting"):
    """Worker -> parent, until it is prepared: at each stage, and every `BEAT_S` while it waits.

    Attributes:
        stage: what it is busy with, for people.
    """

    stage: str


class Prepared(msgspec.Struct, tag="prepared"):
    """Worker -> parent: requests can be answered."""


class Failed(msgspec.Struct, tag="failed"):
    """Worker -> parent: it ends; why, for people.

    Attributes:
        is_engines: the engine has ended, which the parent knows better.
    """

    message: str
    is_engines: bool = False


class Report(msgspec.Struct, tag="report"):
    """Worker -> parent, once it is open: whenever something has changed, and every `BEAT_S`.

    Attributes:
        num_closed: connections that were handed over and are gone, since its start.
        pending_since_s: since when it has had work for the engine (`Progress.pending_since_s`).
        num_in_flight: API requests that it is answering.
        is_draining: it refuses new ones.
    """

    num_closed: int = 0
    pending_since_s: float | None = None
    num_in_flight: int = 0
    is_draining: bool = False


ToWorker = Open | Others | Drain | Stop
FromWorker = Starting | Prepared | Failed | Report

WITHIN_LIMIT, BEYOND_LIMIT = b"+", b"-"
"""The byte that comes with a connection: whether there are not too many of them already."""
BEAT_S = 1.0
