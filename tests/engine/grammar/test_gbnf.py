import pytest

from leadline.engine.errors import InvalidRequestError
from leadline.engine.grammar.compilation import compile_grammar
from leadline.engine.grammar.gbnf import to_lark
from leadline.engine.grammar.matcher import GrammarMatcher
from leadline.engine.grammar.tokens import GrammarTokens
from leadline.engine.request import Grammar, GrammarKind
from leadline.loader.tokenizer import Tokenizer

SQL = """
root ::= select_statement
select_statement ::= "SELECT " column " from " table " where " condition
column ::= "col_1 " | "col_2 "
table ::= "table_1 " | "table_2 "
condition ::= column "= " number
number ::= "1 " | "2 "
"""
JSONISH = r"""
# numbers in brackets
root ::= "[" ws (num ("," ws num)*)? "]"
num  ::= "-"? [0-9]+
ws   ::= [ \t\n]*
"""


def matches(text: str, grammar: str, tokens: GrammarTokens, tokenizer: Tokenizer) -> bool:
    matcher = GrammarMatcher(compile_grammar(Grammar(GrammarKind.LARK, grammar), tokens), tokens)
    token_ids = [*tokenizer.encode(text), min(tokens.end_ids)]
    return matcher.accept(token_ids) == len(token_ids)


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        (SQL, "SELECT col_1  from table_2  where col_2 = 1 ", "SELECT col_3 "),
        (JSONISH, "[1, -22,3]", "[1,]"),
        (r'root ::= "\u0041bc" [\u00e9-\u00ea]', "Abc\u00e9", "\u041bc\u00e9"),
        (r'root ::= "\U0001F600" "\\u0041"', "\U0001f600\\u0041", "\U0001f600A"),
        ('root ::= x "a/b"\nx ::= [/a] | "::="', "/a/b", "ba/b"),
        ('start: "x ::= y"', "x ::= y", "x"),
        ('?start: a\na: "1" | "2"', "2", "12"),
        ("%llguidance {}\nstart: A\nA: /[a-c]+/", "abc", "abd"),
    ],
)
def test_grammar(
    grammar: str, good: str, bad: str, tokens: GrammarTokens, tokenizer: Tokenizer
) -> None:
    assert matches(good, grammar, tokens, tokenizer)
    assert not matches(bad, grammar, tokens, tokenizer)


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("root ::= foo", "foo"),
        ('expr ::= "a"', "root"),
        ('root ::= "a', "GBNF"),
        (r'root ::= "\ud800"', "no character"),
        (r'root ::= "\U00110000"', "no character"),
        ("root ::= " + "(" * 5000, "nested too deeply"),
        ('root ::= "a"\n' * 2000, "longer than"),
    ],
)
def test_bad_gbnf(grammar: str, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        to_lark(grammar)
