"""From a validated request to its choices' text: what chat and text completions have in common."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from leadline.engine.errors import EngineError
from leadline.engine.request import (
    ABORTED_BY_OPERATOR,
    EngineRequest,
    FinishReason,
    RequestOutput,
    SpeculationCounts,
    TokenLogprobs,
)
from leadline.server.answer_parts import AnswerParts
from leadline.server.body_writer import BodyWriter
from leadline.server.choice_text import ChoiceText
from leadline.server.delta import Delta, TokenInText
from leadline.server.dialects.events import CallBegin, ReasoningText
from leadline.server.dialects.reading import Reading
from leadline.server.draft_flags import split_at_drafts
from leadline.server.errors import (
    AbortedError,
    ApiError,
    DeadlineError,
    UnavailableError,
    from_engine_error,
)
from leadline.server.logprobs import EchoedPrompt, LogprobWriter, bytes_of
from leadline.server.merge import merge
from leadline.server.plain_stream import PlainFrames, PlainStream
from leadline.server.request_id import REQUEST_ID
from leadline.server.request_record import ChoiceRecord, RequestRecord
from leadline.server.state import ServerState
from leadline.server.text_rules import TextRules
from leadline.server.thinking import ThinkingCounter
from leadline.server.usage import Usage


@dataclass(slots=True, kw_only=True)
class Generation:
    """The choices of one API request.

    Attributes:
        response_id: the answer's `id`.
        seed: the request's, which may be negative, or the one drawn for it.
        requests: one for each choice, by index: all choices of the first prompt come first.
        rules: where texts end.
        parts: what the answer tells.
        writer: of log-probabilities.
        echoes: by prompt, if choices begin with it.
        reading: what answers are made of; None if they are text alone.
        metadata: the request's.
        usage: as of the last delta.
        prompt_logprobs: by prompt, as of the last delta, if the engine was asked for them.
        trace_headers: where the request stands in somebody's trace.
        plain_way: if set before the first delta, plain text goes there, and not by `deltas`.
        record: what has happened so far.
    """

    state: ServerState
    response_id: str
    model: str
    created_s: int
    seed: int
    requests: list[EngineRequest]
    rules: TextRules
    parts: AnswerParts
    writer: LogprobWriter
    echoes: list[EchoedPrompt]
    choices_per_prompt: int
    usage: Usage
    reading: Reading | None = None
    metadata: dict[str, Any] | None = None
    prompt_logprobs: dict[int, list[TokenLogprobs]] = field(default_factory=dict)
    trace_headers: dict[str, str] = field(default_factory=dict)
    plain_way: tuple[PlainFrames, BodyWriter] | None = None
    record: RequestRecord = field(init=False)

    def __post_init__(self) -> None:
        first = self.requests[0]
        self.record = RequestRecord(
            request_id=REQUEST_ID.get(),
            response_id=self.response_id,
            model=self.model,
            num_choices=self.choices_per_prompt,
            first=first,
            choices=[ChoiceRecord(num_prompt_tokens=len(r.prompt_ids)) for r in self.requests],
            arrived_s=first.arrival_s,
            trace_headers=self.trace_headers,
        )

    def prompt_of(self, index: int) -> int:
        """The index of a choice's prompt."""
        return index // self.choices_per_prompt

    def prompt_ids_of(self, index: int) -> list[int]:
        """The token ids of a choice's prompt."""
        return self.requests[index].prompt_ids

    def echo_of(self, index: int) -> tuple[str, list[TokenInText]]:
        """The prompt as a choice repeats it; its tokens if log-probabilities are told."""
        if not self.echoes:
            return "", []
        prompt = self.prompt_of(index)
        echo = self.echoes[prompt]
        if not self.parts.has_logprobs:
            return echo.text, []
        return echo.text, echo.with_logprobs(self.prompt_logprobs.get(prompt, []))

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """All choices' text as it comes. Close it early (`aclosing`) to abort them all.

        Where prompt log-probabilities are asked for, those of a prompt are there before the first
        delta of any of its choices.

        Raises:
            ApiError: the engine refuses the request (before the first delta), or fails later.
        """
        try:
            async with aclosing(self._deltas()) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            for report in self.state.reporters:
                report(self.record)

    async def _deltas(self) -> AsyncGenerator[Delta, None]:
        early: list[Delta] = []  # of choices whose prompt the first choice has not told of yet
        streams = [self._choice(index) for index in range(len(self.requests))]
        async with aclosing(streams[0] if len(streams) == 1 else merge(streams)) as merged:
            async for delta in merged:
                prompt = self.prompt_of(delta.index)
                if delta.prompt_logprobs is not None:
                    self.prompt_logprobs[prompt] = delta.prompt_logprobs
                if self._is_early(delta):
                    early.append(delta)
                    continue
                yield self._count(delta)
                if early and delta.prompt_logprobs is not None:
                    for other in [e for e in early if self.prompt_of(e.index) == prompt]:
                        yield self._count(other)
                    early = [e for e in early if self.prompt_of(e.index) != prompt]
        assert not early, "the engine has not told of the prompt"

    def _is_early(self, delta: Delta) -> bool:
        """Whether the first choice has yet to tell of the prompt."""
        first = self.prompt_of(delta.index) * self.choices_per_prompt
        request = self.requests[first]
        is_asked = request.params.num_prompt_logprobs is not None and len(request.prompt_ids) > 1
        return is_asked and self.prompt_of(delta.index) not in self.prompt_logprobs

    def _count(self, delta: Delta) -> Delta:
        usage = self.usage
        usage.num_output_tokens[delta.index] = delta.num_tokens
        if usage.num_thinking_tokens is not None:
            usage.num_thinking_tokens[delta.index] = delta.num_thinking_tokens
        if delta.index % self.choices_per_prompt == 0:
            usage.num_cached_tokens[self.prompt_of(delta.index)] = delta.num_cached_tokens
        if delta.speculation is not None:
            usage.speculation.append(delta.speculation)
        return delta

    async def _choice(self, index: int) -> AsyncGenerator[Delta, None]:
        state, request = self.state, self.requests[index]
        text = self._choice_text(index)
        record = self.record.choices[index]
        if self.reading is not None and self.reading.form is not None:
            record.has_call = False
        reason = FinishReason.ABORT
        try:
            source = self._outputs(request, text, record)
            if self.parts.has_draft_flags:
                source = split_at_drafts(source)
            async with aclosing(source) as outputs:
                async for output in outputs:
                    delta = text.push(output)
                    self._take(record, output, delta)
                    if self.parts.hides_reasoning:
                        delta.events = [e for e in delta.events if not isinstance(e, ReasoningText)]
                    if delta.finish_reason is not None:
                        reason = delta.finish_reason
                        self._end(request, output, delta)
                        if output.finish_reason is None and self._has_drafts(request):
                            yield replace(delta, finish_reason=None)
                            counts = await _last_counts(outputs)
                            delta = replace(
                                delta, text="", events=[], tokens=[], speculation=counts
                            )
                    yield _without_tokens(delta) if self.parts.is_scoring else delta
                    if delta.finish_reason is not None:
                        return
        except EngineError as error:
            reason = FinishReason.ERROR
            raise from_engine_error(error) from error
        finally:
            record.end(reason)
            state.metrics.requests.on_choice_end(record, self.record.arrived_s)

    def _outputs(
        self, request: EngineRequest, text: ChoiceText, choice: ChoiceRecord
    ) -> AsyncGenerator[RequestOutput, None]:
        """A request's outputs, but for those that have gone the plain way."""
        state, way = self.state, self.plain_way
        if way is None or len(self.requests) > 1 or not self.parts.are_as_they_come:
            return state.engine.generate(request)
        texts, metrics = state.plain_texts, state.metrics.requests
        plain = PlainStream(text, choice, *way, texts, metrics, self.rules.stop_strings)
        return plain.outputs(state.engine, request)

    def _take(self, choice: ChoiceRecord, output: RequestOutput, delta: Delta) -> None:
        """Take the time of an output, and what it has brought."""
        metrics, num_before = self.state.metrics.requests, choice.num_tokens
        gap_s = choice.take(output, delta.num_tokens)
        if gap_s is not None:
            metrics.on_more_tokens(choice.num_tokens - num_before, gap_s)
        elif choice.first_token_s is not None and num_before == 0 < choice.num_tokens:
            metrics.on_first_tokens(choice.first_token_s - self.record.arrived_s)
        if choice.has_call is False:
            choice.has_call = any(isinstance(event, CallBegin) for event in delta.events)

    def _choice_text(self, index: int) -> ChoiceText:
        tokenizer, thinking, reading = self.state.tokenizer, self.state.thinking, self.reading
        request = self.requests[index]
        token_bytes = tokenizer.token_bytes
        if not self.parts.has_text:
            token_bytes = _no_bytes
        elif self.parts.has_special_tokens:
            token_bytes = partial(bytes_of, tokenizer)
        return ChoiceText(
            index,
            token_bytes,
            self.rules,
            None if thinking is None else ThinkingCounter(thinking, request.prompt_ids),
            reader=None if reading is None else reading.reader(request.request_id),
            marks=None if reading is None else reading.marks,
        )

    def _has_drafts(self, request: EngineRequest) -> bool:
        """Whether the engine will tell what drafts did for a request."""
        return self.state.engine.stats.num_drafts > 0 and request.params.speculative_tokens != 0

    def _end(self, request: EngineRequest, output: RequestOutput, delta: Delta) -> None:
        """Tell the engine about a stop string, or the caller about a failure."""
        if output.finish_reason is None:
            self.state.engine.finish(output.request_id, FinishReason.STOP)
        elif delta.finish_reason is FinishReason.ABORT:
            if output.error == ABORTED_BY_OPERATOR:
                raise AbortedError(output.error)
            if output.error and request.deadline_s is not None and not output.is_lost:
                raise DeadlineError(output.error)
            raise UnavailableError("the request was aborted; send it again", code="aborted")
        elif delta.finish_reason is FinishReason.ERROR:
            if output.is_lost:
                raise UnavailableError("the engine has failed; try again later", code="engine_dead")
            raise ApiError(500, output.error or "the engine failed", code="engine_error")


def _no_bytes(token_id: int) -> bytes:
    return b""


async def _last_counts(outputs: AsyncIterator[RequestOutput]) -> SpeculationCounts | None:
    """What drafts did for a request that has been ended; what it said after that is dropped."""
    async for output in outputs:
        if output.finish_reason is not None:
            return output.speculation
    return None


def _without_tokens(delta: Delta) -> Delta:
    """What is left where the prompt alone is of interest."""
    reason = None if delta.finish_reason is None else FinishReason.LENGTH
    return replace(
        delta,
        text="",
        events=[],
        finish_reason=reason,
        num_tokens=0,
        num_thinking_tokens=0,
        stop_reason=None,
        tokens=[],
    )
