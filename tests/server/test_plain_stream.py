"""The short way says what the long one says, byte for byte, however the two are mixed."""

import json
import re
from collections.abc import AsyncGenerator
from itertools import chain
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from leadline.engine.delivery import Push
from leadline.engine.messages import EngineStats
from leadline.engine.request import EngineRequest, FinishReason, RequestOutput, TokenLogprobs
from leadline.loader.chat_template import ChatTemplate
from leadline.loader.tokenizer import Tokenizer
from leadline.server.caller import Caller
from leadline.server.chat_types import ChatRequest
from leadline.server.chunk_frames import CHAT_FORMAT, TEXT_FORMAT, ChunkFrames
from leadline.server.completion_types import CompletionRequest
from leadline.server.dialects.dialect import DEEPSEEK_TEXTS
from leadline.server.dialects.reading import reading_of
from leadline.server.generation import Generation
from leadline.server.make_generation import make_generation
from leadline.server.messages.frames import MessageFrames
from leadline.server.responses.request import ResponseRequest
from leadline.server.responses.response import begin
from leadline.server.responses.run import ResponseRun
from leadline.server.sampling_types import StreamOptions
from leadline.server.state import ServerState

PIECES = ["Hello", " world", "\u4f60\u597d", "\u2028", '"\\', "\n\n", "data: [DONE]", "{}"]
MARKS = ["<think>", "</think>", *DEEPSEEK_TEXTS.values()]


