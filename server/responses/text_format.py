"""`text`: what the answer must match."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from leadline.server.errors import invalid, unsupported


class TextFormat(BaseModel):
    """The answer is any text, a JSON object, or JSON of this schema, whatever `strict` says."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class TextConfig(BaseModel):
    """What is asked of the answer's text.

    Attributes:
        verbosity: no model of the family has been taught what it would mean.
    """

    model_config = ConfigDict(strict=True, extra="allow")

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None

    def check(self) -> None:
        """Refuse what is not honoured.

        Raises:
            BadRequestError: names the field.
        """
        if self.verbosity not in (None, "medium"):
            raise unsupported("text.verbosity", "leave it out; allowed: 'medium'")
        text_format = self.format
        if text_format is None or text_format.type != "json_schema":
            return
        for param, value in (("name", text_format.name), ("schema", text_format.schema_)):
            if value is None:
                raise invalid(
                    f"text.format.{param}",
                    f"'text.format.{param}' is required with the type 'json_schema'",
                )

    @property
    def response_format(self) -> dict[str, Any] | None:
        """The chat request's field that says the same; None if nothing is asked."""
        text_format = self.format
        if text_format is None or text_format.type == "text":
            return None
        if text_format.type == "json_object":
            return {"type": "json_object"}
        json_schema = {"name": text_format.name, "schema": text_format.schema_}
        return {"type": "json_schema", "json_schema": json_schema}

    def echo(self) -> dict[str, Any]:
        """The field as a response repeats it."""
        text_format = self.format or TextFormat(type="text")
        shown: dict[str, Any] = {"type": text_format.type}
        if text_format.type == "json_schema":
            shown |= {
                "name": text_format.name,
                "description": text_format.description,
                "schema": text_format.schema_,
                "strict": bool(text_format.strict),
            }
        return {"format": shown, "verbosity": "medium"}
