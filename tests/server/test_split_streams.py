"""A stream says the same however the engine groups its tokens: draft depth is no one's business."""

import json
from collections.abc import AsyncGenerator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from leadline.engine.messages import EngineStats
from leadline.engine.request import EngineRequest, FinishReason, RequestOutput, TokenLogprobs
from leadline.loader.tokenizer import Tokenizer
from leadline.server.answers import collect
from leadline.server.caller import Caller
from leadline.server.chunk_frames import CHAT_FORMAT, TEXT_FORMAT, ChunkFrames
from leadline.server.completion_types import CompletionRequest
from leadline.server.generation import Generation
from leadline.server.make_generation import make_generation
from leadline.server.sampling_types import StreamOptions
from leadline.server.state import ServerState


def make_tokenizer() -> Tokenizer:
    """A byte a token, and an end token."""
    vocab = {character: id_ for id_, character in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    backend = Backend(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<end>", special=True)])
    return Tokenizer(backend, {})


TOKENIZER = make_tokenizer()
END_ID = TOKENIZER.encode("<end>")[0]


class SplitEngine:
    """Says tokens in groups.

    Attributes:
        groups: token ids of each output; the end token comes by itself.
    """

    stats = EngineStats()
    alive = True

    def __init__(self) -> None:
        self.groups: list[list[int]] = []

    def finish(self, request_id: str, reason: FinishReason) -> None:
        assert reason is FinishReason.STOP

    async def reset_prefix_cache(self) -> int:
        return 0

    async def generate(self, request: EngineRequest) -> AsyncGenerator[RequestOutput, None]:
        for group in [*self.groups, [END_ID]]:
            is_last = group == [END_ID]
            yield RequestOutput(
                request_id=request.request_id,
                token_ids=group,
                finish_reason=FinishReason.STOP if is_last else None,
                stop_token_id=END_ID if is_last else None,
                logprobs=[TokenLogprobs(id_, -0.5 * id_, 1, [id_], [-0.5 * id_]) for id_ in group],
            )


ENGINE = SplitEngine()
STATE = ServerState(
    engine=ENGINE,
    tokenizer=TOKENIZER,
    template=None,
    model_names=("m",),
    max_model_len=1000,
    seed_source=lambda: 1,
)


async def generation_of(fields: CompletionRequest) -> Generation:
    return await make_generation(
        STATE, fields, [[5]], Caller(), id_prefix="x", default_max_tokens=99, prefix_lens=[0]
    )


async def told_by_stream(fields: CompletionRequest, *, is_chat: bool) -> dict[str, Any]:
    """What the chunks say together."""
    chunk_format = CHAT_FORMAT if is_chat else TEXT_FORMAT
    options = StreamOptions(include_usage=True)
    told: dict[str, Any] = {"text": "", "logprobs": [], "ids": []}
    frames = ChunkFrames(await generation_of(fields), chunk_format, options).frames()
    async for frame in frames:
        if b"[DONE]" in frame:
            continue
        chunk = json.loads(frame.removeprefix(b"data: "))
        for choice in chunk["choices"]:
            told["text"] += choice["delta"].get("content", "") if is_chat else choice["text"]
            told["ids"] += choice.get("token_ids", [])
            if logprobs := choice["logprobs"]:
                columns = zip(*logprobs.values(), strict=True) if not is_chat else ()
                told["logprobs"] += logprobs["content"] if is_chat else map(list, columns)
            told["reason"] = (choice["finish_reason"], choice.get("stop_reason"))
        told["usage"] = chunk["usage"]
    return told


@pytest.mark.parametrize("is_chat", [True, False])
@settings(max_examples=60)
@given(
    text=st.text(alphabet="ab\u4f60\U0001f600", max_size=10),
    cuts=st.lists(st.integers(0, 40), max_size=8),
    stop=st.lists(st.text(alphabet="ab\u4f60", min_size=1, max_size=3), max_size=2),
    min_tokens=st.integers(0, 4),
    is_included=st.booleans(),
)
async def test_any_grouping_gives_what_the_whole_has(
    text: str, cuts: list[int], stop: list[str], min_tokens: int, is_included: bool, is_chat: bool
) -> None:
    fields = CompletionRequest(
        model="m",
        prompt="x",
        stop=stop,
        min_tokens=min_tokens,
        include_stop_str_in_output=is_included,
        logprobs=1,
        return_token_ids=True,
    )
    ids = TOKENIZER.encode(text)
    ENGINE.groups = [ids]
    generation = await generation_of(fields)
    (answer,) = await collect(generation)
    writer = generation.writer
    logprobs: Any = writer.chat(answer.tokens)["content"]
    if not is_chat:
        logprobs = [list(row) for row in zip(*writer.text(answer.tokens).values(), strict=True)]
    whole = {
        "text": answer.text,
        "logprobs": logprobs,
        "ids": answer.token_ids,
        "reason": (answer.finish_reason, answer.stop_reason),
        "usage": generation.usage.to_json(),
    }
    borders = sorted({0, len(ids), *(cut % (len(ids) + 1) for cut in cuts)})
    ENGINE.groups = [ids[start:end] for start, end in pairwise(borders)]
    assert await told_by_stream(fields, is_chat=is_chat) == whole
