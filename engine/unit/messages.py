"""Messages between the head of a unit and its ranks: msgspec over ZeroMQ, never pickled."""

import msgspec

from leadline.engine.messages import GrammarCounts
from leadline.engine.request import Grammar
from leadline.engine.step import ModelOutput, SchedulerOutput
from leadline.engine.survey import ExpertLoad


class RankLaunch(msgspec.Struct, kw_only=True):
    """The first line on a rank process's standard input, as JSON; when that closes, it ends.

    Attributes:
        rank: its number in the layout.
        life: which of the head's engines it belongs to; part of all that it says.
        commands: ZeroMQ address where it hears `ToRank`.
        reports: ZeroMQ address that it tells `FromRank`.
        store: `file:PATH`, or `tcp:HOST:PORT` of the head, where the ranks find each other.
        interface: the network interface of its collective operations.
        config: a `ResolvedConfig` as JSON.
        key: path of the unit's key file; empty on a single machine, whose sockets are private.
    """

    rank: int
    life: str
    commands: str
    reports: str
    store: str
    interface: str
    config: str
    key: str = ""


class RunStep(msgspec.Struct, tag="step"):
    """Head -> rank: compute a step; an empty plan takes part in what others compute.

    Answered with `StepDone` by the first of the ranks that share the requests.
    """

    plan: SchedulerOutput


class PrepareGrammar(msgspec.Struct, tag="prepare_grammar"):
    """Head -> rank: a request with this grammar will come. Answered with `Answer`."""

    ticket: int
    grammar: Grammar


class TakeExpertLoad(msgspec.Struct, tag="take_expert_load"):
    """Head -> rank: tell how often your experts were chosen. Answered with `Answer`."""

    ticket: int


class SleepRank(msgspec.Struct, tag="sleep"):
    """Head -> rank: give up memory, see `Executor.sleep`. Answered with `Answer`."""

    ticket: int
    level: int


class WakeRank(msgspec.Struct, tag="wake"):
    """Head -> rank: take the memory back. Answered with `Answer`."""

    ticket: int


class StopRank(msgspec.Struct, tag="stop"):
    """Head -> rank: end."""


class StartRanks(msgspec.Struct, tag="start_ranks"):
    """Head -> node: start these; what is the node's own in them (`interface`, `key`) is empty."""

    life: str
    launches: list[RankLaunch]


class NodeHello(msgspec.Struct, tag="node_hello"):
    """Node -> head: its ranks can be started here. Answered with `StartRanks`.

    Attributes:
        node: its number, from 1 on; the head's own is 0.
        num_ranks: that it expects.
        token: of this attempt; the same while it repeats itself.
    """

    node: int
    num_ranks: int
    token: str


class RankEnded(msgspec.Struct, tag="ended"):
    """Node -> head: a rank's process has ended, and how."""

    rank: int
    how: str


class RankHello(msgspec.Struct, tag="hello"):
    """Rank -> head, where commands come from: I hear you."""

    rank: int


class RankLoading(msgspec.Struct, tag="loading"):
    """Rank -> head: start-up goes on; `stage` is a short phrase for people."""

    rank: int
    stage: str


class RankReady(msgspec.Struct, tag="ready"):
    """Rank -> head: steps can come.

    Attributes:
        summary: lines for the start-up table.
        vocab_size: width of the logits.
        num_drafts: most drafts a step; 0 without an MTP layer.
        num_bytes: memory of weights and pages.
    """

    rank: int
    summary: list[tuple[str, str]]
    vocab_size: int
    num_drafts: int
    num_bytes: int


class StepDone(msgspec.Struct, tag="step_done"):
    """Rank -> head: what a step produced."""

    rank: int
    output: ModelOutput


class Answer(msgspec.Struct, tag="answer", kw_only=True):
    """Rank -> head: what was asked for is done, unless there is an error.

    Attributes:
        ticket: of the command.
        error: why it was not done, for people.
        expert_load: the answer to `TakeExpertLoad`.
        num_bytes: memory of weights and pages now; of `SleepRank` and `WakeRank`.
        grammars: asked for since start; of `PrepareGrammar`.
    """

    rank: int
    ticket: int
    error: str = ""
    expert_load: list[ExpertLoad] = msgspec.field(default_factory=list)
    num_bytes: int = 0
    grammars: GrammarCounts = msgspec.field(default_factory=GrammarCounts)


class Heartbeat(msgspec.Struct, tag="heartbeat"):
    """Rank or node -> head, every second: this process runs; of node n, `rank` is -n."""

    rank: int


class RankFailed(msgspec.Struct, tag="failed"):
    """Rank -> head: this rank ends.

    Attributes:
        message: its last word for people.
        is_users: of a checkpoint or a setting, not of the program.
        is_collective: a collective operation failed, most likely since another rank has ended.
    """

    rank: int
    message: str
    is_users: bool = False
    is_collective: bool = False


ToRank = RunStep | PrepareGrammar | TakeExpertLoad | SleepRank | WakeRank | StopRank
ToNode = StartRanks | StopRank
FromRank = RankLoading | RankReady | StepDone | Answer | Heartbeat | RankFailed | RankEnded
Hello = RankHello | NodeHello


def identity(rank: int, life: str) -> bytes:
    """Under which name the head's socket knows a rank."""
    return f"rank-{rank}-{life}".encode()


def node_identity(node: int) -> bytes:
    """Under which name the head's socket knows a node."""
    return b"node-%d" % node
