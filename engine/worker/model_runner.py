"""Carries out one step's plan on a device: batch, forward, sample, verify drafts, draft again."""

import time

import torch
from torch import Tensor

from leadline.engine.expert_balance.balancer import ExpertBalancer
from leadline.engine.model.deepseek import DeepseekModel
from leadline.engine.model.no_memory import NoMemory
from leadline.engine.model.paged_memory import PagedMemory
from leadline.engine.parallel.lockstep import AloneInStep, Lockstep, StepSizes
from leadline.engine.step import ModelOutput, RowOutput, SchedulerOutput
from leadline.engine.worker.drafter import Drafter, DraftRow
from leadline.engine.worker.grammar_path import Grammars
from leadline.engine.worker.host_pages import HostPages
from leadline.engine.worker.input_batch import ForwardBatch, make_batch
from leadline.engine.worker.page_checksums import PageChecksums
from leadline.engine.worker.prompt_logprobs import prompt_logprobs
from leadline.engine.worker.requests import HeldRequests, LiveRow
from leadline.engine.worker.sampler import Sampler, SampleSpan
from leadline.kernels.api import KernelSet
from leadline.kernels.sampling import NAN_LOGITS, NO_TOKEN

FAILED_ROWS = {
    NAN_LOGITS: "the model produced NaN logits for this request; its checkpoint may be damaged",
    NO_TOKEN: "no token is allowed here: grammar, allowed and banned tokens exclude each other",
}


