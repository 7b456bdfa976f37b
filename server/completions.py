"""`POST /v1/completions`."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from leadline.server.answers import collect
from leadline.server.chunk_frames import TEXT_FORMAT, ChunkFrames
from leadline.server.completion_types import CompletionRequest
from leadline.server.disconnect import run_until_disconnect
from leadline.server.generation import Generation, make_generation
from leadline.server.prompts import encode_text
from leadline.server.requests import read_fields
from leadline.server.response_types import TextChoice, TextCompletion, Usage
from leadline.server.sse import EventStream
from leadline.server.state import ServerState

DEFAULT_MAX_TOKENS = 16


async def completions(request: Request) -> ASGIApp:
    """Continue texts."""
    state: ServerState = request.app.state.server
    fields, headers = await read_fields(request, CompletionRequest)
    prompts = [
        [*state.prompt_prefix_ids, *await encode_text(state, prompt, "prompt")]
        if isinstance(prompt, str)
        else prompt
        for prompt in fields.prompts()
    ]
    generation = make_generation(
        state, fields, prompts, id_prefix="cmpl", default_max_tokens=DEFAULT_MAX_TOKENS
    )
    if fields.stream:
        frames = ChunkFrames(generation, TEXT_FORMAT, fields.stream_options).frames()
        return EventStream(frames, headers=headers, keep_alive_s=state.keep_alive_s)
    body = await run_until_disconnect(request.receive, _whole(generation))
    return Response(body, headers=headers, media_type="application/json")


async def _whole(generation: Generation) -> str:
    answers = await collect(generation)
    return TextCompletion(
        id=generation.response_id,
        created=generation.created_s,
        model=generation.model,
        choices=[
            TextChoice(index=index, text=answer.text, finish_reason=answer.finish_reason)
            for index, answer in enumerate(answers)
        ],
        usage=Usage.model_validate(generation.usage.to_json()),
        seed=generation.seed,
    ).model_dump_json()
