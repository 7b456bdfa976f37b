"""The command `leadline bench`; what a benchmark needs is imported when it runs."""

import argparse
import os
import sys

from leadline.server.bench.errors import BenchError
from leadline.server.bench.serve_flags import add_serve_flags, key_header, options_of
from leadline.server.flags import integer
from leadline.server.parser import Parser


def add_bench(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add `bench` and its own commands."""
    parser = commands.add_parser(
        "bench",
        help="measure a running server",
        description="Measure a server from outside.",
    )
    parser.set_defaults(command=lambda args: _list(parser))
    benches = parser.add_subparsers(title="benchmarks", metavar="BENCHMARK")
    serve = benches.add_parser(
        "serve",
        help="latency and throughput of any OpenAI-compatible server under load",
        description="Measure latency and throughput of any OpenAI-compatible server under load; "
        "flags, table and JSON are those of `vllm bench serve`.",
    )
    add_serve_flags(serve)
    serve.set_defaults(command=_serve)
    _add_startup(benches)


def _add_startup(benches: "argparse._SubParsersAction[Parser]") -> None:
    parser = benches.add_parser(
        "startup",
        help="time from the command `leadline serve` to its first answer",
        description="Start a server, ask it for one token, stop it; as often as is asked for.",
    )
    add = parser.add_argument
    add("--num-runs", type=integer, default=3, metavar="N", help="how often (default: 3)")
    add("--output-json", metavar="FILE", help="save the figures")
    add(
        "serve_args",
        nargs="*",
        metavar="ARGUMENT",
        help="of `leadline serve`: a model; flags after --",
    )
    parser.set_defaults(command=_startup)


def _list(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return 0


def _serve(args: argparse.Namespace) -> int:
    try:
        options = options_of(args, os.environ)
    except BenchError as error:
        sys.stderr.write(f"leadline bench serve: {error}\n")
        return 2
    from leadline.server.bench.serve import bench_serve

    return bench_serve(options)


def _startup(args: argparse.Namespace) -> int:
    from leadline.server.bench.startup import StartupOptions, bench_startup

    options = StartupOptions(
        num_runs=args.num_runs,
        serve_args=tuple(args.serve_args),
        headers=key_header(None, os.environ),
        output_json=args.output_json,
    )
    return bench_startup(options)
