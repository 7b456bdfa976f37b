"""Matchers against what does not know of llguidance: `jsonschema`, `re`, and a fresh matcher."""

import json
import random
import re
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.engine.grammar.compilation import compile_grammar
from leadline.engine.grammar.matcher import GrammarMatcher
from leadline.engine.grammar.tokens import GrammarTokens, ids_of
from leadline.engine.request import Grammar, GrammarKind
from leadline.loader.tokenizer import Tokenizer

MAX_STEPS = 400


def make_matcher(kind: GrammarKind, text: str, tokens: GrammarTokens) -> GrammarMatcher:
    return GrammarMatcher(compile_grammar(Grammar(kind, text), tokens), tokens)


def schema_matcher(schema: object, tokens: GrammarTokens) -> GrammarMatcher:
    return make_matcher(GrammarKind.JSON_SCHEMA, json.dumps(schema), tokens)


def allowed_ids(matcher: GrammarMatcher, tokens: GrammarTokens) -> list[int]:
    row = np.full_like(tokens.known_words, -1)
    matcher.fill_mask(row)
    return [int(token_id) for token_id in ids_of(row)]


def sample(
    matcher: GrammarMatcher, tokens: GrammarTokens, tokenizer: Tokenizer, rng: random.Random
) -> str | None:
    """A text drawn from the masks alone; None if it does not end."""
    token_ids: list[int] = []
    for _ in range(MAX_STEPS):
        allowed = allowed_ids(matcher, tokens)
        assert matcher.error is None
        assert allowed
        ends = tokens.end_ids & set(allowed)
        closing = [i for i in allowed if tokenizer.token_bytes(i)[-1:] in (b'"', b"}", b"]")]
        if ends and (len(ends) == len(allowed) or rng.random() < 0.4):
            assert matcher.accept([rng.choice(sorted(ends))]) == 1
            assert matcher.is_finished
            return tokenizer.decode(token_ids)
        token_id = rng.choice(closing if closing and rng.random() < 0.4 else allowed)
        if token_id in ends:
            continue
        assert matcher.accept([token_id]) == 1
        token_ids.append(token_id)
    return None


def bounds(low: int, high: int, names: tuple[str, str]) -> st.SearchStrategy[dict[str, int]]:
    pair = st.tuples(st.integers(low, high), st.integers(low, high)).map(sorted)
    return pair.map(lambda ends: dict(zip(names, ends, strict=True)))


def objects(schemas: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.text('abz_ "\\', min_size=1, max_size=4)
    properties = st.dictionaries(names, schemas, max_size=3)
    return st.tuples(properties, st.booleans()).map(
        lambda drawn: {
            "type": "object",
            "properties": drawn[0],
            "required": list(drawn[0])[:: 1 + drawn[1]],
            "additionalProperties": False,
        }
    )


LEAVES = st.one_of(
    bounds(0, 6, ("minLength", "maxLength")).map(lambda b: {"type": "string", **b}),
    st.sampled_from(["^[a-z]{1,3}$", "^(ab|cd)*e$", "^[0-9]{2}-x?$"]).map(
        lambda pattern: {"type": "string", "pattern": pattern}
    ),
    bounds(-2000, 2000, ("minimum", "maximum")).map(lambda b: {"type": "integer", **b}),
    bounds(-20, 20, ("minimum", "maximum")).map(lambda b: {"type": "number", **b}),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"const": [1, "a", None]}]),
    st.lists(st.text(max_size=4) | st.integers(-9, 9), min_size=1, max_size=4).map(
        lambda values: {"enum": values}
    ),
    st.integers(2, 12).map(lambda n: {"type": "integer", "multipleOf": n, "maximum": 500}),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        objects(inner),
        st.tuples(inner, bounds(0, 3, ("minItems", "maxItems"))).map(
            lambda drawn: {"type": "array", "items": drawn[0], **drawn[1]}
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts}),
    ),
    max_leaves=5,
)


