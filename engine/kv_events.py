"""Events about cached pages, in the schema that cache-aware routers read from vLLM.

A page is called a block there. Wire format: msgpack arrays, the event's name first
(`vllm/distributed/kv_events.py`); routers such as Dynamo and llm-d rebuild each server's prefix
cache from them.
"""

from dataclasses import dataclass

import msgspec

from leadline.engine.prefix_cache import PageHash

MEDIUM_POOL = "GPU"
"""What routers call the page pool, whatever device it is on."""
MEDIUM_HOST = "CPU"


def external_hash(page_hash: PageHash) -> int:
    """A page's hash as routers know it: its lower 64 bits, unsigned."""
    return int.from_bytes(page_hash[-8:], "big")


class _Event(msgspec.Struct, array_like=True, omit_defaults=True, tag=True):
    """Base of all events."""


class BlockStored(_Event):
    """Pages have become findable, one after the other in a chain.

    Attributes:
        parent_block_hash: of the page before the first one; None at the beginning of a prompt.
        token_ids: of all pages together.
        lora_name: always None, as `lora_id`: no such adapters here.
        extra_keys: for each page what its hash depends on beside tokens: the cache salt, if any.
    """

    block_hashes: list[int]
    parent_block_hash: int | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str | None
    lora_name: str | None = None
    extra_keys: list[list[str] | None] | None = None


class BlockRemoved(_Event):
    """Pages are no longer findable."""

    block_hashes: list[int]
    medium: str | None


class AllBlocksCleared(_Event):
    """Nothing is findable."""


KVEvent = BlockStored | BlockRemoved | AllBlocksCleared


class KVEventBatch(msgspec.Struct, array_like=True, omit_defaults=True):
    """What is published at once.

    Attributes:
        ts: wall-clock seconds since the epoch.
        data_parallel_rank: routers want it there, also where there is but one.
    """

    ts: float
    events: list[KVEvent]
    data_parallel_rank: int | None = None


@dataclass(slots=True)
class _Page:
    """What is known of a findable page, and where it lies."""

    parent: PageHash | None
    token_ids: list[int]
    cache_salt: str
    media: set[str]


class KVEventLog:
    """Collects events between two publications."""

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._pages: dict[PageHash, _Page] = {}
        self._events: list[KVEvent] = []

    def stored(
        self, page_hash: PageHash, parent: PageHash | None, token_ids: list[int], cache_salt: str
    ) -> None:
        """A page of the pool has become findable."""
        page = self._pages.setdefault(page_hash, _Page(parent, token_ids, cache_salt, set()))
        self._append(page_hash, page, MEDIUM_POOL)

    def copied_to_host(self, page_hash: PageHash) -> None:
        """A page of the pool is findable in the host tier too."""
        self._append(page_hash, self._pages[page_hash], MEDIUM_HOST)

    def removed(self, page_hash: PageHash, medium: str = MEDIUM_POOL) -> None:
        """A page is gone; neighbours in time share one event."""
        page = self._pages[page_hash]
        page.media.discard(medium)
        if not page.media:
            del self._pages[page_hash]
        last = self._events[-1] if self._events else None
        if isinstance(last, BlockRemoved) and last.medium == medium:
            last.block_hashes.append(external_hash(page_hash))
        else:
            self._events.append(BlockRemoved([external_hash(page_hash)], medium))

    def cleared(self) -> None:
        """Everything is gone."""
        self._pages.clear()
        self._events.append(AllBlocksCleared())

    def take(self) -> list[KVEvent]:
        """The events since the last call."""
        events, self._events = self._events, []
        return events

    def _append(self, page_hash: PageHash, page: _Page, medium: str) -> None:
        page.media.add(medium)
        last = self._events[-1] if self._events else None
        parent = None if page.parent is None else external_hash(page.parent)
        if (
            isinstance(last, BlockStored)
            and last.medium == medium
            and last.block_hashes[-1] == parent
            and not page.cache_salt
        ):
            last.block_hashes.append(external_hash(page_hash))
            last.token_ids.extend(page.token_ids)
            return
        self._events.append(
            BlockStored(
                block_hashes=[external_hash(page_hash)],
                parent_block_hash=parent,
                token_ids=list(page.token_ids),
                block_size=self._page_size,
                lora_id=None,
                medium=medium,
                extra_keys=[[page.cache_salt]] if page.cache_salt else None,
            )
        )
