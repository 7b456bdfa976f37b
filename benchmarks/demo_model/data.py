"""The stream of packed training batches."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from benchmarks.demo_model.chat_format import Chat
from benchmarks.demo_model.chats import build_corpus
from benchmarks.demo_model.packing import PackedBatch, pack
from benchmarks.demo_model.shares import DEFAULT_SHARES, Shares
from benchmarks.demo_model.tokenizer import encode_chat, train_tokenizer, write_tokenizer

# (rows, tokens a row) of the batches, by turns: long chats with tools need long rows.
SHAPES: Sequence[tuple[int, int]] = ((8, 512), (8, 512), (4, 1024))
SHARE_JOINED = 0.15  # of chats that continue the one before, so that long talks are known too
MAX_JOINED_MESSAGES = 40


def training_batches(
    directory: Path,
    seed: int,
    *,
    phase: int = 0,
    tokenizer_of: Path | None = None,
    shares: Shares = DEFAULT_SHARES,
    shapes: Sequence[tuple[int, int]] = SHAPES,
) -> Iterator[PackedBatch]:
    """Trains the tokenizer, writes its files to `directory`, and yields batches without end.

    Each phase of a training sees the facts in other words and another order. The tokenizer is that
    of the checkpoint `tokenizer_of` if one is named.
    """
    corpus = build_corpus()
    if tokenizer_of is None:
        tokenizer = train_tokenizer(corpus, seed)
    else:
        tokenizer = Tokenizer.from_file(str(tokenizer_of / "tokenizer.json"))
    write_tokenizer(tokenizer, directory)
    rng = random.Random(f"joining {seed} {phase}")
    chats = corpus.iter_training_chats(random.Random(f"training {seed} {phase}"), shares=shares)
    return pack(_encoded(tokenizer, _join(chats, rng)), shapes)


def _encoded(tokenizer: Tokenizer, chats: Iterator[Chat]) -> Iterator[tuple[list[int], list[int]]]:
    for chat in chats:
        yield encode_chat(tokenizer, chat)


def _is_plain(chat: Chat) -> bool:
    return not chat.thinking and not chat.tools and chat.messages[0]["role"] != "system"


def _join(chats: Iterator[Chat], rng: random.Random) -> Iterator[Chat]:
    """Makes long conversations out of runs of plain chats."""
    pending: Chat | None = None
    for chat in chats:
        if pending is None:
            pending = chat
        elif (
            _is_plain(pending)
            and _is_plain(chat)
            and len(pending.messages) < MAX_JOINED_MESSAGES
            and rng.random() < _continue_probability(pending)
        ):
            pending = Chat((*pending.messages, *chat.messages))
        else:
            yield pending
            pending = chat


def _continue_probability(pending: Chat) -> float:
    """A talk that has grown long tends to go on, so that some fill a row."""
    return 0.85 if len(pending.messages) > 6 else SHARE_JOINED
