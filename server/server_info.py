"""`GET /server_info`: what the server has settled on at its start."""

import dataclasses
from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from leadline.engine.config import ResolvedConfig
from leadline.engine.config_lines import ConfigLine
from leadline.engine.messages import Ready
from leadline.server.config import KEY_FIELDS, ServerConfig
from leadline.server.limits import Limits
from leadline.server.version import version


class Setting(msgspec.Struct):
    """A value of the config, and why it is that."""

    value: str
    reason: str


class ServerInfo(msgspec.Struct, kw_only=True):
    """What was settled at the start; keys themselves are told to nobody.

    Attributes:
        directory: of the model's files.
        engine: what the engine has loaded, as in the start-up table.
        config: the engine's settings.
        limits: what `--limit` sets.
        keys: which keys there are.
        start_up_s: seconds of each part of the start.
        api_workers: processes that answer requests.
    """

    version: str = msgspec.field(default_factory=version)
    models: list[str] = msgspec.field(default_factory=list)
    max_model_len: int = 0
    directory: str = ""
    engine: dict[str, str] = msgspec.field(default_factory=dict)
    config: dict[str, Setting] = msgspec.field(default_factory=dict)
    limits: dict[str, float] = msgspec.field(default_factory=dict)
    keys: dict[str, bool] = msgspec.field(default_factory=dict)
    start_up_s: dict[str, float] = msgspec.field(default_factory=dict)
    api_workers: int = 1


def server_info_of(
    config: ServerConfig,
    lines: list[ConfigLine],
    ready: Ready,
    directory: str,
    models: Sequence[str],
) -> ServerInfo:
    """What there is to tell when the engine is ready."""
    return ServerInfo(
        models=list(models),
        max_model_len=ready.max_model_len,
        directory=directory,
        engine=dict(ready.summary),
        config={line.name: Setting(line.value, line.reason) for line in lines},
        limits=dataclasses.asdict(config.limits),
        keys={name: bool(getattr(config, name)) for name in KEY_FIELDS},
        api_workers=config.api_workers,
    )


def rows_of(config: ServerConfig) -> list[tuple[str, str]]:
    """Keys, limits and workers, as the start-up table has them."""
    words = {
        "API": "on" if config.api_key else "off: everybody is let in",
        "administration": "on" if config.admin_api_key else "as the API's",
        "metrics": "on" if config.metrics_api_key else "off: everybody may read them",
    }
    usual = Limits()
    changed = [
        f"{name} {value:g}"
        for name, value in dataclasses.asdict(config.limits).items()
        if value != getattr(usual, name)
    ]
    return [
        ("keys", "; ".join(f"{what} {word}" for what, word in words.items())),
        ("limits", ", ".join(changed) or "the usual ones (GET /server_info lists them)"),
        *([("API workers", str(config.api_workers))] if config.api_workers > 1 else []),
    ]


def cache_info(resolved: ResolvedConfig, ready: Ready) -> dict[str, str]:
    """What metrics tell of the cache, under the names that vLLM gives it."""
    return {
        "block_size": str(ready.page_size),
        "num_gpu_blocks": str(ready.num_pages),
        "num_cpu_blocks": str(resolved.num_host_pages),
        "kv_cache_size_tokens": str(ready.num_pages * ready.page_size),
        "cache_dtype": resolved.kv_cache_dtype,
        "enable_prefix_caching": str(resolved.prefix_caching),
    }


async def show_server_info(request: Request) -> Response:
    """What the server has settled on at its start."""
    body = msgspec.json.encode(request.app.state.server.info)
    return Response(body, media_type="application/json")
