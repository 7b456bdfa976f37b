"""Sends one request and writes down when each part of its answer comes."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from leadline.server.bench.event_stream import EventStream
from leadline.server.bench.http_client import Answer, HttpClient, HttpError, is_ok
from leadline.server.bench.options import ServeOptions
from leadline.server.bench.record import DraftCounts, Record
from leadline.server.bench.sample import Sample

_MAX_ERROR_CHARS = 500
_FAILED_REASONS = ("error", "abort")
_DELTA_TEXTS = ("reasoning_content", "reasoning", "content")


class AnswerError(Exception):
    """An answer that is none, by what the server says or leaves out."""


class Asker:
    """Asks one endpoint."""

    def __init__(self, http: HttpClient, options: ServeOptions, model: str) -> None:
        self._http = http
        self._options = options
        self._read_choice = _chat_text if options.is_chat else _completion_text
        self._fields: dict[str, Any] = {
            "model": model,
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"ignore_eos": True} if options.ignore_eos else {}),
            **options.sampling,
            **options.extra_body,
        }

    def body(self, sample: Sample) -> dict[str, Any]:
        """The JSON that is sent for a sample."""
        if not self._options.is_chat:
            body = {"prompt": sample.prompt, "max_tokens": sample.num_output_tokens}
        else:
            prompt = sample.prompt
            messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            body = {"messages": messages, "max_completion_tokens": sample.num_output_tokens}
        return {**body, **self._fields}

    async def ask(self, sample: Sample, request_id: str) -> Record:
        """The record of a request, whether it succeeds or fails."""
        body = msgspec.json.encode(self.body(sample))
        headers = {"x-request-id": request_id}
        record = Record(num_prompt_tokens=sample.num_tokens, start_s=time.perf_counter())
        try:
            async with self._http.open("POST", self._options.endpoint, body, headers) as answer:
                await self._read(answer, record)
        except (HttpError, AnswerError) as error:
            record.error = str(error)
        record.end_s = record.end_s or time.perf_counter()
        if not record.has_usage:
            record.num_output_tokens = len(record.token_times_s)
        return record

    async def _read(self, answer: Answer, record: Record) -> None:
        if not is_ok(answer.status):
            raise AnswerError(refusal_text(answer.status, await answer.read()))
        events, texts = EventStream(), []
        async for chunk in answer.chunks():
            now_s = time.perf_counter()
            for data in events.feed(chunk):
                if data == b"[DONE]":
                    continue
                event = _decode(data)
                if event.get("choices"):
                    record.end_s = now_s
                    choice = event["choices"][0]
                    text, is_token = self._read_choice(choice)
                    if is_token:
                        record.token_times_s.append(now_s)
                        texts.append(text)
                    record.finish_reason = choice.get("finish_reason") or record.finish_reason
                _read_counts(event, record)
        record.text = "".join(texts)
        if record.finish_reason is None:
            raise AnswerError("the answer ended without a finish reason")
        if record.finish_reason in _FAILED_REASONS:
            raise AnswerError(f"the answer's finish reason is {record.finish_reason!r}")


ReadChoice = Callable[[Mapping[str, Any]], tuple[str, bool]]


def _completion_text(choice: Mapping[str, Any]) -> tuple[str, bool]:
    text = choice.get("text") or ""
    return text, bool(text)


def _chat_text(choice: Mapping[str, Any]) -> tuple[str, bool]:
    """The text of a delta, and whether it has any or is part of a call."""
    delta = choice.get("delta") or {}
    # Servers send reasoning under one name, or the same under both.
    text = next((delta[name] for name in _DELTA_TEXTS if delta.get(name)), "")
    return text, bool(text or delta.get("tool_calls"))


def _decode(data: bytes) -> dict[str, Any]:
    """An event.

    Raises:
        AnswerError: it is none, or tells of an error.
    """
    try:
        event = msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise AnswerError(f"an event is no JSON object ({error}): {_short(data)}") from None
    if event.get("error") or event.get("object") == "error":
        raise AnswerError(f"an error in the stream: {_error_text(event)}")
    return event


def _read_counts(event: Mapping[str, Any], record: Record) -> None:
    """What an event says of tokens and drafts; the last word counts."""
    if usage := event.get("usage"):
        if (num_output := usage.get("completion_tokens")) is not None:
            record.has_usage, record.num_output_tokens = True, num_output
        if (num_prompt := usage.get("prompt_tokens")) is not None:
            record.num_prompt_tokens = num_prompt
    if counts := (event.get("metrics") or {}).get("speculative_decoding"):
        record.drafts = DraftCounts(
            num_drafts=counts["num_spec_steps"],
            num_draft_tokens=counts["num_draft_tokens"],
            num_accepted_tokens=counts["num_accepted_draft_tokens"],
            accepted_per_position=counts["num_accepted_tokens_per_pos"],
        )


def refusal_text(status: int, body: bytes) -> str:
    """What is said of an answer with a status that is not of success."""
    try:
        text = _error_text(msgspec.json.decode(body, type=dict[str, Any]))
    except msgspec.MsgspecError:
        text = _short(body)
    return f"status {status}: {text}" if text else f"status {status}"


def _error_text(event: Mapping[str, Any]) -> str:
    error = event.get("error") or event
    text = error.get("message") if isinstance(error, dict) else error
    return _short(str(text or event).encode())


def _short(data: bytes) -> str:
    return data.decode(errors="replace").strip()[:_MAX_ERROR_CHARS]
