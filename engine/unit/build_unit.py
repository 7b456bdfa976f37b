"""The composition root of a unit's head: the ranks, a scheduler for each lane, and one core."""

import secrets
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from leadline.engine.config import ResolvedConfig
from leadline.engine.core import EngineCore
from leadline.engine.draft_policy import DraftPolicy
from leadline.engine.errors import ConfigError, EngineDeadError
from leadline.engine.make_scheduler import make_scheduler
from leadline.engine.messages import GrammarCounts, Ready
from leadline.engine.routing.policies import make_policy
from leadline.engine.routing.router import Router
from leadline.engine.unit.curve import UnitKey
from leadline.engine.unit.messages import (
    NodeHello,
    RankHello,
    RankLaunch,
    RankReady,
    StartRanks,
    StopRank,
)
from leadline.engine.unit.nodes import Nodes
from leadline.engine.unit.rank_children import RankChildren
from leadline.engine.unit.rank_link import RankLink
from leadline.engine.unit.unit_core import UnitCore
from leadline.engine.unit.unit_executor import UnitExecutor

OnStage = Callable[[str], None]
_HELLO_MS = 100
_END_S = 5.0


def build_unit(config_json: bytes, on_stage: OnStage) -> tuple[UnitCore, Ready]:
    """The engine of several ranks, those of other nodes included.

    Args:
        config_json: a `ResolvedConfig` as JSON.
        on_stage: told what start-up is busy with.

    Raises:
        ConfigError: a rank cannot load, for a reason that is the user's to mend.
        EngineDeadError: a rank has died.
    """
    config = msgspec.json.decode(config_json, type=ResolvedConfig)
    nodes = Nodes.of(config)
    directory = Path(tempfile.mkdtemp(prefix="unit-"))
    life = secrets.token_hex(8)
    link = _make_link(nodes, directory, life)
    store = f"file:{directory}/store" if nodes is None else nodes.store
    launches = [
        RankLaunch(
            rank=rank,
            life=life,
            commands=link.commands,
            reports=link.reports,
            store=store,
            interface="lo" if nodes is None else nodes.interface,
            config=config_json.decode(),
            key="" if nodes is None else nodes.key,
        )
        for rank in range(config.layout.num_ranks)
    ]
    own = launches if nodes is None else [launches[rank] for rank in nodes.ranks_of(0)]
    children = RankChildren(own)
    executor = UnitExecutor(link, config.layout, config.capacity())

    def close() -> None:
        link.send(range(config.layout.num_ranks), StopRank())
        for node in range(1, config.nnodes):
            link.send_node(node, StopRank())
        children.end(_END_S)
        link.close()
        shutil.rmtree(directory, ignore_errors=True)

    try:
        link.listen(children, executor.hear, executor.fail)
        ready = _await_ready(link, executor, launches, nodes, on_stage)
    except BaseException:
        children.end(0)
        link.close()
        shutil.rmtree(directory, ignore_errors=True)
        raise
    core = _make_core(config, executor, ready, close)
    return core, Ready(
        max_model_len=config.max_model_len,
        num_pages=config.num_pages * config.data_parallel_size,
        page_size=config.page_size,
        summary=_summary(config, ready),
    )


def _make_link(nodes: Nodes | None, directory: Path, life: str) -> RankLink:
    if nodes is None:
        return RankLink(f"ipc://{directory}/commands", f"ipc://{directory}/reports", life=life)
    return RankLink(nodes.commands, nodes.reports, life=life, key=UnitKey.read(nodes.key))


def _await_ready(
    link: RankLink,
    executor: UnitExecutor,
    launches: Sequence[RankLaunch],
    nodes: Nodes | None,
    on_stage: OnStage,
) -> list[RankReady]:
    """Wait until all ranks have loaded and hear commands; tell of each step of it once.

    Raises:
        ConfigError: a node was started for another layout.
        EngineDeadError: a rank has died, or a node.
    """
    progress = executor.progress
    listening: set[int] = set()
    missing = set(range(1, 1 if nodes is None else nodes.count))
    tokens: dict[int, str] = {}
    told = ""
    while len(progress.ready) < len(launches) or len(listening) < len(launches):
        executor.check()
        match link.await_hello(_HELLO_MS):
            case RankHello(rank):
                listening.add(rank)
            case NodeHello(node, _, token) if node in tokens and tokens[node] != token:
                raise EngineDeadError(f"node {node} has begun anew")
            case NodeHello(node, num_ranks, token) if nodes is not None and node in missing:
                if num_ranks != nodes.ranks_each:
                    raise ConfigError(
                        f"node {node} was started for {num_ranks} ranks, this one for "
                        f"{nodes.ranks_each}; give all nodes the same flags"
                    )
                missing.remove(node)
                tokens[node] = token
                ranks = [launches[rank] for rank in nodes.ranks_of(node)]
                link.send_node(node, StartRanks(ranks[0].life, ranks))
        waits = f"waiting for nodes {sorted(missing)}; " if missing else ""
        stage = waits + progress.stage
        if stage != told:
            on_stage(stage)
            told = stage
    return progress.ready


def _make_core(
    config: ResolvedConfig,
    executor: UnitExecutor,
    ready: Sequence[RankReady],
    close: Callable[[], None],
) -> UnitCore:
    num_drafts = min(rank.num_drafts for rank in ready)
    leaders = [ranks[0] for ranks in config.layout.tp_groups()]
    lanes = []
    for number, (lane, leader) in enumerate(zip(executor.lanes, leaders, strict=True)):
        scheduler, events = make_scheduler(
            config,
            DraftPolicy(num_drafts),
            vocab_size=ready[0].vocab_size,
            data_parallel_rank=number,
        )

        def grammars(leader: int = leader) -> GrammarCounts:
            return executor.grammars.get(leader, GrammarCounts())

        lanes.append(EngineCore(scheduler, lane, events=events, grammar_counts=grammars))
    router = Router(
        make_policy(config.data_parallel_routing),
        len(lanes),
        num_pages=config.num_pages,
        page_size=config.page_size,
        prefix_caching=config.prefix_caching,
    )
    return UnitCore(
        lanes, executor, router, close=close, prefill_interval=config.prefill_schedule_interval
    )


def _summary(config: ResolvedConfig, ready: Sequence[RankReady]) -> list[tuple[str, str]]:
    """The layout, and what the first rank has to tell of itself."""
    num_drafts = min(rank.num_drafts for rank in ready)
    total = sum(rank.num_bytes for rank in ready) / 2**20
    layout = config.layout
    experts = "whole experts" if layout.expert_parallel else "sliced experts"
    ranks = (
        f"{layout.num_ranks}: {layout.dp_size} data parallel x {layout.tp_size} tensor parallel, "
        f"{experts}; {total:.0f} MiB in all"
    )
    return [
        ("ranks", ranks),
        *ready[0].summary,
        ("speculation", f"up to {num_drafts} drafts a step" if num_drafts else "off"),
    ]