def make_tokenizer() -> Tokenizer:
    """A byte a token, some words, an end token, and marks."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend = Backend(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<end>", special=True)])
    backend.add_tokens([AddedToken(text, special=False) for text in [*MARKS, *PIECES]])
    return Tokenizer(backend, {})


TOKENIZER = make_tokenizer()
END_ID = TOKENIZER.encode("<end>")[0]


class MixedEngine:
    """Says tokens in groups, and offers them to the short way, some at a time.

    Attributes:
        groups: token ids of each output; the end token comes by itself.
        bursts: how many come at a time; what is left is not offered.
        num_pushed: groups that the short way has taken.
    """

    stats = EngineStats()
    alive = True

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.bursts: list[int] = []
        self.num_pushed = 0

    def finish(self, request_id: str, reason: FinishReason) -> None:
        assert reason is FinishReason.STOP

    async def generate(
        self, request: EngineRequest, push: Push | None = None
    ) -> AsyncGenerator[RequestOutput, None]:
        outputs = [output_of(request, group) for group in self.groups]
        outputs.append(output_of(request, [END_ID]))
        place = 0
        for burst in self.bursts:
            offered = outputs[place : place + burst]
            place += burst
            num_taken = 0 if push is None or not offered else push(offered)
            self.num_pushed += num_taken
            for output in offered[num_taken:]:
                yield output
        for output in outputs[place:]:
            yield output


def output_of(request: EngineRequest, token_ids: list[int]) -> RequestOutput:
    is_last = token_ids == [END_ID]
    num_tops = request.params.num_logprobs
    return RequestOutput(
        request_id=request.request_id,
        token_ids=token_ids,
        finish_reason=FinishReason.STOP if is_last else None,
        stop_token_id=END_ID if is_last else None,
        logprobs=None if num_tops is None else [logprobs_of(i, num_tops) for i in token_ids],
    )


def logprobs_of(token_id: int, num_tops: int) -> TokenLogprobs:
    tops = [(token_id + place) % END_ID for place in range(num_tops)]
    return TokenLogprobs(token_id, -1 / 3, 1, tops, [-float("inf"), -0.5, -1e-7][:num_tops])


class Writer:
    """Keeps what is written, and is free now and then."""

    def __init__(self, free: list[bool]) -> None:
        self.frames: list[bytes] = []
        self._free = iter(free)

    @property
    def is_free(self) -> bool:
        return next(self._free, True)

    def write_now(self, part: bytes) -> None:
        self.frames.append(part)


ENGINE = MixedEngine()
_STATE: dict[str, Any] = {
    "tokenizer": TOKENIZER,
    "template": ChatTemplate("", {}),
    "model_names": ('a "model"',),
    "max_model_len": 10_000,
    "seed_source": lambda: 1,
}
STATE = ServerState(engine=ENGINE, **_STATE)  # type: ignore[arg-type] # as much as is needed


async def generation_of(fields: Any, *, prompt: str, is_read: bool) -> Generation:
    prompt_ids = TOKENIZER.encode(prompt)
    reading = reading_of(
        TOKENIZER, STATE.thinking, prompt_ids, dialect=STATE.dialect, max_calls=None
    )
    generation = await make_generation(
        STATE,
        fields,
        [prompt_ids],
        Caller(),
        id_prefix="x",
        default_max_tokens=99,
        reading=reading if is_read else None,
    )
    request = msgspec.structs.replace(generation.requests[0], request_id="r")
    generation.requests, generation.response_id, generation.created_s = [request], "r", 0
    return generation


def frames_for(api: str, generation: Generation, options: dict[str, Any] | None) -> Any:
    if api == "responses":
        response = begin(ResponseRequest(model="m", input="x"), generation, is_stored=False)
        return ResponseRun(response, generation)
    if api == "messages":
        return MessageFrames(generation, shows_thinking=True, fills_context=False)
    chunk_format = CHAT_FORMAT if api == "chat" else TEXT_FORMAT
    stream_options = None if options is None else StreamOptions(**options)
    return ChunkFrames(generation, chunk_format, stream_options)


async def frames_of(generation: Generation, frames: Any, writer: Writer) -> list[bytes]:
    """All that the client gets."""
    async for frame in frames.frames():
        writer.frames.append(frame)
    record = generation.record.choices[0]
    told = (record.num_tokens, generation.usage.to_json())
    assert record.first_token_s is not None
    assert record.last_token_s is not None
    frames_told = re.sub(rb'"completed_at":\d+', b"", b"".join(writer.frames))
    return [frames_told, json.dumps(told).encode()]


PLAIN = st.sampled_from([TOKENIZER.encode(piece) for piece in [*PIECES, "a", "b"]])
ANY = st.sampled_from(
    [[TOKENIZER.encode(mark)[0]] for mark in MARKS]
    + [[token_id] for token_id in TOKENIZER.encode("\u4f60\U0001f600")]
    + [[END_ID - 1], [TOKENIZER.vocab_size + 5]]
)
MOSTLY = st.sampled_from([True, True, True, False])


@settings(max_examples=150)
@given(
    groups=st.lists(st.lists(PLAIN | PLAIN | ANY, max_size=2), min_size=3, max_size=14),
    bursts=st.lists(st.integers(1, 4), max_size=14),
    free=st.lists(MOSTLY, max_size=20),
    api=st.sampled_from(["chat", "text", "messages", "responses"]),
    prompt=st.sampled_from(["x", "<think>"]),
    extra=st.sampled_from(
        [
            {},
            {"stop": ["lo w"]},
            {"stop": ["\n\n", "wor", "\u4f60\u597d"], "include_stop_str_in_output": True},
            {"stop": ["\u2028a", '"\\\\'], "min_tokens": 3},
            {"logprobs": True},
            {"logprobs": True, "top_logprobs": 3, "stop": ["d a", "ab"]},
            {"logprobs": True, "top_logprobs": 2, "return_tokens_as_token_ids": True},
            {"include_reasoning": False},
            {"return_token_ids": True},
            {"skip_special_tokens": False},
        ]
    ),
    options=st.sampled_from(
        [None, {"include_usage": True}, {"include_usage": True, "continuous_usage_stats": True}]
    ),
)
async def test_both_ways_give_the_same_frames(
    groups: list[list[list[int]]],
    bursts: list[int],
    free: list[bool],
    api: str,
    prompt: str,
    extra: dict[str, Any],
    options: dict[str, Any] | None,
) -> None:
    ENGINE.groups = [list(chain(*words)) for words in groups]
    ENGINE.bursts = bursts
    if api != "text":
        message = {"role": "user", "content": "x"}
        body = {"model": "m", "messages": [message], **extra}
        fields: Any = ChatRequest.model_validate(body)
    else:
        body = {"model": "m", "prompt": "x", **extra}
        body.pop("include_reasoning", None)  # which is the chat's
        if body.pop("logprobs", False):
            body["logprobs"] = body.pop("top_logprobs", 0)
        fields = CompletionRequest.model_validate(body)
    told = []
    for is_mixed in (False, True):
        generation = await generation_of(fields, prompt=prompt, is_read=api != "text")
        frames, writer = frames_for(api, generation, options), Writer(free)
        if is_mixed:
            frames.take_writer(writer)
        told.append(await frames_of(generation, frames, writer))
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("api", "extra"),
    [
        ("chat", {}),
        ("chat", {"stop": ["Xy", "\n"], "logprobs": True}),
        ("messages", {}),
        ("responses", {"stop": ["\nUser:"]}),
    ],
)
async def test_plain_text_goes_the_short_way(api: str, extra: dict[str, Any]) -> None:
    ids = TOKENIZER.encode("Hello world\u4f60\u597d")
    ENGINE.groups, ENGINE.bursts, ENGINE.num_pushed = [[i] for i in ids], [1, 4, 1, 1, 1, 1], 0
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **extra}
    generation = await generation_of(ChatRequest.model_validate(body), prompt="x", is_read=True)
    frames, writer = frames_for(api, generation, None), Writer([])
    frames.take_writer(writer)
    await frames_of(generation, frames, writer)
    assert ENGINE.num_pushed == len(ids) - 1  # all but the first, with which more comes
    (latencies,) = [c for b, c in STATE.metrics.buckets("inter_token_latency_seconds")[-1:]]
    assert latencies >= len(ids) - 1
