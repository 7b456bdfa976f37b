"""The flags of `leadline bench serve`, as options."""

import argparse
import uuid
from collections.abc import Mapping
from typing import Any

from leadline.server.bench.errors import BenchError
from leadline.server.bench.options import (
    BACKENDS,
    CHAT,
    COMPLETIONS,
    DATASETS,
    FIELDS,
    ServeOptions,
    default_endpoint,
    json_object,
)
from leadline.server.flags import integer

_KEY_VARIABLES = ("LEADLINE_API_KEY", "OPENAI_API_KEY")
_QUICK_PROMPTS, _QUICK_CONCURRENCY = 16, 4
_DEFAULT_PROMPTS = 1000
_LENGTH_FLAGS = (
    ("random-input-len", "tokens of a random prompt"),
    ("random-output-len", "tokens of its answer"),
    ("random-prefix-len", "tokens that all random prompts begin with, beside those"),
    ("prefix-repetition-prefix-len", "tokens of a shared prefix"),
    ("prefix-repetition-suffix-len", "tokens that follow it"),
    ("prefix-repetition-num-prefixes", "different prefixes"),
    ("prefix-repetition-output-len", "tokens of an answer"),
    ("custom-output-len", "most tokens of an answer with custom and chat"),
)
_SAMPLING_FLAGS = (
    *(("temperature", float), ("top-p", float), ("top-k", int), ("min-p", float)),
    *(("frequency-penalty", float), ("presence-penalty", float), ("repetition-penalty", float)),
)


def add_serve_flags(parser: argparse.ArgumentParser) -> None:
    """Add all of them."""
    _add_server(parser)
    _add_workload(parser)
    _add_traffic(parser)
    _add_results(parser)


