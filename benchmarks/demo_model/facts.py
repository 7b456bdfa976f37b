"""Collects what the model is taught: one-line answers about Python's standard library.

Most answers are the first sentences of the docstring; those of `supplement.toml` are written for
the purpose and come first.
"""

from __future__ import annotations

import builtins
import importlib
import inspect
import sys
import tomllib
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.demo_model.docstrings import answer_from_docstring

# Widely known modules first: where two modules export the same object, the first keeps it, and a
# limit cuts from the end. Left out: test packages, idlelib, tkinter, turtle, modules that act on
# import (antigravity, this), modules that exist on one platform only, and modules that later Python
# versions have removed.
_MODULE_NAMES = """
    os os.path sys math itertools functools collections json re pathlib datetime random subprocess
    threading asyncio argparse logging typing unittest socket string time calendar shutil glob
    tempfile fnmatch io copy pprint enum dataclasses contextlib abc operator statistics decimal
    fractions cmath heapq bisect array queue weakref types collections.abc csv configparser tomllib
    zipfile tarfile gzip bz2 lzma zlib hashlib hmac secrets base64 binascii struct codecs pickle
    shelve sqlite3 dbm ssl urllib.request urllib.parse urllib.error urllib.robotparser http
    http.client http.server http.cookies http.cookiejar email email.message email.mime.text
    email.mime.multipart email.utils email.header email.parser email.policy email.generator html
    html.parser xml.etree.ElementTree xml.dom.minidom multiprocessing multiprocessing.shared_memory
    multiprocessing.pool concurrent.futures sched select selectors signal socketserver ftplib
    smtplib mimetypes uuid ipaddress textwrap difflib unicodedata locale gettext platform errno
    getpass getopt shlex cmd inspect warnings traceback linecache timeit cProfile profile pstats
    trace tracemalloc gc atexit pdb doctest unittest.mock ast dis tokenize token keyword code codeop
    compileall py_compile zipapp zoneinfo importlib importlib.metadata importlib.resources
    importlib.util pkgutil runpy numbers copyreg reprlib graphlib contextvars stat filecmp fileinput
    mmap ctypes wave colorsys netrc plistlib webbrowser sysconfig site venv faulthandler
    logging.handlers logging.config optparse multiprocessing.connection xml.sax xml.sax.saxutils
    xml.sax.handler xmlrpc.client xmlrpc.server wsgiref.util wsgiref.headers wsgiref.simple_server
    wsgiref.handlers importlib.abc importlib.machinery modulefinder pyclbr pickletools rlcompleter
    quopri stringprep pydoc poplib imaplib bdb symtable email.headerregistry email.errors mailbox
    zipimport xml.dom.pulldom xml.sax.xmlreader email.charset json.decoder json.encoder ensurepip
"""
MODULES = tuple(_MODULE_NAMES.split())
MAX_NAMES_PER_ANSWER = 2  # the same docstring stands on many methods
MAX_FACTS = 3600  # the last modules of the list are left out
_SUPPLEMENT = Path(__file__).with_name("supplement.toml")
_SKIPPED_PREFIXES = ("_", "do_", "test")  # private, command handlers, tests


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing to know.

    Attributes:
        name: Qualified name without parentheses, such as `itertools.chain`, `str.split` or `len`.
        kind: `module`, `class`, `exception`, `function`, `method`, `attribute` or `keyword`.
        answer: One line of one or two English sentences.
        module: The module that the name was found in; `builtins` for what needs no import.
    """

    name: str
    kind: str
    answer: str
    module: str

    @property
    def is_callable(self) -> bool:
        """Whether the name is commonly written with parentheses."""
        return self.kind in ("function", "method")


def collect_facts(max_facts: int = MAX_FACTS) -> tuple[Fact, ...]:
    """Returns the facts sorted by name, always the same ones for one version of Python.

    Importing the modules may warn about deprecations; those warnings are silenced.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        candidates = [*_supplement_facts(), *_module_facts(builtins, set())]
        seen: set[int] = {id(member) for member in vars(builtins).values()}
        for module_name in MODULES:
            try:
                module = importlib.import_module(module_name)
            except ModuleNotFoundError:  # an optional extension that this build lacks
                continue
            candidates.extend(_module_facts(module, seen, module_name))
    return tuple(sorted(_deduplicated(candidates)[:max_facts], key=lambda fact: fact.name))


