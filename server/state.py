"""What every handler needs: the engine, the tokenizer, and what is served under which names."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from leadline.engine.grammar.checker import GrammarChecker
from leadline.engine.request import ThinkingLimit
from leadline.loader.chat_template import ChatTemplate
from leadline.loader.generation_config import GenerationConfig
from leadline.loader.tokenizer import Tokenizer
from leadline.server.dialects.dialect import Dialect, find_dialect
from leadline.server.dialects.reading import mark_ids
from leadline.server.engine_protocol import Engine
from leadline.server.limits import Limits
from leadline.server.logprobs import EntryTexts
from leadline.server.metrics import Metrics
from leadline.server.plain_texts import PlainTexts
from leadline.server.request_record import RequestRecord
from leadline.server.responses.running import RunningResponses
from leadline.server.responses.store import ResponseStore
from leadline.server.server_info import ServerInfo
from leadline.server.template_process import TemplateProcess
from leadline.server.thinking import find_thinking_tokens
from leadline.server.version import version


class InFlight:
    """Counts the API requests that are being answered, so that draining can wait for them."""

    def __init__(self) -> None:
        self._count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def count(self) -> int:
        """Requests being answered now."""
        return self._count

    def __enter__(self) -> None:
        self._count += 1
        self._idle.clear()

    def __exit__(self, *exc_info: object) -> None:
        self._count -= 1
        if self._count == 0:
            self._idle.set()

    async def wait_until_idle(self, timeout_s: float | None = None) -> None:
        """Return when no request is being answered, or after so many seconds; None for any."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)


@dataclass(slots=True, kw_only=True)
class ServerState:
    """One served model.

    Attributes:
        template: None if the checkpoint has no chat template; chat requests are refused then.
        model_names: names in the API, the main one first.
        max_model_len: most tokens (prompt and output) of one request.
        defaults: sampling where a request is silent, and the model's own end tokens.
        prompt_prefix_ids: what belongs before a plain text prompt (`Tokenizer.prefix_ids`).
        seed_source: draws the seed of a request that gives none, 0..2**53-1 (exact in JavaScript).
        thinking: the tokens that mark the model's thinking; None if it has none.
        dialect: how the model writes tool calls; None if its tokenizer has no marks for them.
        grammars: checks grammars before a request is sent; None takes them as they are.
        deadline_s: seconds that a request may take which does not say itself; None for any.
        page_size: tokens a page of the prefix cache; 0 if there is none.
        keep_alive_s: seconds of silence after which a waiting stream gets a comment line.
        templates: renders `template`; None to render it in this process.
        limits: how large requests may be, and how long things may take.
        is_strict: a field that nobody knows is refused, where it is ignored otherwise.
        background: responses that are being made without a client that waits.
        responses_directory: where other processes keep theirs too; None for a place of its own.
        responses: those of /v1/responses that can be asked for again.
        cache_info: what metrics tell of the engine's cache, by label.
        plain_texts: of tokens that are no more than text.
        entry_texts: of tokens, as log-probabilities are told.
        reporters: are told of each request whose answer has ended.
        info: what was settled at the start.
        fingerprint: stands for model and version in answers.
        draining: new requests are refused with 503.
    """

    engine: Engine
    tokenizer: Tokenizer
    template: ChatTemplate | None
    model_names: tuple[str, ...]
    max_model_len: int
    seed_source: Callable[[], int]
    defaults: GenerationConfig = field(default_factory=GenerationConfig)
    prompt_prefix_ids: tuple[int, ...] = ()
    created_s: int = field(default_factory=lambda: int(time.time()))
    grammars: GrammarChecker | None = None
    deadline_s: float | None = None
    page_size: int = 0
    keep_alive_s: float = 10.0
    templates: TemplateProcess | None = None
    limits: Limits = field(default_factory=Limits)
    is_strict: bool = False
    draining: bool = False
    in_flight: InFlight = field(default_factory=InFlight)
    cache_info: Mapping[str, str] = field(default_factory=dict)
    reporters: list[Callable[[RequestRecord], None]] = field(default_factory=list)
    responses_directory: Path | None = None
    info: ServerInfo = field(default_factory=ServerInfo)
    metrics: Metrics = field(init=False)
    responses: ResponseStore = field(init=False)
    background: RunningResponses = field(init=False)
    fingerprint: str = field(init=False)
    thinking: ThinkingLimit | None = field(init=False)
    dialect: Dialect | None = field(init=False)
    plain_texts: PlainTexts = field(init=False)
    entry_texts: EntryTexts = field(init=False)

    def __post_init__(self) -> None:
        served = f"{version()} {self.model_names} {self.max_model_len}"
        self.fingerprint = f"fp_{hashlib.sha256(served.encode()).hexdigest()[:12]}"
        self.responses = ResponseStore(
            self.responses_directory,
            max_responses=self.limits.stored_responses,
            max_bytes=self.limits.stored_response_bytes,
        )
        self.background = RunningResponses(self.responses)
        self.thinking = find_thinking_tokens(self.tokenizer)
        template_source = "" if self.template is None else self.template.source
        self.dialect = find_dialect(self.tokenizer, template_source)
        marks = frozenset(mark_ids(self.thinking, self.dialect).values())
        self.plain_texts = PlainTexts(self.tokenizer, marks)
        self.entry_texts = EntryTexts(self.tokenizer)
        self.metrics = Metrics(
            self.model_names[0],
            lambda: self.engine.stats,
            max_model_len=self.max_model_len,
            cache_info=self.cache_info,
        )
        self.reporters.insert(0, self.metrics.requests.on_request_end)
