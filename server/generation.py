"""From a validated request to its choices' text: what chat and text completions have in common."""

import asyncio
import hashlib
import struct
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from leadline.engine.errors import EngineError
from leadline.engine.request import EngineRequest, FinishReason, RequestOutput, SamplingParams
from leadline.server.choice_text import ChoiceText, Delta
from leadline.server.errors import ApiError, BadRequestError, UnavailableError, from_engine_error
from leadline.server.sampling_types import SamplingFields
from leadline.server.state import ServerState

_SEED_MASK = 2**64 - 1
MAX_CHOICES_IN_ALL = 1024


@dataclass(slots=True)
class Usage:
    """Tokens of one request: each prompt counted once, the tokens of all choices together.

    Attributes:
        num_cached_tokens: prompt tokens from the prefix cache, by prompt.
        num_output_tokens: by choice.
    """

    num_prompt_tokens: int
    num_cached_tokens: list[int]
    num_output_tokens: list[int]

    def to_json(self) -> dict[str, Any]:
        """The API's `usage` object."""
        num_output_tokens = sum(self.num_output_tokens)
        return {
            "prompt_tokens": self.num_prompt_tokens,
            "completion_tokens": num_output_tokens,
            "total_tokens": self.num_prompt_tokens + num_output_tokens,
            "prompt_tokens_details": {"cached_tokens": sum(self.num_cached_tokens)},
        }


@dataclass(slots=True, kw_only=True)
class Generation:
    """The choices of one API request.

    Attributes:
        response_id: the answer's `id`.
        seed: the request's, which may be negative, or the one drawn for it.
        requests: one for each choice, by index: all choices of the first prompt come first.
        usage: as of the last delta.
    """

    state: ServerState
    response_id: str
    model: str
    created_s: int
    seed: int
    requests: list[EngineRequest]
    stop_strings: list[str]
    choices_per_prompt: int
    usage: Usage
    started_s: float = field(default_factory=time.monotonic)

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """All choices' text as it comes. Close it early (`aclosing`) to abort them all.

        Raises:
            ApiError: the engine refuses the request (before the first delta), or fails later.
        """
        streams = [self._choice(index) for index in range(len(self.requests))]
        async with aclosing(streams[0] if len(streams) == 1 else _merge(streams)) as merged:
            async for delta in merged:
                self.usage.num_output_tokens[delta.index] = delta.num_tokens
                if delta.index % self.choices_per_prompt == 0:
                    prompt_index = delta.index // self.choices_per_prompt
                    self.usage.num_cached_tokens[prompt_index] = delta.num_cached_tokens
                yield delta

    async def _choice(self, index: int) -> AsyncGenerator[Delta, None]:
        state, request = self.state, self.requests[index]
        text = ChoiceText(index, state.tokenizer.token_bytes, self.stop_strings)
        timer = state.metrics.timer(self.started_s)
        reason = FinishReason.ABORT
        try:
            async with aclosing(state.engine.generate(request)) as outputs:
                async for output in outputs:
                    delta = text.push(output)
                    timer.on_tokens(len(output.token_ids))
                    if delta.finish_reason is not None:
                        reason = delta.finish_reason
                        self._end(output, delta)
                    yield delta
                    if delta.finish_reason is not None:
                        return
        except EngineError as error:
            reason = FinishReason.ERROR
            raise from_engine_error(error) from error
        finally:
            timer.on_end(reason)

    def _end(self, output: RequestOutput, delta: Delta) -> None:
        """Tell the engine about a stop string, or the caller about a failure."""
        if output.finish_reason is None:
            self.state.engine.finish(output.request_id, FinishReason.STOP)
        elif delta.finish_reason is FinishReason.ABORT:
            raise UnavailableError("the request was aborted; send it again", code="aborted")
        elif delta.finish_reason is FinishReason.ERROR:
            if not self.state.engine.alive:
                raise UnavailableError("the engine has failed; try again later", code="engine_dead")
            raise ApiError(500, output.error or "the engine failed", code="engine_error")


async def _merge(
    streams: Sequence[AsyncGenerator[Delta, None]],
) -> AsyncGenerator[Delta, None]:
    """What several streams yield, as it comes; the first failure ends all."""
    queue: asyncio.Queue[Delta | asyncio.Task[None]] = asyncio.Queue()

    async def pump(stream: AsyncGenerator[Delta, None]) -> None:
        async with aclosing(stream):
            async for delta in stream:
                queue.put_nowait(delta)

    tasks = [asyncio.create_task(pump(stream)) for stream in streams]
    for task in tasks:
        task.add_done_callback(queue.put_nowait)
    num_open = len(tasks)
    try:
        while num_open:
            item = await queue.get()
            if isinstance(item, Delta):
                yield item
            else:
                item.result()  # raises what ended the stream
                num_open -= 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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


