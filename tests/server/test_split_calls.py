"""Reasoning and calls: a stream says what the whole answer has, however tokens are grouped."""

import json
from collections.abc import AsyncGenerator
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from leadline.engine.messages import EngineStats
from leadline.engine.request import EngineRequest, FinishReason, RequestOutput, TokenLogprobs
from leadline.loader.chat_template import ChatTemplate
from leadline.loader.tokenizer import Tokenizer
from leadline.server.answers import collect
from leadline.server.caller import Caller
from leadline.server.chat_types import ChatRequest
from leadline.server.chunk_frames import CHAT_FORMAT, ChunkFrames
from leadline.server.dialects.dialect import DEEPSEEK_TEXTS, KIMI_TEXTS, Mark
from leadline.server.dialects.reading import reading_of
from leadline.server.generation import Generation
from leadline.server.make_generation import make_generation
from leadline.server.messages.answer_blocks import input_of
from leadline.server.messages.frames import MessageFrames
from leadline.server.messages.message import whole_message
from leadline.server.sampling_types import StreamOptions
from leadline.server.state import ServerState

MARKS = ["<think>", "</think>", *DEEPSEEK_TEXTS.values()]
KIMI_MARKS = ["<think>", "</think>", *KIMI_TEXTS.values()]


def make_tokenizer(marks: list[str]) -> Tokenizer:
    """A byte a token, an end token, and marks."""
    vocab = {character: id_ for id_, character in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    backend = Backend(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<end>", special=True)])
    backend.add_tokens([AddedToken(mark, special=False) for mark in marks])
    return Tokenizer(backend, {})


class SplitEngine:
    """Says tokens in groups, then the end token, unless it is told to finish."""

    stats = EngineStats()
    alive = True

    def __init__(self, end_id: int) -> None:
        self.groups: list[list[int]] = []
        self._end_id = end_id

    def finish(self, request_id: str, reason: FinishReason) -> None:
        assert reason is FinishReason.STOP

    async def generate(self, request: EngineRequest) -> AsyncGenerator[RequestOutput, None]:
        for group in [*self.groups, [self._end_id]]:
            is_last = group == [self._end_id]
            yield RequestOutput(
                request_id=request.request_id,
                token_ids=group,
                finish_reason=FinishReason.STOP if is_last else None,
                stop_token_id=self._end_id if is_last else None,
                logprobs=[TokenLogprobs(id_, -1.0, 1, [], []) for id_ in group],
            )


def state_of(marks: list[str]) -> ServerState:
    tokenizer = make_tokenizer(marks)
    engine: Any = SplitEngine(tokenizer.encode("<end>")[0])
    return ServerState(
        engine=engine,
        tokenizer=tokenizer,
        template=ChatTemplate("", {}),
        model_names=("m",),
        max_model_len=10_000,
        seed_source=lambda: 1,
    )


STATES = [state_of(MARKS), state_of(KIMI_MARKS)]


async def generation_of(
    state: ServerState, fields: ChatRequest, prompt: str, max_calls: int | None
) -> Generation:
    prompt_ids = state.tokenizer.encode(prompt)
    reading = reading_of(
        state.tokenizer, state.thinking, prompt_ids, dialect=state.dialect, max_calls=max_calls
    )
    generation = await make_generation(
        state, fields, [prompt_ids], Caller(), id_prefix="x", reading=reading
    )
    request = msgspec.structs.replace(generation.requests[0], request_id="r")  # for equal call ids
    generation.requests, generation.response_id = [request], "r"
    return generation


async def told_by_stream(generation: Generation) -> dict[str, Any]:
    """What the chunks say together."""
    told: dict[str, Any] = {
        "content": "",
        "reasoning": "",
        "reasoning_content": "",
        "calls": [],
        "logprobs": [],
        "ids": [],
    }
    options = StreamOptions(include_usage=True)
    async for frame in ChunkFrames(generation, CHAT_FORMAT, options).frames():
        if b"[DONE]" in frame:
            continue
        chunk = json.loads(frame.removeprefix(b"data: "))
        for choice in chunk["choices"]:
            delta = choice["delta"]
            for name in ("content", "reasoning", "reasoning_content"):
                told[name] += delta.get(name, "")
            for call in delta.get("tool_calls", []):
                index = call.pop("index")
                if index == len(told["calls"]):
                    told["calls"].append(call)
                else:
                    told["calls"][index]["function"]["arguments"] += call["function"]["arguments"]
            told["ids"] += choice.get("token_ids", [])
            told["logprobs"] += (choice["logprobs"] or {}).get("content", [])
            told["reason"] = (choice["finish_reason"], choice.get("stop_reason"))
        told["usage"] = chunk["usage"]
    return told


names = st.sampled_from(["f", "functions.g:0", "function", "a b", ""])
bodies = st.sampled_from(["{}", '{"a": "\u00fc"}', "{`", "f\n```json\n{}\n```", "f\n```json\n", ""])
marks = st.sampled_from(Mark)
parts = st.one_of(st.text(alphabet="ab \n`{\u4f60", max_size=4), marks, names, bodies)
calls = st.tuples(names, bodies).map(
    lambda call: [Mark.CALL_BEGIN, call[0], Mark.NAME_END, call[1], Mark.CALL_END]
)


any_answer = given(
    state=st.sampled_from(STATES),
    written=st.lists(st.one_of(parts.map(lambda part: [part]), calls), max_size=8),
    cuts=st.lists(st.integers(0, 200), max_size=10),
    stop=st.lists(st.text(alphabet="ab\u4f60", min_size=1, max_size=3), max_size=2),
    min_tokens=st.integers(0, 8),
    is_included=st.booleans(),
    prompt=st.sampled_from(["x", "<think>\n", "<think>x"]),
    max_calls=st.sampled_from([None, 1]),
)


def ids_of(state: ServerState, written: list[list[Any]]) -> list[int]:
    assert state.dialect is not None
    thinks = {Mark.THINK_BEGIN: "<think>", Mark.THINK_END: "</think>"}
    texts = {**thinks, **state.dialect.texts}
    return state.tokenizer.encode("".join(texts.get(p, p) for group in written for p in group))


def fields_of(**fields: Any) -> ChatRequest:
    messages = [{"role": "user", "content": "x"}]
    return ChatRequest.model_validate({"model": "m", "messages": messages, **fields})


def cut(ids: list[int], cuts: list[int]) -> list[list[int]]:
    borders = sorted({0, len(ids), *(cut % (len(ids) + 1) for cut in cuts)})
    return [ids[start:end] for start, end in pairwise(borders)]


@settings(max_examples=150)
@any_answer
async def test_any_grouping_gives_what_the_whole_has(
    state: ServerState,
    written: list[list[Any]],
    cuts: list[int],
    stop: list[str],
    min_tokens: int,
    is_included: bool,
    prompt: str,
    max_calls: int | None,
) -> None:
    fields = fields_of(
        stop=stop,
        min_tokens=min_tokens,
        include_stop_str_in_output=is_included,
        logprobs=True,
        return_token_ids=True,
    )
    engine: Any = state.engine
    ids = ids_of(state, written)
    engine.groups = [ids] if ids else []
    generation = await generation_of(state, fields, prompt, max_calls)
    (answer,) = await collect(generation)
    whole = {
        "content": answer.text,
        "reasoning": answer.reasoning,
        "reasoning_content": answer.reasoning,
        "calls": [msgspec.to_builtins(call) for call in answer.calls],
        "logprobs": generation.writer.chat(answer.tokens)["content"],
        "ids": answer.token_ids,
        "reason": (answer.finish_reason, answer.stop_reason),
        "usage": generation.usage.to_json(),
    }
    engine.groups = cut(ids, cuts)
    assert await told_by_stream(await generation_of(state, fields, prompt, max_calls)) == whole


async def message_of_stream(frames: MessageFrames) -> dict[str, Any]:
    """The message that the events make, put together as Anthropic's clients do."""
    message: dict[str, Any] = {}
    open_block: dict[str, Any] | None = None
    async for frame in frames.frames():
        name, data = frame.decode().removesuffix("\n\n").split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        match event["type"]:
            case "message_start":
                message = event["message"]
            case "content_block_start":
                assert open_block is None
                assert event["index"] == len(message["content"])
                open_block = {**event["content_block"], "partial_json": ""}
                message["content"].append(open_block)
            case "content_block_delta":
                assert open_block is not None
                assert event["index"] == len(message["content"]) - 1
                delta = event["delta"]
                name = delta.pop("type").removesuffix("_delta")
                name = "partial_json" if name == "input_json" else name
                open_block[name] += delta[name]
            case "content_block_stop":
                assert open_block is not None
                partial = open_block.pop("partial_json")
                if open_block["type"] == "tool_use":
                    open_block["input"] = json.loads(bytes(input_of(partial)))
                open_block = None
            case "message_delta":
                message |= event["delta"]
                message["usage"] |= event["usage"]
    assert open_block is None
    assert event["type"] == "message_stop"
    return message


@settings(max_examples=150)
@any_answer
async def test_any_grouping_gives_the_whole_message(
    state: ServerState,
    written: list[list[Any]],
    cuts: list[int],
    stop: list[str],
    min_tokens: int,
    is_included: bool,
    prompt: str,
    max_calls: int | None,
) -> None:
    fields = fields_of(stop=stop, min_tokens=min_tokens)
    engine: Any = state.engine
    ids = ids_of(state, written)
    engine.groups = [ids] if ids else []
    shown = {"shows_thinking": is_included, "fills_context": False}
    generation = await generation_of(state, fields, prompt, max_calls)
    whole = json.loads(msgspec.json.encode(await whole_message(generation, **shown)))
    for block in whole["content"]:
        assert block["type"] != "text" or block["text"].strip()
    engine.groups = cut(ids, cuts)
    frames = MessageFrames(await generation_of(state, fields, prompt, max_calls), **shown)
    assert await message_of_stream(frames) == whole
