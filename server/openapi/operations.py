"""Every route of the application: one line each, checked to be complete by a test."""

from collections.abc import Mapping
from dataclasses import replace

from leadline.server.chat_types import ChatRequest
from leadline.server.completion_types import CompletionRequest
from leadline.server.generate import GenerateAnswer
from leadline.server.generate_types import GenerateRequest
from leadline.server.health import HealthRefusal, HealthReport, Probe, ProbeRefusal
from leadline.server.messages.envelope import AnthropicError
from leadline.server.messages.message import MessageAnswer, TokenCount
from leadline.server.messages.request import CountTokensRequest, MessagesRequest
from leadline.server.metrics import CONTENT_TYPE
from leadline.server.openapi.operation import Operation, acts, generates, reads, shows, takes
from leadline.server.operator import PAUSE_QUERY, SLEEP_QUERY, AbortFields
from leadline.server.response_types import (
    Aborted,
    ChatCompletion,
    DroppedPages,
    Json,
    Model,
    ModelList,
    PauseAnswer,
    PauseState,
    SleepAnswer,
    SleepState,
    TextCompletion,
    Version,
)
from leadline.server.responses.create import InputTokens
from leadline.server.responses.request import InputTokensRequest, ResponseRequest
from leadline.server.responses.response import Response
from leadline.server.responses.stored import DeletedResponse, InputItems
from leadline.server.server_info import ServerInfo
from leadline.server.tokenize import DetokenizeRequest, Text, TokenizeRequest, TokenizerInfo, Tokens

_CHAT = {"messages": [{"role": "user", "content": "What does itertools.chain do?"}]}
_MESSAGES = {**_CHAT, "max_tokens": 64}
_RESPONSE = {"input": "What does itertools.chain do?"}
_PAGE = {
    "limit": "Most items of the page, 1 to 100; 20 if absent.",
    "order": "`asc` or `desc`, which is the default.",
    "after": "The id of the last item of the page before.",
}
_REPLAY = {
    "stream": "`true` for the events of a response that was made with `background` and `stream`.",
    "starting_after": "The number of the last event that is not wanted again.",
}
_TOKENS = {"token_ids": [1, 2, 3], "sampling_params": {"max_tokens": 16}}
_TEXT = {"prompt": "itertools.chain", "max_tokens": 16}

OPERATIONS: Mapping[str, Operation] = {
    "POST /v1/chat/completions": generates("chat", ChatRequest, ChatCompletion, example=_CHAT),
    "POST /v1/completions": generates("text", CompletionRequest, TextCompletion, example=_TEXT),
    "POST /v1/responses": generates("responses", ResponseRequest, Response, example=_RESPONSE),
    "POST /v1/responses/input_tokens": takes(
        "responses", InputTokensRequest, InputTokens, example=_RESPONSE
    ),
    "GET /v1/responses/{response_id}": reads(
        "responses", Response, errors=(400, 404), query=_REPLAY, streams=True
    ),
    "DELETE /v1/responses/{response_id}": reads("responses", DeletedResponse, errors=(404,)),
    "POST /v1/responses/{response_id}/cancel": reads("responses", Response, errors=(400, 404)),
    "GET /v1/responses/{response_id}/input_items": reads(
        "responses", InputItems, errors=(400, 404), query=_PAGE
    ),
    "POST /inference/v1/generate": generates(
        "tokens", GenerateRequest, GenerateAnswer, example=_TOKENS
    ),
    "POST /v1/messages": generates(
        "messages", MessagesRequest, MessageAnswer, example=_MESSAGES, error=AnthropicError
    ),
    "POST /v1/messages/count_tokens": takes(
        "messages", CountTokensRequest, TokenCount, example=_CHAT, error=AnthropicError
    ),
    "GET /v1/models": reads("models", ModelList),
    "GET /v1/models/{name}": reads("models", Model, errors=(404,)),
    "POST /tokenize": takes("tokens", TokenizeRequest, Tokens, example={"prompt": "Hello"}),
    "POST /detokenize": takes("tokens", DetokenizeRequest, Text, example={"tokens": [1, 2, 3]}),
    "GET /tokenizer_info": reads("tokens", TokenizerInfo),
    "POST /reset_prefix_cache": acts(DroppedPages),
    "POST /abort_requests": replace(
        acts(Aborted), request=AbortFields, example={"request_ids": ["chatcmpl-1"]}
    ),
    "POST /pause": acts(PauseAnswer, query=PAUSE_QUERY, errors=(400, 503)),
    "POST /resume": acts(PauseAnswer, errors=(409, 503)),
    "GET /is_paused": acts(PauseState),
    "POST /sleep": acts(SleepAnswer, query=SLEEP_QUERY, errors=(400, 409, 503)),
    "POST /wake_up": acts(SleepAnswer, errors=(409, 503)),
    "GET /is_sleeping": acts(SleepState),
    "GET /livez": reads("operation", Probe),
    "GET /readyz": reads("operation", Probe, unavailable=ProbeRefusal),
    "GET /health": reads("operation", HealthReport, unavailable=HealthRefusal),
    "GET /metrics": shows("operation", CONTENT_TYPE),
    "GET /version": reads("operation", Version),
    "GET /server_info": reads("operation", ServerInfo),
    "GET /dashboard.json": reads("operation", Json),
    "GET /openapi.json": reads("operation", Json),
}
