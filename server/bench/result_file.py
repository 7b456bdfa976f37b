"""A run as JSON, under the keys of `vllm bench serve`, and the file that it is saved to."""

import math
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from leadline.server.bench.errors import BenchError
from leadline.server.bench.report import percentile_word
from leadline.server.bench.run import Run

DETAILS = (
    *("input_lens", "output_lens", "start_times", "ttfts"),
    *("itls", "generated_texts", "errors"),
)
_TIME_FORMAT = "%Y%m%d-%H%M%S"


def result_of(run: Run) -> dict[str, Any]:
    """The run as JSON; what is long only with `--save-detailed`."""
    options = run.options
    result = {
        "date": run.began_at.strftime(_TIME_FORMAT),
        "endpoint_type": options.backend,
        "backend": options.backend,
        "label": options.label,
        "model_id": run.model,
        "tokenizer_id": None,  # the server's own does the counting
        "num_prompts": options.num_prompts,
        **options.metadata,
        "request_rate": _rate(options.request_rate),
        "burstiness": _rate(options.burstiness),
        "max_concurrency": options.max_concurrency,
        **_figures(run),
        **_details(run),
        **_drafts(run),
        **_spreads(run),
    }
    if not options.save_detailed:
        for name in DETAILS:
            del result[name]
    return result


def save(run: Run) -> Path:
    """Write the run where the options say; gives the file.

    Raises:
        BenchError: the file cannot be written.
    """
    path = _path(run)
    line = msgspec.json.encode(result_of(run))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab" if run.options.append_result else "wb") as file:
            file.write(b"\n" + line if file.tell() else line)
    except OSError as error:
        raise BenchError(f"the result cannot be saved to {path}: {error.strerror}") from None
    return path


def _path(run: Run) -> Path:
    options = run.options
    concurrency = options.max_concurrency
    at_once = "" if concurrency is None else f"-concurrency{concurrency}"
    name = options.result_filename or (
        f"{options.label or options.backend}-{options.request_rate}qps{at_once}-"
        f"{PurePosixPath(run.model).name}-{run.began_at.strftime(_TIME_FORMAT)}.json"
    )
    return Path(options.result_dir or "") / name


def _rate(value: float) -> float | str:
    return "inf" if math.isinf(value) else value


def _figures(run: Run) -> dict[str, Any]:
    measures = run.measures
    return {
        "duration": measures.duration_s,
        "completed": measures.num_completed,
        "failed": measures.num_failed,
        "total_input_tokens": measures.num_input_tokens,
        "total_output_tokens": measures.num_output_tokens,
        "request_throughput": measures.request_throughput,
        "request_goodput": measures.goodput,
        "output_throughput": measures.output_throughput,
        "total_token_throughput": measures.total_token_throughput,
        "max_output_tokens_per_s": measures.max_output_tokens_per_s,
        "max_concurrent_requests": measures.max_concurrent_requests,
        "rtfx": 0.0,  # of audio, of which there is none
        "notes": run.notes,
        "error_counts": dict(measures.errors),
    }


def _details(run: Run) -> dict[str, Any]:
    records = run.records
    return {
        "input_lens": [record.num_prompt_tokens for record in records],
        "output_lens": [record.num_output_tokens if record.is_success else 0 for record in records],
        "ttfts": [record.ttft_s if record.is_success else 0.0 for record in records],
        "itls": [record.itls_s for record in records],
        "latencies": [record.latency_s for record in records],
        "start_times": [record.start_s for record in records],
        "queue_times": [record.queue_s for record in records],
        "generated_texts": [record.text for record in records],
        "errors": [record.error for record in records],
    }


def _drafts(run: Run) -> dict[str, Any]:
    drafts = run.drafts
    if drafts is None:
        return {}
    return {
        "spec_decode_acceptance_rate": drafts.acceptance_percent,
        "spec_decode_acceptance_length": drafts.acceptance_length,
        "spec_decode_num_drafts": drafts.counts.num_drafts,
        "spec_decode_draft_tokens": drafts.counts.num_draft_tokens,
        "spec_decode_accepted_tokens": drafts.counts.num_accepted_tokens,
        "spec_decode_per_position_acceptance_rates": drafts.acceptance_by_position,
    }


def _spreads(run: Run) -> dict[str, float]:
    values: dict[str, float] = {}
    for metric, spread in run.spreads():
        values |= {
            f"mean_{metric}_ms": spread.mean_ms,
            f"median_{metric}_ms": spread.median_ms,
            f"std_{metric}_ms": spread.std_ms,
        }
        for percentile, value_ms in spread.percentiles_ms:
            values[f"p{percentile_word(percentile)}_{metric}_ms"] = value_ms
    return values
