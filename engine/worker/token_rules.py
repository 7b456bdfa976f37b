"""What a request asks of its next token beyond temperature and cuts, along a path of drafts."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from leadline.engine.request import SamplingParams
from leadline.engine.step import NewRequest
from leadline.engine.worker.grammar_path import GrammarPath, Grammars, Words
from leadline.engine.worker.thinking import Thinking

_WORD_BITS = 32


@dataclass(slots=True)
class Point:
    """What may be sampled at one position.

    Attributes:
        path: drafts between the known tokens and the position.
        forced_id: the only token there may be, whatever else is asked for; -1 for none.
        banned_ids: tokens that may not.
        words: bits of the tokens that may; None for all.
        error: why the grammar cannot go on from here, for the user; no token may be sampled then.
    """

    path: Sequence[int]
    forced_id: int = -1
    banned_ids: list[int] = field(default_factory=list)
    words: Words | None = None
    error: str | None = None


class TokenRules:
    """One request's rules; knows the output so far.

    Attributes:
        params: the request's.
        counts_V: int32, how often each token is in the output; None without penalties.
        in_prompt_V: bool, whether it is in the prompt; None without penalties.
        bias: int64 token ids and float32 values; None without bias.
    """

    def __init__(self, new: NewRequest, vocab_size: int, grammar: GrammarPath | None) -> None:
        params = new.params
        prompt_ids = new.token_ids[: new.num_prompt_tokens]
        self.params = params
        self._num_words = -(-vocab_size // _WORD_BITS)
        self._output_ids: list[int] = []
        self._grammar = grammar
        self._thinking = None
        if params.thinking is not None:
            self._thinking = Thinking.after(params.thinking, prompt_ids)
        self._allowed_words = None
        if params.allowed_token_ids is not None:
            self._allowed_words = _words_of(params.allowed_token_ids, self._num_words)
        self._single_bad_ids = [ids[0] for ids in params.bad_words_ids if len(ids) == 1]
        self._bad_sequences = [list(ids) for ids in params.bad_words_ids if len(ids) > 1]
        self.counts_V: Tensor | None = None
        self.in_prompt_V: Tensor | None = None
        self.bias: tuple[Tensor, Tensor] | None = None
        if _has_penalties(params):
            self.counts_V = torch.zeros(vocab_size, dtype=torch.int32)
            self.in_prompt_V = torch.zeros(vocab_size, dtype=torch.bool)
            self.in_prompt_V[torch.tensor(prompt_ids)] = True
        if params.logit_bias:
            bias = dict(params.logit_bias)
            values = torch.tensor(list(bias.values()), dtype=torch.float32)
            self.bias = (torch.tensor(list(bias)), values)
        self.advance(new.token_ids[new.num_prompt_tokens :])

    @property
    def error(self) -> str | None:
        """Why the request cannot go on after its output, or None."""
        return None if self._grammar is None else self._grammar.error

    def advance(self, token_ids: Sequence[int]) -> None:
        """The output goes on with these tokens."""
        self._output_ids += token_ids
        if self.counts_V is not None and token_ids:
            ones = torch.ones(len(token_ids), dtype=torch.int32)
            self.counts_V.index_add_(0, torch.tensor(token_ids), ones)
        for token_id in token_ids:
            if self._grammar is not None and not self._is_thinking(self._thinking):
                self._grammar.take(token_id)
            if self._thinking is not None:
                self._thinking.take(token_id)

    def points(self, path: Sequence[int], first: int = 0) -> list[Point]:
        """What may be sampled after the first `first`, `first` + 1, ... drafts of a path.

        Behind a draft that may not be there itself, nothing is asked for: it cannot be accepted.
        Behind one that the grammar fails on, no token may be sampled.
        """
        points = []
        thinking = None if self._thinking is None else self._thinking.copy()
        is_valid = True
        for depth in range(len(path) + 1):
            if depth >= first:
                before = path[:depth]
                is_asked = is_valid or self.error is not None
                points.append(self._point(before, thinking) if is_asked else Point(before))
            if depth == len(path):
                break
            if self._grammar is not None and is_valid and not self._is_thinking(thinking):
                is_valid = self._grammar.take_draft(path[depth])
            if thinking is not None:
                thinking.take(path[depth])
        if self._grammar is not None:
            self._grammar.go_back()
        return points

    def _point(self, path: Sequence[int], thinking: Thinking | None) -> Point:
        point = Point(path)
        if thinking is not None and thinking.forced_id is not None:
            point.forced_id = thinking.forced_id
            return point
        point.words = self._allowed_words
        if self._grammar is not None and not self._is_thinking(thinking):
            words, point.error = self._grammar.allowed_words(self._num_words)
            point.words = words if point.words is None else words & point.words
        point.banned_ids = self._single_bad_ids + self._completed_bad_ids(path)
        if len(self._output_ids) + len(path) < self.params.min_tokens:
            end_ids = [*self.params.eos_token_ids, *self.params.stop_token_ids]
            if not _allows_only(point.words, [*point.banned_ids, *end_ids]):
                point.banned_ids += end_ids
        return point

    def _completed_bad_ids(self, path: Sequence[int]) -> list[int]:
        """Last tokens of bad sequences whose other tokens have just come."""
        if not self._bad_sequences:
            return []
        longest = max(map(len, self._bad_sequences))
        tail = [*self._output_ids[-longest:], *path]
        return [
            ids[-1] for ids in self._bad_sequences if tail[len(tail) - len(ids) + 1 :] == ids[:-1]
        ]

    @staticmethod
    def _is_thinking(thinking: Thinking | None) -> bool:
        return thinking is not None and thinking.is_open


def make_rules(new: NewRequest, vocab_size: int, grammars: Grammars | None) -> TokenRules | None:
    """The rules of a request; None if it has none, which is the common case."""
    params, grammar = new.params, None
    if params.grammar is not None:
        assert grammars is not None, "grammars are refused where there are none to be had"
        grammar = GrammarPath(grammars, params.grammar)
    is_limited = params.thinking is not None and params.thinking.budget is not None
    has_rules = (
        grammar is not None
        or is_limited
        or _has_penalties(params)
        or bool(params.logit_bias or params.bad_words_ids or params.min_tokens)
        or params.allowed_token_ids is not None
    )
    return TokenRules(new, vocab_size, grammar) if has_rules else None


def _has_penalties(params: SamplingParams) -> bool:
    penalties = (params.frequency_penalty, params.presence_penalty, params.repetition_penalty)
    return penalties != (0.0, 0.0, 1.0)


def _words_of(token_ids: Sequence[int], num_words: int) -> Words:
    bits = np.zeros(num_words * _WORD_BITS, np.uint8)
    bits[list(token_ids)] = 1
    return np.packbits(bits, bitorder="little").view(np.int32)


def _allows_only(words: Words | None, token_ids: Sequence[int]) -> bool:
    """Whether no token but these is allowed."""
    if words is None or not token_ids:
        return False
    return not (words & ~_words_of(token_ids, len(words))).any()
