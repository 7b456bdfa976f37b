"""Compiles launches for Hopper where there is no GPU, and says what each takes of one."""

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

HOPPER = GPUTarget("cuda", 90, 32)
_CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


@dataclass(frozen=True, slots=True)
class Resources:
    """What one compiled kernel takes.

    Attributes:
        launch: the operation and its shape.
        registers: of a thread; at most 255.
        shared_bytes: of a program; a Hopper multiprocessor has 232,448.
        stack_bytes: of a thread: registers that were spilled, and local arrays.
        num_wgmma: warp-group matrix instructions in the code.
    """

    launch: str
    kernel: str
    num_warps: int
    registers: int
    shared_bytes: int
    stack_bytes: int
    num_wgmma: int


class _NoDevice:
    """Triton's driver as far as its compiler asks it."""

    def get_current_target(self) -> GPUTarget:
        return HOPPER

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def _launches_compiled(compiled: list[Any]) -> Iterator[None]:
    """Every launch inside compiles its kernel and adds it to the list, and runs nothing."""
    launch = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        kernel = launch(self, *args, grid=grid, warmup=True, **kwargs)
        compiled.append(kernel)
        return kernel

    driver.set_active(_NoDevice())
    JITFunction.run = compile_only
    try:
        yield
    finally:
        JITFunction.run = launch


def compile_launches(name: str, call: Callable[[], Any]) -> list[Resources]:
    """What the kernels take that `call` launches, each once, specialised as for these arguments.

    Tensors of torch's `meta` device do: nothing is computed.
    """
    compiled: list[Any] = []
    with _launches_compiled(compiled):
        call()
    return [_resources(name, kernel) for kernel in {k.hash: k for k in compiled}.values()]


def _resources(name: str, kernel: Any) -> Resources:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [str(_CUOBJDUMP), "-res-usage", file.name]
        output = subprocess.run(command, capture_output=True, text=True, check=True)
    usage = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", output.stdout + output.stderr))
    return Resources(
        launch=name,
        kernel=kernel.metadata.name,
        num_warps=kernel.metadata.num_warps,
        registers=int(usage["REG"]),
        shared_bytes=kernel.metadata.shared,
        stack_bytes=int(usage["STACK"]) + int(usage["LOCAL"]),
        num_wgmma=kernel.asm["ptx"].count("wgmma.mma_async"),
    )
