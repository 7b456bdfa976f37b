"""What `torchrun` tells the process that it starts on each node, as settings."""

from collections.abc import Mapping
from dataclasses import replace

from leadline.engine.config import EngineConfig
from leadline.engine.errors import ConfigError


def under_torchrun(config: EngineConfig, environ: Mapping[str, str]) -> EngineConfig:
    """The config with the nodes that `torchrun` has brought together, if it runs this process.

    Args:
        config: what the user asked for; an address of the head that is given stays.
        environ: of the process.

    Raises:
        ConfigError: it starts several processes a node; this program starts the ranks itself.
    """
    if "TORCHELASTIC_RUN_ID" not in environ:
        return config
    num_local = environ.get("LOCAL_WORLD_SIZE", "1")
    if num_local != "1":
        raise ConfigError(
            f"torchrun starts {num_local} processes on this node; give --nproc-per-node 1: "
            "leadline starts the ranks of its node itself"
        )
    num_nodes = int(environ.get("GROUP_WORLD_SIZE", "1"))
    if num_nodes == 1:
        return config
    return replace(
        config,
        nnodes=num_nodes,
        node_rank=int(environ["GROUP_RANK"]),
        head=config.head or environ["MASTER_ADDR"],
    )
