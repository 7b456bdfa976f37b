"""A plan on the terminal, and as JSON."""

import dataclasses
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from leadline.engine.planning.memory import GIB, MemoryPart
from leadline.engine.planning.planner import Choice, Plan
from leadline.server.plan.commands import helm_values, node_commands

_CAUTION = (
    "Times are a closed-form model's, fitted to published units of other engines, most of which it "
    "meets within 20 %: docs/planning.md. Unlike theirs, no two micro-batches overlap."
)


def print_report(console: Console, choice: Choice, model: str) -> None:
    """All of a plan.

    Args:
        console: with markup and highlighting off.
        choice: the plan, and what it was chosen from.
        model: its name, as the user gave it.
    """
    plan = choice.best
    wish, layout = plan.wish, plan.layout
    console.print(f"{model} on {wish.num_gpus} x {wish.gpu.name}: {layout}")
    for line in reasons(choice):
        console.print(f"  {line}", soft_wrap=True)
    console.print(f"\nMemory of each GPU, {wish.gpu.memory_bytes / GIB:.1f} GiB\n")
    console.print(memory_table(plan.memory()))
    for part in plan.needs.host():
        console.print(f"\nMemory of the host: {part.num_bytes / GIB:.1f} GiB of routed experts")
    lengths = f"{wish.input_tokens} tokens in, {wish.output_tokens} out"
    console.print(f"\nExpected with requests of {lengths}\n")
    console.print(_expected_table(plan))
    console.print(f"\n{_CAUTION}\n", soft_wrap=True)
    commands = node_commands(plan, model)
    if len(commands) == 1:
        console.print("Command")
    else:
        console.print(
            "Command of each node; NODE0 is the head's address, eth0 their network, and all\n"
            "have the same unit.key (openssl rand -hex 32 > unit.key)"
        )
    console.print()
    for command in commands:
        console.print(f"  {command}", soft_wrap=True)
    if len(commands) > 1:
        return
    console.print("\nValues of the Helm chart (docker/helm/leadline)\n")
    text = yaml.safe_dump(helm_values(plan, model), sort_keys=False, default_flow_style=None)
    for line in text.splitlines():
        console.print(f"  {line}", soft_wrap=True)


def reasons(choice: Choice) -> list[str]:
    """Why this layout: the next best one, and those that cannot be."""
    plan, unit = choice.best, "output tokens/s"
    lines = [f"why: {plan.expected.tokens_s:,.0f} {unit}, prompts and answers together"]
    lines += [
        f"instead of {other.layout}: {other.expected.tokens_s:,.0f} {unit}"
        for other in choice.others[:2]
    ]
    if choice.others and choice.others[0].expected.tokens_s > plan.expected.tokens_s:
        lines.append(
            "within 5 % whole experts go before slices, and data before tensor parallelism"
        )
    lines += [f"not {entry.layout}: {entry.reason}" for entry in choice.rejected]
    return lines


def memory_table(parts: list[MemoryPart]) -> Table:
    """A row a part; estimates are marked."""
    table = Table("part", box=None, pad_edge=False)
    table.add_column("GiB", justify="right")
    table.add_column("")
    for part in parts:
        note = f"about; {part.note}" if part.is_estimate else part.note
        table.add_row(part.name, f"{part.num_bytes / GIB:.2f}", note)
    return table


def _expected_table(plan: Plan) -> Table:
    expected, number = plan.expected, plan.wish.num_gpus
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for name, value, a_gpu in (
        ("prefill alone, tokens/s", expected.prefill_tokens_s, True),
        ("decode alone, tokens/s", expected.decode_tokens_s, True),
        ("both together, output tokens/s", expected.tokens_s, True),
        ("requests/s", expected.requests_s, False),
    ):
        shown = f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
        table.add_row(name, shown, f"{value / number:,.0f} a GPU" if a_gpu else "")
    groups = plan.layout.data_parallel_size
    table.add_row(
        "requests at once", str(groups * expected.requests), f"{expected.requests} a group"
    )
    table.add_row("time to the first token, idle unit", f"{expected.ttft_s * 1e3:,.0f}", "ms")
    table.add_row("time between tokens, under this load", f"{expected.itl_s * 1e3:.1f}", "ms")
    table.add_row("time between tokens, one request", f"{expected.lone_itl_s * 1e3:.1f}", "ms")
    table.add_row("MTP drafts a step", str(plan.num_drafts), "")
    return table


def as_json(choice: Choice, model: str) -> dict[str, Any]:
    """The same for programs; sizes in bytes, times in seconds."""
    plan = choice.best
    return {
        "model": model,
        "gpu": plan.wish.gpu.name,
        "num_gpus": plan.wish.num_gpus,
        "input_tokens": plan.wish.input_tokens,
        "output_tokens": plan.wish.output_tokens,
        "layout": dataclasses.asdict(plan.layout) | {"num_nodes": plan.layout.num_nodes},
        "reasons": reasons(choice),
        "memory": [dataclasses.asdict(part) for part in plan.memory()],
        "host_memory": [dataclasses.asdict(part) for part in plan.needs.host()],
        "kv_tokens": plan.kv_tokens,
        "num_drafts": plan.num_drafts,
        "expected": dataclasses.asdict(plan.expected),
        "commands": node_commands(plan, model),
        "helm_values": helm_values(plan, model) if plan.layout.num_nodes == 1 else None,
    }
