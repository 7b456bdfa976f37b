"""The page pool against a slow model that is obviously right."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from leadline.engine.page_pool import PagePool

NUM_PAGES = 5


class PagePoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.reclaimed = []
        self.pool = PagePool(NUM_PAGES, self.reclaimed.append)
        self.references = dict.fromkeys(range(NUM_PAGES), 0)
        self.cached = []  # least recently released first; referenced ones included
        self.tables = []

    @rule(num_pages=st.integers(0, NUM_PAGES))
    def allocate(self, num_pages: int) -> None:
        free = [p for p, n in self.references.items() if n == 0 and p not in self.cached]
        reclaimable = [p for p in self.cached if self.references[p] == 0]
        self.reclaimed.clear()
        pages = self.pool.allocate(num_pages)
        if num_pages > len(free) + len(reclaimable):
            assert pages is None
            assert not self.reclaimed
            return
        expected = reclaimable[: max(0, num_pages - len(free))]
        assert self.reclaimed == expected
        assert len(set(pages)) == num_pages
        assert set(pages) <= {*free, *expected}
        for page in pages:
            self.references[page] = 1
        self.cached = [p for p in self.cached if p not in expected]
        self.tables.append(pages)

    @precondition(lambda self: self.tables or self.cached)
    @rule(data=st.data())
    def share(self, data: Any) -> None:
        held = [p for p, n in self.references.items() if n > 0 or p in self.cached]
        table = data.draw(st.lists(st.sampled_from(held), unique=True)) if held else []
        for page in table:
            self.pool.acquire(page)
            self.references[page] += 1
        self.tables.append(table)

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def release(self, data: Any) -> None:
        table = self.tables.pop(data.draw(st.integers(0, len(self.tables) - 1)))
        self.pool.release(table)
        for page in reversed(table):
            self.references[page] -= 1
            if self.references[page] == 0 and page in self.cached:
                self.cached.remove(page)
                self.cached.append(page)

    @precondition(lambda self: any(self.tables))
    @rule(data=st.data())
    def cache(self, data: Any) -> None:
        page = data.draw(st.sampled_from([p for table in self.tables for p in table]))
        self.pool.set_cached(page, True)
        if page not in self.cached:
            self.cached.append(page)

    @precondition(lambda self: self.cached)
    @rule(data=st.data())
    def uncache(self, data: Any) -> None:
        page = data.draw(st.sampled_from(self.cached))
        self.pool.set_cached(page, False)
        self.cached.remove(page)

    @invariant()
    def agrees(self) -> None:
        self.pool.check()
        num_referenced = sum(n > 0 for n in self.references.values())
        assert self.pool.num_referenced == num_referenced
        assert self.pool.num_available == NUM_PAGES - num_referenced


PagePoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestPagePool = PagePoolMachine.TestCase


def test_the_end_of_a_chain_is_reclaimed_before_its_start() -> None:
    reclaimed = []
    pool = PagePool(3, reclaimed.append)
    table = pool.allocate(3)
    for page in table:
        pool.set_cached(page, True)
    pool.release(table)
    pool.allocate(2)
    assert reclaimed == [table[2], table[1]]


def test_releasing_a_page_twice_is_noticed() -> None:
    pool = PagePool(2, lambda page: None)
    table = pool.allocate(1)
    pool.release(table)
    with pytest.raises(AssertionError, match="not referenced"):
        pool.release(table)
