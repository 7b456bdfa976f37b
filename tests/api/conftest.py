"""A real server on a real socket, over an engine that says what a test tells it to."""

import asyncio
import contextlib
import math
import re
import shutil
import socket
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import anthropic
import httpx
import openai
import pytest
import pytest_asyncio
import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from leadline.engine.control import PauseMode
from leadline.engine.delivery import Push
from leadline.engine.messages import EngineStats
from leadline.engine.progress import Progress
from leadline.engine.request import (
    EngineRequest,
    FinishReason,
    RequestOutput,
    RequestTiming,
    SpeculationCounts,
    TokenLogprobs,
)
from leadline.engine.survey import EngineSurvey, ExpertLoad
from leadline.loader.chat_template import ChatTemplate
from leadline.loader.generation_config import GenerationConfig
from leadline.loader.tokenizer import Tokenizer
from leadline.server.app import create_app
from leadline.server.dialects.dialect import DEEPSEEK_TEXTS, Mark
from leadline.server.http_server import HttpServer
from leadline.server.limits import Limits
from leadline.server.state import ServerState

MODEL = "tiny"
BOS, EOS = "<bos>", "<eos>"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if messages[0].content == 'refuse' %}{{ raise_exception('no such chat') }}{% endif %}"
    "{% if add_generation_prompt %}assistant:{% if thinking %}<think>{% endif %}{% endif %}"
)
# All that reaches the model, one turn a line.
TURNS = (
    "{% if tools %}{{ tools | tojson }}\n{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}"
    "{% if m.reasoning_content %}#{{ m.reasoning_content }}{% endif %}"
    "{% for c in m.tool_calls or [] %}<{{ c.id }} {{ c.function.name }} "
    "{{ c.function.arguments }}>{% endfor %}{% if m.tool_call_id %}={{ m.tool_call_id }}{% endif %}"
    "|{% endfor %}{% if thinking %}<think>{% endif %}"
)
SHORT_MARKS = {
    "[[": Mark.CALLS_BEGIN,
    "]]": Mark.CALLS_END,
    "((": Mark.CALL_BEGIN,
    "))": Mark.CALL_END,
    "||": Mark.NAME_END,
}
WAIT_S = 10.0
LEAKS = re.compile(r"0x[0-9a-f]{6,}|/home/|/usr/|/tmp/|Traceback|File \"|site-packages|\.py\b")
# Reading the system's certificates takes longer than all the rest of a test.
NO_TLS: Any = {"verify": False, "trust_env": False}

BROWSER_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def check_for_leaks(response: httpx.Response) -> None:
    """No error of any test tells of the inside: addresses, paths, traces."""
    if response.status_code >= 400:
        response.read()
        assert not LEAKS.search(response.text), response.text


def make_tokenizer(*marks: str) -> Tokenizer:
    """A byte a token, two special tokens, and marks that are tokens too."""
    vocab = {character: id_ for id_, character in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    backend = Backend(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(BOS, special=True), AddedToken(EOS, special=True)])
    backend.add_tokens([AddedToken(mark, special=False) for mark in marks])
    return Tokenizer(backend, {"bos_token": BOS, "eos_token": EOS, "add_bos_token": True})


TOKENIZER = make_tokenizer()
EOS_ID = TOKENIZER.encode(EOS)[0]
TOP_LOGPROBS = (-0.5, -1.0, -2.0, -math.inf)


def logprobs_of(token_id: int, num: int) -> TokenLogprobs:
    """A token is the second likeliest; the fourth one is impossible."""
    order = [token_id + 1, token_id, token_id + 2, token_id + 3]
    vocab_size = TOKENIZER.vocab_size
    return TokenLogprobs(
        token_id=token_id,
        logprob=TOP_LOGPROBS[1],
        rank=2,
        top_ids=[top_id % vocab_size for top_id in order[:num]],
        top_logprobs=list(TOP_LOGPROBS[:num]),
    )


def all_logprobs_of(token_ids: list[int], num: int | None) -> list[TokenLogprobs] | None:
    return None if num is None else [logprobs_of(token_id, num) for token_id in token_ids]


