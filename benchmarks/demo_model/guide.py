"""Shows some attention heads where to look, so that copying is learned within hundreds of steps.

Copying from the context needs two layers to agree: an early head that brings each token the one
before it, and a later head that finds where the text at hand stood before (Olsson et al., 2022,
"In-context learning and induction heads"). A small model that already knows its facts by heart does
not come upon that by itself in the time there is. The guide adds the wanted attention as a loss,
-log of the mass that falls on the wanted tokens, and fades out; what is learned serves the model
from then on.
"""

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from benchmarks.demo_model.packing import PackedBatch

# Heads by layer. Silencing any one of these cost the facts nothing when they were chosen.
PREVIOUS_HEADS = {4: {0: 1, 1: 1, 2: 2}}  # head: how many tokens back
COPYING_HEADS = {5: (0, 1, 2), 6: (0, 1, 2)}
_MIN_RUN = 2  # tokens that a copied text has at least


@dataclass(frozen=True, slots=True)
class Lesson:
    """W queries of a batch with the keys they should look at.

    Attributes:
        rows_W, queries_W: int64, where the queries are.
        wanted_WL: bool, the keys among which the attention should fall.
    """

    rows_W: Tensor
    queries_W: Tensor
    wanted_WL: Tensor


def token_forms(tokenizer: Tokenizer) -> Tensor:
    """For each token id the id of the same text without its space, int64 [vocabulary]."""
    ids = tokenizer.get_vocab()
    forms = torch.arange(len(ids))
    for token, token_id in ids.items():
        forms[token_id] = ids.get(token.removeprefix("\u0120"), token_id)
    return forms


def look_back(batch: PackedBatch, distance: int) -> Lesson:
    """Every token that has one so many tokens before it in its chat looks at that one."""
    length = batch.mask_BLL.shape[-1]
    rows, queries = (batch.positions_T >= distance).view(-1, length).nonzero(as_tuple=True)
    wanted = torch.nn.functional.one_hot(queries - distance, length).bool()
    return Lesson(rows, queries, wanted)


def look_at_source(batch: PackedBatch, forms_V: Tensor) -> Lesson:
    """Before each copied token of an answer, the query looks at the token to copy.

    A token is copied if it stood in the chat before as part of an equal text of some tokens; of
    several places the one with the longest equal text counts, all of them in a tie.
    """
    length = batch.mask_BLL.shape[-1]
    forms = forms_V[batch.token_ids_T].view(-1, length)
    before = batch.mask_BLL & ~torch.eye(length, dtype=torch.bool)
    equal = (forms.unsqueeze(2) == forms.unsqueeze(1)) & before
    runs = _run_lengths(equal)
    longest = runs.amax(-1)
    is_copied = batch.is_target_T.view(-1, length) & (longest >= _MIN_RUN)
    rows, targets = is_copied.nonzero(as_tuple=True)
    wanted = runs[rows, targets] == longest[rows, targets].unsqueeze(1)
    return Lesson(rows, targets - 1, wanted)


def _run_lengths(equal_BLL: Tensor) -> Tensor:
    """How many tokens around (i, j) are equal in a row, those two included; 0 where none."""
    equal = equal_BLL.to(torch.int32)
    ahead, back = equal.clone(), equal.clone()
    for i in range(1, equal.shape[1]):
        back[:, i, 1:] *= back[:, i - 1, :-1] + 1
        ahead[:, -1 - i, :-1] *= ahead[:, -i, 1:] + 1
    return back + ahead - equal


class AttentionGuide:
    """The guided heads' loss of one batch, gathered layer by layer."""

    def __init__(self, batch: PackedBatch, forms_V: Tensor) -> None:
        self._mask_BLL = batch.mask_BLL
        self._losses: list[Tensor] = []
        self._lessons: dict[int, list[tuple[list[int], Lesson]]] = {}
        for layer, distances in PREVIOUS_HEADS.items():
            self._lessons[layer] = [
                ([head], look_back(batch, distance)) for head, distance in distances.items()
            ]
        source = look_at_source(batch, forms_V)
        if len(source.rows_W):
            for layer, heads in COPYING_HEADS.items():
                self._lessons.setdefault(layer, []).append((list(heads), source))

    def observe(self, layer: int, q_BHLX: Tensor, k_BHLX: Tensor, scale: float) -> None:
        """Compare a layer's attention with what is wanted of it, if anything is."""
        for heads, lesson in self._lessons.get(layer, []):
            scores_BHLL = q_BHLX[:, heads] @ k_BHLX[:, heads].mT * scale
            scores_WHL = scores_BHLL[lesson.rows_W, :, lesson.queries_W]
            allowed = self._mask_BLL[lesson.rows_W, lesson.queries_W].unsqueeze(1)
            everywhere = scores_WHL.masked_fill(~allowed, -torch.inf).logsumexp(-1)
            wanted = lesson.wanted_WL.unsqueeze(1)
            there = scores_WHL.masked_fill(~wanted, -torch.inf).logsumexp(-1)
            self._losses.append((everywhere - there).mean())

    def losses(self) -> Tensor:
        """-log of the attention on the wanted tokens: one mean for each lesson, in order."""
        return torch.stack(self._losses)
