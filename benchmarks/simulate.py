"""A unit of 32 or 320 ranks in simulation: `python -m benchmarks.simulate [--out DIR]`.

The product's schedulers, prefix caches and router run as they are, one scheduler a rank, in
lock-step on a virtual clock; a step takes what the model of `leadline plan` says that the busiest
rank takes (DeepSeek-V3 on H800s, two micro-batches), experts as uneven as their popularity, their
placement and the number of tokens make them. Nothing is computed; a token is a function of the
request and its position.

Without options, a set of comparisons on 32 ranks: routing policies, Poisson and bursty arrivals,
experts in order and placed by load, and the death of a rank. Options make one run of your own.
"""

import argparse
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.simulation.expert_skew import ExpertSkew, SkewedTimes
from benchmarks.simulation.trial import Loss, Trial
from benchmarks.simulation.unit import SimulatedUnit, StepTime
from benchmarks.simulation.workload import ChatWorkload, Session, read_trace
from leadline.engine.executor.base import Capacity
from leadline.engine.expert_balance.placement import ExpertLayout
from leadline.engine.planning.gpus import find_gpu
from leadline.engine.planning.layout import Layout
from leadline.engine.planning.step_load import load_of
from leadline.engine.planning.unit_times import Calibration
from leadline.engine.routing.policies import POLICIES
from leadline.loader.family import find_config

PAGE_SIZE = 64
RANKS_PER_NODE = 8
LATENT_TOKENS = {32: 450_000, 320: 746_000}  # a rank's, on H800s with FP8 weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One run."""

    name: str
    ranks: int = 32
    gpu: str = "h800"
    model: str = "deepseek-v3"
    redundant: int = 32
    policy: str = "prefix"
    rate: float = 3.0
    duration_s: float = 40.0
    burstiness: float = 1.0
    sigma: float = 0.6
    placed: bool = True
    num_drafts: int = 1
    max_num_batched_tokens: int = 512
    target_itl_ms: float | None = None
    lost_rank: int | None = None
    lost_at_s: float = 20.0
    recovery_s: float = 10.0
    trace: str | None = None
    seed: int = 0


@dataclass(slots=True)
class Result:
    """What came of it.

    Attributes:
        hit_rate: prompt tokens found in prefix caches.
        token_balance: mean over largest number of tokens that ranks computed in a step.
        request_balance: the same of the requests that they had.
        expert_balance: the same of the experts' work, in a step of the mean size.
        simulated_s: seconds of the unit.
        requests_per_wall_s: requests simulated in a second of this machine.
    """

    setting: Setting
    requests: int
    ttft_s: dict[str, float]
    itl_s: dict[str, float]
    output_tokens_s_rank: float
    hit_rate: float
    token_balance: float
    request_balance: float
    expert_balance: float
    step_s: float
    num_resumed: int
    num_preemptions: int
    simulated_s: float
    wall_s: float
    requests_per_wall_s: float


def step_time(setting: Setting, skew: ExpertSkew) -> StepTime:
    """Seconds of a step: what its busiest rank needs."""
    layout = Layout(
        data_parallel_size=setting.ranks,
        expert_parallel=True,
        num_redundant_experts=setting.redundant,
        ranks_per_node=RANKS_PER_NODE,
    )
    model, gpu = find_config(setting.model), find_gpu(setting.gpu)
    # Requests and experts are as uneven here as the simulation makes them.
    times = SkewedTimes(model, gpu, layout, calibration=Calibration(balance=1.0))
    times.skew(skew.balancedness)

    def seconds(rows: list[list[tuple[int, int]]], num_drafts: int) -> float:
        tokens = [sum(new for new, _ in own) for own in rows]
        total = sum(tokens)
        if not total:
            return 0.0
        loads = (
            load_of(own, layout, others=total - count, draft_passes=num_drafts)
            for own, count in zip(rows, tokens, strict=True)
        )
        return max(times.expected_s(load) for load in loads)

    return seconds