@settings(max_examples=80)
@given(schema=SCHEMAS, seed=st.integers(0, 2**32))
def test_a_sampled_text_is_valid_for_its_schema(
    schema: Any, seed: int, tokens: GrammarTokens, tokenizer: Tokenizer
) -> None:
    text = sample(schema_matcher(schema, tokens), tokens, tokenizer, random.Random(seed))
    if text is not None:
        jsonschema.validate(json.loads(text), schema)


@settings(max_examples=40)
@given(schema=SCHEMAS, seed=st.integers(0, 2**32))
def test_the_same_with_tokens_of_a_byte_or_two(
    schema: Any, seed: int, byte_tokens: GrammarTokens, byte_tokenizer: Tokenizer
) -> None:
    matcher = schema_matcher(schema, byte_tokens)
    text = sample(matcher, byte_tokens, byte_tokenizer, random.Random(seed))
    if text is not None:
        jsonschema.validate(json.loads(text), schema)


ATOMS = st.sampled_from(["a", "b", "[a-c]", "[^a]", "[0-9]", "ab", "(?:x|yz)", r"\.", "\u00e9"])
REGEXES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}"])).map(
            lambda drawn: f"(?:{drawn[0]}){drawn[1]}"
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=80)
@given(regex=REGEXES, seed=st.integers(0, 2**32))
def test_a_sampled_text_matches_its_regex(
    regex: str, seed: int, tokens: GrammarTokens, tokenizer: Tokenizer
) -> None:
    matcher = make_matcher(GrammarKind.REGEX, regex, tokens)
    text = sample(matcher, tokens, tokenizer, random.Random(seed))
    if text is not None:
        assert re.fullmatch(regex, text)


LARKS = (
    'start: "a" <tool> b*\nb: "b" | "[" b "]"',
    "start: A\nA: ~/(?s:.*)x.{3}/",
    'start: start "a" | "a"',
    'start: %json {"type": "object"}',
)


@settings(max_examples=150)
@given(
    lark=st.sampled_from(LARKS),
    moves=st.lists(st.tuples(st.integers(0, 2**32), st.integers(0, 4)), max_size=30),
)
def test_going_back_is_as_never_having_gone(
    lark: str, moves: list[tuple[int, int]], byte_tokens: GrammarTokens
) -> None:
    matcher = make_matcher(GrammarKind.LARK, lark, byte_tokens)
    path: list[int] = []
    for choice, num_back in moves:
        allowed = allowed_ids(matcher, byte_tokens)
        token_id = allowed[choice % len(allowed)]
        assert matcher.accept([token_id]) == 1, (path, token_id)
        path.append(token_id)
        num_back = min(num_back, len(path))
        if choice % 3 == 0 and num_back:
            matcher.rollback(num_back)
            del path[-num_back:]
        fresh = make_matcher(GrammarKind.LARK, lark, byte_tokens)
        assert fresh.accept(path) == len(path)
        assert allowed_ids(fresh, byte_tokens) == allowed_ids(matcher, byte_tokens)
        assert fresh.is_finished == matcher.is_finished
        assert matcher.error is None


@settings(max_examples=60)
@given(lark=st.sampled_from(LARKS), seed=st.integers(0, 2**32))
def test_a_token_is_accepted_if_and_only_if_the_mask_has_it(
    lark: str, seed: int, byte_tokens: GrammarTokens
) -> None:
    rng = random.Random(seed)
    matcher = make_matcher(GrammarKind.LARK, lark, byte_tokens)
    for _ in range(6):
        allowed = allowed_ids(matcher, byte_tokens)
        for token_id in range(-1, 32 * len(byte_tokens.known_words) + 1):
            is_accepted = matcher.accept([token_id]) == 1
            assert is_accepted == (token_id in allowed)
            matcher.rollback(int(is_accepted))
        assert matcher.error is None
        matcher.accept([rng.choice(allowed)])


