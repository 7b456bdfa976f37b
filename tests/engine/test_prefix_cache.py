"""The prefix cache against a map from whole token prefixes to pages."""

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.engine.prefix_cache import PrefixCache, chain_hash, root_hash

PAGE_SIZE = 2


def chain(token_ids: Sequence[int], salt: str = "") -> list[bytes]:
    parent, hashes = root_hash(salt), []
    for start in range(0, len(token_ids), PAGE_SIZE):
        parent = chain_hash(parent, token_ids[start : start + PAGE_SIZE])
        hashes.append(parent)
    return hashes


page = st.tuples(st.integers(0, 1), st.integers(0, 1))
prompt = st.lists(page, max_size=4).map(lambda pages: [t for p in pages for t in p])
salts = st.sampled_from(["", "x"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["commit", "match", "evict"]), prompt, salts)))
def test_agrees_with_a_map_of_whole_prefixes(operations: Any) -> None:
    cache = PrefixCache()
    model = {}
    next_page = 0
    for operation, tokens, salt in operations:
        prefixes = [(salt, *tokens[:end]) for end in range(PAGE_SIZE, len(tokens) + 1, PAGE_SIZE)]
        if operation == "commit":
            for prefix, page_hash in zip(prefixes, chain(tokens, salt), strict=True):
                assert cache.commit(page_hash, next_page) == (prefix not in model)
                model.setdefault(prefix, next_page)
                next_page += 1
        elif operation == "match":
            expected = []
            for prefix in prefixes:
                if prefix not in model:
                    break
                expected.append(model[prefix])
            assert cache.match(chain(tokens, salt)) == expected
        elif model:
            victim = next(iter(model))
            assert cache.evict(model.pop(victim))
        assert len(cache) == len(model)


def test_a_page_is_named_by_all_tokens_before_it() -> None:
    assert chain([1, 2, 3, 4])[1] != chain([1, 9, 3, 4])[1]
    assert chain([1, 2, 3, 4])[0] == chain([1, 2, 9, 9])[0]


def test_salts_share_nothing() -> None:
    assert chain([1, 2])[0] != chain([1, 2], "x")[0]


def test_an_uncached_page_cannot_be_evicted() -> None:
    assert not PrefixCache().evict(3)