def sessions_of(setting: Setting) -> Iterator[Session]:
    """Who arrives."""
    if setting.trace is not None:
        speed = setting.rate
        return read_trace(Path(setting.trace), speed=speed, duration_s=setting.duration_s)
    return ChatWorkload(
        requests_s=setting.rate * setting.ranks,
        duration_s=setting.duration_s,
        burstiness=setting.burstiness,
        seed=setting.seed,
    ).sessions()


def simulate(setting: Setting) -> tuple[Result, Trial]:
    """One run."""
    layout = ExpertLayout(
        num_experts=find_config(setting.model).n_routed_experts,
        num_ranks=setting.ranks,
        num_redundant=setting.redundant,
        num_nodes=-(-setting.ranks // RANKS_PER_NODE),
        num_groups=find_config(setting.model).n_group,
    )
    skew = ExpertSkew(layout, setting.sigma, placed=setting.placed, seed=setting.seed)
    latent_tokens = LATENT_TOKENS.get(setting.ranks, LATENT_TOKENS[32])
    capacity = Capacity(
        num_pages=latent_tokens // PAGE_SIZE,
        page_size=PAGE_SIZE,
        max_model_len=131_072,
        max_num_seqs=256,
    )
    unit = SimulatedUnit(
        setting.ranks,
        capacity,
        step_time(setting, skew),
        policy=setting.policy,
        max_num_batched_tokens=setting.max_num_batched_tokens,
        num_drafts=setting.num_drafts,
        target_itl_s=setting.target_itl_ms and setting.target_itl_ms / 1e3,
    )
    loss = None
    if setting.lost_rank is not None:
        msgspec.structs.replace(layout, dead_ranks=frozenset({setting.lost_rank})).check()
        loss = Loss(setting.lost_rank, setting.lost_at_s, setting.recovery_s, skew.lose)
    trial = Trial(unit, sessions_of(setting), loss)
    trial.run(setting.duration_s * 2)
    return result_of(setting, skew, trial), trial


def result_of(setting: Setting, skew: ExpertSkew, trial: Trial) -> Result:
    """The figures of a run."""
    unit, seen, counts = trial.unit, trial.seen, trial.unit.counts
    mean_tokens = counts.num_rank_tokens // max(1, counts.num_steps)
    elapsed_s = unit.clock.now()
    return Result(
        setting=setting,
        requests=seen.num_requests,
        ttft_s=trial.percentiles("ttft_s"),
        itl_s=trial.percentiles("itl_s"),
        output_tokens_s_rank=seen.num_output_tokens / elapsed_s / setting.ranks,
        hit_rate=seen.num_cached_tokens / max(1, seen.num_prompt_tokens),
        token_balance=counts.num_rank_tokens / max(1, counts.num_peak_tokens),
        request_balance=counts.num_rank_requests / max(1, counts.num_peak_requests),
        expert_balance=skew.balancedness(mean_tokens),
        step_s=elapsed_s / max(1, counts.num_steps),
        num_resumed=counts.num_resumed,
        num_preemptions=unit.num_preemptions,
        simulated_s=elapsed_s,
        wall_s=trial.wall_s,
        requests_per_wall_s=seen.num_requests / trial.wall_s,
    )


def comparisons(base: Setting) -> list[Setting]:
    """The runs without options."""
    bursty = replace(base, burstiness=4.0)
    return [
        *(replace(base, name=f"{policy}, Poisson", policy=policy) for policy in POLICIES),
        *(replace(bursty, name=f"{policy}, bursty", policy=policy) for policy in POLICIES),
        replace(base, name="experts in order", placed=False, redundant=0),
        replace(base, name="no redundant experts", redundant=0),
        replace(base, name="a rank dies", lost_rank=5),
        replace(base, name="320 ranks", ranks=320, redundant=64, duration_s=10.0),
    ]


def print_table(results: list[Result]) -> None:
    """All results."""
    table = Table(title="Simulated units; seconds of TTFT, milliseconds of ITL")
    heads = ("run", "requests", "TTFT p50", "p99", "ITL p50", "p99", "tok/s/rank", "hits")
    more = ("tokens", "requests", "experts", "step ms", "resumed", "sim s", "wall s", "req/s")
    for name in heads + more:
        table.add_column(name, justify="left" if name == "run" else "right")
    for r in results:
        table.add_row(
            r.setting.name,
            str(r.requests),
            *(f"{r.ttft_s[key]:.2f}" for key in ("p50", "p99")),
            *(f"{r.itl_s[key] * 1e3:.0f}" for key in ("p50", "p99")),
            f"{r.output_tokens_s_rank:.0f}",
            f"{r.hit_rate:.0%}",
            f"{r.token_balance:.2f}",
            f"{r.request_balance:.2f}",
            f"{r.expert_balance:.2f}",
            f"{r.step_s * 1e3:.0f}",
            str(r.num_resumed),
            f"{r.simulated_s:.0f}",
            f"{r.wall_s:.0f}",
            f"{r.requests_per_wall_s:.0f}",
        )
    Console(width=160).print(table)


def plot(trials: list[tuple[Result, Trial]], path: Path) -> None:
    """Distributions of TTFT and ITL."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(13, 5))
    for axis, name in zip(axes, ("ttft_s", "itl_s"), strict=True):
        for result, trial in trials:
            values = np.sort(getattr(trial.seen, name))
            values = values[:: max(1, len(values) // 2000)]
            shares = np.arange(1, len(values) + 1) / len(values)
            axis.plot(values, shares, label=result.setting.name)
        axis.set(xscale="log", xlabel=name.replace("_s", ", seconds"), ylabel="share of requests")
        axis.grid(alpha=0.3)
    axes[1].set_ylabel("share of outputs")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options: one for each field of a setting."""
    parser.add_argument("--out", type=Path, help="folder for simulate.json and simulate.png")
    parser.add_argument("--name", help="of one run; without it the comparisons are run")
    parser.add_argument("--ranks", type=int)
    parser.add_argument("--gpu", help="as `leadline plan` knows them")
    parser.add_argument("--model", help="a config, or a name that `leadline plan` knows")
    parser.add_argument("--redundant", type=int, help="redundant experts")
    parser.add_argument("--policy", choices=POLICIES)
    parser.add_argument("--rate", type=float, help="requests a second and rank; speed of a trace")
    parser.add_argument("--duration-s", type=float, help="no session begins after it")
    parser.add_argument("--burstiness", type=float, help="1 is Poisson")
    parser.add_argument("--sigma", type=float, help="spread of the experts' popularity")
    parser.add_argument("--placed", action=argparse.BooleanOptionalAction, help="experts by load")
    parser.add_argument("--num-drafts", type=int, help="MTP depth")
    parser.add_argument("--max-num-batched-tokens", type=int)
    parser.add_argument("--target-itl-ms", type=float)
    parser.add_argument("--lost-rank", type=int, help="a rank that dies")
    parser.add_argument("--lost-at-s", type=float)
    parser.add_argument("--recovery-s", type=float)
    parser.add_argument("--trace", help="JSON lines as Mooncake publishes them")
    parser.add_argument("--seed", type=int)
    return parser.parse_args()


def main() -> None:
    """The command line."""
    arguments = parse(argparse.ArgumentParser(description=__doc__.splitlines()[0]))
    given = {name: v for name, v in vars(arguments).items() if v is not None and name != "out"}
    base = Setting(**{"name": "base"} | given)
    settings = [base] if arguments.name else comparisons(base)
    trials = []
    for setting in settings:
        trials.append(simulate(setting))
        print(f"{setting.name}: {trials[-1][0].wall_s:.0f} s", flush=True)
    results = [result for result, _ in trials]
    print_table(results)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        options = "".join(f" --{k.replace('_', '-')} {v}" for k, v in given.items())
        record = {
            "command": f"python -m benchmarks.simulate{options}",
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            "runs": [asdict(result) for result in results],
        }
        (arguments.out / "simulate.json").write_text(json.dumps(record, indent=2) + "\n")
        plot(trials, arguments.out / "simulate.png")


if __name__ == "__main__":
    main()
