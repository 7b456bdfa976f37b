"""From the validated fields of a request to what the engine is asked."""

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from leadline.engine.request import SamplingParams
from leadline.loader.tokenizer import Tokenizer
from leadline.server.errors import BadRequestError, invalid
from leadline.server.sampling_types import SamplingFields
from leadline.server.state import ServerState
from leadline.server.thinking import limit_thinking

Number = TypeVar("Number", int, float)


def make_params(
    state: ServerState,
    fields: SamplingFields,
    num_prompt_tokens: int,
    *,
    default_max_tokens: int | None = None,
) -> SamplingParams:
    """The parameters of a prompt's choices, but for seed (0 here) and grammar.

    Args:
        state: the server's.
        fields: the validated request.
        num_prompt_tokens: of the prompt.
        default_max_tokens: where the request is silent; None for all that the model has room for.

    Raises:
        BadRequestError: the prompt is too long, or an id is no token.
    """
    defaults, vocab_size = state.defaults, state.tokenizer.vocab_size
    max_tokens = _max_tokens(state, fields, num_prompt_tokens, default_max_tokens)
    stop_token_ids = fields.stop_token_ids or []
    check_ids(stop_token_ids, vocab_size, "stop_token_ids")
    check_ids(fields.allowed_token_ids or [], vocab_size, "allowed_token_ids")
    allowed = fields.allowed_token_ids
    return SamplingParams(
        seed=0,
        max_tokens=max_tokens,
        min_tokens=_min_tokens(fields, max_tokens),
        temperature=_either(fields.temperature, defaults.temperature),
        top_k=max(_either(fields.top_k, defaults.top_k), 0),  # -1 keeps all tokens too
        top_p=_either(fields.top_p, defaults.top_p),
        min_p=_either(fields.min_p, defaults.min_p),
        frequency_penalty=fields.frequency_penalty or 0.0,
        presence_penalty=fields.presence_penalty or 0.0,
        repetition_penalty=_either(fields.repetition_penalty, defaults.repetition_penalty),
        logit_bias=_logit_bias(fields.logit_bias or {}, vocab_size),
        bad_words_ids=bad_words_ids(state.tokenizer, fields.bad_words or []),
        allowed_token_ids=None if allowed is None else tuple(allowed),
        stop_token_ids=tuple(stop_token_ids),
        eos_token_ids=defaults.eos_token_ids,
        ignore_eos=bool(fields.ignore_eos),
        num_logprobs=fields.num_logprobs,
        num_prompt_logprobs=fields.num_prompt_logprobs,
        thinking=limit_thinking(
            state.thinking, fields.thinking_budget, max_tokens, param=fields.thinking_param
        ),
        speculative_tokens=fields.speculative_tokens,
    )


def check_ids(token_ids: Collection[int], vocab_size: int, param: str) -> None:
    """Refuse ids beyond the vocabulary.

    Raises:
        BadRequestError: names the highest.
    """
    if token_ids and max(token_ids) >= vocab_size:
        raise invalid(
            param, f"'{param}' holds the token id {max(token_ids)}; allowed: 0 to {vocab_size - 1}"
        )


def bad_words_ids(tokenizer: Tokenizer, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """The token sequences that spell the words, at the beginning of a text and after a space.

    Raises:
        BadRequestError: a word has no tokens.
    """
    found: dict[tuple[int, ...], None] = {}
    for index, word in enumerate(words):
        bare = word.lstrip() or word
        plain = tuple(tokenizer.encode(bare))
        spaced = tuple(tokenizer.encode(f" {bare}"))
        if not plain:
            raise invalid(f"bad_words[{index}]", f"'bad_words[{index}]' has no tokens")
        found[plain] = None
        if spaced[-len(plain) :] != plain:  # else it cannot be written without the other
            found[spaced] = None
    return tuple(found)


def _logit_bias(biases: Mapping[str, float], vocab_size: int) -> tuple[tuple[int, float], ...]:
    pairs = []
    for key, bias in biases.items():
        if not (key.isascii() and key.isdecimal() and len(key) <= 10 and key == str(int(key))):
            raise invalid(
                "logit_bias",
                f"'logit_bias' has the key {key[:40]!r}; allowed: token ids, written as \"123\"",
            )
        pairs.append((int(key), bias))
    check_ids([token_id for token_id, _ in pairs], vocab_size, "logit_bias")
    return tuple(pairs)


def _min_tokens(fields: SamplingFields, max_tokens: int) -> int:
    min_tokens = fields.min_tokens or 0
    if min_tokens > max_tokens:
        raise invalid(
            "min_tokens",
            f"'min_tokens' is {min_tokens}; allowed: at most max_tokens, which is {max_tokens}",
        )
    return min_tokens


def _max_tokens(
    state: ServerState, fields: SamplingFields, num_prompt_tokens: int, default: int | None
) -> int:
    """Most tokens that a choice may have; the engine is never asked for less than one."""
    room = state.max_model_len - num_prompt_tokens
    wanted = fields.output_limit
    default = state.defaults.max_new_tokens if default is None else default
    if wanted is None and room >= 1:
        return room if default is None else min(default, room)
    wanted = max(wanted or 1, 1)
    if wanted > room:
        raise BadRequestError(
            f"This model's maximum context length is {state.max_model_len} tokens, but you "
            f"requested {num_prompt_tokens + wanted} tokens ({num_prompt_tokens} in the "
            f"prompt, {wanted} for the answer); shorten the prompt or lower max_tokens",
            param=fields.prompt_param,
            code="context_length_exceeded",
        )
    return wanted


def _either(asked: Number | None, default: Number) -> Number:
    return default if asked is None else asked
