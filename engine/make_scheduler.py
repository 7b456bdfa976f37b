"""The scheduler that a config asks for, and what publishes its cache events."""

import msgspec

from leadline.engine.admission import QueueLimits
from leadline.engine.config import ResolvedConfig
from leadline.engine.draft_policy import DraftPolicy
from leadline.engine.kv_event_publisher import KVEventPublisher
from leadline.engine.kv_events import KVEventLog
from leadline.engine.kv_events_config import parse_kv_events_config
from leadline.engine.prefill_share import PrefillShare
from leadline.engine.scheduler import Scheduler


def make_scheduler(
    config: ResolvedConfig,
    draft_policy: DraftPolicy,
    *,
    vocab_size: int = 0,
    data_parallel_rank: int = 0,
) -> tuple[Scheduler, KVEventPublisher | None]:
    """The scheduler of a config, and what publishes its cache events, if anything does.

    Each data parallel rank has one, with its part of the queue.

    Raises:
        ConfigError: an address for events cannot be bound.
    """
    log = publisher = None
    if config.kv_events_config is not None:
        events_config = parse_kv_events_config(config.kv_events_config)
        events_config = events_config.of_rank(data_parallel_rank)
        if events_config.is_on:
            log = KVEventLog(config.page_size)
            publisher = KVEventPublisher(events_config, log, data_parallel_rank=data_parallel_rank)
    share = PrefillShare(
        config.max_num_batched_tokens,
        target_itl_s=_seconds(config.target_itl_ms),
        target_ttft_s=_seconds(config.target_ttft_ms),
    )
    num_ranks = config.data_parallel_size
    limits = QueueLimits(
        max_requests=_part(config.max_queued_requests, num_ranks),
        max_tokens=_part(config.max_queued_tokens, num_ranks),
    )
    scheduler = Scheduler(
        msgspec.structs.replace(config.capacity(), vocab_size=vocab_size),
        max_num_batched_tokens=config.max_num_batched_tokens,
        prefix_caching=config.prefix_caching,
        draft_policy=draft_policy,
        prefill_share=share,
        queue_limits=limits,
        events=log,
        verify_pages=config.verify_pages,
    )
    return scheduler, publisher


def _part(limit: int | None, num_ranks: int) -> int | None:
    return None if limit is None else -(-limit // num_ranks)


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1e3
