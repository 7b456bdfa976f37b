"""How many pages the latent cache has, and how long a request may be."""

from dataclasses import dataclass

from leadline.engine.errors import ConfigError, NotEnoughMemoryError
from leadline.engine.planning.memory import GIB, MemoryNeeds, size_text

CPU_HEADROOM_BYTES = GIB // 2
GPU_HEADROOM_BYTES = 2 * GIB
_CPU_CACHE_BYTES = 4 * GIB  # a machine's memory is not the server's alone


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSize:
    """What was settled, and why.

    Attributes:
        model_len_reason: None if the user gave the length.
    """

    max_model_len: int
    num_pages: int
    model_len_reason: str | None
    cache_reason: str


def settle_cache_size(
    *,
    needs: MemoryNeeds,
    available_bytes: int,
    page_size: int,
    max_model_len: int | None,
    kv_tokens: int | None,
    headroom_bytes: int | None,
) -> CacheSize:
    """The model length and the number of pages; None leaves the choice to this function.

    Args:
        needs: what else takes memory, and what a page takes.
        available_bytes: of the device, before anything is loaded.
        page_size: tokens a page.
        max_model_len: most tokens of a request.
        kv_tokens: tokens that the cache holds.
        headroom_bytes: memory that is left free.

    Raises:
        ConfigError: a length that the model or the cache does not allow, with the numbers.
        NotEnoughMemoryError: the model does not fit, or not with so large a cache.
    """
    longest = needs.model.max_position_embeddings
    if max_model_len is not None and max_model_len > longest:
        raise ConfigError(
            f"max_model_len is {max_model_len}, but the model's positions end at {longest}; "
            f"allowed: 2 to {longest}"
        )
    wanted_len = max_model_len or longest
    _check_weights(needs, available_bytes)
    if kv_tokens is not None:
        num_pages, cache_reason = kv_tokens // page_size, "as given"
        _check_cache(needs, num_pages, page_size, available_bytes)
    else:
        useful = needs.max_num_seqs * -(-wanted_len // page_size)
        most, cache_reason = _most_pages(needs, page_size, available_bytes, headroom_bytes)
        num_pages = min(most, useful)
        if num_pages == useful:
            cache_reason = "enough for max_num_seqs requests of max_model_len"
    num_tokens = num_pages * page_size
    if num_tokens < 2 or (max_model_len is not None and num_tokens < wanted_len):
        raise ConfigError(
            f"the cache holds {num_tokens} tokens ({cache_reason}), but a request may have "
            f"{wanted_len}; lower max_model_len, or raise kv_tokens ({needs.token_bytes} bytes a "
            "token)"
        )
    settled_len = min(wanted_len, num_tokens)
    reason = "the model's" if settled_len == longest else "what the cache holds"
    return CacheSize(
        max_model_len=settled_len,
        num_pages=num_pages,
        model_len_reason=None if max_model_len is not None else reason,
        cache_reason=cache_reason,
    )


def _most_pages(
    needs: MemoryNeeds, page_size: int, available_bytes: int, headroom_bytes: int | None
) -> tuple[int, str]:
    """Pages that fit beside everything else, and the words for it."""
    is_cpu = needs.device == "cpu"
    headroom = headroom_bytes
    if headroom is None:
        headroom = CPU_HEADROOM_BYTES if is_cpu else GPU_HEADROOM_BYTES
    left = available_bytes - needs.fixed_bytes - headroom
    reason = (
        f"what {size_text(available_bytes)} leave beside {size_text(needs.fixed_bytes)}, and "
        f"{size_text(headroom)} that stay free"
    )
    if is_cpu and headroom_bytes is None and left > _CPU_CACHE_BYTES:
        left, reason = _CPU_CACHE_BYTES, f"what {size_text(_CPU_CACHE_BYTES)} hold"
    if left < needs.page_bytes(page_size):
        raise NotEnoughMemoryError(
            f"the model and its steps take {size_text(needs.fixed_bytes)}, "
            f"{size_text(headroom)} are to stay free, and {size_text(available_bytes)} are "
            "available: none are left for the cache; free memory, or lower memory_headroom_gib or "
            "max_num_batched_tokens"
        )
    return left // needs.page_bytes(page_size), reason


def _check_weights(needs: MemoryNeeds, available_bytes: int) -> None:
    weights = sum(part.num_bytes for part in needs.weights())
    if weights > available_bytes:
        narrower = "; --dtype bfloat16 takes less" if needs.held.dtype == "float32" else ""
        raise NotEnoughMemoryError(
            f"the model's weights take {size_text(weights)}, and {size_text(available_bytes)} are "
            f"available{narrower}"
        )


def _check_cache(needs: MemoryNeeds, num_pages: int, page_size: int, available_bytes: int) -> None:
    weights = sum(part.num_bytes for part in needs.weights())
    cache = num_pages * needs.page_bytes(page_size)
    if weights + cache > available_bytes:
        most = (available_bytes - weights) // needs.page_bytes(page_size) * page_size
        raise NotEnoughMemoryError(
            f"kv_tokens take {size_text(cache)} beside {size_text(weights)} of weights, and "
            f"{size_text(available_bytes)} are available; there is room for {max(most, 0)} tokens"
        )
