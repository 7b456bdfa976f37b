"""What the user asked of `leadline bench serve`."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from leadline.server.bench.errors import BenchError

COMPLETIONS, CHAT = "openai", "openai-chat"
BACKENDS = (COMPLETIONS, "vllm", CHAT)  # "vllm" is vLLM's name for its own completions
DATASETS = ("random", "prefix_repetition", "custom", "chat")
METRICS = ("ttft", "tpot", "itl", "e2el", "client_queue_time", "e2el_including_client_queue")
GOODPUT_METRICS = ("ttft", "tpot", "e2el")
PLOT_SUFFIXES = (".png", ".svg", ".pdf")
_ENDPOINTS = {CHAT: "/v1/chat/completions"}
_TEXT_ENDPOINT = "/v1/completions"
_AT_LEAST_ONE = ("num_prompts", "max_concurrency", "prefix_repetition_num_prefixes")
_LENGTHS = (
    *("random_input_len", "random_output_len", "prefix_repetition_prefix_len"),
    *("prefix_repetition_suffix_len", "prefix_repetition_output_len", "custom_output_len"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """The flags of `leadline bench serve`, under vLLM's names.

    Attributes:
        base_url: without a trailing slash or `/v1`.
        goodput: milliseconds that a request may take, by metric.
        sampling: fields of every request, as `temperature`; those that were given.
    """

    base_url: str
    backend: str
    endpoint: str
    model: str | None = None
    dataset_name: str = "random"
    dataset_path: str | None = None
    disable_shuffle: bool = False
    num_prompts: int = 1000
    request_rate: float = math.inf
    burstiness: float = 1.0
    max_concurrency: int | None = None
    random_input_len: int = 1024
    random_output_len: int = 128
    random_range_ratio: float = 0.0
    random_prefix_len: int = 0
    prefix_repetition_prefix_len: int = 256
    prefix_repetition_suffix_len: int = 256
    prefix_repetition_num_prefixes: int = 10
    prefix_repetition_output_len: int = 128
    custom_output_len: int = 256
    seed: int = 0
    ignore_eos: bool = False
    percentile_metrics: tuple[str, ...] = ("ttft", "tpot", "itl", "e2el")
    metric_percentiles: tuple[float, ...] = (99.0,)
    goodput: Mapping[str, float] = field(default_factory=dict)
    save_result: bool = False
    save_detailed: bool = False
    append_result: bool = False
    result_dir: str | None = None
    result_filename: str | None = None
    num_warmups: int = 0
    ready_check_timeout_sec: int = 0
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    insecure: bool = False
    request_id_prefix: str = "bench-"
    disable_tqdm: bool = False
    label: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    plot: str | None = None

    @property
    def is_chat(self) -> bool:
        """Whether prompts are messages."""
        return self.backend == CHAT

    def check(self) -> None:
        """Refuse what cannot be run.

        Raises:
            BenchError: names every problem.
        """
        problems = [*_range_problems(self), *_dataset_problems(self)]
        problems += [*_body_problems(self), *_report_problems(self)]
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            problems.append(f"--base-url is {self.base_url!r}; write it as http://host:port")
        if problems:
            raise BenchError("; ".join(problems))


def default_endpoint(backend: str) -> str:
    """The path that a backend's requests go to."""
    return _ENDPOINTS.get(backend, _TEXT_ENDPOINT)


def _range_problems(options: ServeOptions) -> list[str]:
    problems = []
    least = dict.fromkeys(_AT_LEAST_ONE, 1) | dict.fromkeys(_LENGTHS, 1)
    least |= {"num_warmups": 0, "random_prefix_len": 0, "ready_check_timeout_sec": 0, "seed": 0}
    for name, at_least in least.items():
        value = getattr(options, name)
        if value is not None and value < at_least:
            problems.append(f"{_flag(name)} is {value}; allowed: at least {at_least}")
    if not options.request_rate > 0:
        problems.append(f"--request-rate is {options.request_rate}; allowed: above 0, or inf")
    if not options.burstiness > 0:
        problems.append(f"--burstiness is {options.burstiness}; allowed: above 0, or inf")
    if not 0 <= options.random_range_ratio < 1:
        ratio = options.random_range_ratio
        problems.append(f"--random-range-ratio is {ratio}; allowed: at least 0, below 1")
    problems += [
        f"--metric-percentiles has {percentile}; allowed: 0 to 100"
        for percentile in options.metric_percentiles
        if not 0 <= percentile <= 100
    ]
    problems += [
        f"the header {name!r} has characters that are not printable ASCII"
        for name, value in options.headers.items()
        if not ((name + value).isascii() and (name + value).isprintable())
    ]
    return problems


def _dataset_problems(options: ServeOptions) -> list[str]:
    problems = []
    if options.dataset_name == "custom" and options.dataset_path is None:
        problems.append("--dataset-name custom needs --dataset-path, a file of JSON lines")
    if options.dataset_name != "custom" and options.dataset_path is not None:
        problems.append("--dataset-path is only read with --dataset-name custom")
    if options.dataset_name == "chat" and not options.is_chat:
        problems.append(f"--dataset-name chat needs --backend {CHAT}")
    return problems


def _body_problems(options: ServeOptions) -> list[str]:
    """One streamed choice a request is measured."""
    problems = []
    for name, allowed in (("n", 1), ("stream", True)):
        value = options.extra_body.get(name, allowed)
        if value != allowed:
            allowed_json = json.dumps(allowed)
            problems.append(f"--extra-body has {name!r}: {value!r}; allowed: {allowed_json}")
    return problems


def _report_problems(options: ServeOptions) -> list[str]:
    problems = [
        f"--percentile-metrics has {name!r}; allowed: {', '.join(METRICS)}"
        for name in options.percentile_metrics
        if name not in METRICS
    ]
    for name, milliseconds in options.goodput.items():
        if name not in GOODPUT_METRICS:
            allowed = ", ".join(GOODPUT_METRICS)
            problems.append(f"--goodput has {name!r}; allowed: {allowed}")
        elif not milliseconds >= 0:
            problems.append(f"--goodput {name} is {milliseconds}; allowed: at least 0 ms")
    if options.save_detailed and not (options.save_result or options.append_result):
        problems.append("--save-detailed needs --save-result or --append-result")
    if options.plot and PurePath(options.plot).suffix.lower() not in PLOT_SUFFIXES:
        allowed = ", ".join(PLOT_SUFFIXES)
        problems.append(f"--plot is {options.plot!r}; allowed: a file that ends in {allowed}")
    return problems


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def json_object(text: str, flag: str) -> dict[str, Any]:
    """A JSON object from the command line.

    Raises:
        BenchError: it is none.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BenchError(f"{flag} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise BenchError(f"{flag} is no JSON object; write it as '{{\"name\": value}}'")
    return value


FIELDS = tuple(option.name for option in dataclasses.fields(ServeOptions))
