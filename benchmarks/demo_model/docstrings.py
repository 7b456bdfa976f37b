"""Turns a docstring into a one-line answer in plain English, or refuses it.

The standard library's docstrings are written for many readers and by many hands: signatures,
doctests, reST roles, lists and section headings. An answer keeps the first sentence and, where the
limit allows, the second.
"""

from __future__ import annotations

import inspect
import re

MIN_WORDS = 4
MAX_WORDS = 36  # of the whole answer; cut at sentence ends only

_ARROW_LINE = re.compile(r"^[\w.]+\(.*?\)\s*(?:-+>|=>|->)\s*(?P<rest>.*)$", re.DOTALL)
_SIGNATURE_LINE = re.compile(r"^[\w.]+\s*\(.*\)\s*:?\s*(?:\.\.\.)?\.?$", re.DOTALL)
_SIGNATURE_PREFIX = re.compile(r"^[\w.]+\([^()]*\)\s*(?:--|:|-)\s+(?=[A-Za-z])")
_NAME_PREFIX = re.compile(r"^[\w.]+\s+(?:--?|:)\s+(?=[A-Za-z])")
_ARROW_VALUE = re.compile(r"^(?:an? |the |new )?[\w.\[\]]+(?: \w+)?\s*(?:[,.:]|--)\s+(?=[A-Za-z])")
_ROLE = re.compile(r":(?:[a-z]+:)?[a-z]+:`~?([^`<]+?)(?:\s*<[^>]*>)?`")
_HEADING = re.compile(
    r"^(?:args?|arguments?|parameters?|params|usage|examples?|example usage|raises?|returns?|"
    r"yields?|notes?|attributes|options|methods|synopsis|for example|e\.g\.|functions|"
    r"classes|exports|warning|todo|xxx)\b[^.]{0,24}:",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|Inc|Jr|Dr|St|No|resp|approx|Fig|[A-Z]))\.$"
)
_FIELD = re.compile(r"^:\w+[^:]*:|^@\w+")
_LIST_ITEM = re.compile(r"^(?:[-*+o]|\(?\d+[.)]|[a-z]\))\s")
_REFUSED = re.compile(
    r">>>|::|\|\||\bself\b.{0,4}==|See help\(|deprecat|obsolete|do not use|TODO|XXX|FIXME|@|"
    r"<[^>]*>|https?:|\bcopyright\b|\bAuthor\b|__\w+__|[{}\\~^%$#|=]|->|\.\.\.|\s-\s|,\s*\]|"
    r"\[,|test suite|\bRFC ?\d+.*\bRFC|initialize self|accurate signature|helper for pickle|"
    r"implement iter|this python implementation|not (?:intended|meant) (?:for|to be)|internal use|"
    r"implementation detail|backwards? compat|generic version of|alias for field|, (?-i:This)\b|"
    r"this is (?:a|an|the) (?:dummy|stub)|such that\.$",
    re.IGNORECASE,
)
_TYPOGRAPHY = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-"}
)
_BAD_ENDING = re.compile(
    r"\b(?:the|a|an|of|to|with|and|or|is|are|by|for|following|as follows|below|form|use|as|in|from|"
    r"that|whether)\.$",
    re.IGNORECASE,
)
_BAD_OPENING = re.compile(
    r"^(?:this (?:is|was) (?:a |the )?(?:same|like)|same|like|see|also|note|and|but|or|"
    r"if not|otherwise|these|those|default|optional|internal|private|helper|unused|dummy|"
    r"equivalent|ditto|thus|so|then|however)\b",
    re.IGNORECASE,
)
_REFERS_AWAY = re.compile(
    r"\b(?:above|below|following|see|example|documentation|docs|as follows|"
    r"superclass|base class|subclasses|signature|keyword arguments? (?:is|are)|"
    r"python [123]\.\d|versions?|added in|new in)\b",
    re.IGNORECASE,
)


def answer_from_docstring(docstring: str | None) -> str | None:
    """Returns the first one or two sentences as one line, or None where they are not sane."""
    if not docstring:
        return None
    for paragraph in _prose_paragraphs(docstring):
        sentences = _sentences(paragraph)
        if not sentences or not _is_sane(sentences[0]):
            return None
        return " ".join(_take(sentences))
    return None


