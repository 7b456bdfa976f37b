"""The parallel layout that a user asks for, or that fits model and machine; imports no torch."""

from typing import Protocol

from leadline.engine.config_lines import ConfigLine
from leadline.engine.errors import ConfigError
from leadline.engine.parallel.layout import CutSizes, ParallelLayout

MAX_RANKS = 512


class AskedLayout(Protocol):
    """What is read of `config.EngineConfig`."""

    @property
    def tensor_parallel_size(self) -> int | None:
        """None leaves the choice."""
        ...

    @property
    def data_parallel_size(self) -> int | None:
        """None leaves the choice."""
        ...

    @property
    def enable_expert_parallel(self) -> bool | None:
        """None leaves the choice."""
        ...

    @property
    def fp8_dispatch(self) -> bool | None:
        """None leaves the choice."""
        ...

    @property
    def data_parallel_routing(self) -> str:
        """How a data parallel rank is chosen for a request."""
        ...

    @property
    def prefill_schedule_interval(self) -> int:
        """1 for prompts in every step."""
        ...


def settle_layout(
    asked: AskedLayout, model: CutSizes, *, is_cpu: bool
) -> tuple[ParallelLayout, bool, list[ConfigLine]]:
    """Sizes, whether tokens travel in FP8, and a line for each value with its reason.

    Raises:
        ConfigError: sizes out of range, or that the model cannot be cut into.
    """
    tp, dp = asked.tensor_parallel_size or 1, asked.data_parallel_size or 1
    given = (
        ("tensor_parallel_size", asked.tensor_parallel_size),
        ("data_parallel_size", asked.data_parallel_size),
    )
    for name, value in given:
        if value is not None and not 1 <= value <= MAX_RANKS:
            raise ConfigError(f"{name} is {value}; allowed: 1 to {MAX_RANKS}")
    if tp * dp > MAX_RANKS:
        raise ConfigError(
            f"tensor_parallel_size x data_parallel_size is {tp * dp}; allowed: up to {MAX_RANKS}"
        )
    experts, reason = asked.enable_expert_parallel, "as given"
    if experts is None:
        experts = dp > 1 and model.n_routed_experts >= tp * dp
        reason = "whole experts move fewer bytes than slices" if experts else "one rank has all"
        if not experts and tp * dp > 1:
            reason = "every rank has a slice of each expert"
    layout = ParallelLayout(tp_size=tp, dp_size=dp, expert_parallel=experts)
    if layout.num_ranks > 1:
        layout.check(model)
    _check_effects(asked, layout)
    fp8 = asked.fp8_dispatch
    if fp8 is None:
        fp8 = layout.num_ranks > 1 and not is_cpu
    sizes = [
        ConfigLine(name, str(size), "as given" if value is not None else why)
        for (name, value), size, why in zip(
            given,
            (tp, dp),
            (
                "heads and dense MLPs need no cutting",
                "one rank has the whole machine",
            ),
            strict=True,
        )
    ]
    return layout, fp8, [*sizes, ConfigLine("enable_expert_parallel", _on(experts), reason)]


def _check_effects(asked: AskedLayout, layout: ParallelLayout) -> None:
    if layout.num_ranks == 1:
        for name in ("enable_expert_parallel", "fp8_dispatch"):
            if getattr(asked, name):
                raise ConfigError(
                    f"{name} has no effect on a single rank; raise tensor_parallel_size or "
                    "data_parallel_size, or leave it out"
                )
    elif not layout.expert_parallel and layout.dp_size == 1 and asked.fp8_dispatch:
        raise ConfigError("fp8_dispatch has no effect where no token travels; leave it out")
    if layout.dp_size == 1 and asked.data_parallel_routing != "prefix":
        raise ConfigError(
            "data_parallel_routing has no effect with a single data parallel rank; raise "
            "data_parallel_size, or leave it out"
        )
    if layout.dp_size == 1 and asked.prefill_schedule_interval > 1:
        raise ConfigError(
            f"prefill_schedule_interval is {asked.prefill_schedule_interval}, which has no effect "
            "with one data parallel group; leave it out"
        )


def _on(value: bool) -> str:
    return "on" if value else "off"
