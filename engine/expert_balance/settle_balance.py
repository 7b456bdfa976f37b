"""Replicas of experts and how often they are placed anew: as asked for, or as fits the unit."""

from typing import Protocol

from leadline.engine.config_lines import ConfigLine
from leadline.engine.errors import ConfigError
from leadline.engine.expert_balance.slots import slots_per_rank
from leadline.engine.parallel.layout import ParallelLayout

DEFAULT_BALANCE_STEPS = 1000


class AskedBalance(Protocol):
    """What is read of `config.EngineConfig`."""

    @property
    def num_redundant_experts(self) -> int:
        """Replicas beyond one of each expert of a layer."""
        ...

    @property
    def expert_balance_steps(self) -> int | None:
        """None leaves the choice."""
        ...


def settle_balance(
    asked: AskedBalance, num_experts: int, layout: ParallelLayout
) -> tuple[int, list[ConfigLine]]:
    """After how many steps experts are placed anew, 0 for never, and lines that give the reasons.

    Args:
        asked: the settings.
        num_experts: of a layer; 0 for a model without any.
        layout: of the unit.

    Raises:
        ConfigError: a value out of range, or one without effect.
    """
    num_ranks = layout.num_ranks if layout.expert_parallel else 1
    steps, redundant = asked.expert_balance_steps, asked.num_redundant_experts
    for name, value in (("expert_balance_steps", steps), ("num_redundant_experts", redundant)):
        if value is not None and value < 0:
            raise ConfigError(f"{name} is {value}; allowed: at least 0")
        if value and (num_ranks == 1 or not num_experts):
            raise ConfigError(
                f"{name} has no effect where experts are not placed whole on several ranks; add "
                "enable_expert_parallel and ranks, or leave it out"
            )
    if num_ranks == 1 or not num_experts:
        return 0, []
    is_even = (num_experts + redundant) % num_ranks == 0
    if redundant or (steps and not is_even):
        slots_per_rank(num_experts, num_ranks, redundant)
    reason = "as given"
    if steps is None:
        steps = DEFAULT_BALANCE_STEPS if is_even else 0
        reason = (
            "default"
            if is_even
            else f"{num_experts} experts cannot be spread evenly over {num_ranks} ranks"
        )
    return steps, [
        ConfigLine("num_redundant_experts", str(redundant), "as given" if redundant else "default"),
        ConfigLine("expert_balance_steps", str(steps), reason),
    ]
