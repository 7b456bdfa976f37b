"""A plan as what the operator types: a command for each node, and values for the Helm chart."""

import shlex
from typing import Any

from leadline.engine.planning.planner import Plan

_DISK_SHARE = 1.15  # of a checkpoint's size, for what lies beside the weights
_READ_BYTES_S = 0.5e9  # from a disk of a cluster, a node
_HOST_GIB_A_RANK = 12


def serve_flags(plan: Plan) -> list[str]:
    """The flags of `leadline serve` that every node gets."""
    wish, layout = plan.wish, plan.layout
    flags = []
    if layout.tensor_parallel_size > 1:
        flags += ["--tensor-parallel-size", str(layout.tensor_parallel_size)]
    if layout.data_parallel_size > 1:
        flags += ["--data-parallel-size", str(layout.data_parallel_size)]
    if layout.expert_parallel:
        flags.append("--enable-expert-parallel")
    elif layout.data_parallel_size > 1 and wish.model.n_routed_experts:
        flags.append("--no-enable-expert-parallel")
    flags += ["--max-num-seqs", str(plan.expected.requests), "--kv-tokens", str(plan.kv_tokens)]
    if wish.kv_cache_dtype != "bfloat16":
        flags += ["--kv-cache-dtype", wish.kv_cache_dtype]
    if wish.model.num_nextn_predict_layers:
        flags += ["--speculative-tokens", str(plan.num_drafts)]
    if wish.host is not None:
        flags += ["--expert-device", "cpu", "--expert-gpu-count", str(wish.expert_gpu_count)]
    if wish.itl_s is not None:
        flags += ["--target-itl-ms", f"{wish.itl_s * 1e3:g}"]
    return flags


def node_commands(plan: Plan, model: str, head: str = "NODE0") -> list[str]:
    """The command of each node, the head's first; all nodes have a copy of `unit.key`."""
    command = ["leadline", "serve", model, *serve_flags(plan)]
    nodes = plan.layout.num_nodes
    if nodes == 1:
        return [shlex.join(command)]
    unit = ["--nnodes", str(nodes), "--head", head, "--node-interface", "eth0"]
    unit += ["--unit-key", "unit.key"]
    return [shlex.join([*command, *unit, "--node-rank", str(rank)]) for rank in range(nodes)]


def helm_values(plan: Plan, model: str) -> dict[str, Any]:
    """Values of `docker/helm/leadline` for a unit of one node."""
    ranks = min(plan.layout.num_ranks, plan.layout.ranks_per_node)
    size = plan.checkpoint_bytes
    minutes = max(5, round(2 * size / _READ_BYTES_S / 60))
    experts = sum(part.num_bytes for part in plan.needs.host())
    memory = f"{_HOST_GIB_A_RANK * ranks + -(-experts // 2**30)}Gi"
    cores = 2 * ranks if plan.wish.host is None else plan.wish.host.num_cores
    return {
        "model": model,
        "flags": serve_flags(plan),
        "gpus": ranks,
        "resources": {
            "requests": {"cpu": str(cores), "memory": memory},
            "limits": {"memory": memory},
        },
        "sharedMemory": f"{max(1, ranks)}Gi",
        "models": {"size": f"{-(-int(size * _DISK_SHARE) // 2**30)}Gi"},
        "startupMinutes": minutes,
    }
