"""Which web pages of other origins may call the API from a browser: none, unless they are named."""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from leadline.server.cors_origins import ANY

_METHODS = ("GET", "POST", "DELETE")
_EXPOSED = ("x-request-id", "request-id", "retry-after")


def with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The application with answers that browsers hand to pages of these origins.

    It lies outside of everything, so that preflights need no key and refusals can be read too.
    Cookies are never asked for: keys travel in headers, which the page itself must know.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=[ANY] if ANY in origins else list(origins),
        allow_methods=_METHODS,
        allow_headers=[ANY],
        allow_credentials=False,
        expose_headers=_EXPOSED,
    )
