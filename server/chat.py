"""`POST /v1/chat/completions`."""

from typing import Any

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.types import ASGIApp

from leadline.engine.errors import InvalidRequestError
from leadline.engine.request import Grammar
from leadline.loader.errors import TemplateError
from leadline.server.answers import Answer, whole_answer
from leadline.server.caller import Caller, caller_of
from leadline.server.chat_types import ChatRequest
from leadline.server.chunk_frames import CHAT_FORMAT, chunk_stream
from leadline.server.dialects.call_grammar import call_grammar
from leadline.server.dialects.dialect import Dialect, tools_text
from leadline.server.dialects.reading import reading_of
from leadline.server.errors import BadRequestError, unsupported
from leadline.server.generation import Generation
from leadline.server.make_generation import make_generation
from leadline.server.prompts import encode_text, truncated
from leadline.server.requests import read_fields
from leadline.server.response_types import ChatChoice, ChatCompletion, ChatMessage
from leadline.server.state import ServerState
from leadline.server.structured_output import grammar_refusal
from leadline.server.template_messages import Rendering


async def render(state: ServerState, fields: ChatRequest) -> str:
    """The prompt's text.

    Raises:
        BadRequestError: a message that the model's template cannot render, or not in time, or
            tools for a model that cannot call them.
        UnavailableError: no process is free to render it.
    """
    if state.template is None:
        raise BadRequestError(
            "this model has no chat template; use /v1/completions", code="no_chat_template"
        )
    messages = [message.for_template(index) for index, message in enumerate(fields.messages)]
    use, tools = fields.tool_use, None
    if use is not None:
        tools = [tool.for_template() for tool in use.tools]
        dialect = _dialect(state)
        if not state.template.reads_tools:
            messages = _with_system_text(messages, tools_text(dialect, tools))
    job = Rendering(
        messages=messages,
        tools=tools,
        add_generation_prompt=fields.add_generation_prompt is not False,
        continue_final_message=fields.continues_final_message,
        settings=fields.template_settings,
    )
    try:
        if state.templates is not None:
            return await state.templates.render(job)
        return job.render(state.template)
    except TemplateError as error:
        raise BadRequestError(str(error), param="messages", code="invalid_value") from error


def _with_system_text(messages: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """The messages with one more paragraph in what the system says first."""
    if messages[0]["role"] != "system":
        return [{"role": "system", "content": text}, *messages]
    first = {**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}
    return [first, *messages[1:]]


async def chat_completions(request: Request) -> ASGIApp:
    """Answer a conversation."""
    state: ServerState = request.app.state.server
    caller = caller_of(request.headers)
    fields, headers = await read_fields(request, ChatRequest)
    prompt_ids = await encode_text(state, await render(state, fields), "messages")
    prompt_ids = truncated(state, fields, prompt_ids)
    generation = await generation_of(state, fields, prompt_ids, caller, id_prefix="chatcmpl-")
    if fields.stream:
        return chunk_stream(generation, CHAT_FORMAT, fields.stream_options, headers)
    return await whole_answer(request, generation, _body, headers)


async def generation_of(
    state: ServerState,
    fields: ChatRequest,
    prompt_ids: list[int],
    caller: Caller,
    *,
    id_prefix: str,
) -> Generation:
    """The answers to a conversation, read for reasoning and for the calls that it allows.

    Args:
        state: the server's.
        fields: the validated request.
        prompt_ids: what it renders to.
        caller: who sent it, and when.
        id_prefix: of the answer's id.

    Raises:
        ApiError: as `make_generation`.
    """
    use = fields.tool_use
    dialect = None if use is None else _dialect(state)
    reading = reading_of(
        state.tokenizer,
        None if fields.separate_reasoning is False else state.thinking,
        prompt_ids,
        dialect=dialect,
        max_calls=None if use is None else use.max_calls,
        continues_thinking=fields.continues_thinking,
    )
    return await make_generation(
        state,
        fields,
        [prompt_ids],
        caller,
        id_prefix=id_prefix,
        reading=reading,
        calls=_call_grammar(fields, dialect),
        echo=fields.echoed_text,
    )


def _call_grammar(fields: ChatRequest, dialect: Dialect | None) -> Grammar | None:
    use = fields.tool_use
    if dialect is None or use is None:
        return None
    text = None if use.is_forced else fields.grammar()
    if text is None and not use.needs_grammar:
        return None
    try:
        return call_grammar(dialect, use, text)
    except InvalidRequestError as error:
        assert text is not None
        raise grammar_refusal(error, text, fields.response_format) from error


def _dialect(state: ServerState) -> Dialect:
    if state.dialect is None:
        raise unsupported(
            "tools",
            "its model has no tokens that mark tool calls, as those of DeepSeek-V3, R1, V3.1 and "
            "Kimi-K2 have; leave it out, or set 'tool_choice' to 'none'",
        )
    return state.dialect


def _body(generation: Generation, answers: list[Answer]) -> bytes:
    parts, writer = generation.parts, generation.writer
    choices = [
        ChatChoice(
            index=index,
            message=_message(
                answer, echo=generation.echo_of(index)[0], has_functions=parts.has_functions
            ),
            logprobs=writer.chat(answer.tokens) if parts.has_logprobs else None,
            finish_reason="function_call"
            if parts.has_functions and answer.finish_reason == "tool_calls"
            else answer.finish_reason,
            stop_reason=answer.stop_reason,
            matched_stop=answer.stop_reason,
            token_ids=answer.token_ids if parts.has_token_ids else UNSET,
        )
        for index, answer in enumerate(answers)
    ]
    completion = ChatCompletion(
        id=generation.response_id,
        created=generation.created_s,
        model=generation.model,
        choices=choices,
        usage=generation.usage.to_json(),
        seed=generation.seed,
        system_fingerprint=generation.state.fingerprint,
        metadata=UNSET if generation.metadata is None else generation.metadata,
        metrics=generation.usage.metrics() or UNSET,
    )
    if parts.has_prompt_logprobs:
        completion.prompt_logprobs = writer.prompt(generation.prompt_logprobs.get(0, []))
    if parts.has_token_ids:
        completion.prompt_token_ids = generation.prompt_ids_of(0)
    return msgspec.json.encode(completion)


def _message(answer: Answer, *, echo: str, has_functions: bool) -> ChatMessage:
    message = ChatMessage(
        content=echo + answer.text or (None if answer.calls else ""),
        reasoning_content=answer.reasoning or UNSET,
        reasoning=answer.reasoning or UNSET,
    )
    if answer.calls and has_functions:
        message.function_call = answer.calls[0].function
    elif answer.calls:
        message.tool_calls = answer.calls
    return message
