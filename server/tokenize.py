"""`POST /tokenize` and `/detokenize`, text to token ids and back; `GET /tokenizer_info`."""

import asyncio
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from leadline.server.body import validate
from leadline.server.chat import render
from leadline.server.chat_types import ChatRequest
from leadline.server.errors import BadRequestError, invalid, unsupported
from leadline.server.prompts import encode_text
from leadline.server.requests import PlainFields, read_fields
from leadline.server.sampling_types import TokenId
from leadline.server.state import ServerState

_QUICK_TOKENS = 5_000
# What the chat form shares with chat completions; those validate and honour it.
_CHAT_FIELDS = (
    "messages",
    "tools",
    "add_generation_prompt",
    "continue_final_message",
    "chat_template_kwargs",
)


class TokenizeRequest(PlainFields):
    """A text, or a conversation."""

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None

    def check(self) -> list[str]:
        """The names of fields that nobody knows.

        Raises:
            BadRequestError: fields that exclude each other, or that are not honoured.
        """
        if (self.prompt is None) == (self.messages is None):
            raise invalid("prompt", "give either 'prompt' or 'messages'")
        if self.messages is None:
            for name in _CHAT_FIELDS:
                if getattr(self, name) is not None:
                    raise invalid(name, f"'{name}' is only allowed with 'messages'")
        elif self.add_special_tokens:
            raise unsupported("add_special_tokens", "the chat template writes them; leave it out")
        return super().check()

    def chat(self, model: str) -> ChatRequest:
        """The chat request that would have the same prompt.

        Raises:
            BadRequestError: chat completions would refuse it.
        """
        values = {name: getattr(self, name) for name in _CHAT_FIELDS}
        request = validate({"model": model, **values}, ChatRequest)
        request.check()
        return request


class DetokenizeRequest(PlainFields):
    """Token ids."""

    tokens: list[TokenId]


class Tokens(msgspec.Struct, kw_only=True):
    """The answer of `/tokenize`."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | UnsetType = UNSET


class Text(msgspec.Struct, kw_only=True):
    """The answer of `/detokenize`."""

    prompt: str


class TokenizerInfo(msgspec.Struct, kw_only=True):
    """The answer of `/tokenizer_info`: what a client needs to write prompts by itself.

    Attributes:
        chat_template: in jinja; null if there is none.
    """

    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    unk_token: str | None
    vocab_size: int
    model_max_length: int
    chat_template: str | None


async def tokenize(request: Request) -> Response:
    """The token ids that a text or a conversation has as a prompt."""
    state: ServerState = request.app.state.server
    fields, headers = await read_fields(request, TokenizeRequest)
    if fields.prompt is None:
        text = await render(state, fields.chat(state.model_names[0]))
        token_ids = await encode_text(state, text, "messages")
    else:
        token_ids = await encode_text(state, fields.prompt, "prompt")
        if fields.add_special_tokens is not False:
            token_ids = [*state.prompt_prefix_ids, *token_ids]
    tokens = Tokens(count=len(token_ids), max_model_len=state.max_model_len, tokens=token_ids)
    if fields.return_token_strs:
        tokens.token_strs = await _off_the_loop(len(token_ids), _token_strs, state, token_ids)
    return _json(tokens, headers)


async def detokenize(request: Request) -> Response:
    """The text of token ids, special tokens included."""
    state: ServerState = request.app.state.server
    fields, headers = await read_fields(request, DetokenizeRequest)
    limit = state.max_model_len
    if len(fields.tokens) > limit:
        raise BadRequestError(
            f"This model's maximum context length is {limit} tokens, but 'tokens' has "
            f"{len(fields.tokens)}; send fewer",
            param="tokens",
            code="context_length_exceeded",
        )
    vocab_size = state.tokenizer.vocab_size
    for place, token_id in enumerate(fields.tokens):
        if token_id >= vocab_size:
            param = f"tokens[{place}]"
            raise invalid(param, f"'{param}' is {token_id}; allowed: 0 to {vocab_size - 1}")
    text = await _off_the_loop(len(fields.tokens), _text, state, fields.tokens)
    return _json(Text(prompt=text), headers)


async def show_tokenizer_info(request: Request) -> Response:
    """The special tokens and the chat template."""
    state: ServerState = request.app.state.server
    names = state.tokenizer.special_tokens
    info = TokenizerInfo(
        bos_token=names.get("bos_token"),
        eos_token=names.get("eos_token"),
        pad_token=names.get("pad_token"),
        unk_token=names.get("unk_token"),
        vocab_size=state.tokenizer.vocab_size,
        model_max_length=state.max_model_len,
        chat_template=None if state.template is None else state.template.sources["default"],
    )
    return _json(info, {})


def _text(state: ServerState, token_ids: list[int]) -> str:
    return state.tokenizer.decode(token_ids, skip_special_tokens=False)


def _token_strs(state: ServerState, token_ids: list[int]) -> list[str]:
    return [_text(state, [token_id]) for token_id in token_ids]


async def _off_the_loop(num_tokens: int, work: Any, *args: Any) -> Any:
    """Call `work`, in a thread where it takes long."""
    return work(*args) if num_tokens <= _QUICK_TOKENS else await asyncio.to_thread(work, *args)


def _json(content: msgspec.Struct, headers: dict[str, str]) -> Response:
    return Response(msgspec.json.encode(content), 200, headers, "application/json")
