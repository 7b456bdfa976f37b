import json
import threading
from pathlib import Path

import numpy as np
import pytest

from leadline.engine.errors import InvalidRequestError
from leadline.engine.grammar import compiler
from leadline.engine.grammar.compiler import GrammarStore
from leadline.engine.grammar.tokens import GrammarTokens, ids_of, make_tokens
from leadline.engine.request import Grammar, GrammarKind
from leadline.loader.errors import LoaderError, TokenizerError
from leadline.loader.tokenizer import Tokenizer

OBJECT = Grammar(GrammarKind.JSON_SCHEMA, '{"type":"object"}')


def regex(text: str) -> Grammar:
    return Grammar(GrammarKind.REGEX, text)


def schema(value: object) -> Grammar:
    return Grammar(GrammarKind.JSON_SCHEMA, json.dumps(value))


def test_matchers_of_one_grammar_do_not_disturb_each_other(
    directory: Path, tokenizer: Tokenizer, tokens: GrammarTokens
) -> None:
    store = GrammarStore(directory)
    assert store.compile(regex("ab")).result() is None
    first, second = store.matcher(regex("ab")), store.matcher(regex("ab"))
    a, b = tokenizer.encode("a") + tokenizer.encode("b")
    assert first.accept([a]) == 1
    assert second.accept([b]) == 0
    assert second.accept([a]) == 1
    assert first.accept([b]) == 1
    assert first.is_finished
    assert not second.is_finished
    assert len(store) == 1
    store.close()


def test_the_store_is_bounded(directory: Path, tokens: GrammarTokens) -> None:
    store = GrammarStore(directory, max_compiled=3, max_chars=100)
    for number in range(1000):
        store.compile(regex(f"a{{{number}}}")).result()
        assert len(store) <= 3
    store.compile(regex("b" * 98)).result()
    assert len(store) == 1
    matcher = store.matcher(regex("a{5}"))  # one that was dropped
    row = np.zeros_like(tokens.known_words)
    matcher.fill_mask(row)
    assert len(ids_of(row))
    store.compile(regex("b" * 1000)).result()  # larger than the whole: kept until the next
    assert len(store) == 1
    store.close()


def test_the_least_recently_used_is_dropped(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    compile_grammar = compiler.compile_grammar

    def counting(grammar: Grammar, tokens: GrammarTokens) -> object:
        compiled.append(grammar.text)
        return compile_grammar(grammar, tokens)

    monkeypatch.setattr(compiler, "compile_grammar", counting)
    store = GrammarStore(directory, max_compiled=2)
    for text in "abacab":
        store.compile(regex(text)).result()
    assert compiled == ["a", "b", "c", "b"]
    store.close()


def test_the_same_grammar_is_compiled_once(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = threading.Event()
    compiled: list[Grammar] = []
    compile_grammar = compiler.compile_grammar

    def slow(grammar: Grammar, tokens: GrammarTokens) -> object:
        compiled.append(grammar)
        may_go_on.wait()
        return compile_grammar(grammar, tokens)

    monkeypatch.setattr(compiler, "compile_grammar", slow)
    store = GrammarStore(directory)
    futures = [store.compile(OBJECT) for _ in range(5)]
    may_go_on.set()
    for future in futures:
        future.result()
    assert compiled == [OBJECT]
    store.close()


def test_a_bad_grammar_fails_alone(directory: Path) -> None:
    store = GrammarStore(directory)
    for _ in range(2):
        future = store.compile(regex("(a"))
        with pytest.raises(InvalidRequestError, match=r"regular expression .* unclosed group"):
            future.result()
    with pytest.raises(InvalidRequestError, match="unclosed group"):
        store.matcher(regex("(a"))
    assert len(store) == 0
    store.compile(regex("(a)")).result()
    store.close()


def test_a_checkpoint_without_a_tokenizer(tmp_path: Path) -> None:
    store = GrammarStore(tmp_path)
    with pytest.raises(LoaderError):
        store.compile(OBJECT).result()
    store.close()


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        (schema({"type": "object", "not": {}}), "not"),
        (schema({"if": {}, "then": {"required": ["a"]}}), "if"),
        (schema({"type": "array", "uniqueItems": True}), "uniqueItems"),
        (schema({"type": "array", "contains": {"type": "null"}}), "contains"),
        (schema({"type": "string", "format": "no-such-format"}), "no-such-format"),
        (schema({"$ref": "https://example.com/a.json"}), "example.com"),
        (schema({"oneOf": [{"multipleOf": 2}, {"multipleOf": 3}]}), "oneOf"),
        (schema({"x-guidance": {"lenient": True}, "not": {}}), "x-guidance"),
        # In these drafts the keyword means nothing; still, nobody writes it for nothing.
        (
            schema({"$schema": "http://json-schema.org/draft-04/schema#", "contains": {}}),
            "contains",
        ),
        (
            schema({"$schema": "http://json-schema.org/draft-07/schema#", "minContains": 2}),
            "minContains",
        ),
        (schema([1]), "must be a JSON object"),
        (schema({"maximum": float("nan")}), "NaN"),
        (Grammar(GrammarKind.JSON_SCHEMA, "[" * 100_000), "nested too deeply"),
        (Grammar(GrammarKind.JSON_SCHEMA, "{"), "not valid"),
        (regex("\ud800"), "surrogate"),
        (regex(r"(?=a)b"), "look-around"),
        (Grammar(GrammarKind.LARK, "start: foo"), "foo"),
        (Grammar(GrammarKind.LARK, ""), "Empty"),
    ],
)
def test_what_is_refused(grammar: Grammar, message: str, directory: Path) -> None:
    store = GrammarStore(directory)
    with pytest.raises(InvalidRequestError, match=message) as caught:
        store.compile(grammar).result()
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)
    store.close()


def test_a_draft_is_named_and_keywords_of_everyday(directory: Path) -> None:
    store = GrammarStore(directory)
    store.compile(
        schema(
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "$id": "https://example.com/person",
                "title": "Person",
                "type": "object",
                "properties": {
                    "name": {"type": "string", "description": "in full", "default": ""},
                    "friend": {"$ref": "#/$defs/friend"},
                },
                "required": ["name"],
                "additionalProperties": False,
                "$defs": {"friend": {"anyOf": [{"type": "null"}, {"type": "string"}]}},
            }
        )
    ).result()
    store.close()


def test_vocabularies_that_cannot_be_used(byte_tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match="more than the model's vocab_size, 10"):
        make_tokens(byte_tokenizer, 10, [1])
    with pytest.raises(TokenizerError, match="no end token"):
        make_tokens(byte_tokenizer, 1000, [900])


def test_grammars_are_counted_and_timed(directory: Path) -> None:
    store = GrammarStore(directory)
    for text in ("ab", "ab", "cd"):
        assert store.compile(regex(text)).result() is None
    with pytest.raises(InvalidRequestError):
        store.compile(regex("(")).result()
    counts = store.counts()
    assert (counts.num_queries, counts.num_hits) == (4, 1)
    assert sum(counts.times.counts) == 2
    assert counts.times.total > 0
