"""What the peers are asked, and what the clock says of their answers."""

import asyncio
import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.peer_server import PeerError, Server
from benchmarks.quiet import read_times, wait_until_quiet
from leadline.server.bench.asking import Asker
from leadline.server.bench.http_client import HttpClient
from leadline.server.bench.load import run_load
from leadline.server.bench.options import COMPLETIONS, ServeOptions, default_endpoint
from leadline.server.bench.record import Record
from leadline.server.bench.sample import Sample

_MS = 1000.0
Figure = Callable[[Sequence[Record]], float]


def decode_rate(records: Sequence[Record]) -> float:
    """Tokens a second after the first one, of the only request."""
    return 1 / records[0].tpot_s


def prefill_rate(records: Sequence[Record]) -> float:
    """Tokens of the only prompt by the time to the first token."""
    return (records[0].num_prompt_tokens or 0) / records[0].ttft_s


def throughput(records: Sequence[Record]) -> float:
    """Output tokens of all requests a second, prompts included in the time."""
    begin_s = min(record.start_s for record in records)
    end_s = max(record.end_s for record in records)
    return sum(record.num_output_tokens for record in records) / (end_s - begin_s)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Equal requests that are sent at once.

    Attributes:
        figures: tokens a second by the name of what they show.
        busy_core: beside a process that never rests.
    """

    name: str
    num_requests: int
    num_prompt_tokens: int
    num_output_tokens: int
    figures: dict[str, Figure]
    busy_core: bool = False


SCENARIOS = (
    Scenario("1", 1, 128, 128, {"decode at 128": decode_rate, "1 at once": throughput}),
    Scenario("2048", 1, 2048, 64, {"decode at 2,048": decode_rate}),
    Scenario("prefill", 1, 1024, 1, {"prefill of 1,024": prefill_rate}),
    Scenario("8", 8, 128, 64, {"8 at once": throughput}),
    Scenario("32", 32, 128, 64, {"32 at once": throughput}),
    Scenario("busy", 1, 32, 16, {"decode beside a busy core": decode_rate}, busy_core=True),
)
FIGURES = tuple(name for scenario in SCENARIOS for name in scenario.figures)


@dataclass(slots=True)
class Outcome:
    """One run of a scenario.

    Attributes:
        rates: tokens a second by figure.
        others_cores: cores that other processes took meanwhile, and the machine's host.
        latencies_ms: TTFT and TPOT, median and 99th percentile.
    """

    scenario: str
    rates: dict[str, float]
    others_cores: float
    latencies_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limits:
    """When a measurement counts.

    Attributes:
        max_others_cores: a run in which others took more is dropped.
        num_tries: how often one that was dropped is made again.
        quiet_timeout_s: how long a run waits for a quiet machine before it begins all the same.
    """

    max_others_cores: float = 0.2
    num_tries: int = 3
    quiet_timeout_s: float = 60.0


def make_samples(scenario: Scenario, ids: range, seed: int) -> list[Sample]:
    """Prompts of random token ids; equal seeds make equal prompts."""
    rng = np.random.default_rng(seed)
    prompts = rng.integers(ids.start, ids.stop, (scenario.num_requests, scenario.num_prompt_tokens))
    lengths = scenario.num_prompt_tokens, scenario.num_output_tokens
    return [Sample(prompt, *lengths) for prompt in prompts.tolist()]


def measure(
    server: Server,
    scenario: Scenario,
    ids: range,
    seed: int,
    limits: Limits,
    say: Callable[[str], None] = lambda text: None,
) -> Outcome | None:
    """A run that others left alone; None if there was none in `limits.num_tries`.

    No prompt is sent twice, so that a prefix cache has nothing to give.

    Raises:
        PeerError: an answer failed, or has not the tokens that were asked for.
    """
    for number in range(limits.num_tries):
        if not wait_until_quiet(limits.max_others_cores / 2, limits.quiet_timeout_s):
            say(f"{scenario.name}: the machine does not get quiet")
        samples = make_samples(scenario, ids, seed + number)
        with _busy_core() if scenario.busy_core else contextlib.nullcontext():
            before = read_times()
            records = asyncio.run(_ask(server, samples))
            others = before.others(read_times())
        check(records, scenario)
        if others <= limits.max_others_cores:
            rates = {name: figure(records) for name, figure in scenario.figures.items()}
            return Outcome(scenario.name, rates, others, latencies_ms(records))
        say(f"{scenario.name}: others took {others:.2f} cores; the run is dropped")
    return None


def warm_up(server: Server, ids: range, seed: int) -> None:
    """One answer that is not measured.

    Raises:
        PeerError: it failed.
    """
    scenario = Scenario("warm-up", 2, 48, 8, {})
    check(asyncio.run(_ask(server, make_samples(scenario, ids, seed))), scenario)


def check(records: Sequence[Record], scenario: Scenario) -> None:
    """Whether all did the same work, by their own `usage`.

    Raises:
        PeerError: one did not; says how.
    """
    for record in records:
        if not record.is_success:
            raise PeerError(f"scenario {scenario.name}: {record.error}")
        if not record.has_usage:
            raise PeerError(f"scenario {scenario.name}: the answer tells no usage")
        told = record.num_prompt_tokens, record.num_output_tokens
        asked = scenario.num_prompt_tokens, scenario.num_output_tokens
        if told != asked:
            raise PeerError(
                f"scenario {scenario.name}: the answer has {told[0]} tokens of the prompt and "
                f"{told[1]} of output, not {asked[0]} and {asked[1]}"
            )


def latencies_ms(records: Sequence[Record]) -> dict[str, float]:
    """Median and 99th percentile of TTFT and, where there are tokens after the first, TPOT."""
    values = {"ttft": [record.ttft_s * _MS for record in records]}
    if tpots := [record.tpot_s * _MS for record in records if record.num_output_tokens > 1]:
        values["tpot"] = tpots
    return {
        f"{name}_{word}": round(value, 2)
        for name, found in values.items()
        for word, value in (
            ("p50", statistics.median(found)),
            ("p99", float(np.percentile(found, 99))),
        )
    }


async def _ask(server: Server, samples: Sequence[Sample]) -> list[Record]:
    options = ServeOptions(
        base_url=server.url,
        backend=COMPLETIONS,
        endpoint=default_endpoint(COMPLETIONS),
        ignore_eos=True,
        sampling={"temperature": 0.0},
    )
    http = HttpClient(server.url, {}, insecure=True)
    try:
        asker = Asker(http, options, server.model)
        at_once = [0.0] * len(samples)
        return await run_load(asker, samples, at_once, max_concurrency=None, id_prefix="peers-")
    finally:
        await http.close()


@contextlib.contextmanager
def _busy_core() -> Iterator[None]:
    """A neighbour that never rests."""
    process = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    process.start()
    time.sleep(0.5)  # it starts Python first
    try:
        yield
    finally:
        process.kill()
        process.join()


def _spin() -> Any:
    while True:
        pass
