"""`leadline bench serve`: from the options to a table, a file and a plot."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from leadline.server.bench.arrivals import arrival_times_s
from leadline.server.bench.asking import Asker
from leadline.server.bench.drafts import measure_drafts, read_counts
from leadline.server.bench.errors import BenchError
from leadline.server.bench.event import refusal_text
from leadline.server.bench.http_client import HttpClient, HttpError
from leadline.server.bench.load import run_load
from leadline.server.bench.options import ServeOptions
from leadline.server.bench.plot import check_plot, plot
from leadline.server.bench.record import Record
from leadline.server.bench.report import report_lines
from leadline.server.bench.result_file import save
from leadline.server.bench.run import Run, make_run
from leadline.server.bench.sample import Sample
from leadline.server.bench.target import first_model, tokenize
from leadline.server.bench.vocabulary import Vocabulary, made_up_words
from leadline.server.bench.workload import make_samples, needs_vocabulary

_POLL_S = 1.0
_REFRESHES_PER_S = 4.0  # drawing takes time from what is measured
_FIRST_SERVER_ERROR = 500
_NUM_SCALE_WORDS = 64
OnRecord = Callable[[Record], None]


def bench_serve(options: ServeOptions) -> int:
    """Run the benchmark and show what it found; returns the exit status, 1 if nothing succeeded."""
    try:
        options.check()
        if options.plot is not None:
            check_plot()
        run = asyncio.run(benchmark(options))
        sys.stdout.write("\n".join([*report_lines(run), ""]))
        sys.stdout.flush()
        if options.save_result or options.append_result:
            sys.stdout.write(f"Result: {save(run)}\n")
        if options.plot is not None:
            plot(run, options.plot)
            sys.stdout.write(f"Plot: {options.plot}\n")
    except BenchError as error:
        sys.stderr.write(f"leadline bench serve: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    if run.measures.num_completed == 0:
        sys.stderr.write("leadline bench serve: all requests failed\n")
        return 1
    return 0


async def benchmark(options: ServeOptions) -> Run:
    """The run that the options ask for.

    Raises:
        BenchError: it could not begin.
    """
    http = HttpClient(options.base_url, options.headers, insecure=options.insecure)
    try:
        deadline_s = time.monotonic() + options.ready_check_timeout_sec
        if options.ready_check_timeout_sec:
            await _wait_until_it_answers(http, options, deadline_s)
        model = options.model or await first_model(http, options.base_url)
        asker = Asker(http, options, model)
        vocabulary = None
        if needs_vocabulary(options):
            vocabulary = await _vocabulary(http, asker, options, model)
        *samples, spare = make_samples(options, vocabulary)
        await _prepare(asker, spare, options, deadline_s)
        before = await read_counts(http)
        records, duration_s, began_at = await _measured(asker, samples, options)
        after = await read_counts(http)
    finally:
        await http.close()
    num_asked = _num_tokens_asked(samples, records)
    drafts = measure_drafts(records, before, after)
    return make_run(options, model, began_at, records, duration_s, drafts, num_asked)


async def _wait_until_it_answers(
    http: HttpClient, options: ServeOptions, deadline_s: float
) -> None:
    """Until there is a server that does not say that it is still busy with its start."""
    while True:
        try:
            status, body = await http.get("/v1/models")
            if status < _FIRST_SERVER_ERROR:
                return
            why = refusal_text(status, body)
        except HttpError as error:
            why = str(error)
        await _pause(options, deadline_s, why)


async def _pause(options: ServeOptions, deadline_s: float, why: str) -> None:
    """Wait before the next try.

    Raises:
        BenchError: there is no time for one; says why the last one failed.
    """
    if time.monotonic() + _POLL_S > deadline_s:
        raise BenchError(f"no answer within {options.ready_check_timeout_sec} s: {why}")
    await asyncio.sleep(_POLL_S)


async def _vocabulary(
    http: HttpClient, asker: Asker, options: ServeOptions, model: str
) -> Vocabulary:
    """From `/tokenize`; else the length of words by the usage of one short answer."""
    words = made_up_words(options.seed)
    if ids := await tokenize(http, model, " ".join(words)):
        return Vocabulary(words, len(ids) / len(words), tuple(sorted(set(ids))))
    text = " ".join(words[:_NUM_SCALE_WORDS])
    record = await asker.ask(Sample(text, None, 1), f"{options.request_id_prefix}scale")
    if not record.is_success:
        raise BenchError(f"the first request failed: {record.error}")
    num_tokens = record.num_prompt_tokens or _NUM_SCALE_WORDS
    return Vocabulary(words, num_tokens / _NUM_SCALE_WORDS)


async def _prepare(asker: Asker, spare: Sample, options: ServeOptions, deadline_s: float) -> None:
    """Wait until the server answers, and warm it up, as far as that was asked for."""
    id_prefix = f"{options.request_id_prefix}warmup-"
    if options.ready_check_timeout_sec:
        while not (record := await asker.ask(spare, f"{id_prefix}ready")).is_success:
            await _pause(options, deadline_s, record.error)
    if options.num_warmups:
        with _progress("warm-up", options.num_warmups, options) as on_record:
            await run_load(
                asker,
                [spare] * options.num_warmups,
                [0.0] * options.num_warmups,
                max_concurrency=options.max_concurrency,
                id_prefix=id_prefix,
                on_record=on_record,
            )


async def _measured(
    asker: Asker, samples: Sequence[Sample], options: ServeOptions
) -> tuple[list[Record], float, datetime]:
    """The records of all samples, the time they took, and when they began."""
    rng = np.random.default_rng(options.seed)
    due_s = arrival_times_s(len(samples), options.request_rate, options.burstiness, rng)
    began_at, begin_s = datetime.now(), time.perf_counter()
    with _progress("requests", len(samples), options) as on_record:
        records = await run_load(
            asker,
            samples,
            due_s.tolist(),
            max_concurrency=options.max_concurrency,
            id_prefix=options.request_id_prefix,
            on_record=on_record,
        )
        duration_s = time.perf_counter() - begin_s
    return records, duration_s, began_at


def _num_tokens_asked(samples: Sequence[Sample], records: Sequence[Record]) -> int | None:
    lengths = [
        sample.num_tokens
        for sample, record in zip(samples, records, strict=True)
        if record.is_success
    ]
    known = [length for length in lengths if length is not None]
    return sum(known) if len(known) == len(lengths) else None


@contextlib.contextmanager
def _progress(title: str, num_requests: int, options: ServeOptions) -> Iterator[OnRecord]:
    """A bar on standard error, if that is a terminal; gives what to call after each request."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(stderr=True)
    is_off = options.disable_tqdm or not console.is_terminal
    with Progress(
        *columns, console=console, disable=is_off, refresh_per_second=_REFRESHES_PER_S
    ) as progress:
        task = progress.add_task(title, total=num_requests, note="")
        num_failed = 0

        def on_record(record: Record) -> None:
            nonlocal num_failed
            num_failed += not record.is_success
            note = f"{num_failed} failed" if num_failed else ""
            progress.update(task, advance=1, note=note)

        yield on_record
