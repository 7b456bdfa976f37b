"""Trains the built-in model's byte-level BPE tokenizer, writes its files, and encodes chats."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from benchmarks.demo_model.chat_format import (
    BOS,
    CHAT_TEMPLATE,
    EOS,
    MARKUP_TOKENS,
    PAD,
    SPECIAL_TOKENS,
    Chat,
    render_segments,
    tools_text,
)
from benchmarks.demo_model.chats import Corpus
from benchmarks.demo_model.fixed_tools import TOOL_TASKS

VOCAB_SIZE = 4096
MODEL_MAX_LENGTH = 4096  # tokens
NUM_TRAINING_CHATS = 20_000
# DeepSeek-V3's pre-tokeniser: numbers in groups of three digits, runs of CJK, then words with their
# space.
_NUMBERS = r"\p{N}{1,3}"
_CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_WORDS = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"
    r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Some text beyond the corpus, so that common scripts and code do not fall apart into single bytes
# everywhere.
_OTHER_TEXT = (
    "def main() -> None:\n    for index, value in enumerate(values):\n        print(value)\n",
    "import os\nimport sys\n\nclass Point:\n    def __init__(self, x: int) -> None:\n",
    '{"name": "value", "items": [1, 2, 3], "ok": true, "none": null}\n',
    "\uc548\ub155\ud558\uc138\uc694. \ud30c\uc774\uc36c\uc740 \ubb34\uc5c7\uc785\ub2c8\uae4c?",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002Python \u662f\u4ec0\u4e48\uff1f",
    "\u3053\u3093\u306b\u3061\u306f\u3001\u4e16\u754c\u3002",
    "Gr\u00fc\u00dfe, \u00e7a va? \u00bfQu\u00e9 tal? Ol\u00e1!",
    "\u041f\u0440\u0438\u0432\u0435\u0442!",
    "\U0001f600 \U0001f44d \u2764\ufe0f \U0001f468\u200d\U0001f469\u200d\U0001f467",
)


def train_tokenizer(corpus: Corpus, seed: int) -> Tokenizer:
    """Returns a byte-level BPE tokenizer of `VOCAB_SIZE` tokens, all 256 bytes among them.

    Ids 0 and up are the special tokens, then the markup tokens (see `chat_format`), then bytes and
    merges.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_NUMBERS), "isolated"),
            pre_tokenizers.Split(Regex(_CJK), "isolated"),
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added_tokens = (*SPECIAL_TOKENS, *MARKUP_TOKENS)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(token, normalized=False) for token in added_tokens],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_text(corpus, seed), trainer)
    assert tokenizer.get_vocab_size() == VOCAB_SIZE, (
        "the corpus has too little text for the vocabulary"
    )
    return _with_plain_markup(tokenizer)


def _with_plain_markup(tokenizer: Tokenizer) -> Tokenizer:
    """Returns the tokenizer with its markup tokens no longer special, as the trainer makes them."""
    data = json.loads(tokenizer.to_str())
    for token in data["added_tokens"]:
        token["special"] = token["content"] in SPECIAL_TOKENS
    return Tokenizer.from_str(json.dumps(data))


def _training_text(corpus: Corpus, seed: int) -> Iterator[str]:
    """Yields the texts of messages: what people and the model write makes the vocabulary."""
    chats = corpus.iter_training_chats(random.Random(f"tokenizer {seed}"), loose=False)
    for chat in islice(chats, NUM_TRAINING_CHATS):
        for message in chat.messages:
            yield message["content"] or message["tool_calls"][0]["function"]["arguments"]
            if "reasoning_content" in message:
                yield message["reasoning_content"]
    rng = random.Random(f"tools {seed}")
    for task in TOOL_TASKS:
        yield from [tools_text([task.schema(rng)])] * 20
    for text in _OTHER_TEXT:
        yield from [text] * 20


def write_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json` into an existing directory.

    The chat template is part of the configuration.
    """
    tokenizer.save(str(directory / "tokenizer.json"), pretty=False)
    config = {
        "add_bos_token": False,  # the chat template writes it
        "add_eos_token": False,
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": MODEL_MAX_LENGTH,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": CHAT_TEMPLATE,
    }
    text = json.dumps(config, indent=2, ensure_ascii=True)
    (directory / "tokenizer_config.json").write_text(text + "\n", encoding="ascii")


def encode_chat(tokenizer: Tokenizer, chat: Chat) -> tuple[list[int], list[int]]:
    """Returns a whole chat as token ids and its loss mask, both of the same length.

    The mask is 1 on what the model must produce, which is each assistant text with the
    end-of-sentence token after it, and 0 on everything that it is given.
    """
    token_ids: list[int] = []
    loss_mask: list[int] = []
    for segment in render_segments(chat):
        segment_ids = tokenizer.encode(segment.text, add_special_tokens=False).ids
        token_ids += segment_ids
        loss_mask += [int(segment.is_target)] * len(segment_ids)
    return token_ids, loss_mask


def encode_prompt(tokenizer: Tokenizer, text: str) -> list[int]:
    """Returns the token ids of a rendered prompt; the template wrote the special tokens."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids
