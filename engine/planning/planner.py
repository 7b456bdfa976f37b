"""Which layout a unit should have, and what to expect of it."""

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from leadline.engine.errors import ConfigError
from leadline.engine.planning.gpus import GPUS, Gpu
from leadline.engine.planning.host import SYSTEM_BYTES, Host
from leadline.engine.planning.latent_bytes import latent_bytes_per_layer
from leadline.engine.planning.layout import Layout
from leadline.engine.planning.memory import GIB, MemoryNeeds, MemoryPart
from leadline.engine.planning.request_stream import (
    ACCEPTED_SHARES,
    PREFILL_STEP_TOKENS,
    Expected,
    RequestStream,
)
from leadline.engine.planning.unit_times import UnitTimes
from leadline.engine.planning.weight_bytes import WeightBytes, WeightFormat
from leadline.loader.model_config import ModelConfig

PAGE_SIZE = 64
DEFAULT_HEADROOM_BYTES = 2 * GIB
_HELD = WeightFormat(dtype="bfloat16", keeps_fp8=True)
_MAX_REQUESTS = 512  # of a group; more gain nothing
_AS_GOOD = 0.95  # of the best throughput: then the simplest layout is taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be planned.

    Attributes:
        num_gpus: of the unit.
        input_tokens: of a request.
        output_tokens: of a request.
        itl_s: most time between a request's tokens; None for the most tokens a second.
        num_drafts: a step; None for the best.
        tensor_parallel_size, data_parallel_size, expert_parallel: None for the best.
        host: computes the routed experts; None: the GPUs do.
        expert_gpu_count: routed experts of each layer that the GPU has beside the host.
    """

    model: ModelConfig
    gpu: Gpu
    num_gpus: int
    input_tokens: int
    output_tokens: int
    itl_s: float | None = None
    kv_cache_dtype: str = "bfloat16"
    num_drafts: int | None = None
    tensor_parallel_size: int | None = None
    data_parallel_size: int | None = None
    expert_parallel: bool | None = None
    ranks_per_node: int = 8
    headroom_bytes: int = DEFAULT_HEADROOM_BYTES
    host: Host | None = None
    expert_gpu_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A layout with its memory and what to expect of it."""

    wish: Wish
    layout: Layout
    needs: MemoryNeeds
    num_pages: int
    num_drafts: int
    expected: Expected

    @property
    def kv_tokens(self) -> int:
        """Tokens in the cache of each group."""
        return self.num_pages * PAGE_SIZE

    @property
    def checkpoint_bytes(self) -> int:
        """What is downloaded, as far as weights go."""
        model = self.wish.model
        held = WeightFormat(dtype=model.dtype)
        return sum(WeightBytes(model, Layout(), held).parts().values())

    def memory(self) -> list[MemoryPart]:
        """The table of a GPU: it sums up to the GPU's memory."""
        parts = [*self.needs.weights(), *self.needs.pages(self.num_pages, PAGE_SIZE)]
        parts += self.needs.other()
        left = self.wish.gpu.memory_bytes - sum(part.num_bytes for part in parts)
        return [*parts, MemoryPart("left free", left, "headroom")]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A layout that cannot be, and why."""

    layout: Layout
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The best plan, the others by what they reach, and those that cannot be."""

    best: Plan
    others: list[Plan]
    rejected: list[Rejected]


def choose(wish: Wish) -> Choice:
    """The layout with the most tokens a second that keeps the time between tokens.

    Raises:
        ConfigError: no layout does, with what would be needed.
    """
    plans: list[Plan] = []
    rejected: list[Rejected] = []
    for layout in layouts(wish):
        found = plan_layout(wish, layout)
        if isinstance(found, Plan):
            plans.append(found)
        else:
            rejected.append(found)
    if not plans:
        raise ConfigError(_refusal(wish, rejected))
    plans.sort(key=lambda plan: -plan.expected.tokens_s)
    enough = plans[0].expected.tokens_s * _AS_GOOD
    good = [plan for plan in plans if plan.expected.tokens_s >= enough]
    best = min(good, key=_complexity)
    return Choice(best, [plan for plan in plans if plan is not best], rejected)


def _complexity(plan: Plan) -> tuple[bool, int]:
    """Whole experts before slices of them, and data before tensor parallelism."""
    layout = plan.layout
    return not layout.expert_parallel, layout.tensor_parallel_size


