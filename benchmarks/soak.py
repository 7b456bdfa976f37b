"""Random requests of every kind for minutes on end: `python -m benchmarks.soak [--minutes 10]`.

A server of its own answers streams that are read to the end or left in the middle, long prompts,
bad requests, structured output, several choices, log-probabilities, penalties, deadlines and
grammars that are none, many at once. In the end nothing may be left behind: no page in use, no
request known, memory flat, and every answer of the kind that was due. Exits 1 otherwise.
"""

import argparse
import asyncio
import contextlib
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

WORDS = ("What", "does", "list", "dict", "itertools", "chain", "return", "raise", "file", "of")
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "n": {"type": "integer"}},
    "required": ["name", "n"],
    "additionalProperties": False,
}
BAD_FIELDS: list[dict[str, Any]] = [
    {"temperature": 3},
    {"logit_bias": {"abc": 1}},
    {"max_tokens": 10**9},
    {"n": 0},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": "no"}}},
    {"structured_outputs": {"regex": "(a+"}},
    {"structured_outputs": {"grammar": "start: nothing_of_the_kind"}},
    {"messages": []},
    {"stop": [""]},
]


@dataclass
class Tally:
    """What was answered, and what went wrong.

    Attributes:
        memory_mib: (seconds since start, MiB of server and engine together).
    """

    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    memory_mib: list[tuple[float, float]] = field(default_factory=list)


class Load:
    """Sends random requests to one server."""

    def __init__(self, url: str, dice: random.Random, tally: Tally) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=120)
        self._dice = dice
        self._tally = tally
        self._kinds: list[tuple[str, Callable[[], Awaitable[str]]]] = [
            ("stream", self._stream),
            ("cancelled", self._cancelled),
            ("whole", self._whole),
            ("long prompt", self._long),
            ("structured", self._structured),
            ("four choices", self._four),
            ("bad", self._bad),
            ("deadline", self._deadline),
            ("scored", self._scored),
        ]

    async def run(self, until_s: float) -> None:
        """One request after the other."""
        while time.monotonic() < until_s:
            kind, send = self._dice.choice(self._kinds)
            try:
                outcome = await send()
            except (httpx.HTTPError, KeyError, ValueError, AssertionError) as error:
                outcome = f"{type(error).__name__}: {error}"
                self._tally.failures.append(f"{kind}: {outcome}"[:300])
            self._tally.answers[f"{kind}: {outcome}"[:80]] += 1

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def _chat(self, **fields: Any) -> dict[str, Any]:
        dice = self._dice
        body: dict[str, Any] = {
            "model": "leadline-demo",
            "messages": [{"role": "user", "content": " ".join(dice.sample(WORDS, 6)) + "?"}],
            "max_tokens": dice.randint(1, 60),
            "temperature": dice.choice([0, 0.7, 1.0]),
        }
        extras: list[dict[str, Any]] = [
            {"top_k": 20, "min_p": 0.02},
            {"frequency_penalty": 0.7, "presence_penalty": -0.3},
            {"repetition_penalty": 1.2},
            {"logit_bias": {"17": 4, "30": -100}},
            {"stop": ["the ", "."]},
            {"min_tokens": 1, "bad_words": ["list"]},
            {"logprobs": True, "top_logprobs": 3},
            {"speculative_tokens": dice.randint(0, 3)},
            {"seed": dice.getrandbits(40), "top_p": 0.9},
            {"priority": dice.randint(-2, 2)},
        ]
        for extra in dice.sample(extras, dice.randint(0, 4)):
            body |= extra
        if body.get("min_tokens", 0) > body["max_tokens"]:
            body["max_tokens"] = body["min_tokens"]
        return body | fields

    async def _post(self, body: dict[str, Any], path: str = "chat/completions") -> dict[str, Any]:
        response = await self._client.post(f"/v1/{path}", json=body)
        assert response.status_code == 200, f"{response.status_code}: {response.text[:200]}"
        answer: dict[str, Any] = response.json()
        return answer

    async def _stream(self) -> str:
        last, reason = "", None
        body = self._chat(stream=True)
        async with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code == 200, response.status_code
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    event = json.loads(line[6:])
                    assert "error" not in event, event
                    for choice in event["choices"]:
                        reason = choice["finish_reason"] or reason
                last = line or last
        assert last == "data: [DONE]", last
        return str(reason)

    async def _cancelled(self) -> str:
        body = self._chat(stream=True, max_tokens=500, n=self._dice.choice([1, 3]))
        wanted = self._dice.randint(0, 6)
        async with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
            async for line in response.aiter_lines():
                wanted -= line.startswith("data:")
                if wanted < 0:
                    return "left"
        return "was over before"

    async def _whole(self) -> str:
        answer = await self._post(self._chat())
        return str(answer["choices"][0]["finish_reason"])

    async def _long(self) -> str:
        text = " ".join(self._dice.choice(WORDS) for _ in range(self._dice.randint(200, 900)))
        body = self._chat(messages=[{"role": "user", "content": text}])
        return str((await self._post(body))["choices"][0]["finish_reason"])

    async def _structured(self) -> str:
        schema = {"name": "pair", "schema": SCHEMA}
        response_format = {"type": "json_schema", "json_schema": schema}
        body = self._chat(max_tokens=200, response_format=response_format)
        for name in ("stop", "bad_words", "logit_bias"):
            body.pop(name, None)
        choice = (await self._post(body))["choices"][0]
        if choice["finish_reason"] == "stop":
            value = json.loads(choice["message"]["content"])
            assert set(value) == {"name", "n"}, value
        return str(choice["finish_reason"])

    async def _four(self) -> str:
        answer = await self._post(self._chat(n=4))
        assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
        return "four"

    async def _bad(self) -> str:
        body = self._chat(**self._dice.choice(BAD_FIELDS))
        response = await self._client.post("/v1/chat/completions", json=body)
        assert response.status_code == 400, f"{response.status_code} for {body}"
        assert response.json()["error"]["message"]
        return "400"

    async def _deadline(self) -> str:
        body = self._chat(deadline_s=0.2, max_tokens=1500, ignore_eos=True)
        body.pop("stop", None)
        response = await self._client.post("/v1/chat/completions", json=body)
        assert response.status_code == 504, f"{response.status_code}: {response.text[:200]}"
        return "504"

    async def _scored(self) -> str:
        body = {
            "model": "leadline-demo",
            "prompt": [" ".join(self._dice.sample(WORDS, 8)), "def f(x):"],
            "echo": True,
            "logprobs": 2,
            "max_tokens": self._dice.randint(0, 3),
        }
        answer = await self._post(body, "completions")
        assert answer["choices"][0]["logprobs"]["token_logprobs"][0] is None
        return "scored"


