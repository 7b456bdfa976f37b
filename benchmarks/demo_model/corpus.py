"""Writes the built-in model's tokenizer and a sample of its chats, and prints what they hold.

Run from the repository root: `python -m benchmarks.demo_model.corpus --out DIRECTORY --seed 0`
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer

from benchmarks.demo_model.chat_format import Chat, render_segments
from benchmarks.demo_model.chats import Corpus, build_corpus
from benchmarks.demo_model.facts import MAX_FACTS
from benchmarks.demo_model.tokenizer import encode_chat, train_tokenizer, write_tokenizer

NUM_SAMPLES = 50
NUM_MEASURED_CHATS = 3000


def main() -> None:
    """Parses the command line and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="directory for the files; made if missing"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the chats that the tokenizer is trained on"
    )
    parser.add_argument(
        "--max-facts", type=int, default=MAX_FACTS, help="facts to keep (default: %(default)s)"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    corpus = build_corpus(arguments.max_facts)
    print_facts(corpus)
    tokenizer = train_tokenizer(corpus, arguments.seed)
    write_tokenizer(tokenizer, arguments.out)
    rng = random.Random(f"samples {arguments.seed}")
    samples = islice(corpus.iter_training_chats(rng), NUM_SAMPLES)
    text = "\n\n".join(_rendered(chat) for chat in samples)
    (arguments.out / "sample.txt").write_text(text + "\n", encoding="utf-8")
    print_token_counts(corpus, tokenizer)
    print(f"wrote tokenizer.json, tokenizer_config.json and sample.txt to {arguments.out}")


def print_facts(corpus: Corpus) -> None:
    """Prints how many facts there are, by kind and by module, and how long the answers are."""
    num_words = sum(len(fact.answer.split()) for fact in corpus.facts)
    print(f"{len(corpus.facts)} facts, {num_words / len(corpus.facts):.1f} words an answer")
    print("by kind:", _counts(Counter(fact.kind for fact in corpus.facts)))
    print("by module:", _counts(Counter(fact.module for fact in corpus.facts)))
    print(f"{len(corpus.smalltalk)} intents of small talk")


def print_token_counts(corpus: Corpus, tokenizer: Tokenizer) -> None:
    """Prints how many tokens chats and answers have, and how fast chats are encoded."""
    chats = corpus.iter_training_chats(random.Random(0))
    num_tokens = num_targets = 0
    start_s = time.perf_counter()
    for chat in islice(chats, NUM_MEASURED_CHATS):
        token_ids, loss_mask = encode_chat(tokenizer, chat)
        num_tokens += len(token_ids)
        num_targets += sum(loss_mask)
    elapsed_s = time.perf_counter() - start_s
    answers = tokenizer.encode_batch(
        [fact.answer for fact in corpus.facts], add_special_tokens=False
    )
    num_answer_tokens = sum(len(answer.ids) for answer in answers)
    num_in_pass = _num_chats_in_pass(corpus)
    print(f"{num_tokens / NUM_MEASURED_CHATS:.1f} tokens a chat")
    print(f"{num_targets / NUM_MEASURED_CHATS:.1f} of them to learn")
    print(f"{num_answer_tokens / len(corpus.facts):.1f} tokens an answer about a fact")
    print(f"{num_in_pass} chats in one pass over the facts")
    print(f"{NUM_MEASURED_CHATS / elapsed_s:.0f} chats made and encoded a second")


def _num_chats_in_pass(corpus: Corpus) -> int:
    """Returns about how many chats it takes to ask about each fact once."""
    answers = {fact.answer for fact in corpus.facts}
    num_facts = sum(
        message["content"] in answers
        for chat in islice(corpus.iter_training_chats(random.Random(1)), NUM_MEASURED_CHATS)
        for message in chat.messages
    )
    return round(NUM_MEASURED_CHATS * len(corpus.facts) / num_facts)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common())


def _rendered(chat: Chat) -> str:
    return "".join(segment.text for segment in render_segments(chat))


if __name__ == "__main__":
    main()
