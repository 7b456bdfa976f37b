"""JSON schemas of requests (pydantic) and of answers (msgspec), as components of one document."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from leadline.server.not_honoured import AnyValue, IsHarmless, Only
from leadline.server.openapi.docstrings import description_of, field_notes

_PLACE = "#/components/schemas/"
Schema = dict[str, Any]


class Schemas:
    """The schemas of all types that a document speaks of.

    Attributes:
        components: by name.
    """

    def __init__(
        self,
        *,
        requests: Iterable[type[BaseModel]],
        answers: Iterable[Any],
        model_names: Iterable[str],
    ) -> None:
        """`model_names`: what the field `model` of a request may be."""
        self.components: dict[str, Schema] = {}
        self._refs: list[tuple[Any, Schema]] = []
        self._add_answers(list(answers))
        self._add_requests(list(requests), list(model_names))

    def of(self, wanted: Any) -> Schema:
        """A reference to a type's schema.

        Raises:
            KeyError: the type is none of those that were given.
        """
        for known, schema in self._refs:
            if known == wanted:
                return schema
        raise KeyError(wanted)

    def _add_answers(self, answers: list[Any]) -> None:
        refs, components = msgspec.json.schema_components(answers, ref_template=_PLACE + "{name}")
        self._refs += zip(answers, refs, strict=True)
        self.components |= components
        for answer in msgspec_types(answers):
            schema = self.components.get(answer.__name__)
            if schema is not None:
                _annotate(schema, answer)

    def _add_requests(self, requests: list[type[BaseModel]], model_names: list[str]) -> None:
        refs, document = models_json_schema(
            [(request, "validation") for request in requests], ref_template=_PLACE + "{model}"
        )
        definitions = document.get("$defs", {})
        clashes = definitions.keys() & self.components.keys()
        assert not clashes, f"two types have one name: {sorted(clashes)}"
        self._refs += [(request, refs[request, "validation"]) for request in requests]
        self.components |= definitions
        for model in _nested_models(requests):
            if (schema := definitions.get(model.__name__)) is not None:
                _annotate(schema, model)
        for request in requests:
            schema = definitions[request.__name__]
            _tell_models(schema, model_names)
            _tell_not_honoured(schema, getattr(request, "not_honoured", {}))


def msgspec_types(answers: Iterable[Any]) -> list[Any]:
    """The structs and typed dictionaries that types are made of."""
    found: dict[Any, None] = {}
    for info in msgspec.inspect.multi_type_info(answers):
        _collect(info, found)
    return list(found)


def _collect(info: Any, found: dict[Any, None]) -> None:
    cls = getattr(info, "cls", None)
    if cls in found:
        return
    if cls is not None and hasattr(info, "fields"):
        found[cls] = None
        for field in info.fields:
            _collect(field.type, found)
    for name in ("item_type", "value_type"):
        if (inner := getattr(info, name, None)) is not None:
            _collect(inner, found)
    for inner in getattr(info, "types", ()):
        _collect(inner, found)


def _nested_models(models: Iterable[type[BaseModel]]) -> list[type[BaseModel]]:
    found: dict[type[BaseModel], None] = {}
    waiting: list[Any] = list(models)
    while waiting:
        hint = waiting.pop()
        if inspect.isclass(hint) and issubclass(hint, BaseModel) and hint not in found:
            found[hint] = None
            waiting += [field.annotation for field in hint.model_fields.values()]
        else:
            waiting += getattr(hint, "__args__", ())
    return list(found)


def _annotate(schema: Schema, documented: type) -> None:
    """Put what docstrings say where readers of the document find it."""
    schema["description"] = description_of(documented)
    notes = field_notes(documented)
    aliases = {
        field.alias: name
        for name, field in getattr(documented, "model_fields", {}).items()
        if field.alias
    }
    for name, property_ in schema.get("properties", {}).items():
        property_.pop("title", None)
        if note := notes.get(aliases.get(name, name)):
            property_.setdefault("description", note)


def _tell_models(schema: Schema, model_names: list[str]) -> None:
    model = schema["properties"].get("model")
    if model is not None:
        kinds = model.get("anyOf", [model])
        for kind in kinds:
            if kind.get("type") == "string":
                kind["enum"] = model_names
        model["example"] = model_names[0]


def _tell_not_honoured(schema: Schema, fields: Mapping[str, IsHarmless]) -> None:
    """Fields that clients know and this server does not act on, with the values it lets pass."""
    for name, is_harmless in fields.items():
        if name in schema["properties"]:
            continue
        match is_harmless:
            case AnyValue():
                property_: Schema = {"description": "A label or hint; changes no answer."}
            case Only(values):
                property_ = {
                    "enum": [value for at, value in enumerate(values) if value not in values[:at]],
                    "description": "Not supported; values that ask for nothing are let pass.",
                }
            case _:
                continue
        schema["properties"][name] = property_
