"""Who is let in, and to what."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from starlette.datastructures import Headers

from leadline.server.config import ServerConfig
from leadline.server.errors import ApiError
from leadline.server.page_files import PAGE_PATHS

OPEN_PATHS = frozenset({"/livez", "/readyz", "/health"})
METRICS_PATH = "/metrics"
ADMIN_PATHS = frozenset(
    {
        "/reset_prefix_cache",
        "/server_info",
        "/abort_requests",
        "/pause",
        "/resume",
        "/is_paused",
        "/sleep",
        "/wake_up",
        "/is_sleeping",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Which keys open what; all but the probes and the page needs one, if there are any.

    An admin key opens everything. Without one, whoever may use the API may act on the server too.
    Only hashes are kept.
    """

    api: frozenset[bytes] = field(default=frozenset(), repr=False)
    admin: frozenset[bytes] = field(default=frozenset(), repr=False)
    metrics: frozenset[bytes] = field(default=frozenset(), repr=False)

    @classmethod
    def of(
        cls, *, api: Iterable[str] = (), admin: Iterable[str] = (), metrics: Iterable[str] = ()
    ) -> "Access":
        """From the keys themselves."""
        return cls(api=_hashes(api), admin=_hashes(admin), metrics=_hashes(metrics))

    @classmethod
    def of_config(cls, config: ServerConfig) -> "Access":
        """As the operator wants it."""
        return cls.of(
            api=config.api_key, admin=config.admin_api_key, metrics=config.metrics_api_key
        )

    def refusal(self, path: str, headers: Headers) -> ApiError | None:
        """What is answered to a request whose key does not open its path; None if it does."""
        keys = self._keys_of(path)
        if not keys:
            return None
        shown = _shown_keys(headers)
        if any(_is_among(key, keys | self.admin) for key in shown):
            return None
        message = (
            "the API key is not valid here"
            if shown
            else "an API key is needed; send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'"
        )
        return ApiError(
            401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"}
        )

    def _keys_of(self, path: str) -> frozenset[bytes]:
        if path in OPEN_PATHS or path in PAGE_PATHS:
            return frozenset()
        if path == METRICS_PATH:
            return self.metrics
        if path in ADMIN_PATHS:
            return self.admin or self.api
        return self.api


def _hashes(keys: Iterable[str]) -> frozenset[bytes]:
    return frozenset(_hash(key.encode()) for key in keys)


def _hash(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _is_among(key: bytes, hashes: Iterable[bytes]) -> bool:
    """Takes as long for every key: equal lengths, and no end at the first match."""
    shown = _hash(key)
    return sum(hmac.compare_digest(shown, other) for other in hashes) > 0


def _shown_keys(headers: Mapping[str, str]) -> list[bytes]:
    scheme, _, key = headers.get("authorization", "").strip().partition(" ")
    bearer = key.strip() if scheme.lower() == "bearer" else ""
    shown = (bearer, headers.get("x-api-key", "").strip())
    return [key.encode("latin-1") for key in shown if key]
