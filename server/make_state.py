"""What the handlers need, from what has been read and resolved."""

import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from leadline.engine.client import EngineClient
from leadline.engine.config import ResolvedConfig
from leadline.engine.grammar.checker import GrammarChecker
from leadline.engine.grammar.limits import CheckLimits
from leadline.server.config import ServerConfig
from leadline.server.limits import Limits
from leadline.server.served_model import ServedModel
from leadline.server.server_info import cache_info
from leadline.server.state import ServerState
from leadline.server.template_process import TemplateProcess

_SEED_LIMIT = 2**53  # integers below it survive JavaScript


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What tells one process that answers requests from the others, and what they share.

    Attributes:
        name: with it no two processes draw the same seeds.
        created_s: when the server was started, seconds since the epoch.
        responses_directory: where responses are kept.
    """

    name: str
    created_s: int
    responses_directory: Path


@contextlib.asynccontextmanager
async def prepared_state(
    config: ServerConfig,
    resolved: ResolvedConfig,
    served: ServedModel,
    client: EngineClient,
    place: Place | None = None,
) -> AsyncIterator[ServerState]:
    """What the handlers need of a started engine, with the processes that check requests.

    Args:
        config: of the HTTP side.
        resolved: of the engine.
        served: what the model's files say.
        client: of the engine; attached.
        place: None where this process alone answers requests.

    Raises:
        LoaderError: a chat template that cannot be compiled.
    """
    limits = config.limits
    grammars = GrammarChecker(served.directory, check_limits_of(limits))
    templates = templates_of(served, limits)
    try:
        if templates is not None:
            templates.start()
        await grammars.start()
        if templates is not None:
            await templates.check()
        state = make_state(config, resolved, served, client, place)
        state.grammars, state.templates = grammars, templates
        yield state
    finally:
        await grammars.close()
        if templates is not None:
            await templates.close()


def make_state(
    config: ServerConfig,
    resolved: ResolvedConfig,
    served: ServedModel,
    client: EngineClient,
    place: Place | None = None,
) -> ServerState:
    """What the handlers need of a started engine; see `ServerState`."""
    seeds = random.Random(resolved.seed if place is None else f"{resolved.seed} {place.name}")
    state = ServerState(
        engine=client,
        tokenizer=served.tokenizer,
        template=served.template,
        model_names=(resolved.served_model_name, *resolved.other_model_names),
        max_model_len=client.ready.max_model_len,
        seed_source=lambda: seeds.randrange(_SEED_LIMIT),
        defaults=served.generation,
        prompt_prefix_ids=served.tokenizer.prefix_ids,
        deadline_s=config.deadline_s,
        page_size=resolved.page_size if resolved.prefix_caching else 0,
        limits=config.limits,
        is_strict=config.strict,
        cache_info=cache_info(resolved, client.ready),
        responses_directory=None if place is None else place.responses_directory,
    )
    if place is not None:
        state.created_s = place.created_s
    return state


def templates_of(served: ServedModel, limits: Limits) -> TemplateProcess | None:
    """Renders the model's chat template, if it has one."""
    if served.template is None:
        return None
    return TemplateProcess(
        served.template, timeout_s=limits.template_s, memory_bytes=limits.template_bytes
    )


def check_limits_of(limits: Limits) -> CheckLimits:
    """How much of the machine a grammar may take while it is tried."""
    return CheckLimits(cpu_s=limits.grammar_cpu_s, wall_s=limits.grammar_s)
