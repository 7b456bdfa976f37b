"""What a client gets from a real `leadline serve`: loader, engine process and model included."""

import asyncio
import json
import shlex
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from leadline.loader.hub import resolve_model

WAIT_S = 120.0  # generous: a starved machine is no failure
QUESTION = "What does `itertools.chain` do?"
SAMPLED = {"temperature": 1.0, "top_p": 1.0, "seed": 7, "max_tokens": 24}
MESSAGES: list[Any] = [{"role": "user", "content": QUESTION}]


def ask(client: openai.OpenAI, content: str = QUESTION, **fields: Any) -> Any:
    extra = {name: fields.pop(name) for name in ("ignore_eos", "top_k") if name in fields}
    return client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": content}],
        extra_body=extra,
        **(SAMPLED | fields),
    )


def text_of(answer: Any, index: int = 0) -> str:
    text = answer.choices[index].message.content
    assert isinstance(text, str)
    return text


def test_start_up_screen_names_what_was_loaded(service: Any) -> None:
    screen = "\n".join(service.lines)
    for part in ("DeepseekV3ForCausalLM", "latent cache", "max_model_len", "demo"):
        assert part in screen


def test_curl_line_is_a_request(service: Any, http: httpx.Client) -> None:
    [line] = [line for line in service.lines if line.startswith("  curl")]
    _, url, _, header, _, data = shlex.split(line)
    body = json.dumps(json.loads(data) | {"max_tokens": 8})  # random weights never stop
    answer = http.post(url, content=body, headers=dict([header.split(": ")]))
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["role"] == "assistant"


def test_streaming_equals_not_streaming(client: openai.OpenAI) -> None:
    whole = ask(client)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    pieces = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(pieces) == text_of(whole)
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_usage_adds_up(client: openai.OpenAI) -> None:
    answer = ask(client, max_tokens=9, ignore_eos=True)
    usage = answer.usage
    assert usage.completion_tokens == 9
    assert usage.prompt_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + 9
    assert answer.choices[0].finish_reason == "length"


def test_second_time_comes_from_the_prefix_cache(client: openai.OpenAI) -> None:
    content = "Please read this carefully. " * 20 + QUESTION
    first, second = ask(client, content, max_tokens=8), ask(client, content, max_tokens=8)
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert 64 <= cached < second.usage.prompt_tokens
    assert text_of(first) == text_of(second)


def test_choices_differ_and_the_first_is_that_of_one(client: openai.OpenAI) -> None:
    several = ask(client, "Tell me anything.", n=3, ignore_eos=True)
    texts = [text_of(several, index) for index in range(3)]
    assert texts[0] == text_of(ask(client, "Tell me anything.", ignore_eos=True))
    again = ask(client, "Tell me anything.", n=3, ignore_eos=True)
    assert texts == [text_of(again, index) for index in range(3)]
    if service_is_random(client):
        assert len(set(texts)) == 3


def service_is_random(client: openai.OpenAI) -> bool:
    """Whether two seeds give two texts; a trained model may be sure of its answer."""
    return text_of(ask(client, seed=1)) != text_of(ask(client, seed=2))


def test_stop_string_cuts_the_text(client: openai.OpenAI) -> None:
    whole = text_of(ask(client, ignore_eos=True, temperature=0))
    start = len(whole) // 2
    stop = whole[start : start + 3]
    answer = ask(client, ignore_eos=True, temperature=0, stop=[stop, "\u0000"])
    assert text_of(answer) == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens < 24


def test_greedy_ignores_the_seed(client: openai.OpenAI) -> None:
    assert text_of(ask(client, temperature=0, seed=1)) == text_of(
        ask(client, temperature=0, seed=2)
    )


async def test_same_text_alone_and_in_a_crowd(service: Any) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{service.url}/v1", api_key="-", max_retries=0, timeout=WAIT_S
    ) as client:

        async def complete(seed: int) -> str:
            answer = await client.completions.create(
                model="demo",
                prompt="Once upon a time" + " there was" * (seed % 5),
                seed=seed,
                max_tokens=12,
                temperature=1.0,
                extra_body={"ignore_eos": True},
            )
            return answer.choices[0].text

        alone = [await complete(seed) for seed in range(3)]
        crowd = await asyncio.gather(*(complete(seed) for seed in range(16)))
    assert crowd[:3] == alone


def test_token_ids_as_prompts(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="demo",
        prompt=[[100, 101, 102], [200, 201]],
        max_tokens=4,
        seed=1,
        extra_body={"ignore_eos": True},
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 5
    assert answer.usage.completion_tokens == 8


def test_too_long_is_refused_with_the_numbers(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length is 2048") as caught:
        ask(client, max_tokens=4096)
    assert caught.value.code == "context_length_exceeded"


def running(http: httpx.Client) -> float:
    for line in http.get("/metrics").text.splitlines():
        if line.startswith("leadline:num_requests_running{"):
            return float(line.rsplit(" ", 1)[1])
    raise AssertionError("no such gauge")


@pytest.mark.parametrize("stream", [True, False])
def test_lost_client_is_an_abort(
    service: Any, http: httpx.Client, eventually: Callable[..., None], stream: bool
) -> None:
    """The request would run for minutes."""
    body = {"model": "demo", "messages": MESSAGES, "ignore_eos": True, "stream": stream}
    with httpx.Client(base_url=service.url, timeout=WAIT_S) as leaving:
        request = leaving.build_request("POST", "/v1/chat/completions", json=body)
        if stream:
            response = leaving.send(request, stream=True)
            lines = response.iter_lines()  # kept: the connection closes with it
            next(lines)
            eventually(lambda: running(http) == 1, "the request runs")
            response.close()
        else:
            request.extensions["timeout"]["read"] = 0.5
            with pytest.raises(httpx.ReadTimeout):
                leaving.send(request)
    eventually(lambda: running(http) == 0, "the engine is told")


def test_terminal_chat_over_a_pipe(service: Any, cli: Callable[..., Any]) -> None:
    done = cli(
        "chat", "--url", service.url, "--max-tokens", "12", text=f"{QUESTION}\nThanks!\n/quit\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(
    not (resolve_model("leadline-demo") / "model.safetensors").exists(),
    reason="the built-in model has no weights yet",
)
def test_built_in_model_answers(client: openai.OpenAI) -> None:
    answer = ask(client, temperature=0, max_tokens=200)
    assert "iterable" in text_of(answer)
    assert answer.choices[0].finish_reason == "stop"


def test_models_and_version(http: httpx.Client) -> None:
    [model] = http.get("/v1/models").json()["data"]
    assert (model["id"], model["max_model_len"]) == ("demo", 2048)
    assert json.loads(http.get("/version").text)["version"]
    assert http.get("/health").status_code == 200


def test_nothing_was_logged_as_an_error(service: Any) -> None:
    """Last in this file: what the tests above do is nobody's failure."""
    assert not [line for line in service.errors() if " ERROR " in line or "Traceback" in line]
