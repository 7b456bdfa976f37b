"""The nodes of a unit: which ranks are on which, and where they find the head."""

from dataclasses import dataclass

from leadline.engine.config import ResolvedConfig

DEFAULT_PORT = 29550  # of commands; reports come to the next one, and ranks meet at the one after
_NUM_PORTS = 3


@dataclass(frozen=True, slots=True)
class Nodes:
    """Several machines.

    Attributes:
        count: of them.
        ranks_each: ranks of each node, one block after the other.
        host, port: of the head, as the other nodes see it.
        key: path of the unit's key file on this node.
        interface: the network interface of this node for collective operations.
    """

    count: int
    ranks_each: int
    host: str
    port: int
    key: str
    interface: str

    @classmethod
    def of(cls, config: ResolvedConfig) -> "Nodes | None":
        """Those of a config; None for a single one."""
        if config.nnodes == 1:
            return None
        host, _, port = config.head.partition(":")
        return cls(
            config.nnodes,
            config.layout.num_ranks // config.nnodes,
            host,
            int(port or DEFAULT_PORT),
            config.unit_key,
            config.node_interface,
        )

    def ranks_of(self, node: int) -> range:
        """The ranks on a node."""
        return range(node * self.ranks_each, (node + 1) * self.ranks_each)

    @property
    def commands(self) -> str:
        """ZeroMQ address where the head gives commands."""
        return f"tcp://{self.host}:{self.port}"

    @property
    def reports(self) -> str:
        """ZeroMQ address where the head hears reports."""
        return f"tcp://{self.host}:{self.port + 1}"

    @property
    def store(self) -> str:
        """Where the ranks find each other."""
        return f"tcp:{self.host}:{self.port + 2}"
