"""Checks of a checkpoint and of whether it fits this machine; no weight is read."""

from collections.abc import Generator, Iterator
from pathlib import Path

from leadline.engine.config import EngineConfig, ResolvedConfig, resolve
from leadline.engine.errors import EngineError, NotEnoughMemoryError
from leadline.engine.memory_needs import memory_parts, needs_of
from leadline.engine.planning.memory import size_text
from leadline.engine.platform_facts import PlatformFacts
from leadline.loader.errors import CheckpointError, LoaderError
from leadline.loader.model_config import ModelConfig, read_model_config
from leadline.server.config import ServerConfig
from leadline.server.doctor.finding import Finding, fail, ok, warn
from leadline.server.served_model import ServedModel, read_served_model

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
    has_weights = yield from check_weights(directory, config)
    try:
        resolved, _ = resolve(engine, config, facts, model_path=str(directory))
    except NotEnoughMemoryError as error:
        yield fail("memory", str(error))
        return
    except EngineError as error:
        yield fail("settings", str(error))
        return
    yield ok("settings", f"max_model_len {resolved.max_model_len}, dtype {resolved.dtype}")
    if has_weights:
        yield check_memory(config, resolved, facts)


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


def check_weights(directory: Path, config: ModelConfig) -> Generator[Finding, None, bool]:
    """The index, and every file's header against config.json; returns whether all are there."""
    from leadline.loader.checkpoint import Checkpoint

    try:
        checkpoint = Checkpoint.open(directory)
    except CheckpointError as error:
        yield from (fail("weights", problem) for problem in error.problems)
        return False
    problems = checkpoint.check(config)
    yield from (fail("weights", problem) for problem in problems)
    if config.num_nextn_predict_layers and not checkpoint.has_mtp(config):
        yield warn(
            "mtp layer",
            "config.json announces one, but it is not in the files; the model is served without "
            "speculation: fetch all files if it should be there",
        )
    if problems:
        return False
    num_files = len({tensor.file for tensor in checkpoint.tensors.values()})
    yield ok("weights", f"{len(checkpoint.tensors)} tensors in {num_files} files fit config.json")
    return True


def check_memory(config: ModelConfig, resolved: ResolvedConfig, facts: PlatformFacts) -> Finding:
    """Whether all that the engine will hold leaves something free."""
    needs = needs_of(resolved, config)
    total = sum(part.num_bytes for part in memory_parts(resolved, needs))
    weights = sum(part.num_bytes for part in needs.weights())
    text = (
        f"{size_text(total)} of {size_text(facts.available_bytes)}: {size_text(weights)} of "
        f"weights, {resolved.num_pages * resolved.page_size} tokens in the cache"
    )
    if total > _TIGHT_SHARE * facts.available_bytes:
        return warn("memory", f"{text}; that is tight: lower --kv-tokens or --max-num-seqs")
    return ok("memory", text)
