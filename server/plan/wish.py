"""The flags of `leadline plan` as what is to be planned, checked against the model."""

import argparse

from leadline.engine.errors import ConfigError
from leadline.engine.expert_device import check_expert_device
from leadline.engine.planning.gpus import GIB, find_gpu
from leadline.engine.planning.host import Host
from leadline.engine.planning.planner import Wish
from leadline.engine.planning.request_stream import ACCEPTED_SHARES
from leadline.loader.family import find_config
from leadline.loader.model_config import ModelConfig


def wish_of(args: argparse.Namespace) -> Wish:
    """What the flags ask for.

    Raises:
        ConfigError: values that the model or each other exclude.
        LoaderError: the model is not known here.
    """
    model = find_config(args.model)
    _check(args, model)
    num_gpus, name = args.gpus
    return Wish(
        model=model,
        gpu=find_gpu(name),
        num_gpus=num_gpus,
        input_tokens=args.input,
        output_tokens=args.output,
        itl_s=None if args.itl_ms is None else args.itl_ms / 1e3,
        kv_cache_dtype=args.kv_cache_dtype,
        num_drafts=args.speculative_tokens,
        tensor_parallel_size=args.tensor_parallel_size,
        data_parallel_size=args.data_parallel_size,
        expert_parallel=args.enable_expert_parallel,
        ranks_per_node=args.gpus_per_node,
        headroom_bytes=int(args.memory_headroom_gib * GIB),
        host=_host(args),
        expert_gpu_count=args.expert_gpu_count,
    )


def _host(args: argparse.Namespace) -> Host | None:
    if args.expert_device == "auto":
        return None
    if args.host_memory_gib is None:
        raise ConfigError("expert_device cpu wants host_memory_gib, the memory of the machine")
    if args.host_bandwidth <= 0 or args.host_memory_gib <= 0:
        raise ConfigError("host_bandwidth and host_memory_gib are more than 0")
    return Host(
        memory_bytes=int(args.host_memory_gib * GIB),
        bandwidth=args.host_bandwidth * 1e9,
        num_cores=args.host_cores,
    )


def _check(args: argparse.Namespace, model: ModelConfig) -> None:
    longest, asked = model.max_position_embeddings, args.input + args.output
    if asked > longest:
        raise ConfigError(
            f"input and output have {asked} tokens, but the model's positions end at {longest}"
        )
    if args.itl_ms is not None and args.itl_ms <= 0:
        raise ConfigError(f"itl_ms is {args.itl_ms:g}; allowed: more than 0")
    if args.memory_headroom_gib < 0:
        raise ConfigError(f"memory_headroom_gib is {args.memory_headroom_gib:g}; allowed: from 0")
    most = len(ACCEPTED_SHARES) if model.num_nextn_predict_layers else 0
    drafts = args.speculative_tokens
    if drafts is not None and drafts > most:
        why = "" if most else ": the model has no MTP layer"
        raise ConfigError(f"speculative_tokens is {drafts}; allowed in a plan: 0 to {most}{why}")
    check_expert_device(args, model, device="cuda", num_ranks=args.gpus[0])
    if args.enable_expert_parallel and (args.gpus[0] == 1 or not model.n_routed_experts):
        raise ConfigError(
            "enable_expert_parallel takes more than one GPU and a model with experts; leave it out"
        )
