"""Keeps the MTP layer's cache entries right, and drafts with it (DeepSeek-V3, section 2.2).

The entry of slot i pairs the main model's hidden state of token i - 1 with the embedding of token
i, so that what a slot holds depends on tokens up to i only. Hence the last hidden state of each
full page is kept with the page: whoever finds the page in the prefix cache goes on from there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leadline.engine.model.attention import StepContext
from leadline.engine.model.deepseek import DeepseekModel
from leadline.engine.model.mtp import MTPLayer
from leadline.engine.model.no_memory import NoMemory
from leadline.engine.model.paged_memory import PagedMemory
from leadline.engine.worker.input_batch import ForwardBatch, Span, make_meta, make_page_table
from leadline.engine.worker.requests import HeldRequest
from leadline.engine.worker.sampler import Sampler, SampleSpan
from leadline.kernels.attention import AttentionMeta
from leadline.kernels.decoder import ChainStart, FusedMTP

MIN_DRAFT_PROBABILITY = 0.25  # a draft less likely than this ends its chain
CHAIN_AFTER_NORM = True
"""Whether the second draft and later ones take the MTP layer's own hidden state after its
`shared_head.norm` or before it. Sources disagree; transformers' loop takes it after. It matters
little, since `hnorm` follows either way, so that only the norm's weights are between the two: on
256 held-out chats of the built-in model, of some 1,750 chains the second and third draft were
accepted 0.652 and 0.340 of the time after the norm, 0.643 and 0.338 before it (temperature 0);
0.632 and 0.324, 0.627 and 0.323 (0.6); 0.556 and 0.271, 0.555 and 0.274 (1.0)."""


@dataclass(slots=True)
class DraftRow:
    """One request that wants drafts.

    Attributes:
        request: its last known token has been sampled and not yet computed.
        num_drafts: most drafts to propose.
    """

    request: HeldRequest
    num_drafts: int


class Drafter:
    """The MTP layer at work beside the main model.

    Attributes:
        page_hidden_PD: for each page, the main model's hidden state of its last token.
    """

    def __init__(
        self,
        model: DeepseekModel,
        memory: PagedMemory,
        *,
        num_pages: int,
        page_size: int,
        max_len: int,
        hidden_size: int,
        dtype: torch.dtype,
    ) -> None:
        assert model.mtp is not None, "drafting needs the MTP layer"
        self._model = model
        self._mtp: MTPLayer = model.mtp
        self._memory = memory
        self._page_size = page_size
        self._max_len = max_len
        self.page_hidden_PD = torch.zeros(num_pages, hidden_size, dtype=dtype)

    def write_entries(
        self,
        batch: ForwardBatch,
        rows: list[tuple[HeldRequest, int]],
        hidden_TD: Tensor,
        step: StepContext,
    ) -> None:
        """Write the MTP entry of every token that the main model computed in this step.

        Args:
            batch: what the main model has just computed.
            rows: (request, position of its first token in the batch), in batch order.
            hidden_TD: the main model's hidden states after the final norm.
            step: of the batch; its memory is planned for the batch.
        """
        previous_TD = torch.cat((hidden_TD[:1], hidden_TD[:-1]))
        begin = 0
        for (request, start), num_tokens in zip(rows, batch.meta.query_lens, strict=True):
            if start > 0:
                previous_TD[begin] = self._hidden_before(request, start)
            begin += num_tokens
        self._mtp.write_latent(previous_TD, batch.token_ids_T, step)
        last_ones = _page_ends(batch.meta, self._page_size)
        if last_ones:
            pages = batch.meta.slots_T[last_ones] // self._page_size
            self.page_hidden_PD[pages] = hidden_TD[last_ones]

    def _hidden_before(self, request: HeldRequest, start: int) -> Tensor:
        """The hidden state of the token before position `start`, which is at least 1."""
        if start % self._page_size == 0:
            return self.page_hidden_PD[request.page_ids[start // self._page_size - 1]]
        assert request.last_hidden is not None, "a request goes on where it stopped, or at a page"
        return request.last_hidden

    def propose(self, rows: Sequence[DraftRow], sampler: Sampler, least_passes: int = 0) -> int:
        """Fill the requests' `draft_ids`, one pass of the MTP layer for each depth.

        The first pass takes the main model's hidden state; later ones the MTP layer's own, and
        write entries that the next step replaces. Drafts are sampled as the target samples. A chain
        ends where the request's pages or the model's positions end, at an end token, or at a draft
        that is unlikely to be right.

        Args:
            rows: who wants drafts.
            sampler: of the target.
            least_passes: so many times the layer is passed, without any row if need be, since other
                ranks wait for this one there.

        Returns:
            How many rows all passes had together.
        """
        for row in rows:
            capacity = min(len(row.request.page_ids) * self._page_size, self._max_len)
            position = len(row.request.token_ids) - 1
            row.num_drafts = min(row.num_drafts, capacity - position)
        live = [row for row in rows if row.num_drafts > 0]
        if self._mtp.fused is not None and all(row.request.rules is None for row in live):
            return self._propose_at_once(live, sampler, self._mtp.fused)
        hidden_BD = _stack_hidden(live)
        num_rows = num_passes = 0
        while live:
            num_rows += len(live)
            num_passes += 1
            hidden_BD, going_on = self._pass(live, hidden_BD, sampler)
            hidden_BD = hidden_BD[going_on]
            live = [live[i] for i in going_on]
        for _ in range(num_passes, least_passes):
            self._pass_without_rows()
        return num_rows

    def _propose_at_once(self, rows: list[DraftRow], sampler: Sampler, mtp: FusedMTP) -> int:
        """`propose` in one call: no draft needs more of its request than a table has."""
        if not rows:
            return 0
        requests = [row.request for row in rows]
        start = ChainStart(
            token_ids=[request.token_ids[-1] for request in requests],
            positions=[len(request.token_ids) - 1 for request in requests],
            nums_drafts=[row.num_drafts for row in rows],
            hidden_BD=_stack_hidden(rows),
            page_table=make_page_table([request.page_ids for request in requests]),
            end_ids=[request.params.end_ids for request in requests],
            sampling=sampler.make_batch([SampleSpan(request, ()) for request in requests]),
            least_probability=MIN_DRAFT_PROBABILITY,
            after_norm=CHAIN_AFTER_NORM,
        )
        drafts, num_rows = mtp.draft(start, self._memory.cache)
        for request, ids in zip(requests, drafts, strict=True):
            request.draft_ids = ids
        return num_rows

    def _pass_without_rows(self) -> None:
        nothing = torch.empty(0, dtype=torch.int64)
        step = self._model.step_context(nothing, NoMemory())
        self._mtp.forward(self.page_hidden_PD[:0], nothing, step)

    def _pass(
        self, rows: list[DraftRow], hidden_BD: Tensor, sampler: Sampler
    ) -> tuple[Tensor, list[int]]:
        """One draft for each row; the hidden states for the next pass, and which rows go on."""
        requests = [row.request for row in rows]
        positions = [len(r.token_ids) - 1 + len(r.draft_ids) for r in requests]
        tokens = [r.draft_ids[-1] if r.draft_ids else r.token_ids[-1] for r in requests]
        spans = [Span(r.page_ids, at, 1) for r, at in zip(requests, positions, strict=True)]
        meta = make_meta(spans, self._page_size)
        self._memory.plan(meta)
        step = self._model.step_context(meta.positions_T, self._memory)
        normed_BD, raw_BD = self._mtp.forward(hidden_BD, torch.tensor(tokens), step)
        logits_BV = self._mtp.compute_logits(normed_BD)
        sampling = sampler.make_batch(
            [SampleSpan(r, r.draft_ids, first=len(r.draft_ids)) for r in requests]
        )
        drafts = sampler.sample(logits_BV, sampling)
        likely = sampler.probabilities(logits_BV, sampling, drafts) >= MIN_DRAFT_PROBABILITY
        going_on = []
        for i, (row, draft, is_likely) in enumerate(
            zip(rows, drafts, likely.tolist(), strict=True)
        ):
            if draft < 0 or not is_likely:
                continue
            row.request.draft_ids.append(draft)
            is_last = row.request.params.ends_text(draft)
            if len(row.request.draft_ids) < row.num_drafts and not is_last:
                going_on.append(i)
        return normed_BD if CHAIN_AFTER_NORM else raw_BD, going_on


def _page_ends(meta: AttentionMeta, page_size: int) -> list[int]:
    """The tokens of a batch that are the last of their page."""
    places: list[int] = []
    begin = 0
    for num_tokens, seq_len in zip(meta.query_lens, meta.seq_lens, strict=True):
        first = page_size - 1 - (seq_len - num_tokens) % page_size
        places += range(begin + first, begin + num_tokens, page_size)
        begin += num_tokens
    return places


def _stack_hidden(rows: list[DraftRow]) -> Tensor:
    hidden = [row.request.last_hidden for row in rows]
    return torch.stack([h for h in hidden if h is not None]) if hidden else torch.empty(0)
