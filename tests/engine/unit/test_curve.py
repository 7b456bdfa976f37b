"""Only who has the key file is heard."""

from pathlib import Path

import msgspec
import pytest
import zmq

from leadline.engine.errors import ConfigError
from leadline.engine.unit.curve import UnitKey
from leadline.engine.unit.messages import NodeHello, StopRank, ToNode, node_identity
from leadline.engine.unit.rank_link import RankLink

WAIT_MS = 30_000


def key(path: Path, content: bytes) -> UnitKey:
    path.write_bytes(content)
    return UnitKey.read(str(path))


def test_a_node_with_the_key_is_answered_and_others_are_not(tmp_path: Path) -> None:
    right, wrong = key(tmp_path / "a", b"a" * 32), key(tmp_path / "b", b"b" * 32)
    half = UnitKey(right.head_public, b"", wrong.rank_public, wrong.rank_secret)
    link = RankLink("tcp://127.0.0.1:39550", "tcp://127.0.0.1:39551", life="now", key=right)
    try:
        with zmq.Context() as context:
            sockets = []
            for number, own in enumerate((wrong, half, None, right), 1):
                node = context.socket(zmq.DEALER)
                node.linger = 0
                node.routing_id = node_identity(number)
                if own is not None:
                    own.connect_with(node)
                node.connect(link.commands)
                node.send(msgspec.msgpack.encode(NodeHello(number, 1, "x")))
                sockets.append(node)
            assert link.await_hello(WAIT_MS) == NodeHello(4, 1, "x")
            assert link.await_hello(300) is None
            link.send_node(4, StopRank())
            assert sockets[3].poll(WAIT_MS)
            assert msgspec.msgpack.decode(sockets[3].recv(), type=ToNode) == StopRank()
            assert not any(socket.poll(0) for socket in sockets[:3])
            for socket in sockets:
                socket.close()
    finally:
        link.close()


@pytest.mark.parametrize("content", [None, b"", b"short"])
def test_a_key_that_is_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="unit_key"):
        UnitKey.read(str(path))
