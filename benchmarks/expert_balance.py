"""How even expert placements are: `python -m benchmarks.expert_balance [--out DIR]`.

Loads of 58 layers of 256 experts are drawn from a lognormal distribution; the hottest expert has
2, 5 or 12 times the mean load at the three spreads. Balancedness is the mean over the largest load
of the ranks, averaged over layers and draws: a lock-step unit computes experts at that share of its
speed. `in order` leaves experts in order without replicas where the ranks divide 256, `greedy`
replicates and packs as published (expert-parallel load balancer; hierarchical where groups of
experts fit nodes), `global` is the same without regard to nodes, and `place` is what the server
does: the better of both, improved by swaps, with as few moves as may be. `noise` is the bound that
the sampling of so many tokens sets: the balancedness of experts that are equally popular.
"""

import argparse
import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from leadline.engine.expert_balance.expert_map import ExpertMap, balancedness, initial_map
from leadline.engine.expert_balance.placement import (
    ExpertLayout,
    global_map,
    hierarchical_map,
    is_local,
    place,
)

NUM_LAYERS = 58
NUM_EXPERTS = 256
NUM_GROUPS = 8
TOP_K = 8
TOKENS_PER_RANK = 128
SIGMAS = (0.3, 0.6, 1.0)
UNITS = (  # ranks, redundant experts, nodes
    (8, 0, 1),
    (16, 32, 2),
    (32, 0, 4),
    (32, 32, 4),
    (64, 64, 8),
    (72, 32, 9),
    (144, 32, 18),
)
PUBLISHED = {  # balancedness by the reference implementation: research on such units
    (8, 0): (0.999, 0.996, 0.986),
    (16, 32): (0.993, 0.991, 0.987),
    (32, 0): (0.970, 0.927, 0.713),
    (32, 32): (0.979, 0.967, 0.935),
    (64, 64): (0.915, 0.845, 0.732),
    (72, 32): (0.985, 0.971, 0.982),
    (144, 32): (0.947, 0.926, 0.755),
}
Loads = NDArray[np.float64]


@dataclass(slots=True)
class Row:
    """One line of the table.

    Attributes:
        hottest: load of the hottest expert over the mean one.
        reference: what the reference implementation reaches on one draw of such loads.
        moved: share of the slots that get another expert, from the experts in order.
        local: share of the layers whose groups of experts stay on one node each.
        place_s: seconds to place all layers.
    """

    ranks: int
    redundant: int
    sigma: float
    hottest: float
    in_order: float
    reference: float
    greedy: float
    global_: float
    place: float
    noise: float
    moved: float
    local: float
    place_s: float


def mean_balance(maps: list[ExpertMap], loads: Loads) -> float:
    """Over layers."""
    pairs = zip(maps, loads, strict=True)
    return float(np.mean([balancedness(placed.rank_loads(load)) for placed, load in pairs]))


def noise_bound(layout: ExpertLayout, rng: np.random.Generator) -> float:
    """Balancedness of a step of `TOKENS_PER_RANK` tokens a rank, experts equally popular."""
    pairs = TOP_K * TOKENS_PER_RANK * layout.num_ranks
    shares = np.full(layout.num_ranks, 1 / layout.num_ranks)
    return float(np.mean([balancedness(rng.multinomial(pairs, shares)) for _ in range(200)]))