def test_end_tokens(byte_tokens: GrammarTokens, byte_tokenizer: Tokenizer) -> None:
    matcher = make_matcher(GrammarKind.REGEX, "ab?", byte_tokens)
    a, b, end, stop = byte_tokenizer.encode("a") + byte_tokenizer.encode("b<end><stop>")
    start = allowed_ids(matcher, byte_tokens)
    assert end not in start
    assert matcher.accept([end]) == 0
    assert matcher.accept([a, end, stop, a]) == 3
    assert matcher.is_finished
    assert allowed_ids(matcher, byte_tokens) == sorted([end, stop])
    matcher.rollback(2)
    assert not matcher.is_finished
    assert allowed_ids(matcher, byte_tokens) == sorted([b, end, stop])
    assert matcher.accept([b]) == 1  # the grammar can go no further by itself
    assert matcher.is_finished
    assert allowed_ids(matcher, byte_tokens) == sorted([end, stop])
    assert matcher.accept([a]) == 0
    assert matcher.accept([end]) == 1
    matcher.rollback(3)
    assert allowed_ids(matcher, byte_tokens) == start
    assert matcher.error is None


def test_an_invalid_token_is_refused_and_no_more(tokens: GrammarTokens) -> None:
    matcher = make_matcher(GrammarKind.REGEX, "[ab]{3}", tokens)
    before = allowed_ids(matcher, tokens)
    assert matcher.accept([-1]) == 0
    assert matcher.accept([10**6]) == 0
    assert matcher.accept([next(i for i in range(4096) if i not in before)]) == 0
    assert allowed_ids(matcher, tokens) == before
    assert matcher.error is None


def test_rows_without_a_token_are_never_allowed(byte_tokens: GrammarTokens) -> None:
    matcher = make_matcher(GrammarKind.LARK, "start: <[*]>", byte_tokens)
    allowed = allowed_ids(matcher, byte_tokens)
    assert len(allowed) > 200
    assert max(allowed) < byte_tokens.num_known
    assert matcher.accept([byte_tokens.num_known]) == 0


def test_too_complex_a_grammar_is_an_error(tokens: GrammarTokens, tokenizer: Tokenizer) -> None:
    matcher = make_matcher(GrammarKind.LARK, 'start: (("a"{1,1000}){1,1000}){1,1000}', tokens)
    (a,) = tokenizer.encode("a")
    for _ in range(1000):
        if matcher.accept([a]) == 0:
            break
    assert matcher.error is not None
    assert "items" in matcher.error
    assert len(matcher.error) < 350
    assert not matcher.is_finished
    assert matcher.accept([a]) == 0
    assert set(allowed_ids(matcher, tokens)) == tokens.end_ids
    matcher.rollback(1)
    assert matcher.error is not None


def test_nothing_matches(tokens: GrammarTokens) -> None:
    matcher = schema_matcher({"$ref": "#"}, tokens)
    row = np.zeros_like(tokens.known_words)
    matcher.fill_mask(row)
    assert matcher.error == "no text matches it"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "null"}}}},
    ],
)
def test_blanks_come_to_an_end(schema: Any, tokens: GrammarTokens, tokenizer: Tokenizer) -> None:
    """A model that writes blanks wherever it may."""
    matcher = schema_matcher(schema, tokens)
    rng = random.Random(0)
    num_blanks = 0
    is_string = False
    for _ in range(300):
        allowed = [i for i in allowed_ids(matcher, tokens) if i not in tokens.end_ids]
        if not allowed:
            break
        texts = {i: tokenizer.token_bytes(i) for i in allowed}
        blanks = [i for i, text in texts.items() if not text.strip() and not is_string]
        token_id = rng.choice(blanks or allowed)
        is_string ^= texts[token_id].replace(b'\\"', b"").count(b'"') % 2 == 1
        assert matcher.accept([token_id]) == 1
        num_blanks = num_blanks + len(texts[token_id]) if token_id in blanks else 0
        assert num_blanks <= 42


def test_pretty_printed_json(tokens: GrammarTokens, tokenizer: Tokenizer) -> None:
    value = {"a": [1, {"b": {"c": [[], {}]}}], "d": "e"}
    for text in (
        json.dumps(value, indent=4),
        json.dumps(value, indent="\t"),
        json.dumps(value),
        json.dumps(value, separators=(",", ":")),
        json.dumps(value, indent=2).replace("\n", "\r\n"),
    ):
        matcher = schema_matcher({"type": "object"}, tokens)
        token_ids = tokenizer.encode(text)
        assert matcher.accept(token_ids) == len(token_ids)
        assert matcher.is_finished