@dataclass
class ScriptedEngine:
    """Says `text`, `chunk` tokens a step, and remembers what it was asked.

    Attributes:
        leader_delay_s: how much later the first choice of a prompt comes than the others.
        ends: say the end token after the text.
        gate: where set to a closed event, every step waits for it.
        failure: what ends each request after its text, and `error` the sentence with it.
        speculation: told with the end.
        timing: told with the first tokens.
        num_cached_pages: what a reset of the prefix cache drops.
        num_pushed: outputs that went to clients at once.
        refusal: raised instead of an answer.
    """

    text: Callable[[EngineRequest], str] = lambda request: "Hello, world!"
    chunk: int = 1
    ends: bool = True
    step_s: float = 0.0
    leader_delay_s: float = 0.0
    num_cached_tokens: int = 0
    failure: FinishReason | None = None
    error: str | None = "the logits are not finite"
    speculation: SpeculationCounts | None = None
    timing: RequestTiming | None = None
    num_cached_pages: int = 0
    tokenizer: Tokenizer = TOKENIZER
    refusal: Exception | None = None
    alive: bool = True
    is_restarting: bool = False
    gate: asyncio.Event | None = None
    stats: EngineStats = field(default_factory=EngineStats)
    progress: Progress = field(default_factory=Progress)
    requests: list[EngineRequest] = field(default_factory=list)
    finished: list[tuple[str, FinishReason]] = field(default_factory=list)
    num_pushed: int = 0
    orders: list[tuple[str, Any]] = field(default_factory=list)

    def finish(self, request_id: str, reason: FinishReason) -> None:
        self.finished.append((request_id, reason))

    @property
    def control(self) -> "ScriptedEngine":
        return self

    async def abort(self, names: list[str] | None = None) -> list[str]:
        self.orders.append(("abort", names))
        return list(names or ())

    async def pause(self, mode: PauseMode) -> bool:
        if self.refusal is not None:
            raise self.refusal
        self.orders.append(("pause", mode))
        self.stats.is_paused = self.stats.holds_requests = True
        return True

    async def sleep(self, level: int, mode: PauseMode) -> int | None:
        await self.pause(mode)
        self.stats.sleep_level = level
        return 1000 * level

    async def wake_up(self) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.stats.sleep_level = 0
        await self.resume()

    async def resume(self) -> None:
        self.orders.append(("resume", None))
        self.stats.is_paused = self.stats.holds_requests = False

    async def survey(self) -> EngineSurvey:
        if self.refusal is not None:
            raise self.refusal
        return EngineSurvey(
            page_size=16,
            pages=bytes([0, 1, 2, 3] * 16),
            num_waiting_tokens=0,
            oldest_waiting_s=0.0,
            draft_depth=2,
            expert_load=[ExpertLoad(1, False, [5, 0, 3, 2])],
        )

    async def reset_prefix_cache(self) -> int:
        if self.refusal is not None:
            raise self.refusal
        num_pages, self.num_cached_pages = self.num_cached_pages, 0
        return num_pages

    async def generate(
        self, request: EngineRequest, push: Push | None = None
    ) -> AsyncGenerator[RequestOutput, None]:
        self.requests.append(request)
        if self.refusal is not None:
            raise self.refusal
        is_over = False
        try:
            async for output in self._outputs(request):
                if push is not None and push([output]):
                    self.num_pushed += 1
                    continue
                is_over = output.finish_reason is not None
                yield output
        finally:
            if not is_over:
                self.finish(request.request_id, FinishReason.ABORT)

    async def _outputs(self, request: EngineRequest) -> AsyncIterator[RequestOutput]:
        if request.leader_id is None:
            await asyncio.sleep(self.leader_delay_s)
        ids = self.tokenizer.encode(self.text(request)) + [EOS_ID] * self.ends
        params = request.params
        limit = params.max_tokens
        reason = FinishReason.STOP if self.ends and len(ids) <= limit else FinishReason.LENGTH
        ids = ids[:limit]
        for start in range(0, len(ids), self.chunk):
            await asyncio.sleep(self.step_s)
            if self.gate is not None:
                await self.gate.wait()
            is_last = start + self.chunk >= len(ids) and self.failure is None
            new_ids, is_first = ids[start : start + self.chunk], start == 0
            num_prompt_logprobs = params.num_prompt_logprobs if is_first else None
            yield RequestOutput(
                request_id=request.request_id,
                token_ids=new_ids,
                finish_reason=reason if is_last else None,
                stop_token_id=EOS_ID if is_last and reason is FinishReason.STOP else None,
                num_cached_tokens=self.num_cached_tokens,
                logprobs=all_logprobs_of(new_ids, params.num_logprobs),
                prompt_logprobs=all_logprobs_of(request.prompt_ids[1:], num_prompt_logprobs),
                speculation=self.speculation if is_last else None,
                timing=self.timing if is_first else None,
            )
        if self.failure is not None:
            yield RequestOutput(
                request_id=request.request_id,
                token_ids=[],
                finish_reason=self.failure,
                error=self.error,
                is_lost=not self.alive,
            )

    def wait_finished(self, count: int = 1) -> list[FinishReason]:
        """The reasons of the first `count` calls of `finish`, once they have come."""
        deadline_s = time.monotonic() + WAIT_S
        while len(self.finished) < count:
            assert time.monotonic() < deadline_s, "the engine was not told"
            time.sleep(0.005)
        return [reason for _, reason in self.finished]


