"""`leadline serve --node-rank N`, N above 0: ranks for the head's engine, and no HTTP."""

import signal
from types import FrameType

from leadline.engine.config import ResolvedConfig
from leadline.engine.unit.node_agent import NodeAgent
from leadline.engine.unit.nodes import Nodes
from leadline.server.console import make_console


def run_node(config: ResolvedConfig) -> int:
    """Start ranks whenever the head asks for them, until a signal ends it; the exit status.

    Raises:
        ConfigError: the unit's key cannot be read.
    """
    nodes = Nodes.of(config)
    assert nodes is not None, "a node beside the head's is one of several"
    agent = NodeAgent(config, nodes)

    def stop(number: int, frame: FrameType | None) -> None:
        agent.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    console = make_console(is_lasting=True)
    agent.run(lambda stage: console.print(f"node {config.node_rank}: {stage}"))
    return 0