def make_generation(
    state: ServerState,
    fields: SamplingFields,
    prompts: Sequence[list[int]],
    *,
    id_prefix: str,
    default_max_tokens: int | None = None,
) -> Generation:
    """The engine requests of one API request.

    Args:
        state: the server's.
        fields: the validated request.
        prompts: token ids, at least one prompt.
        id_prefix: `chatcmpl` or `cmpl`.
        default_max_tokens: where the request is silent; None for all that the model has room for.

    Raises:
        BadRequestError: a prompt is too long or has ids that are no tokens.
    """
    response_id = f"{id_prefix}-{uuid.uuid4().hex}"
    seed = state.seed_source() if fields.seed is None else fields.seed
    num_choices = _num_choices(fields, len(prompts))
    created_s = time.time()
    requests: list[EngineRequest] = []
    for prompt_ids in prompts:
        _check_prompt(prompt_ids, state.tokenizer.vocab_size)
        max_tokens = _max_tokens(state, fields, len(prompt_ids), default_max_tokens)
        for choice in range(num_choices):
            request = EngineRequest(
                request_id=f"{response_id}-{len(requests)}",
                prompt_ids=prompt_ids,
                params=_params(
                    state, fields, max_tokens, choice_seed(seed & _SEED_MASK, prompt_ids, choice)
                ),
                arrival_s=created_s,
                cache_salt=fields.cache_salt or "",
            )
            requests.append(request)
    return Generation(
        state=state,
        response_id=response_id,
        model=fields.model,
        created_s=int(created_s),
        seed=seed,
        requests=requests,
        stop_strings=fields.stop_strings,
        choices_per_prompt=num_choices,
        usage=Usage(
            num_prompt_tokens=sum(map(len, prompts)),
            num_cached_tokens=[0] * len(prompts),
            num_output_tokens=[0] * len(requests),
        ),
    )


def _num_choices(fields: SamplingFields, num_prompts: int) -> int:
    """Choices of each prompt."""
    num_choices = fields.n or 1
    if num_prompts * num_choices > MAX_CHOICES_IN_ALL:
        raise BadRequestError(
            f"'n' times the number of prompts is {num_prompts * num_choices}; "
            f"allowed: at most {MAX_CHOICES_IN_ALL}; send fewer prompts at once",
            param="n",
            code="invalid_value",
        )
    return num_choices


def _params(
    state: ServerState, fields: SamplingFields, max_tokens: int, seed: int
) -> SamplingParams:
    defaults = state.defaults
    stop_token_ids = fields.stop_token_ids or []
    _check_ids(stop_token_ids, state.tokenizer.vocab_size, "stop_token_ids")
    top_k = defaults.top_k if fields.top_k is None else fields.top_k
    return SamplingParams(
        seed=seed,
        max_tokens=max_tokens,
        temperature=defaults.temperature if fields.temperature is None else fields.temperature,
        top_k=max(top_k, 0),  # -1 keeps all tokens too
        top_p=defaults.top_p if fields.top_p is None else fields.top_p,
        min_p=defaults.min_p if fields.min_p is None else fields.min_p,
        stop_token_ids=tuple(stop_token_ids),
        eos_token_ids=defaults.eos_token_ids,
        ignore_eos=bool(fields.ignore_eos),
        speculative_tokens=fields.speculative_tokens,
    )


def _check_prompt(prompt_ids: Sequence[int], vocab_size: int) -> None:
    if not prompt_ids:
        raise BadRequestError(
            "the prompt is empty; give at least one token", param="prompt", code="invalid_value"
        )
    _check_ids(prompt_ids, vocab_size, "prompt")


def _check_ids(token_ids: Sequence[int], vocab_size: int, param: str) -> None:
    if token_ids and max(token_ids) >= vocab_size:
        raise BadRequestError(
            f"'{param}' holds the token id {max(token_ids)}; allowed: 0 to {vocab_size - 1}",
            param=param,
            code="invalid_value",
        )


def _max_tokens(
    state: ServerState, fields: SamplingFields, num_prompt_tokens: int, default: int | None
) -> int:
    """Most tokens that a choice may have."""
    room = state.max_model_len - num_prompt_tokens
    wanted = fields.output_limit
    if wanted is None and room >= 1:
        return room if default is None else min(default, room)
    if wanted is None or wanted > room:
        num_wanted = 1 if wanted is None else wanted
        raise BadRequestError(
            f"This model's maximum context length is {state.max_model_len} tokens, but you "
            f"requested {num_prompt_tokens + num_wanted} tokens ({num_prompt_tokens} in the "
            f"prompt, {num_wanted} for the answer); shorten the prompt or lower max_tokens",
            param="messages" if hasattr(fields, "messages") else "prompt",
            code="context_length_exceeded",
        )
    return wanted
