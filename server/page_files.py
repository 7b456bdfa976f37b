"""The page at `/`: static files with ETag, gzip and a strict content security policy."""

import gzip
import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FOLDER = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "cache-control": "no-cache",
    "vary": "accept-encoding",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_MIN_GZIP_BYTES = 1024


class PageFile:
    """One file, as it is sent."""

    def __init__(self, path: Path) -> None:
        self._body = path.read_bytes()
        self._zipped = gzip.compress(self._body, mtime=0)
        self._etag = f'"{hashlib.sha256(self._body).hexdigest()[:32]}"'
        self._media_type = _TYPES[path.suffix]

    async def __call__(self, request: Request) -> Response:
        """The file; 304 where the browser has it."""
        headers = {**_HEADERS, "etag": self._etag}
        known = request.headers.get("if-none-match", "")
        if self._etag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
            return Response(status_code=304, headers=headers)
        body = self._body
        if len(body) >= _MIN_GZIP_BYTES and "gzip" in request.headers.get("accept-encoding", ""):
            body, headers["content-encoding"] = self._zipped, "gzip"
        return Response(body, headers=headers, media_type=self._media_type)


_FILES = {
    "/" if path.name == "index.html" else f"/page/{path.name}": PageFile(path)
    for path in sorted(_FOLDER.iterdir())
    if path.suffix in _TYPES
}
PAGE_PATHS = frozenset(_FILES)
"""They hold nothing secret, and load before a key can be typed."""


def page_routes() -> list[Route]:
    """A route for each file."""
    return [Route(path, file.__call__, include_in_schema=False) for path, file in _FILES.items()]
