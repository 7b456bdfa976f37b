"""`--plot`: how latencies are distributed, and the throughput over time."""

import importlib.util
from typing import Any

import numpy as np

from leadline.server.bench.errors import BenchError
from leadline.server.bench.measures import token_arrivals, values_s
from leadline.server.bench.run import Run

_PANELS = (
    ("ttft", "Time to first token"),
    ("tpot", "Time per output token"),
    ("itl", "Inter-token latency"),
    ("e2el", "End-to-end latency"),
)
_MS = 1000.0


def check_plot() -> None:
    """Whether there is anything to plot with.

    Raises:
        BenchError: there is not; says how to get it.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise BenchError("--plot needs matplotlib; install it with: pip install matplotlib")


def plot(run: Run, path: str) -> None:
    """Write the plot; the file's ending says which format.

    Raises:
        BenchError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9), layout="constrained")
    grid = figure.subplot_mosaic([["ttft", "tpot"], ["itl", "e2el"], ["time", "time"]])
    for metric, title in _PANELS:
        _distribution(grid[metric], title, np.array(values_s(run.records, metric)) * _MS)
    _throughput(grid["time"], run)
    measures = run.measures
    figure.suptitle(
        f"{run.model}: {measures.num_completed} requests, {measures.num_failed} failed, "
        f"{measures.output_throughput:.1f} tokens/s"
    )
    try:
        figure.savefig(path)
    except OSError as error:
        raise BenchError(f"--plot {path} cannot be written: {error.strerror}") from None


def _distribution(axes: Any, title: str, values_ms: Any) -> None:
    """The share of values at or below each."""
    axes.set_title(title)
    axes.set_xlabel("ms")
    axes.set_ylabel("share")
    axes.grid(alpha=0.3)
    if not len(values_ms):
        return
    axes.ecdf(values_ms)
    for percentile in (50, 99):
        value_ms = np.percentile(values_ms, percentile)
        axes.axvline(value_ms, color="grey", linestyle="--", linewidth=0.8)
        axes.text(value_ms, 0.02, f" p{percentile} {value_ms:.0f}", fontsize=8)


def _throughput(axes: Any, run: Run) -> None:
    successes = [record for record in run.records if record.is_success]
    axes.set_title("Output tokens per second, and requests under way")
    axes.set_xlabel("s")
    axes.set_ylabel("tokens/s")
    axes.grid(alpha=0.3)
    if not successes:
        return
    begin_s = min(record.start_s for record in successes)
    times, counts = token_arrivals(successes)
    num_seconds = int(times[-1] - begin_s) + 1
    axes.hist(times - begin_s, np.arange(num_seconds + 1), weights=counts, alpha=0.5)
    changes = sorted(
        [(record.start_s - begin_s, 1) for record in successes]
        + [(record.end_s - begin_s, -1) for record in successes]
    )
    requests = axes.twinx()
    requests.step([at_s for at_s, _ in changes], np.cumsum([change for _, change in changes]))
    requests.lines[0].set(color="tab:red", drawstyle="steps-post")
    requests.set_ylabel("requests")
    requests.set_ylim(bottom=0)
