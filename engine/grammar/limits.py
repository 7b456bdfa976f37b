"""How large and how slow a grammar may be.

Times were measured with a vocabulary of 129,280 tokens on one core of a server CPU: a schema of
everyday size takes about 1 ms to compile and 0.3 ms a mask. The limits below keep the worst mask
that we could find (an ambiguous grammar of single characters) at 30 ms; with llguidance's own it
takes 170 ms.
"""

import msgspec
from llguidance import LLParserLimits

MAX_GBNF_BYTES = 16 * 1024
"""Of a grammar in GBNF, whose conversion is not in native code."""

MAX_MASK_CPU_S = 0.1
"""Processor seconds of one of the first masks, or of taking one of the first tokens in."""

NUM_TRIED_TOKENS = 8
"""How far a check follows a grammar, for what shows only when it is used."""


class CheckLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a check may take, where the operator says nothing else.

    Attributes:
        cpu_s: processor seconds for compiling, and for trying the first tokens.
        wall_s: seconds for the same, on a machine that is busy with other things.
        memory_bytes: address space beyond that of the tokenizer.
    """

    cpu_s: float = 0.2
    wall_s: float = 0.45
    memory_bytes: int = 256 * 1024 * 1024


def parser_limits() -> LLParserLimits:
    """Limits of each step; beyond them the matcher is in error. In llguidance's units."""
    return LLParserLimits(
        max_items_in_row=2_000,
        initial_lexer_fuel=500_000,
        step_lexer_fuel=100_000,
        step_max_items=20_000,
        max_lexer_states=20_000,  # 1 to 2 kB each, for each running request
        max_grammar_size=200_000,
        precompute_large_lexemes=True,
        verbose_errors=False,  # messages stay short, and tell nothing of the text so far
    )
