"""What the scripts have in common: where the servers are, and which function is to run."""

import asyncio
import inspect
import json
import os
import sys
from collections.abc import Callable
from typing import Any

SERVERS: dict[str, str] = json.loads(os.environ["LEADLINE_SERVERS"])
MODEL = "demo"


def main(functions: dict[str, Any]) -> None:
    function = functions[sys.argv[1]]
    if inspect.iscoroutinefunction(function):
        asyncio.run(function())
    else:
        function()


def error_of(kind: type[Exception], do: Callable[[], Any]) -> Any:
    """The error that this raises, for it must raise one."""
    try:
        do()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")