def layouts(wish: Wish) -> Iterator[Layout]:
    """Every way to cut the model into as many ranks that its sizes allow.

    Raises:
        ConfigError: sizes that were given exclude each other.
    """
    num = wish.num_gpus
    nodes = -(-num // wish.ranks_per_node)
    if num % nodes:
        raise ConfigError(
            f"{num} GPUs on nodes of {wish.ranks_per_node} are not as many on each of {nodes} nodes"
        )
    tp, dp = wish.tensor_parallel_size, wish.data_parallel_size
    if tp is not None and dp is not None and tp * dp != num:
        raise ConfigError(
            f"tensor_parallel_size x data_parallel_size is {tp} x {dp} = {tp * dp}, but there are "
            f"{num} GPUs"
        )
    for name, size in (("tensor_parallel_size", tp), ("data_parallel_size", dp)):
        if size is not None and num % size:
            raise ConfigError(f"{name} {size} does not divide {num} GPUs")
    tp = num // dp if dp is not None else tp
    for size in (tp,) if tp is not None else range(1, min(num, wish.ranks_per_node) + 1):
        if num % size:
            continue
        for whole in (False, True) if wish.expert_parallel is None else (wish.expert_parallel,):
            if whole and (num == 1 or not wish.model.n_routed_experts):
                continue
            yield Layout(
                tensor_parallel_size=size,
                data_parallel_size=num // size,
                expert_parallel=whole,
                ranks_per_node=wish.ranks_per_node,
            )


def plan_layout(wish: Wish, layout: Layout) -> Plan | Rejected:
    """What a layout gives, with the best number of drafts."""
    try:
        layout.parallel().check(wish.model)
    except ConfigError as error:
        return Rejected(layout, str(error))
    model = wish.model
    most = len(ACCEPTED_SHARES) if model.num_nextn_predict_layers else 0
    depths = range(most + 1) if wish.num_drafts is None else (wish.num_drafts,)
    found = [_with_drafts(wish, layout, depth) for depth in depths]
    plans = [plan for plan in found if isinstance(plan, Plan)]
    if not plans:
        return next(plan for plan in found if isinstance(plan, Rejected))
    return max(plans, key=lambda plan: plan.expected.tokens_s)


def _with_drafts(wish: Wish, layout: Layout, num_drafts: int) -> Plan | Rejected:
    times = UnitTimes(
        wish.model,
        wish.gpu,
        layout,
        held=_HELD,
        cache_bytes=latent_bytes_per_layer(wish.model, wish.kv_cache_dtype),
        overlaps=False,  # the engine has no two micro-batches
        host=wish.host,
        num_resident=wish.expert_gpu_count,
    )
    needs = MemoryNeeds(
        model=wish.model,
        layout=layout,
        held=_HELD,
        device="cuda",
        kv_cache_dtype=wish.kv_cache_dtype,
        max_num_seqs=_MAX_REQUESTS,
        max_num_batched_tokens=PREFILL_STEP_TOKENS,
        max_model_len=wish.model.max_position_embeddings,
        num_drafts=num_drafts,
        has_mtp=num_drafts > 0,
        expert_gpu_count=None if wish.host is None else wish.expert_gpu_count,
    )
    free = wish.gpu.memory_bytes - wish.headroom_bytes - needs.fixed_bytes
    num_pages = max(free, 0) // needs.page_bytes(PAGE_SIZE)
    a_request = wish.input_tokens + wish.output_tokens + num_drafts
    pages_a_request = -(-a_request // PAGE_SIZE)
    if num_pages < pages_a_request:
        return Rejected(layout, _too_little(wish, needs, pages_a_request))
    if wish.host is not None and _host_bytes(needs) > wish.host.memory_bytes:
        return Rejected(
            layout,
            f"the host needs {_host_bytes(needs) / GIB:.0f} GiB for routed experts and system, has "
            f"{wish.host.memory_bytes / GIB:.0f}",
        )
    stream = RequestStream(
        times,
        layout,
        input_tokens=wish.input_tokens,
        output_tokens=wish.output_tokens,
        num_drafts=num_drafts,
    )
    requests = stream.most_requests(min(num_pages // pages_a_request, _MAX_REQUESTS), wish.itl_s)
    if requests == 0:
        assert wish.itl_s is not None
        return Rejected(
            layout,
            f"{stream.itl_s(1) * 1e3:.1f} ms between the tokens of one request a group, "
            f"not {wish.itl_s * 1e3:g}",
        )
    needs = dataclasses.replace(needs, max_num_seqs=requests)
    free = wish.gpu.memory_bytes - wish.headroom_bytes - needs.fixed_bytes
    return Plan(
        wish=wish,
        layout=layout,
        needs=needs,
        num_pages=free // needs.page_bytes(PAGE_SIZE),
        num_drafts=num_drafts,
        expected=stream.expect(requests),
    )


def _too_little(wish: Wish, needs: MemoryNeeds, num_pages: int) -> str:
    weights = sum(part.num_bytes for part in needs.weights())
    total = needs.fixed_bytes + wish.headroom_bytes + num_pages * needs.page_bytes(PAGE_SIZE)
    return (
        f"a GPU needs {total / GIB:.1f} GiB ({weights / GIB:.1f} of weights), has "
        f"{wish.gpu.memory_bytes / GIB:.1f}"
    )


def _host_bytes(needs: MemoryNeeds) -> int:
    return SYSTEM_BYTES + sum(part.num_bytes for part in needs.host())


def _refusal(wish: Wish, rejected: list[Rejected]) -> str:
    lines = [f"no layout of {wish.num_gpus} x {wish.gpu.name} serves this model as wished:"]
    lines += [f"  {entry.layout}: {entry.reason}" for entry in rejected]
    found = [f"{other.num_gpus} x {other.gpu.name}" for other in _alternatives(wish)]
    if found:
        lines.append(f"What would do: {', '.join(found)}.")
    elif wish.itl_s is not None:
        lines.append("Allow more time between tokens (--itl-ms).")
    return "\n".join(lines)


def _alternatives(wish: Wish) -> Iterator[Wish]:
    """The same wish with more of these GPUs, or as many of others; a host stays as it is."""
    if wish.host is not None:
        return
    free = dataclasses.replace(wish, tensor_parallel_size=None, data_parallel_size=None)
    more = [
        dataclasses.replace(free, num_gpus=number)
        for number in (1, 2, 4, 8, 16, 32, 64, 128, 256)
        if number > wish.num_gpus
    ]
    yield from itertools.islice(filter(_is_possible, more), 1)
    others = [gpu for gpu in GPUS.values() if gpu.name != wish.gpu.name]
    yield from filter(_is_possible, [dataclasses.replace(free, gpu=gpu) for gpu in others])


def _is_possible(wish: Wish) -> bool:
    return any(isinstance(plan_layout(wish, layout), Plan) for layout in layouts(wish))
