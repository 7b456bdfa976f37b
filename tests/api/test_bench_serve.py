"""`leadline bench serve` against a real server, and against servers that fail."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leadline.engine.messages import EngineStats
from leadline.engine.request import EngineRequest, FinishReason, SpeculationCounts
from leadline.server.access import Access
from leadline.server.app import create_app
from leadline.server.bench.drafts import parse_counts
from leadline.server.bench.record import DraftCounts
from leadline.server.cli import main

# What `vllm bench serve --save-result` writes for a text model.
VLLM_KEYS = {
    *("date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts"),
    *("request_rate", "burstiness", "max_concurrency", "duration", "completed", "failed"),
    *("total_input_tokens", "total_output_tokens", "request_throughput", "request_goodput"),
    *("output_throughput", "total_token_throughput", "latencies", "queue_times"),
    *("max_output_tokens_per_s", "max_concurrent_requests", "rtfx"),
    *("mean_ttft_ms", "median_ttft_ms", "std_ttft_ms", "p99_ttft_ms"),
    *("mean_tpot_ms", "median_tpot_ms", "std_tpot_ms", "p99_tpot_ms"),
    *("mean_itl_ms", "median_itl_ms", "std_itl_ms", "p99_itl_ms"),
    *("mean_e2el_ms", "median_e2el_ms", "std_e2el_ms", "p99_e2el_ms"),
}
VLLM_DETAILS = {
    *("input_lens", "output_lens", "start_times", "ttfts"),
    *("itls", "generated_texts", "errors"),
}
VLLM_SPECULATION = {
    *("spec_decode_acceptance_rate", "spec_decode_acceptance_length", "spec_decode_num_drafts"),
    *("spec_decode_draft_tokens", "spec_decode_accepted_tokens"),
    "spec_decode_per_position_acceptance_rates",
}
TITLES = {
    **{name: name.upper() for name in ("ttft", "tpot", "itl", "e2el")},
    "client_queue_time": "Client Queue Time",
    "e2el_including_client_queue": "E2EL incl. Client Queue",
}
OURS = {"notes", "error_counts"}
SHORT = ("--random-input-len", "20", "--random-output-len", "5")

Bench = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Runs the command against a URL; gives its status and its result."""
    for name in ("LEADLINE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    def run(url: str, *flags: str, num_prompts: int = 6) -> tuple[int, dict[str, Any]]:
        where = ("--result-dir", str(tmp_path), "--result-filename", "result.json")
        result = ("--save-result", "--save-detailed", *where)
        count = ("--num-prompts", str(num_prompts))
        status = main(["bench", "serve", "--base-url", url, *count, *result, *flags])
        path = tmp_path / "result.json"
        return status, json.loads(path.read_text()) if path.exists() else {}

    return run


def test_random_prompts_are_token_ids_of_the_length_asked_for(serve: Any, bench: Bench) -> None:
    service = serve(text=lambda request: "abcdefgh", ends=False)
    status, result = bench(service.url, *SHORT, "--temperature", "0.5", "--max-concurrency", "2")
    assert status == 0
    assert result["completed"] == 6
    assert result["failed"] == 0
    requests = service.engine.requests
    assert [len(request.prompt_ids) for request in requests] == [20] * 6
    assert len({tuple(request.prompt_ids) for request in requests}) == 6
    assert all(request.params.max_tokens == 5 for request in requests)
    assert all(request.params.temperature == 0.5 for request in requests)
    assert result["input_lens"] == [20] * 6
    assert result["output_lens"] == [5] * 6
    assert result["generated_texts"] == ["abcde"] * 6
    assert result["total_input_tokens"] == 120
    assert result["total_output_tokens"] == 30
    assert 1 <= result["max_concurrent_requests"] <= 2
    assert result["model_id"] == "tiny"
    assert result["notes"] == []


def test_the_same_seed_asks_for_the_same(serve: Any, bench: Bench) -> None:
    service = serve()
    flags = (*SHORT, "--random-range-ratio", "0.5", "--max-concurrency", "1")
    for seed in ("7", "7", "8"):
        assert bench(service.url, *flags, "--seed", seed, num_prompts=3)[0] == 0
    prompts = [request.prompt_ids for request in service.engine.requests]
    assert prompts[:3] == prompts[3:6]
    assert prompts[:3] != prompts[6:]


@pytest.mark.parametrize("is_detailed", [True, False])
def test_the_keys_are_those_of_vllm(
    serve: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], is_detailed: bool
) -> None:
    service = serve()
    flags = ["--base-url", service.url, *SHORT, "--num-prompts", "2", "--save-result"]
    flags += ["--save-detailed"] * is_detailed + ["--result-dir", str(tmp_path), "--label", "mine"]
    flags += ["--max-concurrency", "2", "--metadata", "cards=0", "host=here"]
    assert main(["bench", "serve", *flags]) == 0
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("mine-infqps-concurrency2-tiny-")
    result = json.loads(path.read_text())
    details = VLLM_DETAILS if is_detailed else set()
    assert result.keys() == VLLM_KEYS | details | OURS | {"cards", "host"}
    assert (result["cards"], result["request_rate"]) == ("0", "inf")
    assert f"Result: {path}" in capsys.readouterr().out


