"""Fields of a request that nobody knows, at whatever depth."""

import difflib
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from leadline.server.errors import BadRequestError


def unknown_fields(model: BaseModel) -> list[str]:
    """Their names, as `stream_options.x` or, for any of the messages, `messages.x`.

    A model's class may say in `further_fields` which others it takes beside its own, and in
    `not_honoured` which it refuses itself.
    """
    return list(dict.fromkeys(name for name, _ in _names(model)))


def further_fields_of(model: BaseModel) -> dict[str, Any]:
    """Those of the class's `further_fields` that were given, for whoever they are passed on to."""
    further: frozenset[str] = getattr(model, "further_fields", frozenset())
    return {name: value for name, value in (model.model_extra or {}).items() if name in further}


def refuse_unknown(model: BaseModel, names: list[str]) -> None:
    """Where nothing is to be ignored: refuse the first name.

    Raises:
        BadRequestError: if there are names; it says where it is, and which known one is nearest.
    """
    if not names:
        return
    name = names[0][:200]
    nearest = difflib.get_close_matches(name, sorted(_known(type(model), "")), n=1, cutoff=0.5)
    name = next((place for found, place in _names(model) if found == names[0]), name)[:200]
    advice = f"did you mean '{nearest[0]}'?" if nearest else "leave it out"
    raise BadRequestError(
        f"'{name}' is no field that this server knows (--strict); {advice}",
        param=name,
        code="unknown_parameter",
    )


def _names(model: BaseModel, prefix: str = "", place: str = "") -> Iterator[tuple[str, str]]:
    """Each name as in `messages.x`, and where it is, as in `messages[0].x`."""
    for name in model.model_extra or ():
        if name not in _further(type(model)):
            yield prefix + name, place + name
    for name, inner in model:
        if isinstance(inner, BaseModel):
            inner_name = f"{name.rstrip('_')}."
            yield from _names(inner, prefix + inner_name, place + inner_name)
        elif isinstance(inner, list) and inner and isinstance(inner[0], BaseModel):
            for at, entry in enumerate(inner):
                yield from _names(entry, f"{prefix}{name}.", f"{place}{name}[{at}].")


def _further(model: type[BaseModel]) -> frozenset[str]:
    further: frozenset[str] = getattr(model, "further_fields", frozenset())
    return further.union(getattr(model, "not_honoured", ()))


def _known(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """All names that a model and those in it take."""
    yield from (prefix + name for name in _further(model))
    for name, field in model.model_fields.items():
        known = prefix + (field.alias or name)
        yield known
        for inner in _models_in(field.annotation):
            yield from _known(inner, f"{known}.")


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _models_in(part)
