"""The engine requests of one API request."""

import hashlib
import struct
import time
import uuid
from collections.abc import Sequence

import msgspec

from leadline.engine.errors import EngineError, InvalidRequestError
from leadline.engine.grammar.source import check_size
from leadline.engine.request import EngineRequest, Grammar, SamplingParams
from leadline.server.answer_parts import AnswerParts
from leadline.server.caller import Caller
from leadline.server.dialects.call_grammar import tools_refusal
from leadline.server.dialects.reading import Reading
from leadline.server.errors import BadRequestError, from_engine_error
from leadline.server.field_limits import check_limits, check_prompt_tokens, check_prompts
from leadline.server.generation import Generation
from leadline.server.logprobs import EchoedPrompt, LogprobWriter, echo_of
from leadline.server.sampling_params import check_ids, make_params
from leadline.server.sampling_types import SamplingFields
from leadline.server.state import ServerState
from leadline.server.structured_output import grammar_refusal
from leadline.server.text_rules import TextRules
from leadline.server.usage import Usage

_SEED_MASK = 2**64 - 1


def choice_seed(seed: int, prompt_ids: Sequence[int], choice: int) -> int:
    """The seed of a choice: the request's for the first, a hash of it for the others.

    Args:
        seed: the request's, 0..2**64-1.
        prompt_ids: token ids of the choice's prompt.
        choice: 0..n-1.
    """
    if choice == 0:
        return seed
    data = struct.pack(f"<QQ{len(prompt_ids)}I", seed, choice, *prompt_ids)
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


async def make_generation(
    state: ServerState,
    fields: SamplingFields,
    prompts: Sequence[list[int]],
    caller: Caller,
    *,
    id_prefix: str,
    default_max_tokens: int | None = None,
    prefix_lens: Sequence[int] = (),
    reading: Reading | None = None,
    calls: Grammar | None = None,
    echo: str = "",
    has_text: bool = True,
) -> Generation:
    """The engine requests of one API request.

    Args:
        state: the server's.
        fields: the validated request.
        prompts: token ids, at least one prompt.
        caller: who sent it, and when.
        id_prefix: of the answer's id, such as `cmpl-`.
        default_max_tokens: where the request is silent; None for all that the model has room for.
        prefix_lens: by prompt, how many of its first tokens an echo leaves out.
        reading: what answers are made of; None if they are text alone.
        calls: what answers must match because of the request's tools, and because of its other
            grammar, if it has one.
        echo: text that choices begin with, where it is not that of the prompts.
        has_text: tokens become text; else there are no stop strings.

    Raises:
        ApiError: a prompt is too long or has ids that are no tokens; a grammar is no good.
    """
    own_id = f"{id_prefix}{uuid.uuid4().hex}"  # whatever clients call theirs, it is new
    response_id = fields.response_id(id_prefix) or own_id
    check_limits(fields, state.limits)
    num_choices = fields.n or 1
    check_prompts(len(prompts), len(prompts) * num_choices, state.limits)
    seed = state.seed_source() if fields.seed is None else fields.seed
    all_params = []
    for prompt_ids in prompts:
        _check_prompt(prompt_ids, state.tokenizer.vocab_size, fields.prompt_param)
        check_prompt_tokens(len(prompt_ids), fields.prompt_param, state.limits)
        all_params.append(
            make_params(state, fields, len(prompt_ids), default_max_tokens=default_max_tokens)
        )
    grammar = await _checked_grammar(state, fields, calls)
    requests: list[EngineRequest] = []
    for prompt_ids, params in zip(prompts, all_params, strict=True):
        leader = EngineRequest(
            request_id=f"{own_id}-{len(requests)}",
            prompt_ids=prompt_ids,
            params=msgspec.structs.replace(params, seed=seed & _SEED_MASK, grammar=grammar),
            arrival_s=caller.arrival_s,
            cache_salt=_cache_salt(fields),
            priority=caller.priority if fields.priority is None else fields.priority,
            tenant=caller.tenant,
            session_id=caller.session_id,
            deadline_s=_deadline_s(state, fields, caller),
            names=tuple(filter(None, (response_id, caller.request_id))),
        )
        requests.append(leader)
        for choice in range(1, num_choices):
            requests.append(_follower(leader, f"{own_id}-{len(requests)}", choice))
    return Generation(
        state=state,
        response_id=response_id,
        model=fields.model,
        created_s=int(time.time()),
        seed=seed,
        requests=requests,
        rules=_rules(fields, all_params[0]),
        parts=_parts(fields, has_text=has_text),
        writer=LogprobWriter(
            state.entry_texts, state.tokenizer, as_token_ids=bool(fields.return_tokens_as_token_ids)
        ),
        echoes=_echoes(state, fields, prompts, prefix_lens, echo),
        choices_per_prompt=num_choices,
        usage=Usage(
            num_prompt_tokens=sum(map(len, prompts)),
            num_cached_tokens=[0] * len(prompts),
            num_output_tokens=[0] * len(requests),
            num_thinking_tokens=None if state.thinking is None else [0] * len(requests),
        ),
        reading=reading,
        metadata=fields.metadata,
        trace_headers=caller.trace_headers,
    )


