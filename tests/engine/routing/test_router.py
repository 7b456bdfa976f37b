"""Routing between ranks: books that balance, and what each policy is for."""

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from leadline.engine.errors import EngineDeadError
from leadline.engine.prefix_cache import chain_hash, root_hash
from leadline.engine.routing.page_index import PageIndex
from leadline.engine.routing.policies import (
    POLICIES,
    LeastLoaded,
    PrefixAware,
    RoundRobin,
    RoutingPolicy,
    RoutingWeights,
    make_policy,
)
from leadline.engine.routing.router import Router
from leadline.engine.routing.sessions import Sessions

NUM_RANKS = 4
PAGE = 4


def make_router(policy: RoutingPolicy, num_pages: int = 1000) -> Router:
    return Router(policy, NUM_RANKS, num_pages=num_pages, page_size=PAGE)


class RouterMachine(RuleBasedStateMachine):
    """Random requests, tokens, ends and deaths, against books kept the slow way."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = "prefix"
        self.router = make_router(PrefixAware(), num_pages=6)
        self.open: dict[str, tuple[int, list[int], bool]] = {}
        self.dead: set[int] = set()
        self.count = 0

    @rule(
        token_ids=st.lists(st.integers(0, 1), min_size=1, max_size=20),
        salt=st.sampled_from(["", "a"]),
        session=st.sampled_from(["", "s", "t"]),
    )
    def route(self, token_ids: list[int], salt: str, session: str) -> None:
        name = f"r{self.count}"
        self.count += 1
        if len(self.dead) == NUM_RANKS:
            with pytest.raises(EngineDeadError):
                self.router.route(name, token_ids)
            return
        rank = self.router.route(name, token_ids, cache_salt=salt, session_id=session)
        assert rank not in self.dead
        self.open[name] = rank, list(token_ids), False

    @precondition(lambda self: self.open)
    @rule(data=st.data(), token_ids=st.lists(st.integers(0, 1), min_size=1, max_size=5))
    def take_tokens(self, data: Any, token_ids: list[int]) -> None:
        name = data.draw(st.sampled_from(sorted(self.open)))
        self.router.take_tokens(name, token_ids)
        rank, known, _ = self.open[name]
        self.open[name] = rank, known + token_ids, True

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def end(self, data: Any) -> None:
        name = data.draw(st.sampled_from(sorted(self.open)))
        self.router.end(name)
        del self.open[name]

    @rule(rank=st.integers(0, NUM_RANKS - 1))
    def mask(self, rank: int) -> None:
        lost = self.router.mask(rank)
        assert sorted(lost) == sorted(n for n, (there, *_) in self.open.items() if there == rank)
        self.open = {name: entry for name, entry in self.open.items() if entry[0] != rank}
        self.dead.add(rank)
        assert self.router.index.num_pages(rank) == 0

    @rule(rank=st.integers(0, NUM_RANKS - 1))
    def unmask(self, rank: int) -> None:
        self.router.unmask(rank)
        self.dead.discard(rank)

    @invariant()
    def books_balance(self) -> None:
        for rank, load in enumerate(self.router.loads):
            own = [(known, begun) for there, known, begun in self.open.values() if there == rank]
            assert load.is_alive == (rank not in self.dead)
            assert load.num_requests == len(own)
            assert load.num_latent_tokens == sum(len(known) for known, _ in own)
            waiting = sum(len(known) for known, begun in own if not begun)
            assert sum(not begun for _, begun in own) <= load.num_prompt_tokens <= waiting
            assert self.router.index.num_pages(rank) <= 6
        counts = self.router.counts
        assert counts.num_hit_tokens <= counts.num_prompt_tokens
        assert counts.num_session_kept <= counts.num_session_requests


TestRouter = RouterMachine.TestCase


def test_round_robin_takes_turns_among_the_living() -> None:
    router = make_router(RoundRobin())
    router.mask(2)
    assert [router.route(f"r{i}", [1]) for i in range(5)] == [0, 1, 3, 0, 1]


def test_least_loaded_counts_requests() -> None:
    router = make_router(LeastLoaded())
    assert [router.route(f"r{i}", [1]) for i in range(NUM_RANKS)] == [0, 1, 2, 3]
    router.end("r2")
    assert router.route("next", [1]) == 2
    assert {router.route(f"s{i}", [1]) for i in range(NUM_RANKS)} == {0, 1, 2, 3}


def test_a_cached_prefix_is_found_again() -> None:
    router = make_router(PrefixAware())
    text = list(range(400))
    rank = router.route("first", text)
    for i in range(3):
        assert router.route(f"other-{i}", [i] * 40) != rank
    assert router.route("again", [*text, 5]) == rank
    assert router.counts.num_hit_tokens == 400
    assert router.loads[rank].num_prompt_tokens == 400 + 1


def test_output_tokens_are_found_too_except_the_last() -> None:
    router = make_router(PrefixAware(RoutingWeights(request_tokens=0)))
    rank = router.route("first", [1] * 6)
    router.take_tokens("first", [2, 3])
    router.take_tokens("first", [4, 5, 6, 7])
    router.end("first")
    chain = root_hash("")
    hashes = [chain := chain_hash(chain, ids) for ids in ([1] * 4, [1, 1, 2, 3], [4, 5, 6, 7])]
    assert router.index.num_hits(rank, hashes) == 2


def test_without_prefix_caching_nothing_is_found() -> None:
    router = Router(PrefixAware(), NUM_RANKS, num_pages=1000, page_size=PAGE, prefix_caching=False)
    for i in range(8):
        router.route(str(i), list(range(400)))
        router.take_tokens(str(i), [1])
        router.end(str(i))
    assert router.counts.num_requests == [2] * NUM_RANKS
    assert router.counts.num_hit_tokens == 0


def test_another_salt_shares_nothing() -> None:
    router = make_router(PrefixAware())
    text = list(range(400))
    router.route("first", text, cache_salt="a")
    router.route("second", text, cache_salt="b")
    assert router.counts.num_hit_tokens == 0


def test_a_long_queue_costs_more_than_a_prefix_saves() -> None:
    router = make_router(PrefixAware(RoutingWeights(request_tokens=0)))
    text = list(range(100))
    rank = router.route("first", text)
    router.take_tokens("first", [1])
    router.route("queue", [*text, *range(1000, 1098)])
    assert router.loads[rank].num_prompt_tokens == 98
    assert router.route("near", [*text, 7, 7, 7]) == rank  # 98 wait, 100 are saved
    assert router.loads[rank].num_prompt_tokens == 101
    assert router.route("far", [*text, 8, 9]) != rank


def test_a_full_rank_is_passed_over() -> None:
    weights = RoutingWeights(request_tokens=0, session_tokens=0)
    router = make_router(PrefixAware(weights), num_pages=30)
    text = list(range(100))
    rank = router.route("first", text, session_id="s")
    router.take_tokens("first", [1] * 20)  # 120 tokens: full
    assert router.route("second", [*text, *range(50)], session_id="s") != rank


def test_a_session_stays_where_it_was_unless_that_costs_too_much() -> None:
    router = make_router(PrefixAware(RoutingWeights(request_tokens=10, session_tokens=50)))
    router.route("other", [9])
    rank = router.route("first", [1], session_id="s")
    router.take_tokens("first", [1])
    assert router.route("second", [2], session_id="s") == rank
    assert (router.counts.num_session_requests, router.counts.num_session_kept) == (1, 1)
    for i in range(5):
        router.route(f"s{i}", [3], session_id="s")
    assert router.counts.num_session_kept < router.counts.num_session_requests


def test_a_dead_rank_is_forgotten_by_its_sessions() -> None:
    router = make_router(PrefixAware())
    rank = router.route("first", list(range(40)), session_id="s")
    assert router.mask(rank) == ["first"]
    other = router.route("first", list(range(40)), session_id="s")
    assert other != rank
    router.unmask(rank)
    assert router.route("second", list(range(40)), session_id="s") == other


def test_pages_used_last_are_kept_longest() -> None:
    index = PageIndex(1, 3)
    a, b, c, d = (bytes([i]) for i in range(4))
    index.add(0, [a, b])
    index.add(0, [c])
    index.add(0, [a])
    index.add(0, [d])
    assert index.num_hits(0, [a, b]) == 1  # b was the last page of its chain
    assert index.num_hits(0, [c]) == index.num_hits(0, [d]) == 1
    index.remove(0, [a, b])
    assert index.num_hits(0, [a]) == 0


def test_sessions_are_bounded() -> None:
    sessions = Sessions(2)
    for name in ("a", "b", "", "a", "c"):
        sessions.put(name, 1)
    assert [sessions.rank_of(name) for name in ("a", "b", "c", "")] == [1, None, 1, None]


@pytest.mark.parametrize("name", POLICIES)
def test_policies_by_name(name: str) -> None:
    router = make_router(make_policy(name))
    assert {router.route(f"r{i}", [i]) for i in range(NUM_RANKS)} == set(range(NUM_RANKS))
