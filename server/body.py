"""A request's JSON to its validated fields, and what is said of a bad one."""

from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from leadline.server.errors import BadRequestError
from leadline.server.limits import FLAG, Limits

_MAX_SHOWN_CHARS = 40
_MAX_DEPTH = Limits().json_depth

Fields = TypeVar("Fields", bound=BaseModel)


def parse_body(body: bytes, fields: type[Fields], *, max_depth: int = _MAX_DEPTH) -> Fields:
    """Validate a request's JSON; `max_depth` as in `read_json`.

    Raises:
        BadRequestError: it is no JSON, or a field is missing or out of range.
    """
    return validate(read_json(body, max_depth), fields)


def read_json(body: bytes, max_depth: int = _MAX_DEPTH) -> dict[str, Any]:
    """A body's JSON object; `max_depth`: levels of lists and objects in each other.

    Raises:
        BadRequestError: it is no JSON object, or lists and objects lie too deep in each other.
    """
    try:
        data = msgspec.json.decode(body)
    except RecursionError as error:
        raise _too_deep(max_depth) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequestError(
            f"the body is not valid JSON: {error}", code="invalid_json"
        ) from error
    if not isinstance(data, dict):
        raise BadRequestError("the body must be a JSON object", code="invalid_json")
    # Looking closer is only worth it where there are brackets enough.
    if body.count(b"[") + body.count(b"{") > max_depth and _is_deep(data, max_depth):
        raise _too_deep(max_depth)
    return data


def validate(data: dict[str, Any], fields: type[Fields]) -> Fields:
    """The fields of a JSON object.

    Raises:
        BadRequestError: a field is missing or out of range.
    """
    try:
        return fields.model_validate(data)
    except ValidationError as error:
        raise _from_validation(error) from error


def _is_deep(data: Any, max_depth: int) -> bool:
    """Whether lists and objects lie deeper in each other than is allowed."""
    level = [data]
    for _ in range(max_depth):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _too_deep(max_depth: int) -> BadRequestError:
    return BadRequestError(
        f"lists and objects lie more than {max_depth} deep in each other; send flatter JSON "
        f"({FLAG} json_depth)",
        code="invalid_json",
    )


def _from_validation(error: ValidationError) -> BadRequestError:
    """What is wrong with the first bad field: of a union, with the branch that fits best."""
    problems = error.errors(include_url=False, include_context=False)
    field = problems[0]["loc"][0]
    problems = [problem for problem in problems if problem["loc"][0] == field]
    # A branch that the value has the type of says more than one that it does not.
    of_right_type = [problem for problem in problems if not problem["type"].endswith("_type")]
    problems = of_right_type or problems
    deepest = max(len(problem["loc"]) for problem in problems)
    problems = [problem for problem in problems if len(problem["loc"]) == deepest]
    problem = problems[0]
    param = _param(problem["loc"])
    if problem["type"] == "missing":
        return BadRequestError(
            f"'{param}' is required", param=param, code="missing_required_parameter"
        )
    wanted = dict.fromkeys(other["msg"] for other in problems)
    return BadRequestError(
        f"'{param}'{_shown(problem['input'])}: {', or '.join(wanted)}",
        param=param,
        code="invalid_value",
    )


def _shown(value: Any) -> str:
    """A value at fault, if it is short."""
    if value is None or isinstance(value, bool | int | float | str):
        text = msgspec.json.encode(value).decode()
        if len(text) <= _MAX_SHOWN_CHARS:
            return f" is {text}"
    return ""


def _param(location: tuple[int | str, ...]) -> str:
    """A field's path, as `messages[0].role`."""
    param = ""
    for part in location:
        if isinstance(part, int):
            param += f"[{part}]"
        elif part.isidentifier() and part != "str":  # the others name the branch of a union
            param += f".{part}" if param else part
    return param
