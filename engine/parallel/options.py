"""The settings of a unit of ranks, as the user asks for them; imports no torch."""

from dataclasses import dataclass, field
from typing import Any

from leadline.engine.routing.policies import POLICIES


def option(default: Any, help_text: str, *, choices: tuple[str, ...] | None = None) -> Any:
    """A field of a config: its default, a phrase for people, and what else it may be."""
    return field(default=default, metadata={"help": help_text, "choices": choices})


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelOptions:
    """A part of `config.EngineConfig`; None leaves the choice to `settle_layout`."""

    tensor_parallel_size: int | None = option(
        None, "ranks that share heads, dense MLPs and vocabulary (default: 1)"
    )
    data_parallel_size: int | None = option(
        None, "groups of ranks with requests and a cache of their own (default: 1)"
    )
    enable_expert_parallel: bool | None = option(
        None, "place experts whole on all ranks (default: on with several data parallel ranks)"
    )
    prefill_schedule_interval: int = option(
        1, "while requests are answered, take prompts in every Nth step, on all ranks in the same"
    )
    fp8_dispatch: bool | None = option(
        None, "send tokens to other ranks' experts in FP8 (default: on a GPU)"
    )
    num_redundant_experts: int = option(0, "replicas of each layer's busiest experts")
    expert_balance_steps: int | None = option(
        None, "place experts by the load of so many steps; 0: never (default: 1000 on many ranks)"
    )
    data_parallel_routing: str = option(
        "prefix", "how a data parallel rank is chosen for a request", choices=POLICIES
    )
    nnodes: int = option(1, "machines that the ranks are on, as many on each")
    node_rank: int = option(0, "which of them this one is; 0 answers requests")
    head: str | None = option(
        None, "address of node 0, as HOST or HOST:PORT; two more ports follow (default port: 29550)"
    )
    node_interface: str | None = option(
        None, "network interface of this machine that ranks talk on, for example eth0"
    )
    unit_key: str | None = option(
        None, "file of random bytes, the same on all nodes, which lets them trust each other"
    )
