"""`POST /v1/completions`."""

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.types import ASGIApp

from leadline.server.answers import Answer, whole_answer
from leadline.server.caller import caller_of
from leadline.server.chunk_frames import TEXT_FORMAT, chunk_stream
from leadline.server.completion_types import CompletionRequest
from leadline.server.delta import moved
from leadline.server.generation import Generation
from leadline.server.make_generation import make_generation
from leadline.server.prompts import encode_text, truncated
from leadline.server.requests import read_fields
from leadline.server.response_types import TextChoice, TextCompletion
from leadline.server.state import ServerState

DEFAULT_MAX_TOKENS = 16


async def completions(request: Request) -> ASGIApp:
    """Continue texts."""
    state: ServerState = request.app.state.server
    caller = caller_of(request.headers)
    fields, headers = await read_fields(request, CompletionRequest)
    prompts, prefix_lens = [], []
    for prompt in fields.prompts():
        prefix_ids = state.prompt_prefix_ids if isinstance(prompt, str) else ()
        if isinstance(prompt, str):
            prompt = await encode_text(state, prompt, "prompt")
        whole = [*prefix_ids, *prompt]
        prompts.append(truncated(state, fields, whole, num_prefix=len(prefix_ids)))
        prefix_lens.append(len(prefix_ids))
    generation = await make_generation(
        state,
        fields,
        prompts,
        caller,
        id_prefix="cmpl-",
        default_max_tokens=DEFAULT_MAX_TOKENS,
        prefix_lens=prefix_lens,
    )
    if fields.stream:
        return chunk_stream(generation, TEXT_FORMAT, fields.stream_options, headers)
    return await whole_answer(request, generation, _body, headers)


def _body(generation: Generation, answers: list[Answer]) -> bytes:
    completion = TextCompletion(
        id=generation.response_id,
        created=generation.created_s,
        model=generation.model,
        choices=[_choice(generation, index, answer) for index, answer in enumerate(answers)],
        usage=generation.usage.to_json(),
        seed=generation.seed,
        system_fingerprint=generation.state.fingerprint,
        metadata=UNSET if generation.metadata is None else generation.metadata,
        metrics=generation.usage.metrics() or UNSET,
    )
    return msgspec.json.encode(completion)


def _choice(generation: Generation, index: int, answer: Answer) -> TextChoice:
    parts, writer = generation.parts, generation.writer
    echo, echo_tokens = generation.echo_of(index)
    tokens = [*echo_tokens, *moved(answer.tokens, len(echo))]
    choice = TextChoice(
        index=index,
        text=echo + answer.text,
        logprobs=writer.text(tokens) if parts.has_logprobs else None,
        finish_reason=answer.finish_reason,
        stop_reason=answer.stop_reason,
        matched_stop=answer.stop_reason,
    )
    if parts.has_token_ids:
        choice.token_ids = answer.token_ids
        choice.prompt_token_ids = generation.prompt_ids_of(index)
    if parts.has_prompt_logprobs:
        rows = generation.prompt_logprobs.get(generation.prompt_of(index), [])
        choice.prompt_logprobs = writer.prompt(rows)
    return choice
