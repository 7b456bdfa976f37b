"""The parallel layout that a user asks for, or that fits model and machine; imports no torch."""

from leadline.engine.config_lines import ConfigLine
from leadline.engine.errors import ConfigError
from leadline.engine.parallel.layout import CutSizes, ParallelLayout
from leadline.engine.parallel.options import ParallelOptions

MAX_RANKS = 512
MAX_PORT = 2**16 - 2  # of the first of three


def settle_layout(
    asked: ParallelOptions, model: CutSizes, *, is_cpu: bool
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
    _check_nodes(asked, layout)
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


def _check_effects(asked: ParallelOptions, layout: ParallelLayout) -> None:
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


def _check_nodes(asked: ParallelOptions, layout: ParallelLayout) -> None:
    own = ("head", "node_interface", "unit_key")
    if asked.nnodes == 1:
        given = [name for name in own if getattr(asked, name) is not None]
        if given or asked.node_rank:
            names = ", ".join([*given, *(["node_rank"] if asked.node_rank else [])])
            raise ConfigError(f"{names} without effect on a single node; give nnodes, or leave out")
        return
    if asked.nnodes < 1 or layout.num_ranks % asked.nnodes:
        raise ConfigError(
            f"nnodes is {asked.nnodes}, which does not divide tensor_parallel_size x "
            f"data_parallel_size = {layout.num_ranks} ranks"
        )
    if not 0 <= asked.node_rank < asked.nnodes:
        raise ConfigError(f"node_rank is {asked.node_rank}; allowed: 0 to {asked.nnodes - 1}")
    missing = [name for name in own if not getattr(asked, name)]
    if missing:
        raise ConfigError(f"nnodes is {asked.nnodes}, which needs {', '.join(missing)}")
    assert asked.head is not None
    host, colon, port = asked.head.partition(":")
    if not host or (colon and not (port.isdecimal() and 0 < int(port) < MAX_PORT)):
        raise ConfigError(f"head is {asked.head!r}; allowed: HOST or HOST:PORT")


def _on(value: bool) -> str:
    return "on" if value else "off"