def _deduplicated(candidates: list[Fact]) -> list[Fact]:
    names: set[str] = set()
    num_by_answer: Counter[str] = Counter()
    kept: list[Fact] = []
    for fact in candidates:
        answer_key = fact.answer.lower()
        if fact.name in names or num_by_answer[answer_key] >= MAX_NAMES_PER_ANSWER:
            continue
        names.add(fact.name)
        num_by_answer[answer_key] += 1
        kept.append(fact)
    return kept


def _supplement_facts() -> Iterator[Fact]:
    with _SUPPLEMENT.open("rb") as file:
        tables = tomllib.load(file)
    homes = sorted(MODULES, key=len, reverse=True)
    for kind, answers in tables.items():
        for name, answer in answers.items():
            home = next((home for home in homes if f"{name}.".startswith(f"{home}.")), "builtins")
            yield Fact(name, kind, answer, home)


def _module_facts(module: ModuleType, seen: set[int], module_name: str = "") -> Iterator[Fact]:
    """Yields the facts of one module, its public members and their public methods.

    An object whose id is in `seen` is passed over; new ones are added to it.
    """
    home = module_name or module.__name__
    prefix = f"{module_name}." if module_name else ""
    if module_name:
        answer = answer_from_docstring(module.__doc__)
        if answer:
            yield Fact(module_name, "module", answer, home)
    for name in _public_names(module):
        member = getattr(module, name)
        if id(member) in seen or isinstance(member, ModuleType) or not callable(member):
            continue
        if not _is_of_standard_library(member):
            continue
        seen.add(id(member))
        kind = _kind(member)
        answer = answer_from_docstring(_own_docstring(member))
        if answer:
            yield Fact(prefix + name, kind, answer, home)
        if kind == "class":
            yield from _class_facts(member, prefix + name, home)


def _public_names(module: ModuleType) -> list[str]:
    names = getattr(module, "__all__", None)
    if names is None:
        names = [name for name in vars(module) if _belongs(getattr(module, name), module)]
    public = {name for name in names if hasattr(module, name) and not name.startswith("_")}
    # An object exported under two names is known by its own one.
    return sorted(public, key=lambda name: (_is_alias(getattr(module, name), name), name))


def _is_alias(member: object, name: str) -> bool:
    return getattr(member, "__name__", name) != name


def _belongs(member: object, module: ModuleType) -> bool:
    """Tells whether a member of a module without `__all__` is its own and not imported."""
    origin = getattr(member, "__module__", None) or ""
    return origin.lstrip("_").split(".")[0] == module.__name__.split(".")[0]


def _is_of_standard_library(member: object) -> bool:
    """Tells whether a member is the library's own: a test runner or a debugger may replace some."""
    origin = getattr(member, "__module__", None) or "builtins"
    return str(origin).partition(".")[0] in sys.stdlib_module_names


def _kind(member: object) -> str:
    if inspect.isclass(member):
        return "exception" if issubclass(member, BaseException) else "class"
    return "function"


def _own_docstring(member: Any) -> str | None:
    """Returns the docstring unless it is inherited."""
    docstring = vars(member).get("__doc__") if inspect.isclass(member) else member.__doc__
    return docstring if isinstance(docstring, str) else None


def _class_facts(cls: type, qualified_name: str, home: str) -> Iterator[Fact]:
    for name, member in sorted(vars(cls).items()):
        if name.startswith(_SKIPPED_PREFIXES):
            continue
        if isinstance(member, (staticmethod, classmethod)):
            member = member.__func__
        if isinstance(member, property) or inspect.isdatadescriptor(member):
            kind = "attribute"
        elif callable(member) and not inspect.isclass(member):
            kind = "method"
        else:
            continue
        docstring = getattr(member, "__doc__", None)
        answer = answer_from_docstring(docstring if isinstance(docstring, str) else None)
        if answer:
            yield Fact(f"{qualified_name}.{name}", kind, answer, home)
