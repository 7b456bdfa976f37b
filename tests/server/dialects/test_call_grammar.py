"""Grammars of calls are good llguidance, and allow what the reader reads."""

import json
from typing import Any

import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from leadline.engine.grammar.compilation import compile_grammar
from leadline.engine.grammar.matcher import GrammarMatcher
from leadline.engine.grammar.tokens import GrammarTokens, make_tokens
from leadline.engine.request import Grammar, GrammarKind
from leadline.loader.tokenizer import Tokenizer
from leadline.server.dialects.call_grammar import call_grammar
from leadline.server.dialects.dialect import (
    DEEPSEEK_TEXTS,
    KIMI_TEXTS,
    Dialect,
    Form,
    Mark,
    find_dialect,
)
from leadline.server.dialects.tool_types import Tool, tool_use_of
from leadline.server.errors import BadRequestError

SHORT = {
    "[[": Mark.CALLS_BEGIN,
    "]]": Mark.CALLS_END,
    "((": Mark.CALL_BEGIN,
    "))": Mark.CALL_END,
    "||": Mark.NAME_END,
}
CITY = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "properties": {"city": {"type": "string", "description": "a // b # c"}},
    "required": ["city"],
    "additionalProperties": False,
}
NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


class Model:
    """A dialect, and a vocabulary to go with it: a byte a token, and the marks."""

    def __init__(self, form: Form, *, is_special: bool) -> None:
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        vocab = {character: id_ for id_, character in enumerate(alphabet)}
        backend = Backend(models.BPE(vocab=vocab, merges=[]))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens([AddedToken("<end>", special=True)])
        texts = KIMI_TEXTS if form is Form.KIMI_K2 else DEEPSEEK_TEXTS
        marks = [AddedToken(text, special=is_special) for text in texts.values()]
        backend.add_tokens(marks)
        self.tokenizer = Tokenizer(backend, {})
        template = "```json" if form is Form.DEEPSEEK_V3 else ""
        dialect = find_dialect(self.tokenizer, template)
        assert dialect is not None
        assert dialect.form is form
        self.dialect: Dialect = dialect
        end_ids = self.tokenizer.encode("<end>")
        self.tokens: GrammarTokens = make_tokens(self.tokenizer, self.tokenizer.vocab_size, end_ids)

    def allows(
        self,
        written: str,
        tools: list[Any],
        choice: Any,
        is_parallel: bool = True,
        text: Grammar | None = None,
    ) -> bool:
        """Whether a request's grammar allows an answer, marks written short, and its end."""
        use = tool_use_of([Tool.model_validate(tool) for tool in tools], choice, is_parallel)
        assert use is not None
        grammar = call_grammar(self.dialect, use, text)
        matcher = GrammarMatcher(compile_grammar(grammar, self.tokens), self.tokens)
        for short, mark in SHORT.items():
            written = written.replace(short, self.dialect.texts[mark])
        ids = self.tokenizer.encode(written + "<end>")
        return matcher.accept(ids) == len(ids)


def tool(name: str, parameters: Any = None, **fields: Any) -> Any:
    function = {"name": name, "parameters": parameters, **fields}
    return {"type": "function", "function": function}


TOOLS = [tool("get_city", CITY), tool("get_city2", NUMBER), tool("f")]
NAMED = {"type": "function", "function": {"name": "f"}}
STRICT = [tool("f", CITY, strict=True), tool("g", CITY)]


def call(form: Form, name: str, arguments: Any) -> str:
    written = arguments if isinstance(arguments, str) else json.dumps(arguments)
    match form:
        case Form.DEEPSEEK_V3:
            return f"((function||{name}\n```json\n{written}\n```))"
        case Form.DEEPSEEK_V3_1:
            return f"(({name}||{written}))"
        case Form.KIMI_K2:
            return f"((functions.{name}:12||{written}))"


