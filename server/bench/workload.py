"""The requests of a run: drawn from a seed, or read from a file."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from leadline.server.bench.errors import BenchError
from leadline.server.bench.options import ServeOptions
from leadline.server.bench.questions import QUESTIONS
from leadline.server.bench.sample import Prompt, Sample
from leadline.server.bench.vocabulary import Vocabulary

_DRAWN = ("random", "prefix_repetition")


def needs_vocabulary(options: ServeOptions) -> bool:
    """Whether the prompts are made up."""
    return options.dataset_name in _DRAWN


def make_samples(options: ServeOptions, vocabulary: Vocabulary | None) -> list[Sample]:
    """`num_prompts` samples, and one more to warm the server up with.

    The last is drawn apart, so that no measured prompt is in the prefix cache by then; files and
    chats begin anew where they end.

    Args:
        options: as they were checked.
        vocabulary: of the server, where `needs_vocabulary`.

    Raises:
        BenchError: the file cannot be read, or has what cannot be sent.
    """
    num_samples = options.num_prompts + 1
    rng = np.random.default_rng(options.seed)
    if vocabulary is None:
        return _listed(options, num_samples, rng)
    if options.dataset_name == "random":
        samples = _random(options, vocabulary, rng)
    else:
        samples = _repeated_prefixes(options, vocabulary, rng)
    return list(itertools.islice(samples, num_samples))


def _random(
    options: ServeOptions, vocabulary: Vocabulary, rng: np.random.Generator
) -> Iterator[Sample]:
    """A prefix that all share, then tokens of a length within `random_range_ratio`."""
    num_prefix, ratio = options.random_prefix_len, options.random_range_ratio
    prefix = _draw(options, vocabulary, num_prefix, rng)
    while True:
        num_input = _length(options.random_input_len, ratio, rng)
        num_output = _length(options.random_output_len, ratio, rng)
        prompt = _joined(prefix, _draw(options, vocabulary, num_input, rng))
        yield Sample(prompt, num_prefix + num_input, num_output)


def _repeated_prefixes(
    options: ServeOptions, vocabulary: Vocabulary, rng: np.random.Generator
) -> Iterator[Sample]:
    """Each prompt is one of a few prefixes, in a shuffled round, with a suffix of its own."""
    num_prefix, num_suffix = (
        options.prefix_repetition_prefix_len,
        options.prefix_repetition_suffix_len,
    )
    prefixes = [
        _draw(options, vocabulary, num_prefix, rng)
        for _ in range(options.prefix_repetition_num_prefixes)
    ]
    while True:
        for index in rng.permutation(len(prefixes)):
            prompt = _joined(prefixes[index], _draw(options, vocabulary, num_suffix, rng))
            yield Sample(prompt, num_prefix + num_suffix, options.prefix_repetition_output_len)


def _length(length: int, ratio: float, rng: np.random.Generator) -> int:
    """From `length * (1 - ratio)` to `length * (1 + ratio)`, all equally often."""
    low, high = math.floor(length * (1 - ratio)), math.ceil(length * (1 + ratio))
    return max(int(rng.integers(low, high + 1)), 1)


def _draw(
    options: ServeOptions, vocabulary: Vocabulary, num_tokens: int, rng: np.random.Generator
) -> str | list[int]:
    as_text = options.is_chat or vocabulary.token_ids is None
    if num_tokens == 0:
        return "" if as_text else []
    return vocabulary.text(num_tokens, rng) if as_text else vocabulary.ids(num_tokens, rng)


def _joined(prefix: str | list[int], rest: str | list[int]) -> Prompt:
    if isinstance(prefix, list) and isinstance(rest, list):
        return prefix + rest
    return f"{prefix} {rest}" if prefix else f"{rest}"


def _listed(options: ServeOptions, num_samples: int, rng: np.random.Generator) -> list[Sample]:
    if options.dataset_path is None:
        samples = [Sample(text, None, options.custom_output_len) for text in QUESTIONS]
    else:
        samples = read_samples(Path(options.dataset_path), options)
    if not options.disable_shuffle:
        samples = [samples[index] for index in rng.permutation(len(samples))]
    return list(itertools.islice(itertools.cycle(samples), num_samples))


def read_samples(path: Path, options: ServeOptions) -> list[Sample]:
    """The samples of a file of JSON lines: `prompt` (text or token ids) or `messages`.

    `output_tokens`, where a line has it, is how long the answer may be.

    Raises:
        BenchError: names the line.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise BenchError(f"--dataset-path {path} cannot be read: {error.strerror}") from None
    samples = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            samples.append(_sample_of(msgspec.json.decode(line), options))
        except (msgspec.MsgspecError, BenchError) as error:
            raise BenchError(f"--dataset-path {path}, line {number}: {error}") from None
    if not samples:
        raise BenchError(f"--dataset-path {path} has no lines")
    return samples


def _sample_of(fields: Any, options: ServeOptions) -> Sample:
    num_output = options.custom_output_len
    match fields:
        case {"output_tokens": int(given)} if given > 0:
            num_output = given
        case {"output_tokens": given}:
            raise BenchError(f"'output_tokens' is {given!r}; allowed: a whole number, at least 1")
    match fields:
        case {"messages": [{"role": _}, *_] as messages} if options.is_chat:
            return Sample(messages, None, num_output)
        case {"messages": _}:
            raise BenchError("'messages', a list of them, needs --backend openai-chat")
        case {"prompt": str(text)} if text:
            return Sample(text, None, num_output)
        case {"prompt": [int(), *_] as ids} if all(type(token_id) is int for token_id in ids):
            if not options.is_chat:
                return Sample(ids, len(ids), num_output)
            raise BenchError("a 'prompt' of token ids needs --backend openai")
    raise BenchError("there is no 'prompt', a text or token ids, and no 'messages'")
