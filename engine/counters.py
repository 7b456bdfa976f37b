"""What the scheduler counts from start to end."""

from collections import Counter
from copy import copy

from leadline.engine.draft_policy import DraftCounts
from leadline.engine.expert_balance.balance_counts import BalanceCounts
from leadline.engine.histogram import STEP_TIME_BOUNDS_S, STEP_TOKENS_BOUNDS, Recorder
from leadline.engine.kv_cache_manager import KVCacheManager
from leadline.engine.messages import EngineStats
from leadline.engine.parallel.dispatch_meter import DispatchCounts
from leadline.engine.request_book import RequestBook
from leadline.engine.request_state import RequestState
from leadline.engine.step import ModelOutput


class Counters:
    """Totals, and histograms of steps.

    Attributes:
        num_steps: steps that computed at least one token.
        prompt_tokens: of requests that have had their first token.
        cached_prompt_tokens: of these, those that were found in the prefix cache or the host tier.
        host_prompt_tokens: of these, those that came from the host tier.
        rejections: requests refused because too much waited, by reason.
        num_corrupted_in_a_row: of the corrupted requests, those since a request last had a token.
        num_corrupted_pages: cached pages whose checksum was wrong, in the pool or the host tier.
        step_tokens: tokens that steps computed, verified drafts included.
        step_times: seconds that the executor worked on steps.
        dispatch: of the executor's tokens to experts on other ranks.
        balance: of those experts, as last told; the same for all that share them.
    """

    def __init__(self) -> None:
        self.num_steps = 0
        self.num_corrupted_requests = 0
        self.num_corrupted_in_a_row = 0
        self.num_corrupted_pages = 0
        self.prompt_tokens = 0
        self.cached_prompt_tokens = 0
        self.host_prompt_tokens = 0
        self.generation_tokens = 0
        self.rejections: Counter[str] = Counter()
        self.step_tokens = Recorder(STEP_TOKENS_BOUNDS)
        self.step_times = Recorder(STEP_TIME_BOUNDS_S)
        self.dispatch = DispatchCounts()
        self.balance = BalanceCounts()

    def count_step(self, output: ModelOutput) -> None:
        """Take in a step."""
        if output.dispatch is not None:
            self.dispatch.add(output.dispatch)
        if output.balance is not None:
            self.balance = output.balance
        if output.num_tokens:
            self.num_steps += 1
            self.step_tokens.observe(output.num_tokens)
            self.step_times.observe(output.elapsed_s)

    def count_corrupted(self) -> None:
        """Take in a request whose logits were not finite."""
        self.num_corrupted_requests += 1
        self.num_corrupted_in_a_row += 1

    def count_tokens(self, state: RequestState, num_tokens: int, *, is_first: bool) -> None:
        """Take in new tokens of a request."""
        self.generation_tokens += num_tokens
        self.num_corrupted_in_a_row = 0
        if is_first:
            self.prompt_tokens += state.num_prompt_tokens
            self.cached_prompt_tokens += state.num_cached_tokens or 0
            self.host_prompt_tokens += state.num_host_tokens


def collect_stats(
    book: RequestBook, kv: KVCacheManager, totals: Counters, drafts: DraftCounts
) -> EngineStats:
    """What requests, pages, steps and drafts have to tell; a new object."""
    host, times = kv.host, kv.times
    return EngineStats(
        num_running=len(book.running) + book.num_loading,
        num_waiting=len(book.waiting),
        num_steps=totals.num_steps,
        num_corrupted_requests=totals.num_corrupted_requests,
        num_corrupted_in_a_row=totals.num_corrupted_in_a_row,
        num_corrupted_pages=totals.num_corrupted_pages,
        prompt_tokens=totals.prompt_tokens,
        cached_prompt_tokens=totals.cached_prompt_tokens,
        host_prompt_tokens=totals.host_prompt_tokens,
        generation_tokens=totals.generation_tokens,
        page_usage=kv.num_referenced_pages / kv.num_pages,
        num_cached_pages=kv.num_cached_pages,
        prefix_cache_queries=kv.num_queried_tokens,
        prefix_cache_hits=kv.num_hit_tokens,
        prefix_cache_evictions=kv.num_evictions,
        host_cache_queries=host.num_queried_tokens,
        host_cache_hits=host.num_hit_tokens,
        host_cache_usage=len(host) / host.num_places if host.num_places else 0.0,
        host_pages_stored=host.num_stored_pages,
        host_pages_loaded=host.num_loaded_pages,
        host_pages_lost=host.num_failed_loads,
        admission_rejections=dict(totals.rejections),
        num_drafts=drafts.num_drafts,
        num_draft_tokens=drafts.num_draft_tokens,
        num_accepted_per_pos=list(drafts.num_accepted_per_pos),
        step_tokens=totals.step_tokens.read(),
        step_times=totals.step_times.read(),
        dispatch=copy(totals.dispatch),
        balance=copy(totals.balance),
        draft_depths=drafts.depths.read(),
        page_lifetimes=times.lifetimes.read(),
        page_idle_times=times.idle_times.read(),
        page_reuse_gaps=times.reuse_gaps.read(),
    )
