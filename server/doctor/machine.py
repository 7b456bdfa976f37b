"""Checks of the machine: versions, devices, files, disks, the port."""

import importlib.metadata
import platform
import re
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from leadline.engine.errors import ConfigError
from leadline.server.certificate import Certificate
from leadline.server.config import ServerConfig
from leadline.server.doctor.finding import Finding, fail, ok, warn
from leadline.server.listener import bind, listen
from leadline.server.version import version

_LOW_DISK_BYTES = 2**30
_OTHER_FILES = 128  # open beside the connections
_REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)(?:==([0-9][^\s;,]*))?")
_NVIDIA = Path("/proc/driver/nvidia/version")


def check_machine(config: ServerConfig) -> Iterator[Finding]:
    """Everything but the model."""
    yield ok("leadline", f"{version()}, on Python {platform.python_version()}")
    yield from check_packages()
    yield check_gpu()
    yield check_open_files(config.limits.connections)
    yield check_disk(Path(tempfile.gettempdir()), "set TMPDIR to a larger disk")
    yield check_port(config)
    if config.ssl_certfile is not None:
        yield check_certificate(config.ssl_certfile, config.ssl_keyfile)


def check_packages() -> Iterator[Finding]:
    """Whether what Leadline needs is installed, in the versions that it names exactly."""
    try:
        requirements = importlib.metadata.requires("leadline") or []
    except importlib.metadata.PackageNotFoundError:
        yield warn("packages", "leadline is not installed; `pip install .` in a clone does it")
        return
    faults = [
        fault
        for requirement in requirements
        if "extra ==" not in requirement and (fault := _package_fault(requirement))
    ]
    if faults:
        yield from (fail("packages", fault) for fault in faults)
    else:
        yield ok("packages", f"all that is needed, torch {importlib.metadata.version('torch')}")


def _package_fault(requirement: str) -> str | None:
    match = _REQUIREMENT.match(requirement)
    assert match is not None, "a requirement begins with a name"
    name, wanted = match.groups()
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        needed_here = "platform_system" not in requirement or platform.system() != "Windows"
        return f"{name} is missing; pip install {name!r}" if needed_here else None
    if wanted is not None and found.partition("+")[0] != wanted:
        return f"{name} is {found}; needed: {wanted}: pip install '{name}=={wanted}'"
    return None


def check_gpu() -> Finding:
    """Whether there is a GPU that would lie idle."""
    if _NVIDIA.exists():
        return warn("gpu", "there is an NVIDIA GPU, but this version computes on the CPU only")
    return ok("gpu", "none here, and none needed: this version computes on the CPU")


def check_open_files(num_connections: int) -> Finding:
    """Whether as many connections can be open as are allowed."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = num_connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        return warn(
            "open files",
            f"{soft} may be open, but {num_connections} connections are allowed; `ulimit -n "
            f"{needed}` before the start, or --limit connections={max(soft - _OTHER_FILES, 1)}",
        )
    return ok("open files", "no limit" if soft == resource.RLIM_INFINITY else f"up to {soft}")


def check_disk(path: Path, advice: str) -> Finding:
    """Whether there is room in a directory, which need not be there yet."""
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    text = f"{free / 2**30:.1f} GiB free in {path}"
    if free < _LOW_DISK_BYTES:
        return warn("disk", f"{text}; delete something, or {advice}")
    return ok("disk", text)


def check_port(config: ServerConfig) -> Finding:
    """Whether the server could listen."""
    try:
        with bind(config.host, config.port) as listener:
            listen(listener)
            port = listener.getsockname()[1]
    except ConfigError as error:
        return fail("port", str(error))
    return ok("port", f"{port} of {config.host} is free")


def check_certificate(certfile: str, keyfile: str | None) -> Finding:
    """Whether HTTPS could be served."""
    try:
        Certificate(certfile, keyfile)
    except ConfigError as error:
        return fail("certificate", str(error))
    return ok("certificate", certfile)