def make_state(engine: Any, **changes: Any) -> ServerState:
    settings = {
        "tokenizer": TOKENIZER,
        "template": ChatTemplate(TEMPLATE, {"bos_token": BOS}),
        "model_names": (MODEL, "org/alias"),
        "max_model_len": 200,
        "defaults": GenerationConfig(temperature=0.6, top_p=0.9, eos_token_ids=(EOS_ID,)),
        "prompt_prefix_ids": TOKENIZER.prefix_ids,
        "seed_source": lambda: 4711,
    }
    return ServerState(engine=engine, **(settings | changes))


@contextlib.contextmanager
def served(app: Any, limits: Limits | None = None) -> Iterator[tuple[tuple[str, int], HttpServer]]:
    """Serve an application by the product's own HTTP server; gives its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    server = HttpServer(app, access_log=False, limits=limits)
    is_up, stop = threading.Event(), threading.Event()

    async def main() -> None:
        server.start(listener)
        while not server.started:
            await asyncio.sleep(0.005)
        is_up.set()
        await asyncio.to_thread(stop.wait)
        await server.stop()

    thread = threading.Thread(target=lambda: uvloop.run(main()), daemon=True)
    thread.start()
    assert is_up.wait(WAIT_S)
    try:
        yield address, server
    finally:
        stop.set()
        thread.join(WAIT_S)
        listener.close()


class Switchboard:
    """Many applications behind one socket, each below a path of its own: a server costs 0.2 s."""

    def __init__(self) -> None:
        self.url = ""
        self._apps: dict[str, ASGIApp] = {}

    def add(self, app: ASGIApp) -> str:
        """Serve one more application; gives its URL."""
        name = f"app{len(self._apps)}"
        self._apps[name] = app
        return f"{self.url}/{name}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _, name, path = scope["path"].split("/", 2)
        inner = {**scope, "path": f"/{path}", "raw_path": f"/{path}".encode()}
        await self._apps[name](inner, receive, send)


@dataclass
class Service:
    """A served model and its clients."""

    url: str
    state: ServerState
    engine: ScriptedEngine
    http: httpx.Client
    client: openai.OpenAI

    def post(self, path: str, body: Any, **kwargs: Any) -> httpx.Response:
        if isinstance(body, bytes):
            kwargs.setdefault("headers", {"content-type": "application/json"})
            return self.http.post(path, content=body, **kwargs)
        return self.http.post(path, json=body, **kwargs)

    def chat(self, content: Any = "Hi", **fields: Any) -> httpx.Response:
        messages = [{"role": "user", "content": content}]
        return self.post("/v1/chat/completions", {"model": MODEL, "messages": messages, **fields})

    def complete(self, prompt: Any = "Hi", **fields: Any) -> httpx.Response:
        return self.post("/v1/completions", {"model": MODEL, "prompt": prompt, **fields})


@pytest.fixture(scope="session")
def engine_of() -> type[ScriptedEngine]:
    return ScriptedEngine


@pytest.fixture(scope="session")
def thinking_tokenizer() -> Tokenizer:
    """One whose `<think>` and `</think>` are tokens."""
    return make_tokenizer("<think>", "</think>")


@pytest.fixture(scope="session")
def tokenizer_of() -> Callable[..., Tokenizer]:
    """Makes one with these marks."""
    return make_tokenizer


@pytest.fixture(scope="session")
def switchboard() -> Iterator[Switchboard]:
    board = Switchboard()
    with served(board) as ((host, port), _):
        board.url = f"http://{host}:{port}"
        yield board


@pytest.fixture
def serve(switchboard: Switchboard) -> Iterator[Callable[..., Service]]:
    """Serves a scripted engine; arguments go to it, `state` to the server's state."""
    with contextlib.ExitStack() as stack:

        def start(*, state: dict[str, Any] | None = None, **script: Any) -> Service:
            engine = ScriptedEngine(**script)
            server_state = make_state(engine, **(state or {}))
            url = switchboard.add(create_app(server_state))
            hooks = {"response": [check_for_leaks]}
            http = stack.enter_context(
                httpx.Client(base_url=url, timeout=WAIT_S, event_hooks=hooks, **NO_TLS)
            )
            client = stack.enter_context(
                openai.OpenAI(
                    base_url=f"{url}/v1",
                    api_key="-",
                    max_retries=0,
                    timeout=WAIT_S,
                    http_client=openai.DefaultHttpxClient(**NO_TLS),
                )
            )
            return Service(url, server_state, engine, http, client)

        yield start