def measure(layout: ExpertLayout, sigma: float, num_draws: int, reference: float) -> Row:
    """All placements of `num_draws` models' worth of layers."""
    rng = np.random.default_rng(0)
    loads = rng.lognormal(0.0, sigma, (num_draws * NUM_LAYERS, NUM_EXPERTS))
    divides = NUM_EXPERTS % layout.num_ranks == 0
    start = initial_map(NUM_EXPERTS, layout.num_ranks, layout.num_redundant)
    plain = initial_map(NUM_EXPERTS, layout.num_ranks) if divides else start
    published = hierarchical_map if layout.is_hierarchical else global_map
    greedy = [published(load, layout, swaps=False) for load in loads]
    everywhere = [global_map(load, layout, swaps=False) for load in loads]
    begin = time.perf_counter()
    placed = [place(load, layout, start) for load in loads]
    seconds = time.perf_counter() - begin
    moved = [sum(a != b for a, b in zip(p.slots, start.slots, strict=True)) for p in placed]
    return Row(
        ranks=layout.num_ranks,
        redundant=layout.num_redundant,
        sigma=sigma,
        hottest=float((loads.max(axis=1) / loads.mean(axis=1)).mean()),
        in_order=mean_balance([plain] * len(loads), loads),
        reference=reference,
        greedy=mean_balance(greedy, loads),
        global_=mean_balance(everywhere, loads),
        place=mean_balance(placed, loads),
        noise=noise_bound(layout, rng),
        moved=float(np.mean(moved)) / len(start.slots),
        local=float(np.mean([is_local(p, layout) for p in placed])),
        place_s=seconds / num_draws,
    )


def print_table(rows: list[Row]) -> None:
    """All rows, as a table."""
    table = Table(title=f"Mean over largest rank load, {NUM_LAYERS} layers")
    heads = ("ranks", "redundant", "sigma", "hottest", "in order", "reference", "greedy")
    for name in (*heads, "global", "place", "noise", "moved", "local", "seconds"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            str(row.ranks),
            str(row.redundant),
            f"{row.sigma:.1f}",
            f"{row.hottest:.1f}x",
            *(f"{value:.3f}" for value in (row.in_order, row.reference, row.greedy)),
            *(f"{value:.3f}" for value in (row.global_, row.place, row.noise)),
            f"{row.moved:.0%}",
            f"{row.local:.0%}",
            f"{row.place_s:.2f}",
        )
    Console(width=125).print(table)


def plot(rows: list[Row], path: Path) -> None:
    """Balancedness of each unit, one panel for each spread of the load."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(SIGMAS), figsize=(13, 3.8), sharey=True)
    series = (("in order", "in_order"), ("greedy", "greedy"), ("place", "place"))
    for axis, sigma in zip(axes, SIGMAS, strict=True):
        chosen = [row for row in rows if row.sigma == sigma]
        positions = np.arange(len(chosen))
        for i, (label, name) in enumerate(series):
            heights = [getattr(row, name) for row in chosen]
            axis.bar(positions + 0.27 * (i - 1), heights, 0.25, label=label)
        axis.plot(positions, [row.noise for row in chosen], "k_", ms=22, label="bound by noise")
        axis.set_xticks(positions, [f"{r.ranks}\n+{r.redundant}" for r in chosen])
        axis.set(title=f"sigma {sigma}", xlabel="ranks + redundant experts")
    axes[0].set_ylabel("mean / largest rank load")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=len(labels), frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    figure.savefig(path, dpi=120)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=4, help="models' worth of layers a line")
    parser.add_argument("--out", type=Path, help="folder for expert_balance.json and .png")
    arguments = parser.parse_args()
    rows = []
    for ranks, redundant, nodes in UNITS:
        layout = ExpertLayout(
            num_experts=NUM_EXPERTS,
            num_ranks=ranks,
            num_redundant=redundant,
            num_nodes=nodes,
            num_groups=NUM_GROUPS,
        )
        for sigma, reference in zip(SIGMAS, PUBLISHED[ranks, redundant], strict=True):
            rows.append(measure(layout, sigma, arguments.draws, reference))
    print_table(rows)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        result = {
            "command": f"python -m benchmarks.expert_balance --draws {arguments.draws}",
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            "rows": [asdict(row) for row in rows],
        }
        (arguments.out / "expert_balance.json").write_text(json.dumps(result, indent=2) + "\n")
        plot(rows, arguments.out / "expert_balance.png")


if __name__ == "__main__":
    main()
