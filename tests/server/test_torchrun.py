"""Settings from what `torchrun` tells its processes."""

import pytest

from leadline.engine.config import EngineConfig
from leadline.engine.errors import ConfigError
from leadline.server.torchrun import under_torchrun

TOLD = {
    "TORCHELASTIC_RUN_ID": "none",
    "LOCAL_WORLD_SIZE": "1",
    "GROUP_WORLD_SIZE": "4",
    "GROUP_RANK": "2",
    "MASTER_ADDR": "10.0.0.1",
}


def test_nodes_are_those_that_it_has_brought_together() -> None:
    config = under_torchrun(EngineConfig(), TOLD)
    assert (config.nnodes, config.node_rank, config.head) == (4, 2, "10.0.0.1")
    given = under_torchrun(EngineConfig(head="head:29000"), TOLD)
    assert given.head == "head:29000"


@pytest.mark.parametrize("environ", [{}, TOLD | {"GROUP_WORLD_SIZE": "1"}])
def test_nothing_changes_without_it_or_on_one_node(environ: dict[str, str]) -> None:
    assert under_torchrun(EngineConfig(nnodes=1), environ) == EngineConfig()


def test_several_processes_a_node_are_refused() -> None:
    with pytest.raises(ConfigError, match="--nproc-per-node 1"):
        under_torchrun(EngineConfig(), TOLD | {"LOCAL_WORLD_SIZE": "8"})
