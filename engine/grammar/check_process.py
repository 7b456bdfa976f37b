"""Checks grammars for the server: `python -m leadline.engine.grammar.check_process`.

It reads a `Launch` and then `Grammar`s, one JSON object a line, from its standard input, and writes
a `Verdict` for each to its standard output, the first one when it is ready. Every grammar is
checked in a fork, which the kernel ends when its time or memory is spent: no grammar can harm the
next one, and none has to wait for the tokenizer to be read again. The process ends with its parent.
"""

import faulthandler
import os
import resource
import signal
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from leadline.engine.errors import InvalidRequestError
from leadline.engine.grammar.compilation import compile_grammar
from leadline.engine.grammar.limits import MAX_MASK_CPU_S, NUM_TRIED_TOKENS, CheckLimits
from leadline.engine.grammar.matcher import GrammarMatcher
from leadline.engine.grammar.tokens import GrammarTokens, ids_of, read_tokens
from leadline.engine.grammar.verdict import Launch, Verdict
from leadline.engine.request import Grammar
from leadline.loader.errors import LoaderError

_STDERR = 2


def check(grammar: Grammar, tokens: GrammarTokens) -> Verdict:
    """Compile a grammar and follow it for some tokens: some faults show only then."""
    try:
        matcher = GrammarMatcher(compile_grammar(grammar, tokens), tokens)
    except InvalidRequestError as error:
        return Verdict(str(error))
    row = np.zeros_like(tokens.known_words)
    for index in range(NUM_TRIED_TOKENS):
        begin_s = time.process_time()
        matcher.fill_mask(row)
        mask_end_s = time.process_time()
        allowed = ids_of(row & ~tokens.end_words)
        accept_begin_s = time.process_time()
        if matcher.error is None and len(allowed):
            matcher.accept([allowed[index * len(allowed) // NUM_TRIED_TOKENS]])
        if matcher.error is not None:
            return Verdict(f"the grammar cannot be used: {matcher.error}")
        if max(mask_end_s - begin_s, time.process_time() - accept_begin_s) > MAX_MASK_CPU_S:
            return Verdict("the grammar is too complex: a single token takes too long")
        if not len(allowed):
            break
    return Verdict()


def check_in_fork(
    grammar: Grammar, tokens: GrammarTokens, limits: CheckLimits | None = None
) -> Verdict:
    """Check within the limits of time and memory."""
    read_end, write_end = os.pipe()
    process_id = os.fork()
    if process_id == 0:
        status = 1
        try:
            _limit_fork(limits or CheckLimits())
            os.write(write_end, msgspec.json.encode(check(grammar, tokens)))
            status = 0
        finally:
            os._exit(status)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as report:
        data = report.read()
    status = os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1])
    if status == 0:
        return msgspec.json.decode(data, type=Verdict)
    if status == -signal.SIGPROF:
        return Verdict("the grammar is too complex: compiling it takes too long")
    if status == -signal.SIGALRM:
        return Verdict(
            "the grammar could not be compiled in time; simplify it, or try again later",
            is_lasting=False,
        )
    return Verdict("the grammar is too complex: compiling it takes too much memory")


def _limit_fork(limits: CheckLimits) -> None:
    # A signal whose action is the default ends a process wherever it is.
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, limits.cpu_s)
    signal.setitimer(signal.ITIMER_REAL, limits.wall_s)
    limit = _address_space_bytes() + limits.memory_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDERR)  # its last words tell users nothing


def _address_space_bytes() -> int:
    """Of this process; a generous guess where the kernel does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 4 * 1024**3


def main() -> int:
    """Run the process; returns its exit status."""
    # Ctrl-C reaches the whole terminal group; the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    lines = sys.stdin.buffer
    launch = msgspec.json.decode(lines.readline(), type=Launch)
    try:
        tokens = read_tokens(Path(launch.directory))
    except LoaderError as error:
        _send(Verdict(str(error)))
        return 1
    _send(Verdict())
    for line in lines:
        grammar = msgspec.json.decode(line, type=Grammar)
        _send(check_in_fork(grammar, tokens, launch.limits))
    return 0


def _send(verdict: Verdict) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(verdict) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
