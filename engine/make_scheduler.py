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
    config: ResolvedConfig, draft_policy: DraftPolicy, *, vocab_size: int = 0
) -> tuple[Scheduler, KVEventPublisher | None]:
    """The scheduler of a config, and what publishes its cache events, if anything does.

    Raises:
        ConfigError: an address for events cannot be bound.
    """
    log = publisher = None
    if config.kv_events_config is not None:
        events_config = parse_kv_events_config(config.kv_events_config)
        if events_config.is_on:
            log = KVEventLog(config.page_size)
            publisher = KVEventPublisher(events_config, log)
    share = PrefillShare(
        config.max_num_batched_tokens,
        target_itl_s=_seconds(config.target_itl_ms),
        target_ttft_s=_seconds(config.target_ttft_ms),
    )
    limits = QueueLimits(
        max_requests=config.max_queued_requests, max_tokens=config.max_queued_tokens
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


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1e3