def _add_server(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("server")
    add = group.add_argument
    add("--base-url", metavar="URL", help="address of the server, instead of host and port")
    add("--host", default="127.0.0.1", help="its host (default: 127.0.0.1)")
    add("--port", type=int, default=8000, metavar="N", help="its port (default: 8000)")
    add(
        "--backend",
        choices=BACKENDS,
        help=f"{COMPLETIONS} (and vllm): text completions; {CHAT}: chat completions (default: "
        f"{COMPLETIONS}, with --dataset-name chat {CHAT})",
    )
    add("--endpoint", metavar="PATH", help="path of the requests (default: the backend's)")
    add("--model", metavar="NAME", help="model to ask for (default: the server's first)")
    add("--served-model-name", metavar="NAME", help="the same, and comes before --model")
    add("--api-key", metavar="KEY", help="(default: from LEADLINE_API_KEY or OPENAI_API_KEY)")
    add("--header", nargs="*", metavar="KEY=VALUE", help="headers of every request")
    add("--insecure", action="store_true", help="accept any TLS certificate")
    add(
        "--ready-check-timeout-sec",
        type=int,
        default=0,
        metavar="N",
        help="ask until there is an answer, for so long (default: 0, do not)",
    )


def _add_workload(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("workload")
    add = group.add_argument
    add(
        "--quick",
        action="store_true",
        help=f"{_QUICK_PROMPTS} built-in chats, {_QUICK_CONCURRENCY} at a time",
    )
    add("--dataset-name", choices=DATASETS, help="where prompts come from (default: random)")
    add(
        "--dataset-path",
        metavar="FILE",
        help="JSON lines with 'prompt' (text or token ids) or 'messages', and 'output_tokens'",
    )
    add("--disable-shuffle", action="store_true", help="keep the order of the file")
    add(
        "--num-prompts",
        type=integer,
        metavar="N",
        help=f"how many requests (default: {_DEFAULT_PROMPTS})",
    )
    add("--input-len", type=integer, metavar="N", help="the same as --random-input-len")
    add("--output-len", type=integer, metavar="N", help="tokens of an answer, in every dataset")
    defaults = {name: ServeOptions.__dataclass_fields__[name].default for name in FIELDS}
    for flag, text in _LENGTH_FLAGS:
        default = defaults[flag.replace("-", "_")]
        help_text = f"{text} (default: {default})"
        add(f"--{flag}", type=integer, default=default, metavar="N", help=help_text)
    add(
        "--random-range-ratio",
        type=float,
        default=0.0,
        metavar="X",
        help="lengths vary from 1-X to 1+X times what is said (default: 0)",
    )
    add("--seed", type=int, default=0, metavar="N", help="of prompts and arrivals (default: 0)")
    add(
        "--ignore-eos",
        action=argparse.BooleanOptionalAction,
        help="answer to the full length (default: on with random prompts)",
    )
    for flag, kind in _SAMPLING_FLAGS:
        add(f"--{flag}", type=kind, metavar="X", help="of every request (default: the server's)")
    add("--extra-body", metavar="JSON", help="an object of further fields of every request")


def _add_traffic(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("traffic").add_argument
    add(
        "--request-rate",
        type=float,
        default=float("inf"),
        metavar="X",
        help="requests a second (default: inf, all at once)",
    )
    add(
        "--burstiness",
        type=float,
        default=1.0,
        metavar="X",
        help="below 1 more bursty than a Poisson process, above more regular (default: 1)",
    )
    add("--max-concurrency", type=integer, metavar="N", help="most requests at a time")
    add("--num-warmups", type=int, default=0, metavar="N", help="requests before (default: 0)")
    add(
        "--request-id-prefix",
        metavar="TEXT",
        help="of x-request-id (default: bench-, something random, -)",
    )


def _add_results(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("results").add_argument
    add(
        "--percentile-metrics",
        default="ttft,tpot,itl,e2el",
        metavar="NAMES",
        help="of ttft, tpot, itl, e2el, client_queue_time, e2el_including_client_queue "
        "(default: the first four)",
    )
    add("--metric-percentiles", default="99", metavar="NUMBERS", help="such as 50,99 (default: 99)")
    add(
        "--goodput",
        nargs="+",
        metavar="NAME:MS",
        help="count requests within these limits: ttft, tpot, e2el in milliseconds",
    )
    add("--save-result", action="store_true", help="save the result as JSON")
    add("--save-detailed", action="store_true", help="with the figures of every request")
    add("--append-result", action="store_true", help="as a further line of the file")
    add("--result-dir", metavar="DIR", help="where to (default: the current directory)")
    add("--result-filename", metavar="FILE", help="(default: made of label, rate, model, time)")
    add("--label", metavar="TEXT", help="in the result and its file's name (default: the backend)")
    add("--metadata", nargs="*", metavar="KEY=VALUE", help="to be saved with the result")
    add("--plot", metavar="FILE", help="plot of the latencies and the throughput (png, svg, pdf)")
    add("--disable-tqdm", action="store_true", help="no progress bar")


def options_of(args: argparse.Namespace, environment: Mapping[str, str]) -> ServeOptions:
    """The options that flags and environment ask for.

    Raises:
        BenchError: a flag's text has not its form.
    """
    values = {name: getattr(args, name) for name in FIELDS if hasattr(args, name)}
    dataset = args.dataset_name or ("chat" if args.quick else "random")
    backend = args.backend or (CHAT if dataset == "chat" else COMPLETIONS)
    host = f"[{args.host}]" if ":" in args.host else args.host
    url = args.base_url or f"http://{host}:{args.port}"
    ignore_eos = dataset == "random" if args.ignore_eos is None else args.ignore_eos
    values |= {
        "base_url": url.rstrip("/").removesuffix("/v1"),
        "backend": backend,
        "endpoint": args.endpoint or default_endpoint(backend),
        "model": args.served_model_name or args.model,
        "dataset_name": dataset,
        "num_prompts": _given(args.num_prompts, _QUICK_PROMPTS if args.quick else _DEFAULT_PROMPTS),
        "max_concurrency": _given(args.max_concurrency, _QUICK_CONCURRENCY if args.quick else None),
        "ignore_eos": ignore_eos,
        "percentile_metrics": _listed(args.percentile_metrics),
        "metric_percentiles": _percentiles(args.metric_percentiles),
        "goodput": _goodput(args.goodput or ()),
        "headers": key_header(args.api_key, environment) | _headers(args.header or ()),
        "metadata": _pairs(args.metadata or (), "--metadata"),
        "extra_body": json_object(args.extra_body, "--extra-body") if args.extra_body else {},
        "sampling": _sampling(args),
        "request_id_prefix": args.request_id_prefix or f"bench-{uuid.uuid4().hex[:8]}-",
    }
    if args.input_len is not None:
        values["random_input_len"] = args.input_len
    if args.output_len is not None:
        for name in ("random", "prefix_repetition", "custom"):
            values[f"{name}_output_len"] = args.output_len
    return ServeOptions(**values)


def key_header(key: str | None, environment: Mapping[str, str]) -> dict[str, str]:
    """The header with the key that was given, or else with the environment's."""
    keys = [key, *(environment.get(name) for name in _KEY_VARIABLES)]
    first = next((key for key in keys if key), None)
    return {"authorization": f"Bearer {first}"} if first else {}


def _sampling(args: argparse.Namespace) -> dict[str, Any]:
    names = [flag.replace("-", "_") for flag, _ in _SAMPLING_FLAGS]
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _percentiles(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in _listed(text))
    except ValueError:
        raise BenchError(f"--metric-percentiles is {text!r}; write it as 50,90,99") from None


def _pairs(texts: list[str] | tuple[()], flag: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.strip() and equals):
            raise BenchError(f"{flag} has {text!r}; write it as KEY=VALUE")
        pairs[name.strip()] = value.strip()
    return pairs


def _headers(texts: list[str] | tuple[()]) -> dict[str, str]:
    return {name.lower(): value for name, value in _pairs(texts, "--header").items()}


def _given(value: int | None, default: int | None) -> int | None:
    return default if value is None else value


def _goodput(texts: list[str] | tuple[()]) -> dict[str, float]:
    limits = {}
    for text in texts:
        name, _, value = text.partition(":")
        try:
            limits[name] = float(value)
        except ValueError:
            raise BenchError(f"--goodput has {text!r}; write it as ttft:500") from None
    return limits