def test_results_are_appended_a_line_each(serve: Any, bench: Bench, tmp_path: Path) -> None:
    service = serve()
    path = tmp_path / "all.json"
    for _ in range(2):
        flags = (*SHORT, "--append-result", "--result-filename", path.name)
        bench(service.url, *flags, num_prompts=2)
    assert [json.loads(line)["completed"] for line in path.read_text().splitlines()] == [2, 2]


def test_the_figures_are_numpys_of_the_details(
    serve: Any, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    service = serve(step_s=0.001)
    flags = ("--metric-percentiles", "25,50,99.9", "--max-concurrency", "2", "--request-rate", "99")
    metrics = "ttft,tpot,itl,e2el,client_queue_time,e2el_including_client_queue"
    _, result = bench(service.url, *SHORT, *flags, "--percentile-metrics", metrics)
    ttfts, itls = np.array(result["ttfts"]), np.concatenate(result["itls"])
    latencies, lens = np.array(result["latencies"]), np.array(result["output_lens"])
    values = {
        "ttft": ttfts,
        "itl": itls,
        "tpot": (latencies - ttfts) / (lens - 1),
        "e2el": latencies,
        "client_queue_time": result["queue_times"],
        "e2el_including_client_queue": latencies + result["queue_times"],
    }
    printed = capsys.readouterr().out
    for name, of_requests in values.items():
        expected = {"mean": np.mean, "median": np.median, "std": np.std}
        for word, figure in expected.items():
            assert result[f"{word}_{name}_ms"] == pytest.approx(figure(of_requests) * 1000)
        for percentile in ("25", "50", "99.9"):
            value_ms = np.percentile(of_requests, float(percentile)) * 1000
            assert result[f"p{percentile}_{name}_ms"] == pytest.approx(value_ms)
            assert f"{f'P{percentile} {TITLES[name]} (ms):':<40} {value_ms:.2f}\n" in printed


@pytest.mark.parametrize("dataset", ["random", "prefix_repetition", "chat"])
def test_chats(serve: Any, bench: Bench, dataset: str) -> None:
    service = serve()
    lengths = ("--prefix-repetition-prefix-len", "9", "--prefix-repetition-suffix-len", "9")
    flags = ("--backend", "openai-chat", "--dataset-name", dataset, "--output-len", "5")
    status, result = bench(service.url, *flags, *lengths, "--input-len", "20")
    assert (status, result["failed"]) == (0, 0)
    lens = [len(request.prompt_ids) for request in service.engine.requests]
    assert sorted(result["input_lens"]) == sorted(lens)


def test_quick_is_sixteen_chats_four_at_a_time(
    serve: Any, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    service = serve(state={"max_model_len": 400})
    assert main(["bench", "serve", "--quick", "--base-url", service.url]) == 0
    printed = capsys.readouterr().out
    assert "Successful requests:                     16\n" in printed
    assert "Maximum request concurrency:             4\n" in printed
    assert len(service.engine.requests) == 16


def test_repeated_prefixes(serve: Any, bench: Bench) -> None:
    service = serve()
    lengths = ("--prefix-repetition-prefix-len", "30", "--prefix-repetition-suffix-len", "7")
    flags = ("--dataset-name", "prefix_repetition", "--prefix-repetition-num-prefixes", "2")
    bench(service.url, *flags, *lengths, "--output-len", "5")
    prompts = [request.prompt_ids for request in service.engine.requests]
    assert [len(ids) for ids in prompts] == [37] * 6
    assert len({tuple(ids[:30]) for ids in prompts}) == 2
    assert len({tuple(ids) for ids in prompts}) == 6


def test_a_file_of_prompts(serve: Any, bench: Bench, tmp_path: Path) -> None:
    service = serve()
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "one", "output_tokens": 2}\n\n{"prompt": [5, 6, 7]}\n')
    flags = ("--dataset-name", "custom", "--dataset-path", str(path), "--disable-shuffle")
    flags += ("--output-len", "3", "--max-concurrency", "1")
    status, result = bench(service.url, *flags, num_prompts=3)
    assert (status, result["failed"]) == (0, 0)
    requests = service.engine.requests
    assert requests[1].prompt_ids[-3:] == [5, 6, 7]
    assert [request.params.max_tokens for request in requests] == [2, 3, 2]


def test_drafts_as_the_answers_tell_of_them(
    serve: Any, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = SpeculationCounts(
        num_steps=4,
        num_draft_tokens=10,
        num_tried_per_pos=[4, 3, 2],
        num_accepted_per_pos=[3, 2, 0],
        num_accepted_per_step=[1, 1, 2],
    )
    service = serve(speculation=counts)
    _, result = bench(service.url, *SHORT)
    assert result.keys() >= VLLM_SPECULATION
    assert result["spec_decode_num_drafts"] == 24
    assert result["spec_decode_draft_tokens"] == 60
    assert result["spec_decode_accepted_tokens"] == 30
    assert result["spec_decode_acceptance_rate"] == 50
    assert result["spec_decode_acceptance_length"] == 2.25
    assert result["spec_decode_per_position_acceptance_rates"] == [0.75, 0.5, 0]
    assert "  Position 1:                            50.00\n" in capsys.readouterr().out


def test_metrics_are_read_once_though_they_have_two_names(serve: Any) -> None:
    stats = EngineStats(num_drafts=4, num_draft_tokens=9, num_accepted_per_pos=[3, 2])
    text = serve(stats=stats).http.get("/metrics").text
    assert "vllm:spec_decode_num_drafts_total" in text
    assert parse_counts(text) == DraftCounts(4, 9, 5, [3, 2])


def test_drafts_by_the_metrics_if_the_answers_tell_nothing(switchboard: Any, bench: Bench) -> None:
    num_asked = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal num_asked
        if not scope["path"].endswith("/metrics"):
            return await scripted_app([CHUNK, END, DONE])(scope, receive, send)
        num_asked += 1
        lines = [
            f"vllm:spec_decode_num_{name}_total {num_asked * count}"
            for name, count in (("drafts", 4), ("draft_tokens", 10), ("accepted_tokens", 5))
        ]
        types = [f"# TYPE {line.split()[0].removesuffix('_total')} counter" for line in lines]
        text = "\n".join(part for pair in zip(types, lines, strict=True) for part in pair) + "\n"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text.encode()})

    _, result = bench(switchboard.add(app), "--model", "any", *SHORT, num_prompts=2)
    assert result["spec_decode_acceptance_rate"] == 50
    assert result["spec_decode_acceptance_length"] == 2.25
    assert any("everybody's requests" in note for note in result["notes"])


