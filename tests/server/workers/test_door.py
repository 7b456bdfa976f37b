"""Connections go to whoever has the fewest; nobody's connection is lost while nobody takes any."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from leadline.server.workers.door import Door

WAIT_S = 10.0


class Taker:
    """Keeps what it takes.

    Attributes:
        taken: for each connection, whether there was room.
    """

    def __init__(self, *, takes_connections: bool = True, num_connections: int = 0) -> None:
        self.takes_connections = takes_connections
        self.takes = True
        self.num_others = num_connections
        self.taken: list[bool] = []

    @property
    def num_connections(self) -> int:
        return self.num_others + len(self.taken)

    def hand_over(self, connection: socket.socket, *, has_room: bool) -> bool:
        if self.takes:
            self.taken.append(has_room)
        return self.takes


async def eventually(takers: list[Taker], num_taken: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while sum(len(taker.taken) for taker in takers) < num_taken:
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def clients(
    takers: list[Taker], num_clients: int, max_connections: int = 100
) -> AsyncIterator[Door]:
    """Clients that connect to an open door."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        door = Door(listener, takers, max_connections=max_connections)
        door.open()
        for _ in range(num_clients):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        try:
            yield door
        finally:
            door.close()


async def test_connections_go_round() -> None:
    takers = [Taker(), Taker(), Taker()]
    async with clients(takers, 7):
        await eventually(takers, 7)
    assert [len(taker.taken) for taker in takers] == [3, 2, 2]


async def test_who_has_the_fewest_is_next() -> None:
    takers = [Taker(num_connections=4), Taker(num_connections=1), Taker(num_connections=3)]
    async with clients(takers, 5):
        await eventually(takers, 5)
    assert (
        [taker.num_connections for taker in takers] == [4, 4, 5]
        or [taker.num_connections for taker in takers] == [4, 5, 4]
        or [taker.num_connections for taker in takers] == [5, 4, 4]
    )


async def test_who_is_closed_or_does_not_take_is_passed_over() -> None:
    takers = [Taker(takes_connections=False), Taker(), Taker()]
    takers[1].takes = False
    async with clients(takers, 3):
        await eventually(takers, 3)
    assert [len(taker.taken) for taker in takers] == [0, 0, 3]


async def test_those_beyond_the_limit_are_marked() -> None:
    takers = [Taker(), Taker()]
    async with clients(takers, 4, max_connections=3):
        await eventually(takers, 4)
    assert sorted(room for taker in takers for room in taker.taken) == [False, True, True, True]


async def test_connections_wait_until_somebody_is_open() -> None:
    takers = [Taker(takes_connections=False)]
    async with clients(takers, 3) as door:
        await asyncio.sleep(0)
        takers[0].takes_connections = True
        door.update()
        await eventually(takers, 3)


async def test_connections_wait_until_somebody_takes_them() -> None:
    taker = Taker()
    taker.takes = False
    async with clients([taker], 3):
        await asyncio.sleep(0.001)  # may have been accepted, or not
        taker.takes = True
        await eventually([taker], 3)


@pytest.mark.parametrize("takes", [True, False])
async def test_a_closed_door_lets_nobody_in(takes: bool) -> None:
    taker = Taker()
    taker.takes = takes
    async with clients([taker], 0) as door:
        door.close()
        door.update()
        await asyncio.sleep(0.02)
    assert not taker.taken
