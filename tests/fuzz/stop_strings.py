"""A text in pieces, and stop strings: as looked for in the whole (needs atheris).

python -m tests.fuzz.stop_strings -runs=100000
"""

import sys

import atheris

with atheris.instrument_imports(include=["leadline"]):
    from leadline.server.stop_strings import StopStringMatcher


def expected(text: str, stops: list[str], is_included: bool) -> tuple[str, str | None]:
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            stop = max(found, key=len)
            return text[: end if is_included else end - len(stop)], stop
    return text, None


def one(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)

    def letters(most: int) -> str:
        return "".join(
            "abc"[provider.ConsumeIntInRange(0, 2)]
            for _ in range(provider.ConsumeIntInRange(1, most))
        )

    stops = [letters(5) for _ in range(provider.ConsumeIntInRange(1, 4))]
    is_included = provider.ConsumeBool()
    pieces = [letters(6) for _ in range(provider.ConsumeIntInRange(0, 8))]
    matcher = StopStringMatcher(stops, is_included=is_included)
    told = ""
    for piece in pieces:
        told += matcher.push(piece)
        if matcher.matched is not None:
            break
    if matcher.matched is None:
        told += matcher.flush()
    assert (told, matcher.matched) == expected("".join(pieces), stops, is_included)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
