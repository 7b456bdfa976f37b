import math
import subprocess
import sys

import pytest

from leadline.server.bench.errors import BenchError
from leadline.server.bench.options import ServeOptions
from leadline.server.bench.serve_flags import options_of
from leadline.server.cli import main, make_parser


def options(*flags: str, **environment: str) -> ServeOptions:
    args = make_parser().parse_args(["bench", "serve", *flags])
    return options_of(args, environment)


def test_defaults_are_vllms() -> None:
    found = options()
    found.check()
    assert (found.base_url, found.endpoint) == ("http://127.0.0.1:8000", "/v1/completions")
    assert (found.backend, found.dataset_name, found.num_prompts) == ("openai", "random", 1000)
    assert (found.random_input_len, found.random_output_len) == (1024, 128)
    assert math.isinf(found.request_rate)
    assert found.max_concurrency is None
    assert found.ignore_eos
    assert found.request_id_prefix.startswith("bench-")
    assert not found.headers


def test_flags() -> None:
    found = options(
        *("--backend", "openai-chat", "--base-url", "https://h:1/x/v1/", "--num-prompts", "2k"),
        *("--goodput", "ttft:500", "e2el:2000.5", "--metadata", "a=b=c", "d=e"),
        *("--percentile-metrics", "ttft, itl", "--metric-percentiles", "50,99.9"),
        *("--header", "X-A=1", "--api-key", "k", "--model", "m", "--served-model-name", "n"),
        *("--extra-body", '{"a": {"b": 1}}', "--top-p", "0.5", "--input-len", "7"),
        *("--output-len", "8", "--dataset-name", "prefix_repetition"),
    )
    found.check()
    assert (found.base_url, found.endpoint) == ("https://h:1/x", "/v1/chat/completions")
    assert found.goodput == {"ttft": 500.0, "e2el": 2000.5}
    assert found.metadata == {"a": "b=c", "d": "e"}
    assert found.percentile_metrics == ("ttft", "itl")
    assert found.metric_percentiles == (50.0, 99.9)
    assert found.headers == {"authorization": "Bearer k", "x-a": "1"}
    assert (found.model, found.num_prompts, found.ignore_eos) == ("n", 2000, False)
    assert (found.extra_body, found.sampling) == ({"a": {"b": 1}}, {"top_p": 0.5})
    assert (found.random_input_len, found.custom_output_len) == (7, 8)
    assert found.prefix_repetition_output_len == 8


def test_quick_yields_to_what_is_said() -> None:
    found = options("--quick")
    assert (found.backend, found.dataset_name) == ("openai-chat", "chat")
    assert (found.num_prompts, found.max_concurrency) == (16, 4)
    found = options("--quick", "--dataset-name", "random", "--num-prompts", "3")
    assert (found.backend, found.dataset_name) == ("openai", "random")
    assert (found.num_prompts, found.max_concurrency) == (3, 4)


def test_whose_key_comes_first() -> None:
    both = {"LEADLINE_API_KEY": "l", "OPENAI_API_KEY": "o"}
    assert options("--api-key", "f", **both).headers == {"authorization": "Bearer f"}
    assert options(**both).headers == {"authorization": "Bearer l"}
    assert options(OPENAI_API_KEY="o").headers == {"authorization": "Bearer o"}
    mine = options("--header", "AUTHORIZATION=Basic x", **both)
    assert mine.headers == {"authorization": "Basic x"}


def test_ipv6() -> None:
    assert options("--host", "::1", "--port", "9").base_url == "http://[::1]:9"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--num-prompts", "0"), "--num-prompts is 0; allowed: at least 1"),
        (("--max-concurrency", "0"), "--max-concurrency is 0"),
        (("--request-rate", "0"), "--request-rate is 0.0; allowed: above 0, or inf"),
        (("--request-rate", "nan"), "--request-rate is nan"),
        (("--burstiness", "-1"), "--burstiness is -1.0"),
        (("--random-range-ratio", "1"), "--random-range-ratio is 1.0"),
        (("--metric-percentiles", "101"), "--metric-percentiles has 101.0; allowed: 0 to 100"),
        (("--percentile-metrics", "tttf"), "--percentile-metrics has 'tttf'; allowed: ttft, tpot"),
        (("--goodput", "itl:3"), "--goodput has 'itl'; allowed: ttft, tpot, e2el"),
        (("--goodput", "ttft:-3"), "--goodput ttft is -3.0"),
        (("--dataset-name", "custom"), "needs --dataset-path"),
        (("--dataset-path", "x"), "--dataset-path is only read with --dataset-name custom"),
        (("--dataset-name", "chat", "--backend", "openai"), "needs --backend openai-chat"),
        (("--extra-body", '{"n": 2}'), "--extra-body has 'n': 2; allowed: 1"),
        (("--extra-body", '{"stream": false}'), "'stream': False; allowed: true"),
        (("--save-detailed",), "--save-detailed needs --save-result"),
        (("--plot", "x.gif"), "--plot is 'x.gif'; allowed: a file that ends in .png"),
        (("--base-url", "localhost:8000"), "--base-url is 'localhost:8000'"),
        (("--header", "a=\n"), ""),
        (("--header", "a=b\nc"), "the header 'a' has characters"),
        (("--api-key", "\u00e9"), "the header 'authorization' has characters"),
    ],
)
def test_what_cannot_be_run(flags: tuple[str, ...], message: str) -> None:
    found = options(*flags)
    if not message:
        found.check()
        return
    with pytest.raises(BenchError) as caught:
        found.check()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--goodput", "ttft"), "--goodput has 'ttft'; write it as ttft:500"),
        (("--extra-body", "{"), "--extra-body is no JSON"),
        (("--extra-body", "[]"), "--extra-body is no JSON object"),
        (("--metadata", "a"), "--metadata has 'a'; write it as KEY=VALUE"),
        (("--metric-percentiles", "a"), "--metric-percentiles is 'a'"),
    ],
)
def test_what_cannot_be_read(
    flags: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "serve", *flags]) == 2
    assert message in capsys.readouterr().err


def test_startup_without_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "startup", "--num-runs", "0"]) == 1
    assert "--num-runs is 0; allowed: at least 1" in capsys.readouterr().err


def test_bench_alone_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 0
    assert "serve" in capsys.readouterr().out


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys; from leadline.server.cli import make_parser; make_parser();"
        "print([name for name in ('numpy', 'rich', 'httptools', 'matplotlib', 'ssl')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