def test_an_engine_that_fails(
    engine_of: Any, serve: Any, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    service = serve(failure=FinishReason.ERROR)
    status, result = bench(service.url, *SHORT)
    assert status == 1
    assert (result["completed"], result["failed"]) == (0, 6)
    ((text, count),) = result["error_counts"].items()
    assert "the logits are not finite" in text
    assert count == 6
    assert "mean_ttft_ms" not in result
    captured = capsys.readouterr()
    assert f"6 x {text}\n" in captured.out
    assert captured.err.endswith("all requests failed\n")


def test_some_failures_are_counted_and_do_not_count(serve: Any, bench: Bench) -> None:
    service = serve()
    count = 0

    def text(request: EngineRequest) -> str:
        nonlocal count
        count += 1
        service.engine.failure = FinishReason.ERROR if count % 3 == 0 else None
        return "abc"

    service.engine.text = text
    status, result = bench(service.url, *SHORT, "--max-concurrency", "1")
    assert status == 0
    assert (result["completed"], result["failed"]) == (4, 2)
    assert [bool(error) for error in result["errors"]] == [False, False, True] * 2
    assert result["total_input_tokens"] == 80
    assert result["output_lens"][2::3] == [0, 0]


def test_a_refusal(serve: Any, bench: Bench) -> None:
    status, result = bench(serve().url, "--random-input-len", "500")
    assert status == 1
    ((text, count),) = result["error_counts"].items()
    assert text.startswith("status 400: This model's maximum context length is 200 tokens")
    assert count == 6


CHUNK = b'data: {"choices":[{"index":0,"text":"a","finish_reason":null}]}\n\n'
END = b'data: {"choices":[{"index":0,"text":"b","finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
CUT = None


def scripted_app(frames: list[bytes | None]) -> Any:
    """Streams the frames to every request; `CUT` is an end without the last chunk."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not scope["path"].endswith("completions"):
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for frame in frames:
            if frame is CUT:
                return
            await send({"type": "http.response.body", "body": frame, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        ([CHUNK, END, DONE], ""),
        ([CHUNK, END], ""),
        ([b": ping\n\n", END, DONE], ""),
        ([CHUNK, DONE], "the answer ended without a finish reason"),
        ([DONE], "the answer ended without a finish reason"),
        ([CHUNK, CUT], "the connection was cut within the answer"),
        ([CHUNK, END, CUT], "the connection was cut within the answer"),
        ([CHUNK, b'data: {"error":{"message":"no"}}\n\n', DONE], "an error in the stream: no"),
        (
            [CHUNK, b'data: {"object":"error","message":"no"}\n\n', END],
            "an error in the stream: no",
        ),
        ([CHUNK, END.replace(b"stop", b"abort"), DONE], "the answer's finish reason is 'abort'"),
        ([CHUNK, b"data: nonsense\n\n", END, DONE], "an event has not OpenAI's form"),
        ([CHUNK, b'data: {"choices":3}\n\n', END, DONE], "an event has not OpenAI's form"),
    ],
)
def test_what_is_a_failure(
    switchboard: Any, bench: Bench, tmp_path: Path, frames: list[bytes | None], error: str
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "Hi"}\n')
    flags = ("--model", "any", "--dataset-name", "custom", "--dataset-path", str(path))
    status, result = bench(switchboard.add(scripted_app(frames)), *flags, num_prompts=2)
    assert status == (1 if error else 0)
    assert result["failed"] == (2 if error else 0)
    for text in result["errors"]:
        assert text.startswith(error)
        assert bool(text) == bool(error)


def test_a_server_without_usage_and_tokeniser(switchboard: Any, bench: Bench) -> None:
    url = switchboard.add(scripted_app([CHUNK, CHUNK, END, DONE]))
    status, result = bench(url, "--model", "any", *SHORT, num_prompts=2)
    assert status == 0
    assert result["output_lens"] == [3, 3]
    assert result["notes"] == [
        "2 answers told no usage: their chunks are counted, and prompts as they were asked for"
    ]


def test_goodput_counts_what_is_quick_enough(serve: Any, bench: Bench) -> None:
    service = serve()
    _, result = bench(service.url, *SHORT, "--goodput", "ttft:60000", "e2el:60000")
    assert result["request_goodput"] == pytest.approx(result["request_throughput"])
    _, result = bench(service.url, *SHORT, "--goodput", "ttft:60000", "e2el:0")
    assert result["request_goodput"] == 0
    _, result = bench(service.url, *SHORT)
    assert result["request_goodput"] is None


def test_warm_ups_and_the_ready_check_are_not_counted(serve: Any, bench: Bench) -> None:
    service = serve()
    flags = ("--num-warmups", "2", "--ready-check-timeout-sec", "5", "--max-concurrency", "1")
    _, result = bench(service.url, *SHORT, *flags)
    assert result["completed"] == 6
    prompts = [tuple(request.prompt_ids) for request in service.engine.requests]
    assert len(prompts) == 9
    assert len(set(prompts[:3])) == 1
    assert not set(prompts[:3]) & set(prompts[3:])


def test_the_ready_check_waits_for_a_server_that_starts(
    service: Any,
    switchboard: Any,
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("leadline.server.bench.serve._POLL_S", 0.01)
    app, num_refused = create_app(service.state), 0

    async def starting(scope: Any, receive: Any, send: Any) -> None:
        nonlocal num_refused
        if num_refused == 3:
            return await app(scope, receive, send)
        num_refused += 1
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b"loading"})

    url = switchboard.add(starting)
    assert bench(url, *SHORT)[0] == 1
    assert "status 503: loading" in capsys.readouterr().err
    status, result = bench(url, *SHORT, "--ready-check-timeout-sec", "60")
    assert (status, result["completed"], num_refused) == (0, 6, 3)


def test_the_ready_check_has_an_end(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("http://127.0.0.1:1", "--ready-check-timeout-sec", "1")[0] == 1
    assert "no answer within 1 s: no connection to 127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["flag", "LEADLINE_API_KEY", "OPENAI_API_KEY", "header"])
def test_keys(
    service: Any, switchboard: Any, bench: Bench, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    url = switchboard.add(create_app(service.state, access=Access.of(api=["secret"])))
    flags: tuple[str, ...] = ()
    if given == "flag":
        flags = ("--api-key", "secret")
    elif given == "header":
        flags = ("--header", "Authorization=Bearer secret")
    else:
        monkeypatch.setenv(given, "secret")
    assert bench(url, *SHORT, *flags)[0] == 0
    for name in ("LEADLINE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert bench(url, *SHORT)[0] == 1


def test_further_fields_reach_the_server(serve: Any, bench: Bench) -> None:
    service = serve()
    flags = ("--extra-body", '{"seed": 5, "max_tokens": 2}', "--top-k", "3", "--no-ignore-eos")
    assert bench(service.url, *SHORT, *flags)[0] == 0
    params = service.engine.requests[0].params
    assert (params.seed, params.max_tokens, params.top_k) == (5, 2, 3)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_plot(serve: Any, bench: Bench, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"plot.{suffix}"
    assert bench(serve().url, *SHORT, "--plot", str(path))[0] == 0
    assert path.read_bytes().startswith({"png": b"\x89PNG", "svg": b"<?xml"}[suffix])


def test_a_plot_without_matplotlib(
    serve: Any, bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    service = serve()
    assert bench(service.url, *SHORT, "--plot", "plot.png")[0] == 1
    assert "pip install matplotlib" in capsys.readouterr().err
    assert not service.engine.requests


def test_nobody_is_there(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("http://127.0.0.1:1")[0] == 1
    assert "start one with `leadline serve`" in capsys.readouterr().err


def test_a_model_that_there_is_not(
    serve: Any, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(serve().url, *SHORT, "--model", "other")[0] == 1
    assert "the model 'other' does not exist" in capsys.readouterr().err


def test_requests_are_spread_by_the_rate(serve: Any, bench: Bench) -> None:
    """Nothing is sent before it is due; how much later depends on the machine."""
    begin_s = time.perf_counter()
    _, result = bench(serve().url, *SHORT, "--request-rate", "50", "--burstiness", "inf")
    waits_s = np.array(result["start_times"]) - begin_s
    assert np.all(np.diff(waits_s) > 0)
    assert np.all(waits_s > np.arange(1, 7) / 50 - 0.001)
    assert (result["request_rate"], result["burstiness"]) == (50, "inf")
