"""Page tables, sharing, and what is never shared."""

from collections.abc import Callable
from typing import Any

import pytest

from leadline.engine.kv_cache_manager import KVCacheManager
from leadline.engine.request_state import RequestState


@pytest.fixture
def admit(request_of: Any) -> Callable[..., tuple[RequestState | None, int]]:
    def admit(
        kv: KVCacheManager, prompt_ids: Any, **options: Any
    ) -> tuple[RequestState | None, int]:
        state = RequestState.of(request_of(prompt_ids=prompt_ids, **options))
        if not kv.admit(state):
            return None, 0
        return state, state.num_computed_tokens

    return admit


def compute(kv: KVCacheManager, state: RequestState, num_tokens: Any = None) -> None:
    state.num_computed_tokens = len(state.token_ids) if num_tokens is None else num_tokens
    kv.commit(state)


def test_full_pages_are_shared_and_partial_ones_are_not(admit: Any) -> None:
    kv = KVCacheManager(10, 4, prefix_caching=True)
    first, _ = admit(kv, range(10))
    compute(kv, first)
    second, num_cached = admit(kv, range(11))
    assert num_cached == 8
    assert second.page_ids[:2] == first.page_ids[:2]
    assert second.page_ids[2] != first.page_ids[2]


@pytest.mark.parametrize(("num_tokens", "num_cached"), [(8, 4), (9, 8)])
def test_at_least_one_token_is_left_to_compute(
    admit: Any, num_tokens: Any, num_cached: int
) -> None:
    kv = KVCacheManager(10, 4, prefix_caching=True)
    compute(kv, admit(kv, range(12))[0])
    assert admit(kv, range(num_tokens))[1] == num_cached


def test_pages_are_found_after_their_request_has_gone_until_they_are_reclaimed(admit: Any) -> None:
    kv = KVCacheManager(4, 4, prefix_caching=True)
    first, _ = admit(kv, range(12))
    compute(kv, first)
    kv.free(first)
    assert kv.num_referenced_pages == 0
    second, num_cached = admit(kv, range(9))
    assert num_cached == 8
    kv.free(second)
    third, _ = admit(kv, range(100, 112))  # takes the uncached page and two reclaimed ones
    kv.free(third)
    assert admit(kv, range(9))[1] == 4
    kv.check()


def test_only_computed_tokens_are_committed(admit: Any) -> None:
    kv = KVCacheManager(10, 4, prefix_caching=True)
    first, _ = admit(kv, range(12))
    compute(kv, first, 7)
    assert admit(kv, range(12))[1] == 4


def test_generated_tokens_are_committed(admit: Any) -> None:
    kv = KVCacheManager(10, 4, prefix_caching=True)
    first, _ = admit(kv, range(6))
    compute(kv, first)
    first.token_ids += [6, 7, 8]
    assert kv.allocate(first, 3) is not None
    compute(kv, first, 8)
    assert admit(kv, range(9))[1] == 8


def test_pages_of_a_failed_request_are_never_found_again(admit: Any) -> None:
    kv = KVCacheManager(10, 4, prefix_caching=True)
    first, _ = admit(kv, range(12))
    compute(kv, first, 8)
    kv.distrust(first)
    kv.free(first)
    assert admit(kv, range(12))[1] == 0
    kv.check()


def test_salts_and_the_switch_keep_requests_apart(admit: Any) -> None:
    kv = KVCacheManager(10, 4, prefix_caching=True)
    compute(kv, admit(kv, range(8), cache_salt="x")[0])
    assert admit(kv, range(8))[1] == 0
    assert admit(kv, range(8), cache_salt="x")[1] == 4
    kv = KVCacheManager(10, 4, prefix_caching=False)
    compute(kv, admit(kv, range(8))[0])
    assert admit(kv, range(8))[1] == 0


def test_a_refused_allocation_changes_nothing(admit: Any) -> None:
    kv = KVCacheManager(3, 4, prefix_caching=True)
    first, _ = admit(kv, range(8))
    page_ids = list(first.page_ids)
    assert kv.allocate(first, 13) is None
    assert first.page_ids == page_ids
    assert admit(kv, range(50, 58)) == (None, 0)
    assert kv.num_referenced_pages == 2
