"""What a starting server says: what it is busy with, what it has loaded, and how to talk to it."""

import contextlib
import json
import shlex
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.table import Table

from leadline.engine.config_lines import ConfigLine
from leadline.engine.messages import Ready
from leadline.server.config import DEFAULT_URL, KEY_VARIABLE
from leadline.server.served_model import ServedModel
from leadline.server.version import version

OnStage = Callable[[str], None]

_QUIET_S = 10.0
_QUESTION = "Hello! Who are you?"
_SHOWN = ("device", "num_threads", "max_model_len", "max_num_seqs", "batch_invariant", "seed")


@contextlib.contextmanager
def stages(console: Console) -> Iterator[OnStage]:
    """Yields a function that shows what start-up is busy with.

    On a terminal that is one changing line; elsewhere a line for each stage, and for the progress
    of a long one every ten seconds. What changes within a stage follows a colon.
    """
    if console.is_terminal:
        with console.status("starting") as status:
            yield lambda stage: status.update(stage)
        return
    shown_stage, shown_s = "", 0.0

    def show(stage: str) -> None:
        nonlocal shown_stage, shown_s
        name, now_s = stage.partition(":")[0], time.monotonic()
        if name != shown_stage or now_s - shown_s >= _QUIET_S:
            shown_stage, shown_s = name, now_s
            console.print(stage, soft_wrap=True)

    yield show


def print_ready(
    console: Console,
    *,
    url: str,
    model_name: str,
    served: ServedModel,
    ready: Ready,
    lines: list[ConfigLine],
    rows: list[tuple[str, str]],
    started_in_s: float,
    needs_key: bool = False,
) -> None:
    """The start-up table, where the server listens, and lines to try.

    Args:
        console: with markup and highlighting off.
        url: where this machine's own programs find the server.
        model_name: name in the API.
        served: what the server has read.
        ready: what the engine has loaded.
        lines: the resolved config; what matters most and what was asked for is shown.
        rows: what else there is to show.
        started_in_s: seconds since the command was given.
        needs_key: whether the API has keys.
    """
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_column(style="dim")
    table.add_row("model", str(served.directory))
    for name, value in ready.summary:
        table.add_row(name, value)
    for line in lines:
        if line.name in _SHOWN or line.reason == "as given":
            table.add_row(line.name, line.value, line.reason)
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)
    console.print()
    console.print(f"Leadline {version()} listens on {url} (started in {started_in_s:.1f} s).")
    console.print(f"Try it (with a key in ${KEY_VARIABLE}):\n" if needs_key else "Try it:\n")
    curl = curl_line(url, model_name, is_chat=served.template is not None, needs_key=needs_key)
    console.print(f"  {curl}", soft_wrap=True)
    if served.template is not None:
        console.print("  leadline chat" + ("" if url == DEFAULT_URL else f" --url {url}"))
    console.print()


def curl_line(url: str, model_name: str, *, is_chat: bool, needs_key: bool = False) -> str:
    """A request that works as it is pasted, where $LEADLINE_API_KEY is a key if one is needed."""
    body: dict[str, object] = {"model": model_name}
    if is_chat:
        path, body["messages"] = "chat/completions", [{"role": "user", "content": _QUESTION}]
    else:
        path, body["prompt"] = "completions", _QUESTION
    header = "Content-Type: application/json"
    data = shlex.quote(json.dumps(body))
    key = f' -H "Authorization: Bearer ${KEY_VARIABLE}"' if needs_key else ""
    return f"curl {url}/v1/{path} -H {shlex.quote(header)}{key} -d {data}"
