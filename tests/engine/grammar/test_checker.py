"""Grammars meant to do harm: each is refused or taken, and nothing else notices."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from leadline.engine.child_pool import Child
from leadline.engine.errors import InvalidRequestError
from leadline.engine.grammar import check_process, checker
from leadline.engine.grammar.checker import GrammarChecker
from leadline.engine.grammar.limits import CheckLimits
from leadline.engine.grammar.tokens import GrammarTokens
from leadline.engine.grammar.verdict import Launch, Verdict
from leadline.engine.request import Grammar, GrammarKind

GUARD_S = 30.0  # a test that waits for something that never comes


def schema(value: object) -> Grammar:
    return Grammar(GrammarKind.JSON_SCHEMA, json.dumps(value))


def regex(text: str) -> Grammar:
    return Grammar(GrammarKind.REGEX, text)


def lark(text: str) -> Grammar:
    return Grammar(GrammarKind.LARK, text)


PRIMES = (7, 11, 13, 17, 19, 23, 29)
HUNGRY = schema({"allOf": [{"type": "integer", "multipleOf": prime} for prime in PRIMES]})
SLOW = schema({"type": "integer", "multipleOf": 1_000_003})
BAD = {
    "no JSON": Grammar(GrammarKind.JSON_SCHEMA, "{"),
    "remote reference": schema({"$ref": "https://example.com/a.json"}),
    "file reference": schema({"$ref": "file:///etc/passwd"}),
    "reference to itself": schema({"$ref": "#"}),
    "deep": Grammar(GrammarKind.JSON_SCHEMA, '{"items":' * 3000 + "{}" + "}" * 3000),
    "long": schema({"const": "x" * 1_000_000}),
    "long constant": schema({"const": "x" * 200_000}),
    "large enum": schema({"enum": [f"value {i}" for i in range(50_000)]}),
    "lookahead": regex("(?=a)b"),
    "back reference": regex(r"(a)\1"),
    "nothing": lark(""),
    "infinite": lark('start: "a" start'),
    "empty enum": schema({"enum": []}),
    "length": schema({"type": "string", "minLength": 5, "maxLength": 4}),
    "required nothing": schema(
        {"type": "object", "properties": {"a": {"enum": []}}, "required": ["a"]}
    ),
    "not a number": Grammar(GrammarKind.JSON_SCHEMA, '{"minimum":NaN}'),
    "lone surrogate": Grammar(GrammarKind.JSON_SCHEMA, '{"const":"\\ud800"}'),
    "huge exponent": Grammar(GrammarKind.JSON_SCHEMA, '{"minimum":1e400}'),
    "many digits": Grammar(GrammarKind.JSON_SCHEMA, '{"minimum":' + "9" * 5000 + "}"),
    "no character": regex(r"[^\x00-\U0010FFFF]"),
    "many properties": schema({"properties": {f"p{i}": {} for i in range(8000)}}),
    "slow": SLOW,
    "hungry": HUNGRY,
}
EITHER = {
    "ambiguous": lark("start: a start | a\na: /[a-z ]/ | a a | /[a-z ]/ a /[a-z ]/"),
    "nested plus": regex("(a+)+b"),
    "nested plus in a schema": schema({"type": "string", "pattern": "(a+)+b"}),
    "nested repetitions": regex("((a{1,1000}){1,1000}){1,1000}"),
    "exponential": regex("(a|b)*a(a|b){200}"),
    "left recursion": lark('start: start "a" | "a"'),
    "repetition of rules": lark('start: (("a"{1,1000}){1,1000}){1,1000}'),
    "many items": schema({"type": "array", "items": {}, "minItems": 10**9}),
    "references in a circle": schema(
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    ),
    "zero bytes": regex("\0+"),
    "product of choices": schema(
        {
            "allOf": [
                {"anyOf": [{"properties": {f"a{i}": {"type": kind}}} for kind in ("null", "array")]}
                for i in range(12)
            ]
        }
    ),
}
GOOD = schema({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grammars(directory: Path) -> AsyncIterator[GrammarChecker]:
    checker = GrammarChecker(directory)
    await checker.start()
    yield checker
    await checker.close()


def test_a_wait_and_a_check_take_less_than_a_second() -> None:
    assert checker.MAX_WAIT_S + CheckLimits().wall_s < 1


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", BAD)
async def test_bad_grammar(name: str, grammars: GrammarChecker) -> None:
    async with asyncio.timeout(GUARD_S):
        with pytest.raises(InvalidRequestError) as caught:
            await grammars.check(BAD[name])
    assert 10 < len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", EITHER)
async def test_odd_grammar(name: str, grammars: GrammarChecker) -> None:
    async with asyncio.timeout(GUARD_S):
        with contextlib.suppress(InvalidRequestError):
            await grammars.check(EITHER[name])


@pytest.mark.asyncio(loop_scope="module")
async def test_good_grammars_pass_while_a_bad_one_is_checked(grammars: GrammarChecker) -> None:
    async with asyncio.timeout(GUARD_S):
        for number in (1_000_033, 1_000_037, 1_000_039):
            slow = schema({"type": "integer", "multipleOf": number})
            task = asyncio.create_task(grammars.check(slow))
            await grammars.check(regex(f"[a-z]+{number}"))
            await grammars.check(lark(f'root ::= "{number}" | "no"'))
            await grammars.check(schema({"const": number}))
            with pytest.raises(InvalidRequestError, match=r"takes too long|in time"):
                await task


@pytest.mark.asyncio(loop_scope="module")
async def test_a_killed_child_is_replaced(grammars: GrammarChecker) -> None:
    async with asyncio.timeout(GUARD_S):
        await grammars.check(GOOD)
        before = grammars.process_ids
        assert len(before) == 2
        for process_id in before:
            os.kill(process_id, signal.SIGKILL)
        for number in range(20):
            try:
                await grammars.check(regex(f"a{{{number}}}"))
                break
            except InvalidRequestError:
                await asyncio.sleep(0.1)
        await grammars.check(regex("healed"))
        assert not set(before) & set(grammars.process_ids)


@pytest.mark.asyncio(loop_scope="module")
async def test_one_check_for_many_who_ask(
    grammars: GrammarChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Grammar] = []
    exchange = Child.exchange

    async def counting(child: Child, line: bytes, timeout_s: float) -> bytes:
        asked.append(msgspec.json.decode(line, type=Grammar))
        return await exchange(child, line, timeout_s)

    monkeypatch.setattr(Child, "exchange", counting)
    async with asyncio.timeout(GUARD_S):
        first = asyncio.create_task(grammars.check(regex("x{3}y")))
        others = [asyncio.create_task(grammars.check(regex("x{3}y"))) for _ in range(50)]
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(*others)
        await grammars.check(regex("x{3}y"))
    assert asked == [regex("x{3}y")]


@pytest.mark.asyncio(loop_scope="module")
async def test_verdicts_are_bounded(
    grammars: GrammarChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checker, "MAX_VERDICTS", 10)
    async with asyncio.timeout(GUARD_S):
        for number in range(1000):
            await grammars.check(schema({"type": "integer", "minimum": number}))
            assert len(grammars) <= 10


async def test_closing_ends_the_children(directory: Path) -> None:
    grammars = GrammarChecker(directory)
    async with asyncio.timeout(GUARD_S):
        await grammars.check(GOOD)
        process_ids = grammars.process_ids
        running = asyncio.create_task(grammars.check(SLOW))
        await asyncio.sleep(0.05)
        await grammars.close()
        with pytest.raises(asyncio.CancelledError):
            await running
    for process_id in process_ids:
        with pytest.raises(ProcessLookupError):
            os.kill(process_id, 0)


async def test_a_tokenizer_that_cannot_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grammars = GrammarChecker(tmp_path)
    async with asyncio.timeout(GUARD_S):
        for _ in range(2):
            with pytest.raises(InvalidRequestError, match="with this model's tokenizer"):
                await grammars.check(GOOD)
        await grammars.close()
    assert "grammars cannot be used: " in caplog.text
    assert "config.json" in caplog.text


def test_memory_is_limited(tokens: GrammarTokens) -> None:
    limits = CheckLimits(cpu_s=60.0, wall_s=60.0, memory_bytes=32 * 1024**2)
    verdict = check_process.check_in_fork(HUNGRY, tokens, limits)
    assert verdict.error == "the grammar is too complex: compiling it takes too much memory"
    assert check_process.check_in_fork(GOOD, tokens).error is None


def test_time_is_limited(tokens: GrammarTokens) -> None:
    verdict = check_process.check_in_fork(SLOW, tokens)
    assert verdict.error is not None
    verdict = check_process.check_in_fork(SLOW, tokens, CheckLimits(wall_s=0.02))
    assert verdict.error is not None
    assert "in time" in verdict.error
    assert not verdict.is_lasting


def test_the_child_ends_with_its_parent(directory: Path) -> None:
    """As where the parent is gone, its input has an end."""
    launch = msgspec.json.encode(Launch(str(directory), CheckLimits()))
    done = subprocess.run(
        [sys.executable, "-P", "-m", check_process.__name__],
        input=launch + b"\n",
        capture_output=True,
        timeout=GUARD_S,
        check=True,
    )
    assert msgspec.json.decode(done.stdout, type=Verdict) == Verdict()
