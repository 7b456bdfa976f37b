"""What the runs of all peers show together: medians, ratios with their spread, a table, a plot."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.peer_scenarios import FIGURES, Outcome

AIMS = dict.fromkeys(FIGURES, 1.5) | {"prefill of 1,024": 1.3}
_NO_AIM = ("decode beside a busy core",)
_MIB = 2**20


@dataclass(slots=True)
class Start:
    """One start of a peer and what was measured until it was stopped.

    Attributes:
        start_s: from the command to a first token.
        peak_bytes: the most memory it held, processes below it included.
        num_dropped: scenarios without a run that counts.
        bandwidth: bytes a second that two threads read just before.
    """

    size: str
    peer: str
    at: str
    start_s: float
    peak_bytes: int
    bandwidth: float
    outcomes: list[Outcome] = field(default_factory=list)
    num_dropped: int = 0

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> "Start":
        """From a result file."""
        outcomes = [Outcome(**outcome) for outcome in fields["outcomes"]]
        return cls(**{**fields, "outcomes": outcomes})

    def rounded(self) -> dict[str, Any]:
        """For a result file."""
        fields = asdict(self)
        fields["start_s"] = round(self.start_s, 2)
        fields["bandwidth"] = round(self.bandwidth)
        for outcome in fields["outcomes"]:
            outcome["others_cores"] = round(outcome["others_cores"], 3)
            outcome["rates"] = {name: round(rate, 2) for name, rate in outcome["rates"].items()}
        return fields


@dataclass(frozen=True, slots=True)
class Values:
    """Several measurements of one thing."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Values":
        """Of one at least."""
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True, slots=True)
class Ratio:
    """Leadline's rate by that of the best peer at one point.

    Attributes:
        low, high: the worst and the best that the single runs allow.
    """

    figure: str
    best_peer: str
    median: float
    low: float
    high: float


def rates_of(starts: Sequence[Start], peer: str, figure: str) -> Values | None:
    """A peer's rates of all its starts; None if it has none."""
    rates = [
        outcome.rates[figure]
        for start in starts
        if start.peer == peer
        for outcome in start.outcomes
        if figure in outcome.rates
    ]
    return Values.of(rates) if rates else None


def ratio_to_best(starts: Sequence[Start], own: str, figure: str) -> Ratio | None:
    """None where either side has no runs."""
    mine = rates_of(starts, own, figure)
    peers = {name: rates_of(starts, name, figure) for name in names_of(starts) if name != own}
    theirs = {name: values for name, values in peers.items() if values is not None}
    if mine is None or not theirs:
        return None
    best_peer = max(theirs, key=lambda name: theirs[name].median)
    best = theirs[best_peer]
    return Ratio(
        figure,
        best_peer,
        median=mine.median / best.median,
        low=mine.low / best.high,
        high=mine.high / best.low,
    )


def names_of(starts: Sequence[Start]) -> list[str]:
    """The peers in the order of their first start."""
    return list(dict.fromkeys(start.peer for start in starts))


def sizes_of(starts: Sequence[Start]) -> list[str]:
    """The models in the order of their first start."""
    return list(dict.fromkeys(start.size for start in starts))


def summary_of(starts: Sequence[Start], own: str) -> list[dict[str, Any]]:
    """Everything of one model that the table shows, for a result file."""
    rows: list[dict[str, Any]] = []
    for figure in FIGURES:
        medians = {name: rates_of(starts, name, figure) for name in names_of(starts)}
        rates = {name: round(v.median, 2) for name, v in medians.items() if v is not None}
        if not rates:
            continue
        row: dict[str, Any] = {"figure": figure, "tokens_per_s": rates}
        if ratio := ratio_to_best(starts, own, figure):
            row |= {"best_peer": ratio.best_peer, "ratio": round(ratio.median, 3)}
            row["ratio_range"] = [round(ratio.low, 3), round(ratio.high, 3)]
        rows.append(row)
    return rows


def print_table(size: str, starts: Sequence[Start], own: str, console: Console) -> None:
    """Rates by peer, then memory and starts, and how Leadline compares with the best."""
    names = names_of(starts)
    table = Table("tokens/s", title=f"{size} parameters")
    for name in names:
        table.add_column(name, justify="right")
    for header in ("best peer", "ratio", "range", "aim"):
        table.add_column(header, justify="right")
    for figure in FIGURES:
        found = [rates_of(starts, name, figure) for name in names]
        if any(found):
            comparison = _comparison(ratio_to_best(starts, own, figure))
            table.add_row(figure, *map(_with_spread, found), *comparison)
    table.add_section()
    of_each = [[start for start in starts if start.peer == name] for name in names]
    peaks = [Values.of([start.peak_bytes / _MIB for start in own]) for own in of_each]
    waits = [Values.of([start.start_s for start in own]) for own in of_each]
    table.add_row("peak memory, MiB", *(f"{peak.high:,.0f}" for peak in peaks))
    table.add_row("first answer, s", *(_with_spread(wait) for wait in waits))
    console.print(table)


def _comparison(ratio: Ratio | None) -> tuple[str, ...]:
    if ratio is None:
        return ()
    aim = "" if ratio.figure in _NO_AIM else f"{AIMS[ratio.figure]:.1f}"
    spread = f"{ratio.low:.2f} to {ratio.high:.2f}"
    return ratio.best_peer, f"{ratio.median:.2f}", spread, aim


def _with_spread(values: Values | None) -> str:
    if values is None:
        return "-"
    digits = 0 if values.median >= 100 else 1
    text = f"{values.median:,.{digits}f}"
    half = (values.high - values.low) / 2
    return f"{text} +-{half:,.{digits}f}" if values.count > 1 else text


def plot(starts: Sequence[Start], path: Path) -> None:
    """Rates by point, a panel for each model; the whiskers are the range of the runs."""
    from matplotlib.figure import Figure

    sizes, names = sizes_of(starts), names_of(starts)
    canvas = Figure(figsize=(11, 4.2 * len(sizes)), layout="constrained")
    panels = canvas.subplots(len(sizes), squeeze=False)[:, 0]
    width = 0.8 / len(names)
    for panel, size in zip(panels, sizes, strict=True):
        chosen = [start for start in starts if start.size == size]
        for place, name in enumerate(names):
            found = [rates_of(chosen, name, figure) for figure in FIGURES]
            points = [(i, values) for i, values in enumerate(found) if values is not None]
            medians = [values.median for _, values in points]
            below = [values.median - values.low for _, values in points]
            above = [values.high - values.median for _, values in points]
            xs = [i + (place - (len(names) - 1) / 2) * width for i, _ in points]
            bars = panel.bar(xs, medians, width, yerr=[below, above], label=name, capsize=2)
            labels = [f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}" for rate in medians]
            panel.bar_label(bars, labels, fontsize=7)
        panel.set_xticks(range(len(FIGURES)), FIGURES, fontsize=8)
        panel.set(title=f"{size} parameters", ylabel="tokens/s", yscale="log")
        panel.grid(axis="y", alpha=0.3)
    panels[0].legend()
    canvas.savefig(path, dpi=110)