def _take(sentences: list[str]) -> list[str]:
    """Returns the first sentence, and the second where it is sane and both fit."""
    if len(sentences) > 1:
        second = sentences[1]
        num_words = len(sentences[0].split()) + len(second.split())
        if num_words <= MAX_WORDS and _is_sane(second) and _adds_something(sentences[0], second):
            return sentences[:2]
    return sentences[:1]


def _adds_something(first: str, second: str) -> bool:
    return not _REFERS_AWAY.search(second) and not second.startswith(first.rstrip(".")[:30])


def _prose_paragraphs(docstring: str) -> list[str]:
    """Returns the leading prose: one paragraph, with the next where that is prose too."""
    text = inspect.cleandoc(docstring.translate(_TYPOGRAPHY))
    found: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        paragraph = _paragraph_text(block)
        if paragraph is None:
            if found:
                break
            continue
        if found and not paragraph[0].isupper():
            break  # the description of a parameter
        found.append(paragraph[0].upper() + paragraph[1:])
        if len(found) == 2:
            break
    if not found:
        return []
    return [" ".join(_closed(part) for part in found)]


def _paragraph_text(block: str) -> str | None:
    """Returns a block of lines as flowing text without signature, or None if it is no prose."""
    lines = [line.rstrip() for line in block.splitlines()]
    while lines and _is_signature(lines[0]):
        lines.pop(0)
    if len(lines) > 1 and len(lines[0].split()) == 1 and lines[1].startswith(" "):
        return None  # a parameter and its indented description
    prose: list[str] = []
    for line in lines:
        stripped = line.strip()
        if ">>>" in line or any(start.match(stripped) for start in (_LIST_ITEM, _HEADING, _FIELD)):
            break
        if set(stripped) <= set("=-*~^") and stripped:
            prose.clear()
            continue
        prose.append(stripped)
    text = _strip_markup(" ".join(" ".join(prose).split()))
    text = _SIGNATURE_PREFIX.sub("", text)
    text = _NAME_PREFIX.sub("", text)
    arrow = _ARROW_LINE.match(text)
    if arrow:
        rest, num_replaced = _ARROW_VALUE.subn("", arrow["rest"], count=1)
        text = rest if num_replaced else ""
    if not text or text.endswith(":"):
        return None
    return text


def _is_signature(line: str) -> bool:
    arrow = _ARROW_LINE.match(line)
    if arrow:
        return not _ARROW_VALUE.match(arrow["rest"])
    return bool(_SIGNATURE_LINE.match(line.strip()))


def _strip_markup(text: str) -> str:
    text = _ROLE.sub(r"\1", text)
    text = re.sub(r"`([^`']+)'", r"\1", text)
    text = text.replace("``", "").replace("`", "")
    text = re.sub(r"(?<![\w*])\*{1,2}([A-Za-z_]\w*)\*{0,2}(?![\w*])", r"\1", text)
    return text.replace(" -- ", ", ").replace(" --- ", ", ")


def _closed(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else text.rstrip(",;") + "."


def _sentences(text: str) -> list[str]:
    sentences: list[str] = []
    for piece in _SENTENCE_END.split(text):
        if sentences and _ABBREVIATION.search(sentences[-1]):
            sentences[-1] += " " + piece
        else:
            sentences.append(piece)
    return sentences


def _is_sane(sentence: str) -> bool:
    words = sentence.split()
    if not MIN_WORDS <= len(words) <= MAX_WORDS or not sentence.isascii():
        return False
    if _REFUSED.search(sentence) or _BAD_ENDING.search(sentence) or _BAD_OPENING.match(sentence):
        return False
    if not sentence[0].isupper() or max(len(word) for word in words) > 30:
        return False
    if any(sentence.count(left) != sentence.count(right) for left, right in ("()", "[]")):
        return False
    if sentence.count('"') % 2:
        return False
    num_letters = sum(character.isalpha() or character == " " for character in sentence)
    return num_letters >= 0.86 * len(sentence)
