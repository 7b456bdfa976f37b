"""Cached pages that a request waits for: copied from the host tier, or checked."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from leadline.engine.request_state import RequestState

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class PageArrival:
    """What a step does for a request before the first that computes it.

    Attributes:
        host_ids: places that are loaded, into the pages after those of the pool.
        checked_ids: pages of the pool that are checked.
        num_missed_pages: full pages that the pool lacked.
    """

    host_ids: list[int]
    checked_ids: list[int]
    num_missed_pages: int


def log_damage(
    page_ids: Sequence[int], host_ids: Collection[int], states: Sequence[RequestState]
) -> None:
    """Tell the operator of pages and places that were found damaged for these requests, if any."""
    if page_ids or host_ids:
        logger.warning(
            "cached pages have changed since they were computed (pages %s, places %s in host "
            "memory); requests %s compute theirs anew",
            list(page_ids),
            sorted(host_ids),
            [state.request_id for state in states],
        )