def memory_mib(pid: int) -> float:
    """Resident memory of a process and its children, MiB."""
    listing = subprocess.run(
        ["ps", "-o", "pid=,ppid=,rss=", "-e"], capture_output=True, text=True, check=True
    ).stdout
    rows = [tuple(map(int, line.split())) for line in listing.splitlines()]
    family = {pid}
    for _ in range(3):
        family |= {child for child, parent, _ in rows if parent in family}
    return sum(rss for child, _, rss in rows if child in family) / 1024


async def metrics(url: str) -> dict[str, float]:
    """Gauges and counters of Leadline's own."""
    async with httpx.AsyncClient(base_url=url) as client:
        text = (await client.get("/metrics")).text
    found = re.findall(r"^leadline:(\w+)\{[^}]*\} (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


async def soak(url: str, pid: int, options: argparse.Namespace, tally: Tally) -> dict[str, float]:
    """The load, and the server's metrics when it has settled."""
    started_s = time.monotonic()
    until_s = started_s + options.minutes * 60
    loads = [Load(url, random.Random(options.seed + i), tally) for i in range(options.concurrency)]
    tasks = [asyncio.create_task(load.run(until_s)) for load in loads]
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        bar = progress.add_task("soaking", total=until_s - started_s)
        while not all(task.done() for task in tasks):
            await asyncio.sleep(2)
            tally.memory_mib.append((time.monotonic() - started_s, memory_mib(pid)))
            num_answers, mib = tally.answers.total(), tally.memory_mib[-1][1]
            progress.update(
                bar,
                completed=min(time.monotonic(), until_s) - started_s,
                description=f"{num_answers} answers, {len(tally.failures)} bad, {mib:.0f} MiB",
            )
    await asyncio.gather(*tasks)
    for load in loads:
        await load.close()
    await asyncio.sleep(2)
    return await metrics(url)


def growth_mib(samples: list[tuple[float, float]]) -> float:
    """Median of the last fifth less that of the second fifth: what a warm server has grown by."""
    fifth = max(1, len(samples) // 5)
    early = [mib for _, mib in samples[fifth : 2 * fifth]] or [samples[0][1]]
    return statistics.median(mib for _, mib in samples[-fifth:]) - statistics.median(early)


def report(tally: Tally, final: dict[str, float], options: argparse.Namespace) -> int:
    """Print what happened; returns the exit status."""
    console = Console()
    for kind, count in sorted(tally.answers.items()):
        console.print(f"{count:7}  {kind}")
    growth = growth_mib(tally.memory_mib)
    checks = {
        "answers of another kind than was due": float(len(tally.failures)),
        "requests running": final["num_requests_running"],
        "requests waiting": final["num_requests_waiting"],
        "share of pages in use": final["kv_cache_usage_perc"],
        f"memory growth above {options.max_growth_mib} MiB": max(
            0.0, growth - options.max_growth_mib
        ),
    }
    for name, value in checks.items():
        console.print(f"{'ok ' if value == 0 else 'BAD'} {name}: {value:g}")
    for failure in tally.failures[:20]:
        console.print(failure, markup=False)
    peak = max(mib for _, mib in tally.memory_mib)
    console.print(f"{tally.answers.total()} answers; memory grew by {growth:.1f} of {peak:.0f} MiB")
    if options.json:
        load = f"--minutes {options.minutes:g} --concurrency {options.concurrency}"
        result = {
            "command": f"python -m benchmarks.soak {load} --seed {options.seed}",
            "answers": dict(sorted(tally.answers.items())),
            "checks": checks,
            "memory_growth_mib": round(growth, 1),
            "memory_peak_mib": round(peak),
            "generation_tokens": final["generation_tokens_total"],
            "preemptions": final["num_preemptions_total"],
        }
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return int(any(checks.values()))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--concurrency", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--max-growth-mib", type=float, default=40.0)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    flags = ["--kv-tokens", "8192", "--host-kv-tokens", "4096", "--speculative-tokens", "2"]
    command = [sys.executable, "-m", "leadline.server.cli", "serve", "--port", str(options.port)]
    server = subprocess.Popen([*command, *flags, "--log-level", "warning"])
    url, tally = f"http://127.0.0.1:{options.port}", Tally()
    try:
        for _ in range(600):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            time.sleep(0.1)
        final = asyncio.run(soak(url, server.pid, options, tally))
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    return report(tally, final, options)


if __name__ == "__main__":
    sys.exit(main())
