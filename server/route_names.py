"""The routes of an application by their templates, so that metrics have a bounded set of them."""

import re
from collections.abc import Iterable

from starlette.routing import BaseRoute, Route


class RouteNames:
    """Finds the template of a path."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        """`routes`: of the application."""
        templates = [route for route in routes if isinstance(route, Route)]
        self._fixed = {route.path for route in templates if not route.param_convertors}
        self._patterns: list[tuple[re.Pattern[str], str]] = [
            (route.path_regex, route.path) for route in templates if route.param_convertors
        ]

    def of(self, path: str) -> str | None:
        """The template that a path fits; None if there is none."""
        if path in self._fixed:
            return path
        return next((name for pattern, name in self._patterns if pattern.match(path)), None)
