"""Compiles a kernel for Hopper where there is no GPU, and says what it takes of one."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

HOPPER = GPUTarget("cuda", 90, 32)
_CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


@dataclass(frozen=True, slots=True)
class Case:
    """A kernel with the arguments of one launch.

    Attributes:
        arguments: by name, in Triton's notation (`*bf16`, `tensordesc<fp8e4nv[128, 128]>`) or, for
            numbers and compile-time constants, the value.
    """

    name: str
    kernel: Any
    arguments: Mapping[str, Any]
    num_warps: int = 4
    num_stages: int = 3


@dataclass(frozen=True, slots=True)
class Resources:
    """What one compiled kernel takes.

    Attributes:
        registers: of a thread; at most 255.
        shared_bytes: of a program; a Hopper multiprocessor has 232,448.
        stack_bytes: of a thread: registers that were spilled, and local arrays.
        num_wgmma: warp-group matrix instructions in the code.
    """

    name: str
    num_warps: int
    registers: int
    shared_bytes: int
    stack_bytes: int
    num_wgmma: int


def _source(case: Case) -> ASTSource:
    """The kernel specialised as a launch would: multiples of 16 and ones are known."""
    signature: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}
    for index, parameter in enumerate(case.kernel.params):
        value = case.arguments[parameter.name]
        if parameter.is_constexpr or (value == 1 and isinstance(value, int)):
            signature[parameter.name] = "constexpr"
            constants[(index,)] = value
            continue
        kinds = {int: "i32", float: "fp32"}
        signature[parameter.name] = value if isinstance(value, str) else kinds[type(value)]
        is_pointer = isinstance(value, str) and value.startswith("*")
        if is_pointer or (isinstance(value, int) and value % 16 == 0):
            attributes[(index,)] = [["tt.divisibility", 16]]
    return ASTSource(case.kernel, signature, constants, attributes)


def compile_case(case: Case) -> Resources:
    """Compile for sm_90."""
    options = {"num_warps": case.num_warps, "num_stages": case.num_stages}
    compiled = triton.compile(_source(case), target=HOPPER, options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [str(_CUOBJDUMP), "-res-usage", file.name]
        output = subprocess.run(command, capture_output=True, text=True, check=True)
    usage = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", output.stdout + output.stderr))
    return Resources(
        name=case.name,
        num_warps=case.num_warps,
        registers=int(usage["REG"]),
        shared_bytes=compiled.metadata.shared,
        stack_bytes=int(usage["STACK"]) + int(usage["LOCAL"]),
        num_wgmma=compiled.asm["ptx"].count("wgmma.mma_async"),
    )


def main(cases: list[Case]) -> None:
    """Print a JSON line for each case."""
    names = set(sys.argv[1:])
    for case in cases:
        if not names or case.name in names:
            print(json.dumps(asdict(compile_case(case))), flush=True)  # noqa: T201