def _echoes(
    state: ServerState,
    fields: SamplingFields,
    prompts: Sequence[list[int]],
    prefix_lens: Sequence[int],
    echo: str,
) -> list[EchoedPrompt]:
    if echo:
        return [EchoedPrompt(echo, [])] * len(prompts)
    if not fields.has_echo:
        return []
    return [
        echo_of(state.tokenizer, prompt_ids, num_hidden=num_hidden)
        for prompt_ids, num_hidden in zip(prompts, prefix_lens, strict=True)
    ]


def _follower(leader: EngineRequest, request_id: str, choice: int) -> EngineRequest:
    """One more choice of a prompt: it waits for the first, which alone tells of the prompt."""
    seed = choice_seed(leader.params.seed, leader.prompt_ids, choice)
    return msgspec.structs.replace(
        leader,
        request_id=request_id,
        params=msgspec.structs.replace(leader.params, seed=seed, num_prompt_logprobs=None),
        leader_id=leader.request_id,
    )


async def _checked_grammar(
    state: ServerState, fields: SamplingFields, calls: Grammar | None
) -> Grammar | None:
    """What answers must match; the text's grammar is also tried alone, so that it can be named."""
    text = fields.grammar()
    if text is not None:
        try:
            await _check_grammar(state, text)
        except InvalidRequestError as error:
            raise grammar_refusal(error, text, fields.response_format) from error
    if calls is not None:
        try:
            await _check_grammar(state, calls)
        except InvalidRequestError as error:
            raise tools_refusal(error) from error
    return calls or text


async def _check_grammar(state: ServerState, grammar: Grammar) -> None:
    check_size(grammar, state.limits.grammar_bytes)
    if state.grammars is None:
        return
    try:
        await state.grammars.check(grammar)
    except InvalidRequestError:
        raise
    except EngineError as error:
        raise from_engine_error(error) from error


def _rules(fields: SamplingFields, params: SamplingParams) -> TextRules:
    return TextRules(
        stop_strings=fields.stop_strings,
        stop_token_ids=params.stop_token_ids,
        min_tokens=params.min_tokens,
        includes_stop=fields.includes_stop,
        keeps_tokens=fields.num_logprobs is not None or bool(fields.return_token_ids),
    )


def _parts(fields: SamplingFields, *, has_text: bool) -> AnswerParts:
    return AnswerParts(
        has_text=has_text,
        has_logprobs=fields.num_logprobs is not None,
        has_prompt_logprobs=fields.prompt_logprobs is not None,
        has_token_ids=bool(fields.return_token_ids),
        has_draft_flags=bool(fields.return_draft_flags),
        has_special_tokens=fields.skip_special_tokens is False,
        hides_reasoning=fields.hides_reasoning,
        has_functions=fields.has_functions,
        is_scoring=fields.output_limit == 0,
    )


def _deadline_s(state: ServerState, fields: SamplingFields, caller: Caller) -> float | None:
    wanted_s = state.deadline_s if fields.deadline_s is None else fields.deadline_s
    return None if wanted_s is None else caller.arrival_s + wanted_s


def _cache_salt(fields: SamplingFields) -> str:
    """Pages are shared within a salt, and within a user where one is named."""
    salt = fields.cache_salt or ""
    return f"{salt}\0{fields.user_id}" if fields.user_id else salt


def _check_prompt(prompt_ids: Sequence[int], vocab_size: int, param: str) -> None:
    if not prompt_ids:
        raise BadRequestError(
            "the prompt is empty; give at least one token", param=param, code="invalid_value"
        )
    check_ids(prompt_ids, vocab_size, param)
