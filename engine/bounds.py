"""How large the parts of a request may be, whoever sends it: the engine's own last word.

The server's limits (`server/limits.py`) are tighter and can be set, up to these.
"""

import math
import sys
from collections.abc import Collection

from leadline.engine.errors import InvalidRequestError
from leadline.engine.request import MAX_SEED, EngineRequest, SamplingParams

STOP_TOKEN_IDS = 4096
BAD_WORDS = 4096
"""Sequences of tokens; a word has two of them, one after a space."""

BAD_WORD_TOKENS = 4096
LOGIT_BIASES = 2**20
ALLOWED_TOKEN_IDS = 2**20
LOGPROBS = 100
LABEL_BYTES = 4096
GRAMMAR_BYTES = 4 * 2**20

_ABOVE_0 = sys.float_info.min
_RANGES = {
    "temperature": (0.0, 100.0),
    "top_p": (_ABOVE_0, 1.0),
    "min_p": (0.0, 1.0),
    "frequency_penalty": (-2.0, 2.0),
    "presence_penalty": (-2.0, 2.0),
    "repetition_penalty": (_ABOVE_0, 2.0),
}


def check_bounds(request: EngineRequest) -> None:
    """Refuse a request that is larger than the engine deals with, or has numbers out of range.

    Raises:
        InvalidRequestError: names the field, what it has and what is allowed.
    """
    params = request.params
    _check_sizes(request, params)
    for name, (low, high) in _RANGES.items():
        value = getattr(params, name)
        if not low <= value <= high:  # not a number is in no range
            raise InvalidRequestError(f"{name} is {value}; allowed: {low} to {high}", param=name)
    if not all(math.isfinite(bias) for _, bias in params.logit_bias):
        raise InvalidRequestError("logit_bias must be finite", param="logit_bias")
    if not 0 <= params.seed <= MAX_SEED:
        raise InvalidRequestError(f"seed is {params.seed}; allowed: 0 to {MAX_SEED}", param="seed")
    if params.min_tokens > params.max_tokens:
        raise InvalidRequestError(
            f"min_tokens is {params.min_tokens}; allowed: at most max_tokens, which is "
            f"{params.max_tokens}",
            param="min_tokens",
        )


def check_token_ids(request: EngineRequest, vocab_size: int) -> None:
    """Refuse ids that are no tokens: they would index beyond what tensors hold.

    Raises:
        InvalidRequestError: names the field and the id.
    """
    params = request.params
    _check_ids(request.prompt_ids, vocab_size, "prompt")
    _check_ids([token_id for token_id, _ in params.logit_bias], vocab_size, "logit_bias")
    _check_ids(params.allowed_token_ids or (), vocab_size, "allowed_token_ids")
    _check_ids(params.stop_token_ids, vocab_size, "stop_token_ids")
    for word in params.bad_words_ids:
        _check_ids(word, vocab_size, "bad_words")


def _check_ids(token_ids: Collection[int], vocab_size: int, param: str) -> None:
    if not token_ids:
        return
    for token_id in (min(token_ids), max(token_ids)):
        if not 0 <= token_id < vocab_size:
            raise InvalidRequestError(
                f"{param} holds the token id {token_id}; allowed: 0 to {vocab_size - 1}",
                param=param,
            )


def _check_sizes(request: EngineRequest, params: SamplingParams) -> None:
    longest_word = max(map(len, params.bad_words_ids), default=1)
    shortest_word = min(map(len, params.bad_words_ids), default=1)
    sizes = {
        "stop_token_ids": (len(params.stop_token_ids), STOP_TOKEN_IDS),
        "bad_words": (max(len(params.bad_words_ids), longest_word), BAD_WORDS),
        "logit_bias": (len(params.logit_bias), LOGIT_BIASES),
        "allowed_token_ids": (len(params.allowed_token_ids or ()), ALLOWED_TOKEN_IDS),
        "logprobs": (params.num_logprobs or 0, LOGPROBS),
        "prompt_logprobs": (params.num_prompt_logprobs or 0, LOGPROBS),
        "cache_salt": (len(request.cache_salt.encode(errors="replace")), LABEL_BYTES),
        "structured_outputs": (
            0 if params.grammar is None else len(params.grammar.text.encode(errors="replace")),
            GRAMMAR_BYTES,
        ),
    }
    for name, (size, most) in sizes.items():
        if size > most:
            raise InvalidRequestError(f"{name} has {size}; allowed: at most {most}", param=name)
    if shortest_word < 1:
        raise InvalidRequestError("bad_words holds a word without tokens", param="bad_words")
    if params.allowed_token_ids is not None and not params.allowed_token_ids:
        raise InvalidRequestError("allowed_token_ids is empty", param="allowed_token_ids")
