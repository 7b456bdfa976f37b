import importlib
import inspect
import json
import keyword
import os
import subprocess
import sys
import warnings
from collections import Counter

from benchmarks.demo_model.chats import Corpus
from benchmarks.demo_model.docstrings import MAX_WORDS
from benchmarks.demo_model.facts import MAX_NAMES_PER_ANSWER

KINDS = {"module", "class", "exception", "function", "method", "attribute", "keyword"}


def test_there_are_enough_facts_with_sane_answers(corpus: Corpus) -> None:
    assert len(corpus.facts) >= 3000
    for fact in corpus.facts:
        assert fact.answer.isascii(), fact
        assert fact.answer[0].isupper(), fact
        assert fact.answer.endswith((".", "!", "?")), fact
        assert 3 <= len(fact.answer.split()) <= MAX_WORDS, fact
        assert "\n" not in fact.answer, fact
        assert "  " not in fact.answer, fact
        assert fact.kind in KINDS, fact
        assert not any(part.startswith("_") for part in fact.name.split(".")), fact


def test_names_are_unique_and_answers_rarely_repeat(corpus: Corpus) -> None:
    names = [fact.name for fact in corpus.facts]
    assert names == sorted(set(names))
    repeats = Counter(fact.answer.lower() for fact in corpus.facts)
    assert max(repeats.values()) <= MAX_NAMES_PER_ANSWER


def test_every_name_exists(corpus: Corpus) -> None:
    for fact in corpus.facts:
        if fact.kind == "keyword":
            assert keyword.iskeyword(fact.name)
            continue
        found: object = importlib.import_module(fact.module)
        inner = fact.name.removeprefix(fact.module).removeprefix(".")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            for part in inner.split(".") if inner else []:
                found = inspect.getattr_static(found, part)


def test_well_known_names_are_taught(corpus: Corpus) -> None:
    answers = {fact.name: fact.answer for fact in corpus.facts}
    assert answers["len"] == "Return the number of items in a container."
    for name in ("itertools.chain", "os.path.join", "str.split", "lambda", "json", "KeyError"):
        assert name in answers


def test_facts_do_not_depend_on_the_hash_seed(corpus: Corpus) -> None:
    program = (
        "import json, sys\n"
        "from types import ModuleType\n"
        "package = ModuleType('benchmarks')\n"
        "package.__path__ = [sys.argv[1]]\n"
        "sys.modules['benchmarks'] = package\n"
        "from benchmarks.demo_model.facts import collect_facts\n"
        "print(json.dumps([[fact.name, fact.answer] for fact in collect_facts()]))\n"
        "unwanted = {'antigravity', 'this', 'tkinter', 'idlelib', 'turtle'} & set(sys.modules)\n"
        "assert not unwanted, unwanted\n"
    )
    path = next(iter(sys.modules["benchmarks"].__path__))
    # Other tests have imported much by now, and some of it patches the standard library: compare
    # two fresh processes with each other.
    collected = []
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", program, path]
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        collected.append(json.loads(result.stdout))
    assert collected[0] == collected[1]
    assert len(collected[0]) == len(corpus.facts)
