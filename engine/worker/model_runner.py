"""Carries out one step's plan on a device: batch, forward, sample, verify drafts, draft again."""

import time

import torch

from leadline.engine.model.deepseek import DeepseekModel
from leadline.engine.model.paged_memory import PagedMemory
from leadline.engine.step import ModelOutput, RowOutput, ScheduledRow, SchedulerOutput
from leadline.engine.worker.drafter import Drafter, DraftRow
from leadline.engine.worker.input_batch import ForwardBatch, make_batch
from leadline.engine.worker.requests import HeldRequests
from leadline.kernels.api import KernelSet

NAN_LOGITS = "the model produced NaN logits for this request; its checkpoint may be damaged"


class ModelRunner:
    """The model, its paged cache, and the requests that the executor holds."""

    def __init__(
        self,
        model: DeepseekModel,
        memory: PagedMemory,
        kernels: KernelSet,
        *,
        page_size: int,
        drafter: Drafter | None = None,
    ) -> None:
        self._model = model
        self._memory = memory
        self._kernels = kernels
        self._page_size = page_size
        self._drafter = drafter
        self._held = HeldRequests()

    @torch.inference_mode()
    def run(self, plan: SchedulerOutput) -> ModelOutput:
        """Compute every row of the plan; an empty plan gives an empty result."""
        started_s = time.perf_counter()
        self._held.apply(plan)
        rows = self._compute(plan) if plan.rows else []
        computed_s = time.perf_counter()
        if self._drafter is not None:
            self._draft(plan, rows, self._drafter)
        ended_s = time.perf_counter()
        return ModelOutput(plan.step_id, rows, ended_s - started_s, ended_s - computed_s)

    def _compute(self, plan: SchedulerOutput) -> list[RowOutput]:
        batch = make_batch(plan, self._held, self._page_size)
        self._memory.plan(batch.meta)
        step = self._model.step_context(batch.meta.positions_T, self._memory)
        hidden_TD = self._model.forward(batch.token_ids_T, step)
        rows = self._sample(plan, batch, hidden_TD)
        if self._drafter is not None:
            requests = [(self._held[row.request_id], row.start) for row in plan.rows]
            self._drafter.write_entries(batch, requests, hidden_TD, step)
            self._keep_hidden(plan, rows, hidden_TD)
        for row, result in zip(plan.rows, rows, strict=True):
            self._held[row.request_id].token_ids += result.token_ids
        return rows

    def _sample(
        self, plan: SchedulerOutput, batch: ForwardBatch, hidden_TD: torch.Tensor
    ) -> list[RowOutput]:
        """The tokens of each row: accepted drafts and one of the target's own."""
        rows = [RowOutput(token_ids=[]) for _ in plan.rows]
        if not batch.sampled_rows:
            return rows
        logits_BV = self._model.compute_logits(hidden_TD[batch.logits_index])
        sampled: list[int] = self._kernels.sample(logits_BV, batch.sampling).tolist()
        begin = 0
        for index in batch.sampled_rows:
            draft_ids = plan.rows[index].draft_ids
            token_ids = verify(draft_ids, sampled[begin : begin + 1 + len(draft_ids)])
            begin += 1 + len(draft_ids)
            if token_ids[-1] < 0:
                rows[index].error = NAN_LOGITS
            else:
                rows[index].token_ids = token_ids
        return rows

    def _keep_hidden(
        self, plan: SchedulerOutput, rows: list[RowOutput], hidden_TD: torch.Tensor
    ) -> None:
        """Each request's hidden state of its last computed token that is right."""
        end = 0
        for row, result in zip(plan.rows, rows, strict=True):
            end += row.num_tokens
            num_accepted = max(0, len(result.token_ids) - 1)
            last = end - 1 - (len(row.draft_ids) - num_accepted)
            self._held[row.request_id].last_hidden = hidden_TD[last].clone()

    def _draft(self, plan: SchedulerOutput, rows: list[RowOutput], drafter: Drafter) -> None:
        wanted = [
            (result, DraftRow(self._held[row.request_id], row.num_drafts, []))
            for row, result in zip(plan.rows, rows, strict=True)
            if self._wants_drafts(row, result)
        ]
        drafter.propose([draft_row for _, draft_row in wanted])
        for result, draft_row in wanted:
            result.draft_ids = draft_row.draft_ids

    def _wants_drafts(self, row: ScheduledRow, result: RowOutput) -> bool:
        if row.num_drafts == 0 or not result.token_ids:
            return False
        params = self._held[row.request_id].params
        return not any(params.ends_text(token_id) for token_id in result.token_ids)


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
