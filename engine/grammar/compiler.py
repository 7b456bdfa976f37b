"""The engine's side of grammars: compiled in a thread of their own, kept while there is room."""

import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from llguidance import LLMatcher

from leadline.engine.grammar.compilation import compile_grammar
from leadline.engine.grammar.matcher import GrammarMatcher
from leadline.engine.grammar.tokens import GrammarTokens, read_tokens
from leadline.engine.histogram import GRAMMAR_TIME_BOUNDS_S, Recorder
from leadline.engine.messages import GrammarCounts
from leadline.engine.request import Grammar

MAX_COMPILED = 64
MAX_COMPILED_CHARS = 1024 * 1024
"""Of the texts of all compiled grammars; compiled, they take some 40 times as much memory."""


class GrammarStore:
    """Compiled grammars of one model; the least recently used is dropped first.

    Compiling and looking up may go on in different threads.
    """

    def __init__(
        self,
        directory: Path,
        *,
        max_compiled: int = MAX_COMPILED,
        max_chars: int = MAX_COMPILED_CHARS,
    ) -> None:
        """`directory`: of the checkpoint; read when the first grammar is compiled."""
        self._num_queries = 0
        self._num_hits = 0
        self._times = Recorder(GRAMMAR_TIME_BOUNDS_S)
        self._directory = directory
        self._max_compiled = max_compiled
        self._max_chars = max_chars
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()
        self._running: dict[Grammar, Future[None]] = {}
        self._lock = threading.Lock()
        self._tokens_lock = threading.Lock()
        self._tokens: GrammarTokens | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="leadline-grammar")

    def __len__(self) -> int:
        """How many compiled grammars are kept."""
        return len(self._compiled)

    def counts(self) -> GrammarCounts:
        """What has been asked for since start."""
        with self._lock:
            return GrammarCounts(
                num_queries=self._num_queries, num_hits=self._num_hits, times=self._times.read()
            )

    def compile(self, grammar: Grammar) -> Future[None]:
        """Compile in the background.

        Returns:
            Done when `matcher` is quick. It raises InvalidRequestError if the grammar is wrong, and
            LoaderError if the checkpoint's tokenizer cannot be used.
        """
        with self._lock:
            self._num_queries += 1
            if grammar in self._compiled:
                self._num_hits += 1
                self._compiled.move_to_end(grammar)
                done: Future[None] = Future()
                done.set_result(None)
                return done
            running = self._running.get(grammar)
            if running is None:
                running = self._executor.submit(self._compile, grammar)
                self._running[grammar] = running
        return running

    def matcher(self, grammar: Grammar) -> GrammarMatcher:
        """A matcher at the beginning of the grammar, which is compiled here and now if need be.

        Raises:
            InvalidRequestError: as the future of `compile`.
        """
        with self._lock:
            compiled = self._compiled.get(grammar)
            if compiled is not None:
                self._compiled.move_to_end(grammar)
        if compiled is None:
            compiled = self._compile_now(grammar)
        return GrammarMatcher(compiled.deep_copy(), self._read_tokens())

    def close(self) -> None:
        """End the thread after what it is busy with; what has not begun is cancelled."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _compile(self, grammar: Grammar) -> None:
        try:
            self._compile_now(grammar)
        finally:
            with self._lock:
                del self._running[grammar]

    def _compile_now(self, grammar: Grammar) -> LLMatcher:
        tokens = self._read_tokens()
        begin_s = time.perf_counter()
        compiled = compile_grammar(grammar, tokens)
        with self._lock:
            self._times.observe(time.perf_counter() - begin_s)
            self._compiled[grammar] = compiled
            self._compiled.move_to_end(grammar)
            num_chars = sum(len(kept.text) for kept in self._compiled)
            while len(self._compiled) > 1 and (
                len(self._compiled) > self._max_compiled or num_chars > self._max_chars
            ):
                dropped, _ = self._compiled.popitem(last=False)
                num_chars -= len(dropped.text)
        return compiled

    def _read_tokens(self) -> GrammarTokens:
        with self._tokens_lock:
            if self._tokens is None:
                self._tokens = read_tokens(self._directory)
            return self._tokens
