"""Answers with reasoning and calls, whole and broken, in pieces: as in one piece (needs atheris).

python -m tests.fuzz.answers -runs=100000
"""

import sys
from typing import Any

import atheris

with atheris.instrument_imports(include=["leadline"]):
    from leadline.engine.request import FinishReason, RequestOutput, TokenLogprobs
    from leadline.server.choice_text import ChoiceText, TextRules
    from leadline.server.delta import Delta
    from leadline.server.dialects.dialect import Form, Mark
    from leadline.server.dialects.events import merge
    from leadline.server.dialects.reader import AnswerReader
    from leadline.server.responses.output import MessageOutput, OutputWriter

END = 300
MARKS = {260 + place: (mark, chr(0x2460 + place)) for place, mark in enumerate(Mark)}
# What stands in calls, so that some of them are right.
WORDS = ["function", "f", "functions.f:0", "\n```json\n", "\n```", "{}", '{"a": 1}', " ", "\n", "x"]
SHARP_S = "\u00df".encode()


class Bytes:
    """A token is a byte, as far as log-probabilities are concerned."""

    def entries(self, tokens: Any) -> list[dict[str, Any]]:
        return [{"byte": token.token_id} for token in tokens]


def token_ids(provider: Any) -> list[int]:
    ids: list[int] = []
    for _ in range(provider.ConsumeIntInRange(0, 24)):
        match provider.ConsumeIntInRange(0, 3):
            case 0:
                ids.append(provider.PickValueInList(list(MARKS)))
            case 1:
                ids.extend(provider.PickValueInList(WORDS).encode())
            case 2:
                ids.extend(SHARP_S[: provider.ConsumeIntInRange(1, 2)])
            case _:
                ids.append(provider.ConsumeIntInRange(0, 255))
    return ids


def followed(ids: list[int], sizes: list[int], make: Any) -> list[Delta]:
    """The deltas of the tokens, in outputs of these sizes."""
    choice, deltas, begin = make(), [], 0
    for size in [*sizes, len(ids) + 1]:
        new_ids = ids[begin : begin + size]
        begin += size
        is_last = begin > len(ids)
        rows = [TokenLogprobs(token_id, 0.0, 1, [], []) for token_id in new_ids]
        output = RequestOutput(
            request_id="r",
            token_ids=[*new_ids, END] if is_last else new_ids,
            finish_reason=FinishReason.STOP if is_last else None,
            stop_token_id=END if is_last else None,
            num_cached_tokens=0,
            logprobs=[*rows, TokenLogprobs(END, 0.0, 1, [], [])] if is_last else rows,
        )
        deltas.append(choice.push(output))
        if deltas[-1].finish_reason is not None:
            break
    return deltas


def items_of(deltas: list[Delta]) -> list[Any]:
    writer = OutputWriter("resp_1", Bytes())
    for delta in deltas:
        for _ in writer.push(delta):
            pass
    return writer.items


def one(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    form = provider.PickValueInList(list(Form))
    is_thinking, keeps_tokens = provider.ConsumeBool(), provider.ConsumeBool()
    max_calls = provider.PickValueInList([None, 1, 2])
    stops = ["xx", " x"] if provider.ConsumeBool() else []
    ids = token_ids(provider)
    sizes = [provider.ConsumeIntInRange(0, 6) for _ in range(provider.ConsumeIntInRange(0, 12))]

    def make() -> ChoiceText:
        return ChoiceText(
            0,
            lambda token_id: bytes([token_id]) if token_id < 256 else b"",
            TextRules(stop_strings=stops, keeps_tokens=keeps_tokens),
            reader=AnswerReader(form, str, is_thinking=is_thinking, max_calls=max_calls),
            marks=MARKS,
        )

    whole, split = followed(ids, [], make), followed(ids, sizes, make)
    told = [merge(event for delta in deltas for event in delta.events) for deltas in (whole, split)]
    assert told[0] == told[1]
    assert "".join(d.text for d in whole) == "".join(d.text for d in split)
    assert [t for d in whole for t in d.tokens] == [t for d in split for t in d.tokens]
    for name in ("finish_reason", "num_tokens", "stop_reason"):
        assert getattr(whole[-1], name) == getattr(split[-1], name)
    items = items_of(whole)
    assert items == items_of(split)
    # Halves of characters, and marks that are shown, are text that no token has alone.
    odd = {"\ufffd", *(name for _, name in MARKS.values())}
    is_plain = all(odd.isdisjoint(delta.text) for delta in whole)
    for item in items:
        if keeps_tokens and isinstance(item, MessageOutput) and is_plain:
            check_logprobs(item, is_cut=bool(stops))


def check_logprobs(item: MessageOutput, *, is_cut: bool) -> None:
    """They are those of the text's own tokens."""
    (part,) = item.content
    of_tokens = bytes(entry["byte"] for entry in part.logprobs).decode()
    assert of_tokens.startswith(part.text) if is_cut else of_tokens == part.text


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
