"""What the handlers need, from what has been read and resolved."""

import random

from leadline.engine.client import EngineClient
from leadline.engine.config import ResolvedConfig
from leadline.engine.grammar.checker import GrammarChecker
from leadline.engine.grammar.limits import CheckLimits
from leadline.server.limits import Limits
from leadline.server.served_model import ServedModel
from leadline.server.server_info import cache_info
from leadline.server.state import ServerState
from leadline.server.template_process import TemplateProcess

_SEED_LIMIT = 2**53  # integers below it survive JavaScript


def make_state(
    resolved: ResolvedConfig,
    served: ServedModel,
    client: EngineClient,
    *,
    grammars: GrammarChecker | None = None,
    templates: TemplateProcess | None = None,
    deadline_s: float | None = None,
    limits: Limits | None = None,
    is_strict: bool = False,
) -> ServerState:
    """What the handlers need of a started engine; see `ServerState`."""
    seeds = random.Random(resolved.seed)
    return ServerState(
        engine=client,
        tokenizer=served.tokenizer,
        template=served.template,
        model_names=(resolved.served_model_name, *resolved.other_model_names),
        max_model_len=client.ready.max_model_len,
        seed_source=lambda: seeds.randrange(_SEED_LIMIT),
        defaults=served.generation,
        prompt_prefix_ids=served.tokenizer.prefix_ids,
        grammars=grammars,
        templates=templates,
        deadline_s=deadline_s,
        page_size=resolved.page_size if resolved.prefix_caching else 0,
        limits=limits or Limits(),
        is_strict=is_strict,
        cache_info=cache_info(resolved, client.ready),
    )


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
