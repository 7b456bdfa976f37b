"""Log-probabilities in the forms of both APIs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leadline.engine.request import TokenLogprobs
from leadline.loader.tokenizer import Tokenizer
from leadline.server.delta import TokenInText
from leadline.server.detokenizer import Detokenizer
from leadline.server.json_line import encode_line

MIN_LOGPROB = -9999.0
"""What is written for minus infinity, which JSON does not have."""


def finite(logprob: float) -> float:
    """A log-probability that JSON can carry."""
    return logprob if logprob > MIN_LOGPROB else MIN_LOGPROB


@dataclass(frozen=True, slots=True)
class EchoedPrompt:
    """A prompt as the choices of `/v1/completions` repeat it.

    Attributes:
        tokens: with their places in the text, their log-probabilities still missing; none where
            nothing is told of them.
    """

    text: str
    tokens: list[TokenInText]

    def with_logprobs(self, logprobs: Sequence[TokenLogprobs]) -> list[TokenInText]:
        """The tokens with what the engine says of all but the first."""
        rows = [None, *logprobs] if self.tokens else []
        return [
            TokenInText(token.token_id, token.text_offset, row)
            for token, row in zip(self.tokens, rows, strict=True)
        ]


def rows_of(tokens: Sequence[TokenInText]) -> list[TokenLogprobs]:
    """The log-probabilities of tokens; the engine was asked for them."""
    rows = [token.logprobs for token in tokens]
    assert None not in rows, "the engine was asked for them"
    return [row for row in rows if row is not None]


class EntryTexts(dict[int, tuple[bytes, bytes]]):
    """By token id: what stands around its log-probability in an entry, as JSON that is not closed.

    Entries are made when they are first asked for.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, token_id: int) -> tuple[bytes, bytes]:
        data = bytes_of(self._tokenizer, token_id)
        self[token_id] = texts = _entry_texts(data.decode("utf-8", "replace"), data)
        return texts


def _entry_texts(name: str, data: bytes) -> tuple[bytes, bytes]:
    before = b'{"token":' + encode_line(name) + b',"logprob":'
    return before, b',"bytes":' + encode_line(list(data))


class LogprobWriter:
    """Writes log-probabilities as JSON objects."""

    def __init__(self, texts: EntryTexts, tokenizer: Tokenizer, *, as_token_ids: bool) -> None:
        """Write those of one request.

        Args:
            texts: for all requests.
            tokenizer: the same as theirs.
            as_token_ids: tokens are called `token_id:5`.
        """
        self._texts = texts
        self._tokenizer = tokenizer
        self._as_token_ids = as_token_ids

    def chat_line(self, rows: Sequence[TokenLogprobs]) -> bytes:
        """As `chat`, of tokens with these, as JSON that is one line: many times as fast."""
        entries = b",".join([self._entry_line(row) for row in rows])
        return b'{"content":[' + entries + b'],"refusal":null}'

    def _entry_line(self, row: TokenLogprobs) -> bytes:
        before, after = self._texts_of(row.token_id)
        tops = []
        for top_id, logprob in zip(row.top_ids, row.top_logprobs, strict=True):
            top_before, top_after = self._texts_of(top_id)
            tops.append(top_before + encode_line(finite(logprob)) + top_after)
        line = before + encode_line(finite(row.logprob)) + after + b',"top_logprobs":['
        return line + b"},".join(tops) + (b"}]}" if tops else b"]}")

    def _texts_of(self, token_id: int) -> tuple[bytes, bytes]:
        if self._as_token_ids:
            return _entry_texts(self._name(token_id), bytes_of(self._tokenizer, token_id))
        return self._texts[token_id]

    def chat(self, tokens: Sequence[TokenInText]) -> dict[str, Any]:
        """A choice's `logprobs` in `/v1/chat/completions`."""
        return {"content": self.entries(tokens), "refusal": None}

    def entries(self, tokens: Sequence[TokenInText]) -> list[dict[str, Any]]:
        """One for each token, with what else might have been there."""
        content = []
        for token in tokens:
            row = token.logprobs
            assert row is not None, "the engine was asked for them"
            tops = zip(row.top_ids, row.top_logprobs, strict=True)
            content.append(
                {
                    **self._entry(token.token_id, row.logprob),
                    "top_logprobs": [self._entry(top_id, logprob) for top_id, logprob in tops],
                }
            )
        return content

    def text(self, tokens: Sequence[TokenInText]) -> dict[str, Any]:
        """A choice's `logprobs` in `/v1/completions`; null for a prompt's first token."""
        return {
            "tokens": [self._name(token.token_id) for token in tokens],
            "token_logprobs": [
                None if token.logprobs is None else finite(token.logprobs.logprob)
                for token in tokens
            ],
            "top_logprobs": [
                None if token.logprobs is None else self._by_name(token.logprobs)
                for token in tokens
            ],
            "text_offset": [token.text_offset for token in tokens],
        }

    def prompt(self, rows: Sequence[TokenLogprobs]) -> list[dict[str, Any] | None]:
        """`prompt_logprobs`, as vLLM has it: by token id; null for the first token."""
        return [None, *(self._by_id(row) for row in rows)]

    def _by_id(self, row: TokenLogprobs) -> dict[str, Any]:
        ranked = {row.token_id: (row.logprob, row.rank)}
        tops = zip(row.top_ids, row.top_logprobs, strict=True)
        for rank, (top_id, logprob) in enumerate(tops, start=1):
            ranked.setdefault(top_id, (logprob, rank))
        return {
            str(token_id): {
                "logprob": finite(logprob),
                "rank": rank,
                "decoded_token": self._text(token_id),
            }
            for token_id, (logprob, rank) in ranked.items()
        }

    def _by_name(self, row: TokenLogprobs) -> dict[str, float]:
        """The likeliest tokens and the token itself; of those with one name, the likeliest."""
        named: dict[str, float] = {}
        for top_id, logprob in zip(row.top_ids, row.top_logprobs, strict=True):
            named.setdefault(self._name(top_id), finite(logprob))
        named.setdefault(self._name(row.token_id), finite(row.logprob))
        return named

    def _entry(self, token_id: int, logprob: float) -> dict[str, Any]:
        return {
            "token": self._name(token_id),
            "logprob": finite(logprob),
            "bytes": list(bytes_of(self._tokenizer, token_id)),
        }

    def _name(self, token_id: int) -> str:
        return f"token_id:{token_id}" if self._as_token_ids else self._text(token_id)

    def _text(self, token_id: int) -> str:
        return bytes_of(self._tokenizer, token_id).decode("utf-8", "replace")


def bytes_of(tokenizer: Tokenizer, token_id: int) -> bytes:
    """A token's bytes; those of a special token are its name's."""
    data = tokenizer.token_bytes(token_id)
    return data or tokenizer.decode([token_id], skip_special_tokens=False).encode()


def echo_of(tokenizer: Tokenizer, prompt_ids: Sequence[int], *, num_hidden: int) -> EchoedPrompt:
    """A prompt to be repeated.

    Args:
        tokenizer: the model's.
        prompt_ids: all of the prompt.
        num_hidden: its first tokens that are not shown, because the caller has not written them.
    """
    detokenizer = Detokenizer(lambda token_id: bytes_of(tokenizer, token_id))
    pieces, tokens, length = [], [], 0
    for place, token_id in enumerate(prompt_ids):
        tokens.append(TokenInText(token_id, length, None))
        if place >= num_hidden:
            pieces.append(detokenizer.push(token_id))
            length += len(pieces[-1])
    return EchoedPrompt("".join([*pieces, detokenizer.flush()]), tokens)