@pytest.mark.parametrize("is_special", [False, True])
@pytest.mark.parametrize("form", Form)
def test_what_a_grammar_allows(form: Form, is_special: bool) -> None:
    model = Model(form, is_special=is_special)
    rome, two, none = (
        call(form, "get_city", {"city": "Rome"}),
        call(form, "get_city2", {"n": 2}),
        call(form, "f", {}),
    )
    between = "\n" if form is Form.DEEPSEEK_V3 else ""
    assert model.allows(f"[[{rome}]]", TOOLS, "required")
    assert model.allows(f"[[{between.join([rome, two, none, rome])}]]", TOOLS, "required")
    assert not model.allows(f"[[{between.join([rome, two])}]]", TOOLS, "required", False)
    assert not model.allows("", TOOLS, "required")
    assert not model.allows(f"a[[{rome}]]", TOOLS, "required")
    assert not model.allows("[[]]", TOOLS, "required")
    assert not model.allows(f"[[{call(form, 'get_city', {'city': 1})}]]", TOOLS, "required")
    assert not model.allows(f"[[{call(form, 'f', {'a': 1})}]]", TOOLS, "required")
    assert model.allows(f"[[{none}]]", TOOLS, NAMED)
    assert not model.allows(f"[[{rome}]]", TOOLS, NAMED)
    assert not model.allows(f"[[{none}{none}]]", TOOLS, NAMED)
    strict, loose = call(form, "f", {"city": ""}), call(form, "g", {"x": [1]})
    assert model.allows("Hello,\nyou.", STRICT, "auto")
    assert model.allows("", STRICT, None)
    assert model.allows(f"Hello.[[{between.join([strict, loose])}]]", STRICT, "auto")
    assert not model.allows(f"Hello.[[{call(form, 'f', {'x': 1})}]]", STRICT, "auto")
    assert not model.allows(f"Hello.{strict}", STRICT, "auto")


def allowed(mode: str, *names: str) -> Any:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


@pytest.mark.parametrize("form", Form)
def test_only_allowed_tools_are_called(form: Form) -> None:
    model = Model(form, is_special=False)
    rome, two, none = (
        call(form, "get_city", {"city": "Rome"}),
        call(form, "get_city2", {"n": 2}),
        call(form, "f", {}),
    )
    between = "\n" if form is Form.DEEPSEEK_V3 else ""
    for mode in ("auto", "required"):
        choice = allowed(mode, "f", "get_city")
        assert model.allows(f"[[{between.join([none, rome, none])}]]", TOOLS, choice)
        assert not model.allows(f"[[{two}]]", TOOLS, choice)
        assert not model.allows(f"[[{between.join([none, rome])}]]", TOOLS, choice, False)
        assert model.allows("Hello.", TOOLS, choice) == (mode == "auto")
        assert model.allows(f"Hello.[[{none}]]", TOOLS, choice) == (mode == "auto")


@pytest.mark.parametrize("form", Form)
def test_text_of_a_format_or_calls(form: Form) -> None:
    model = Model(form, is_special=False)
    calls = f"[[{call(form, 'f', {'x': 1})}]]"
    schema = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(NUMBER))
    date = Grammar(GrammarKind.REGEX, "[0-9]+/[0-9]+\\/[0-9]|a\nb|c\\\nd|\\\\")
    for tools in ([tool("f", {})], [tool("f", {}, strict=True)]):
        assert model.allows(calls, tools, "auto", text=schema)
        assert model.allows('{"n": 3}', tools, "auto", text=schema)
        assert not model.allows('{"n": "x"}', tools, "auto", text=schema)
        assert not model.allows("Hello.", tools, "auto", text=schema)
        assert not model.allows('{"n": 3}' + calls, tools, "auto", text=schema)
        assert not model.allows('{"n": 3}', tools, "required")
        assert model.allows(calls, tools, "auto", text=date)
        for written in ("1/2/3", "a\nb", "c\nd", "\\"):
            assert model.allows(written, tools, "auto", text=date)
        assert not model.allows("1-2-3", tools, "auto", text=date)


@pytest.mark.parametrize("form", Form)
def test_every_name_can_be_called(form: Form) -> None:
    model = Model(form, is_special=False)
    for name in ("a.b", "a-b", "_", "0", "functions.x"):
        assert model.allows(f"[[{call(form, name, {})}]]", [tool(name)], "required")


def test_what_cannot_be_a_grammar() -> None:
    model = Model(Form.DEEPSEEK_V3_1, is_special=False)
    for parameters in ({"x-guidance": {}}, {"a": float("nan")}, {"a": "x" * 5_000_000}):
        with pytest.raises(BadRequestError) as caught:
            model.allows("", [tool("f", parameters)], "required")
        assert caught.value.param is not None
        assert caught.value.param.startswith("tools")
