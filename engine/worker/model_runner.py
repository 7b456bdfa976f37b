"""Carries out one step's plan on a device: batch, forward, sample."""

import time

import torch

from leadline.engine.model.deepseek import DeepseekModel
from leadline.engine.model.paged_memory import PagedMemory
from leadline.engine.step import ModelOutput, RowOutput, SchedulerOutput
from leadline.engine.worker.input_batch import ForwardBatch, make_batch
from leadline.engine.worker.requests import HeldRequests
from leadline.kernels.api import KernelSet

NAN_LOGITS = "the model produced NaN logits for this request; its checkpoint may be damaged"


class ModelRunner:
    """The model, its paged cache, and the requests that the executor holds."""

    def __init__(
        self, model: DeepseekModel, memory: PagedMemory, kernels: KernelSet, *, page_size: int
    ) -> None:
        self._model = model
        self._memory = memory
        self._kernels = kernels
        self._page_size = page_size
        self._held = HeldRequests()

    @torch.inference_mode()
    def run(self, plan: SchedulerOutput) -> ModelOutput:
        """Compute every row of the plan; an empty plan gives an empty result."""
        started_s = time.perf_counter()
        self._held.apply(plan)
        rows = [RowOutput(token_ids=[]) for _ in plan.rows]
        if plan.rows:
            batch = make_batch(plan, self._held, self._page_size)
            for index, token_id in zip(batch.sampled_rows, self._sample(batch), strict=True):
                if token_id < 0:
                    rows[index].error = NAN_LOGITS
                else:
                    rows[index].token_ids.append(token_id)
        output = ModelOutput(plan.step_id, rows, time.perf_counter() - started_s)
        self._held.append(plan, output)
        return output

    def _sample(self, batch: ForwardBatch) -> list[int]:
        """One token for each sampled row; -1 where its logits hold a NaN."""
        self._memory.plan(batch.meta)
        step = self._model.step_context(batch.meta.positions_T, self._memory)
        hidden_TD = self._model.forward(batch.token_ids_T, step)
        if not batch.sampled_rows:
            return []
        logits_BV = self._model.compute_logits(hidden_TD[batch.logits_index])
        token_ids: list[int] = self._kernels.sample(logits_BV, batch.sampling).tolist()
        return token_ids
