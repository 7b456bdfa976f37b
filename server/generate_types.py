"""`POST /inference/v1/generate`: what comes in."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from leadline.server.errors import invalid
from leadline.server.not_honoured import NOT_HONOURED, IsHarmless, only, refuse_not_honoured
from leadline.server.requests import PlainFields
from leadline.server.sampling_types import (
    MAX_PRIORITY,
    NumLogprobs,
    SamplingFields,
    StreamOptions,
    TokenId,
)

_OUTSIDE = ("model", "stream", "stream_options", "request_id", "rid", "cache_salt", "priority")


class GenerateParams(SamplingFields):
    """`sampling_params`: the parameters of text completions; what concerns text is for `stop`.

    Attributes:
        logprobs: how many of the likeliest tokens are told with each token.
    """

    not_honoured: ClassVar[Mapping[str, IsHarmless]] = {
        **NOT_HONOURED,
        "detokenize": only(True, False),
        "extra_args": only(),
        "output_kind": only(),
        "reasoning_effort": only("none"),
    }

    model: str = ""
    logprobs: NumLogprobs | None = None

    @property
    def num_logprobs(self) -> int | None:
        """`logprobs`."""
        return self.logprobs

    @property
    def prompt_param(self) -> str:
        """The field that holds the prompt."""
        return "token_ids"


class GenerateRequest(PlainFields):
    """Token ids to be continued, without a template and without text, as vLLM has it.

    Attributes:
        request_id: the answer's.
        priority: lower is earlier.
        cache_salt: cached pages are shared only between requests of equal salt.
    """

    not_honoured: ClassVar[Mapping[str, IsHarmless]] = {
        "features": only(),
        "kv_transfer_params": only(),
    }
    further_fields: ClassVar[frozenset[str]] = frozenset(not_honoured)

    token_ids: Annotated[list[TokenId], Field(min_length=1)]
    sampling_params: GenerateParams
    request_id: Annotated[str, Field(min_length=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    priority: Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] | None = None
    cache_salt: str | None = None

    def check(self) -> list[str]:
        """Look at the fields that are not honoured, and at fields that belong together.

        Returns:
            Names of fields that nobody knows.

        Raises:
            BadRequestError: a known field asks for what this server does not do.
        """
        refuse_not_honoured(self, self.not_honoured)
        given = self.sampling_params.model_fields_set
        for name in _OUTSIDE:
            if name in given:
                raise invalid(
                    f"sampling_params.{name}",
                    f"'sampling_params.{name}' does not belong there; give it beside them, as "
                    f"{'request_id' if name == 'rid' else name!r}",
                )
        if self.sampling_params.return_token_ids is False:
            raise invalid(
                "sampling_params.return_token_ids",
                "'sampling_params.return_token_ids' is false, but there is nothing else to return",
            )
        self.fields("").check()
        return super().check()

    def fields(self, model: str) -> GenerateParams:
        """The parameters with all that the request says; `model` if it names none."""
        return self.sampling_params.model_copy(
            update={
                "model": self.model or model,
                "stream": self.stream,
                "stream_options": self.stream_options,
                "request_id": self.request_id,
                "cache_salt": self.cache_salt,
                "priority": self.priority,
                "return_token_ids": True,
                "return_tokens_as_token_ids": True,
            }
        )
