"""Checks of a checkpoint and of whether it fits this machine; no weight is read."""

from collections.abc import Generator, Iterator
from pathlib import Path

from leadline.engine.cache_size import latent_bytes_per_token
from leadline.engine.config import EngineConfig, ResolvedConfig, resolve
from leadline.engine.errors import EngineError
from leadline.engine.platform_facts import PlatformFacts
from leadline.loader.errors import CheckpointError, LoaderError
from leadline.loader.model_config import ModelConfig, read_model_config
from leadline.server.config import ServerConfig
from leadline.server.doctor.finding import Finding, fail, ok, warn
from leadline.server.served_model import ServedModel, read_served_model

_DTYPE_BYTES = {"float32": 4, "bfloat16": 2}
_TIGHT_SHARE = 0.9


def check_model(
    directory: Path, engine: EngineConfig, server: ServerConfig, facts: PlatformFacts
) -> Iterator[Finding]:
    """Everything about the model in a directory.

    Args:
        directory: of the checkpoint.
        engine: how it is to run; its `model` is not looked at.
        server: may name a template and sampling defaults.
        facts: of this machine.
    """
    try:
        config = read_model_config(directory)
    except LoaderError as error:
        yield fail("config.json", str(error))
        return
    yield ok("config.json", config.architecture)
    try:
        served = read_served_model(directory, server)
    except LoaderError as error:
        yield fail("tokenizer", str(error))
    else:
        yield from check_served(served)
    num_weights = yield from check_weights(directory, config)
    try:
        resolved, _ = resolve(engine, config, facts, model_path=str(directory))
    except EngineError as error:
        yield fail("settings", str(error))
        return
    yield ok("settings", f"max_model_len {resolved.max_model_len}, dtype {resolved.dtype}")
    if num_weights:
        yield check_memory(num_weights, config, resolved, facts)


def check_served(served: ServedModel) -> Iterator[Finding]:
    """Tokenizer, template, sampling defaults: they have been read."""
    yield ok("tokenizer", f"{served.tokenizer.vocab_size} tokens")
    if served.template is None:
        yield warn(
            "chat template",
            "the checkpoint has none, so chats are refused; give one with --chat-template",
        )
    else:
        yield ok(
            "chat template",
            "tools are told to the model" if served.template.reads_tools else "here",
        )
    if served.generation.not_honoured:
        settings = ", ".join(served.generation.not_honoured)
        yield warn(
            "sampling",
            f"the generation config asks for what is not supported: {settings}; it is left out",
        )
    if not served.generation.eos_token_ids:
        yield warn(
            "sampling",
            "no end token is known, so answers go on to their limit; add eos_token_id with "
            "--override-generation-config",
        )


def check_weights(directory: Path, config: ModelConfig) -> Generator[Finding, None, int]:
    """The index, and every file's header against config.json; returns the number of weights."""
    from leadline.loader.checkpoint import Checkpoint

    try:
        checkpoint = Checkpoint.open(directory)
    except CheckpointError as error:
        yield from (fail("weights", problem) for problem in error.problems)
        return 0
    problems = checkpoint.check(config)
    yield from (fail("weights", problem) for problem in problems)
    if config.num_nextn_predict_layers and not checkpoint.has_mtp(config):
        yield warn(
            "mtp layer",
            "config.json announces one, but it is not in the files; the model is served without "
            "speculation: fetch all files if it should be there",
        )
    if problems:
        return 0
    num_files = len({tensor.file for tensor in checkpoint.tensors.values()})
    yield ok("weights", f"{len(checkpoint.tensors)} tensors in {num_files} files fit config.json")
    return checkpoint.num_elements


def check_memory(
    num_weights: int, config: ModelConfig, resolved: ResolvedConfig, facts: PlatformFacts
) -> Finding:
    """Whether weights and cache fit."""
    weights = num_weights * _DTYPE_BYTES[resolved.dtype]
    token_bytes = latent_bytes_per_token(config, resolved.kv_cache_dtype)
    cache = resolved.num_pages * resolved.page_size * token_bytes
    free = facts.available_bytes
    text = (
        f"weights {_gib(weights)} ({resolved.dtype}) and cache {_gib(cache)} of {_gib(free)} free"
    )
    if weights > free:
        return fail(
            "memory",
            f"{text}; the weights do not fit: use a machine with more, a smaller model"
            + (", or --dtype bfloat16" if resolved.dtype == "float32" else ""),
        )
    if weights + cache > _TIGHT_SHARE * free:
        return warn("memory", f"{text}; that is tight: lower --kv-tokens or --max-num-seqs")
    return ok("memory", text)


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"
