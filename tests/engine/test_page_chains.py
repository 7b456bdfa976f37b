"""Which pages are doubted where one is damaged."""

from leadline.engine.page_chains import PageChains

A, B, C, D, E = (bytes([i]) * 32 for i in range(5))


def test_what_comes_after_a_damaged_page_is_doubted() -> None:
    chains = PageChains(10, lambda page_hash: True)
    chains.note(A, None)
    chains.note(B, A)
    chains.note(C, B)
    chains.note(D, A)
    chains.note(E, None)
    assert set(chains.doubtful(B)) == {B, C}
    assert set(chains.doubtful(A)) == {A, B, C, D}
    assert set(chains.doubtful(E)) == {E}


def test_a_chain_of_which_a_part_is_unknown_is_doubted() -> None:
    chains = PageChains(10, lambda page_hash: True)
    chains.note(A, None)
    chains.note(C, B)
    chains.note(D, C)
    assert set(chains.doubtful(A)) == {A, C, D}


def test_pages_that_are_no_longer_cached_are_forgotten() -> None:
    cached = {A, B}
    chains = PageChains(2, cached.__contains__)
    for page_hash, parent in ((A, None), (B, A), (C, B), (D, C), (E, D)):
        chains.note(page_hash, parent)
    assert len(chains) == 3
    assert set(chains.doubtful(A)) == {A, B, E}
