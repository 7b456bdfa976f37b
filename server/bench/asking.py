"""Sends one request and writes down when each part of its answer comes."""

import time
from typing import Any

import msgspec

from leadline.server.bench.event import AnswerError, Event, decode_event, refusal_text
from leadline.server.bench.event_stream import EventStream
from leadline.server.bench.http_client import Answer, HttpClient, HttpError, is_ok
from leadline.server.bench.options import ServeOptions
from leadline.server.bench.record import DraftCounts, Record
from leadline.server.bench.sample import Sample

_DONE = b"[DONE]"
_FAILED_REASONS = ("error", "abort")


class Asker:
    """Asks one endpoint."""

    def __init__(self, http: HttpClient, options: ServeOptions, model: str) -> None:
        self._http = http
        self._options = options
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
                await _read(answer, record)
        except (HttpError, AnswerError) as error:
            record.error = str(error)
        record.end_s = record.end_s or time.perf_counter()
        if not record.has_usage:
            record.num_output_tokens = len(record.token_times_s)
        return record


async def _read(answer: Answer, record: Record) -> None:
    """Write the answer down.

    Raises:
        HttpError: it is cut off.
        AnswerError: it is a refusal, has another form, or tells of an error or of no end.
    """
    if not is_ok(answer.status):
        raise AnswerError(refusal_text(answer.status, await answer.read()))
    events = EventStream()
    async for chunk in answer.chunks():
        now_s = time.perf_counter()
        for data in events.feed(chunk):
            if data != _DONE:
                _take(decode_event(data), record, now_s)
    if record.finish_reason is None:
        raise AnswerError("the answer ended without a finish reason")
    if record.finish_reason in _FAILED_REASONS:
        raise AnswerError(f"the answer's finish reason is {record.finish_reason!r}")


def _take(event: Event, record: Record, now_s: float) -> None:
    """What an event adds to the record; of counts, the last word counts."""
    if event.choices:
        choice = event.choices[0]
        record.end_s = now_s
        if choice.has_tokens:
            record.token_times_s.append(now_s)
            record.text += choice.new_text
        record.finish_reason = choice.finish_reason or record.finish_reason
    if event.usage is not None:
        if event.usage.completion_tokens is not None:
            record.has_usage, record.num_output_tokens = True, event.usage.completion_tokens
        if event.usage.prompt_tokens is not None:
            record.num_prompt_tokens = event.usage.prompt_tokens
    if event.metrics is not None and (drafting := event.metrics.speculative_decoding) is not None:
        record.drafts = DraftCounts(
            num_drafts=drafting.num_spec_steps,
            num_draft_tokens=drafting.num_draft_tokens,
            num_accepted_tokens=drafting.num_accepted_draft_tokens,
            accepted_per_position=drafting.num_accepted_tokens_per_pos,
        )