class ModelRunner:
    """The model, its paged cache, and the requests that the executor holds."""

    def __init__(
        self,
        model: DeepseekModel,
        memory: PagedMemory,
        kernels: KernelSet,
        *,
        page_size: int,
        vocab_size: int,
        drafter: Drafter | None = None,
        host_pages: HostPages | None = None,
        checksums: PageChecksums | None = None,
        grammars: Grammars | None = None,
        logprobs_mode: str = "raw",
        lockstep: Lockstep | None = None,
        balancer: ExpertBalancer | None = None,
    ) -> None:
        """A runner that holds no request.

        Args:
            model: the main model.
            memory: its paged cache.
            kernels: what it computes with.
            page_size: tokens a page.
            vocab_size: width of the logits.
            drafter: proposes drafts; None for no speculation.
            host_pages: where evicted pages go; None if the plans move none.
            checksums: of the pages; None if the plans check none.
            grammars: compiled ones; None if the requests have none.
            logprobs_mode: `raw` or `processed` logits for the log-probabilities of output tokens.
            lockstep: with the ranks that have other requests; None if there are none.
            balancer: has a turn before each step, on all ranks; None if experts stay put.
        """
        self._model = model
        self._memory = memory
        self._kernels = kernels
        self._page_size = page_size
        self._vocab_size = vocab_size
        self._drafter = drafter
        self._host_pages = host_pages
        self._checksums = checksums
        self._lockstep = lockstep or AloneInStep()
        self._balancer = balancer
        self._held = HeldRequests(vocab_size=vocab_size, grammars=grammars)
        self._sampler = Sampler(kernels, self._held.table, logprobs_mode=logprobs_mode)

    @torch.inference_mode()
    def run(self, plan: SchedulerOutput) -> ModelOutput:
        """Compute every row of the plan; an empty plan gives an empty result.

        A rank takes part in the layers of a step in which another one has rows.
        """
        if self._balancer is not None:
            self._balancer.between_steps()
        started_s = time.perf_counter()
        failed_loads = []
        if plan.page_moves:
            assert self._host_pages is not None, "there is no host tier"
            failed_loads = self._host_pages.apply(plan.page_moves)
        damaged_page_ids = []
        if plan.checked_page_ids:
            assert self._checksums is not None, "pages have no checksums"
            damaged_page_ids = self._checksums.find_damaged(plan.checked_page_ids)
        self._held.apply(plan)
        results = [RowOutput(token_ids=[], is_skipped=True) for _ in plan.rows]
        rows = self._held.live_rows(plan)
        sizes = self._lockstep.agree(_sizes(rows))
        if rows:
            self._compute(rows, results)
        elif sizes.num_tokens:
            self._take_part()
        computed_s = time.perf_counter()
        num_draft_passes = 0
        if self._drafter is not None:
            self._lockstep.begin_drafts(sizes)
            num_draft_passes = self._draft(rows, results, self._drafter, sizes.num_passes)
        ended_s = time.perf_counter()
        return ModelOutput(
            step_id=plan.step_id,
            rows=results,
            elapsed_s=ended_s - started_s,
            draft_s=ended_s - computed_s,
            num_draft_passes=num_draft_passes,
            num_tokens=sum(row.num_tokens for row in rows),
            num_context_tokens=sum(row.start + row.num_tokens for row in rows),
            failed_loads=failed_loads,
            damaged_page_ids=damaged_page_ids,
            dispatch=self._lockstep.take_counts(),
            balance=None if self._balancer is None else self._balancer.counts,
        )

    @property
    def num_cache_bytes(self) -> int:
        """Memory that the latent cache takes."""
        return self._memory.num_bytes

    @property
    def num_host_bytes(self) -> int:
        """Memory that the host tier takes."""
        return 0 if self._host_pages is None else self._host_pages.num_bytes

    @property
    def num_hidden_bytes(self) -> int:
        """Memory that the drafter's states of pages take."""
        return 0 if self._drafter is None else self._drafter.page_hidden_PD.nbytes

    @property
    def num_bytes(self) -> int:
        """Memory that all pages take, with what is kept beside them."""
        return self.num_cache_bytes + self.num_host_bytes + self.num_hidden_bytes

    def _compute(self, rows: list[LiveRow], results: list[RowOutput]) -> None:
        batch = make_batch(rows, self._page_size)
        self._memory.plan(batch.meta)
        step = self._model.step_context(batch.meta.positions_T, self._memory)
        hidden_TD = self._model.forward(batch.token_ids_T, step)
        begin = 0
        for row in rows:
            results[row.index] = RowOutput(token_ids=[], num_verified=len(row.draft_ids))
            if row.request.params.num_prompt_logprobs is not None:
                results[row.index].prompt_logprobs = prompt_logprobs(
                    self._model,
                    self._kernels,
                    row,
                    hidden_TD[begin : begin + row.num_tokens],
                    self._vocab_size,
                )
            begin += row.num_tokens
        self._sample(batch, hidden_TD, results)
        if self._drafter is not None:
            requests = [(row.request, row.start) for row in rows]
            self._drafter.write_entries(batch, requests, hidden_TD, step)
            _keep_hidden(rows, results, hidden_TD)
        for row in rows:
            _advance(row, results[row.index])
            if self._checksums is not None:
                self._checksums.seal(_filled_pages(row, self._page_size))

    def _sample(self, batch: ForwardBatch, hidden_TD: Tensor, results: list[RowOutput]) -> None:
        """The tokens of each row: accepted drafts and one of the target's own."""
        if not batch.sampled_rows:
            return
        spans = [SampleSpan(row.request, row.draft_ids) for row in batch.sampled_rows]
        sampling = self._sampler.make_batch(spans)
        logits_BV = self._model.compute_logits(hidden_TD[batch.logits_index])
        sampled = self._sampler.sample(logits_BV, sampling)
        wanted: list[tuple[int, int]] = []
        begin = 0
        for row, span in zip(batch.sampled_rows, spans, strict=True):
            result = results[row.index]
            accepted = verify(row.draft_ids, sampled[begin : begin + span.num_samples])
            _settle(row, result, accepted)
            num_top = row.request.params.num_logprobs
            if num_top is not None:
                wanted += [(begin + i, num_top) for i in range(len(result.token_ids))]
            begin += span.num_samples
        found = self._sampler.logprobs(logits_BV, sampling, sampled, wanted)
        begin = 0
        for row, span in zip(batch.sampled_rows, spans, strict=True):
            result = results[row.index]
            if row.request.params.num_logprobs is not None:
                result.logprobs = [found[begin + i] for i in range(len(result.token_ids))]
            begin += span.num_samples

    def _take_part(self) -> None:
        """Pass the layers without a token, so that their collective operations are complete."""
        nothing = torch.empty(0, dtype=torch.int64)
        self._model.forward(nothing, self._model.step_context(nothing, NoMemory()))

    def _draft(
        self, rows: list[LiveRow], results: list[RowOutput], drafter: Drafter, least_passes: int
    ) -> int:
        wanted = [
            DraftRow(row.request, min(row.row.num_drafts, row.request.num_tokens_left - 1))
            for row in rows
            if row.row.num_drafts > 0 and results[row.index].token_ids and not row.request.is_over
        ]
        num_passes = drafter.propose(wanted, self._sampler, least_passes)
        for row in rows:
            results[row.index].num_drafts = len(row.request.draft_ids)
        return num_passes