@pytest.fixture
def anthropic_of() -> Iterator[Callable[[str], anthropic.Anthropic]]:
    """Makes Anthropic's own client of a service at a URL."""
    with contextlib.ExitStack() as stack:

        def connect(url: str, **settings: Any) -> anthropic.Anthropic:
            http_client = anthropic.DefaultHttpxClient(**NO_TLS)
            fixed: Any = {"max_retries": 0, "timeout": WAIT_S, "http_client": http_client}
            client = anthropic.Anthropic(base_url=url, **({"api_key": "-"} | fixed | settings))
            return stack.enter_context(client)

        yield connect


@pytest.fixture
def service(serve: Callable[..., Service]) -> Service:
    return serve()


@pytest_asyncio.fixture
async def async_client(service: Service) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{service.url}/v1",
        api_key="-",
        max_retries=0,
        timeout=WAIT_S,
        http_client=openai.DefaultAsyncHttpxClient(**NO_TLS),
    ) as client:
        yield client


@pytest.fixture(name="served", scope="session")
def _served() -> Callable[..., Any]:
    """Serves an application by the product's own HTTP server."""
    return served


@pytest.fixture
def serve_thinker(serve: Callable[..., Service]) -> Callable[..., Service]:
    """Serves a model that thinks, calls, and says this; marks of calls are written short."""
    tokenizer = make_tokenizer("<think>", "</think>", *DEEPSEEK_TEXTS.values())

    def start(says: str, **script: Any) -> Service:
        for short, mark in SHORT_MARKS.items():
            says = says.replace(short, DEEPSEEK_TEXTS[mark])
        state = {
            "tokenizer": tokenizer,
            "template": ChatTemplate(TURNS, {}),
            "max_model_len": 20_000,
        } | script.pop("state", {})
        return serve(text=lambda request: says, tokenizer=tokenizer, state=state, **script)

    return start


@pytest.fixture
def address(service: Service) -> Iterator[tuple[str, int]]:
    """Where `service` is served by the product's own HTTP server."""
    with served(create_app(service.state)) as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Closed after the module: while it is open, its event loop runs, and no other can."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("there is no Chromium here")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(BROWSER_FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A fresh page; an error in its scripts fails the test."""
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


@pytest.fixture
def until(page: Any) -> Callable[[str], None]:
    """Waits for a condition of the page; its policy forbids the ways of waiting that build code."""
    look = (
        "new Promise((done, fail) => {{ const begun = performance.now(); const look = () => ({}) "
        "? done() : performance.now() - begun > {} ? fail(Error('not within time')) "
        ": requestAnimationFrame(look); look(); }})"
    )
    return lambda condition: page.evaluate(look.format(condition, 1000 * WAIT_S))
