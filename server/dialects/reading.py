"""How the answers of one request are read."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leadline.engine.request import ThinkingLimit
from leadline.loader.tokenizer import Tokenizer
from leadline.server.dialects.dialect import Dialect, Form, Mark
from leadline.server.dialects.reader import AnswerReader

_ID_BYTES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What answers are made of.

    Attributes:
        marks: tokens that are marks, and how they are written.
        form: of calls; None if none are read.
        max_calls: most calls of an answer; None for any number.
        is_thinking: the prompt ends within thinking.
    """

    marks: Mapping[int, tuple[Mark, str]]
    form: Form | None
    max_calls: int | None
    is_thinking: bool

    def reader(self, request_id: str) -> AnswerReader:
        """A reader for one choice; its calls get ids that no other request's have."""
        return AnswerReader(
            self.form,
            lambda index: call_id(request_id, index),
            is_thinking=self.is_thinking,
            max_calls=self.max_calls,
        )


def reading_of(
    tokenizer: Tokenizer,
    thinking: ThinkingLimit | None,
    prompt_ids: Sequence[int],
    *,
    dialect: Dialect | None,
    max_calls: int | None,
    continues_thinking: bool = False,
) -> Reading | None:
    """How answers to a prompt are read; None if they are content alone.

    Args:
        tokenizer: the model's.
        thinking: the tokens that mark thinking; None if the model has none.
        prompt_ids: the prompt.
        dialect: None if calls are not to be read.
        max_calls: most calls of an answer; None for any number.
        continues_thinking: the prompt ends within thinking that the client has begun.
    """
    if thinking is None and dialect is None:
        return None
    ids = mark_ids(thinking, dialect)
    return Reading(
        marks={
            token_id: (mark, tokenizer.decode([token_id], skip_special_tokens=False))
            for mark, token_id in ids.items()
        },
        form=None if dialect is None else dialect.form,
        max_calls=max_calls,
        is_thinking=thinking is not None
        and (continues_thinking or ends_within_thinking(tokenizer, thinking, prompt_ids)),
    )


def mark_ids(thinking: ThinkingLimit | None, dialect: Dialect | None) -> dict[Mark, int]:
    """The tokens that are marks, where thinking is marked and calls are written in a dialect."""
    ids: dict[Mark, int] = {}
    if thinking is not None:
        ids |= {Mark.THINK_BEGIN: thinking.begin_id, Mark.THINK_END: thinking.end_id}
    if dialect is not None:
        ids |= dialect.ids
    return ids


def ends_within_thinking(
    tokenizer: Tokenizer, thinking: ThinkingLimit, prompt_ids: Sequence[int]
) -> bool:
    """Whether `<think>`, and blanks at most, end the prompt; elsewhere it is someone's text."""
    for token_id in reversed(prompt_ids):
        if token_id == thinking.begin_id:
            return True
        if tokenizer.decode([token_id], skip_special_tokens=False).strip():
            return False
    return False


def call_id(request_id: str, index: int) -> str:
    """The id of a call that the model has not named."""
    digest = hashlib.blake2b(f"{request_id}/{index}".encode(), digest_size=_ID_BYTES)
    return f"call_{digest.hexdigest()}"