def _sizes(rows: list[LiveRow]) -> StepSizes:
    depths = [row.row.num_drafts for row in rows if row.row.num_drafts > 0]
    return StepSizes(sum(row.num_tokens for row in rows), len(depths), max(depths, default=0))


def verify(draft_ids: list[int], sampled_ids: list[int]) -> list[int]:
    """The accepted drafts and the target's own token after them.

    A draft is accepted exactly when it equals the token that the target samples at its position.

    Args:
        draft_ids: d drafts.
        sampled_ids: 1 + d samples of the target; the i-th is right if the drafts before it are.
    """
    num_accepted = 0
    while num_accepted < len(draft_ids) and draft_ids[num_accepted] == sampled_ids[num_accepted]:
        num_accepted += 1
    return sampled_ids[: num_accepted + 1]


def _settle(row: LiveRow, result: RowOutput, token_ids: list[int]) -> None:
    """The tokens of a row, or why it failed."""
    request = row.request
    kept = request.cut(token_ids)
    if kept[-1] >= 0:  # what comes after an accepted draft that ends the text is of no concern
        result.num_accepted = len(token_ids) - 1
        result.token_ids = kept
        return
    result.error = FAILED_ROWS[token_ids[-1]]
    result.is_corrupt = token_ids[-1] == NAN_LOGITS
    if token_ids[-1] == NO_TOKEN and request.rules is not None:
        (point,) = request.rules.points(token_ids[:-1], first=len(token_ids) - 1)
        result.error = point.error or result.error
    request.is_over = True


def _advance(row: LiveRow, result: RowOutput) -> None:
    """Let the request know what was computed and sampled for it."""
    request = row.request
    request.num_computed_tokens = row.start + row.row.num_tokens
    request.draft_ids = []
    if result.token_ids:
        request.num_computed_tokens += len(result.token_ids) - 1
        request.token_ids += result.token_ids
        if request.rules is not None:
            request.rules.advance(result.token_ids)
            if request.rules.error is not None and not request.is_over:
                result.error = request.rules.error
                request.is_over = True


def _filled_pages(row: LiveRow, page_size: int) -> list[int]:
    """Pages whose last token the row has computed: nothing writes to them any more."""
    end = row.request.num_computed_tokens or 0
    return row.request.page_ids[row.start // page_size : end // page_size]


def _keep_hidden(rows: list[LiveRow], results: list[RowOutput], hidden_TD: Tensor) -> None:
    """Each request's hidden state of its last computed token that is right."""
    end = 0
    for row in rows:
        end += row.num_tokens
        last = end - 1 - (len(row.draft_ids) - results[row.index].num_accepted)
        row.request.last_hidden = hidden_TD[last].clone()
