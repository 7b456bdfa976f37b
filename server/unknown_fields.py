"""Fields of a request that nobody knows, at whatever depth."""

import difflib
from collections.abc import Iterator

from pydantic import BaseModel

from leadline.server.errors import BadRequestError


def unknown_fields(model: BaseModel) -> list[str]:
    """Their names, as `stream_options.x` or, for any of the messages, `messages.x`.

    A model's class may say in `further_fields` which others it takes beside its own, and in
    `not_honoured` which it refuses itself.
    """
    return list(dict.fromkeys(_names(model, "")))


def refuse_unknown(model: BaseModel, names: list[str]) -> None:
    """Where nothing is to be ignored: refuse the first name.

    Raises:
        BadRequestError: if there are names; it has the nearest known one.
    """
    if not names:
        return
    name = names[0][:200]
    nearest = difflib.get_close_matches(name, sorted(_known(type(model), "")), n=1, cutoff=0.5)
    advice = f"did you mean '{nearest[0]}'?" if nearest else "leave it out"
    raise BadRequestError(
        f"'{name}' is no field that this server knows (--strict); {advice}",
        param=name,
        code="unknown_parameter",
    )


def _names(model: BaseModel, prefix: str) -> Iterator[str]:
    for name in model.model_extra or ():
        if name not in _further(type(model)):
            yield prefix + name
    for name, inner in model:
        if isinstance(inner, BaseModel):
            yield from _names(inner, f"{prefix}{name.rstrip('_')}.")
        elif isinstance(inner, list) and inner and isinstance(inner[0], BaseModel):
            for entry in inner:
                yield from _names(entry, f"{prefix}{name}.")


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
