import json
import random
from itertools import islice
from pathlib import Path

import pytest
from tokenizers import Tokenizer, pre_tokenizers

from benchmarks.demo_model.chat_format import (
    EOS,
    MARKUP_TOKENS,
    SPECIAL_TOKENS,
    Chat,
    render_segments,
)
from benchmarks.demo_model.chats import Corpus
from benchmarks.demo_model.tokenizer import (
    VOCAB_SIZE,
    encode_chat,
    encode_prompt,
    train_tokenizer,
    write_tokenizer,
)

TEXTS = (
    "What does `itertools.chain` do?  Two  spaces,\ttabs\n\nand lines.",
    "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u9f98",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1f0\U0001f1f7 \u2764\ufe0f",
    "e\u0301 a\u0308\u0323 \u0e01\u0e33 \u0939\u093f\u0928\u094d\u0926\u0940",
    "\x00\x7f\u00ff\u0100\U0010ffff",
    "1234567 3.14 0x1f {}[]()<>|\\~^",
)


@pytest.mark.parametrize("text", TEXTS)
def test_text_round_trips(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_vocabulary_is_full_and_begins_with_the_special_tokens(tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.get_vocab()
    assert len(vocabulary) == VOCAB_SIZE
    assert sorted(vocabulary.values()) == list(range(VOCAB_SIZE))
    added = (*SPECIAL_TOKENS, *MARKUP_TOKENS)
    assert [vocabulary[token] for token in added] == list(range(len(added)))
    assert set(pre_tokenizers.ByteLevel.alphabet()) <= set(vocabulary)


def test_only_sentence_and_role_tokens_are_special(tokenizer: Tokenizer) -> None:
    for token_id, token in tokenizer.get_added_tokens_decoder().items():
        assert token.special == (token_id < len(SPECIAL_TOKENS)), token
    ids = encode_prompt(tokenizer, f"<think>Yes</think>No{EOS}")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>Yes</think>No"


def test_training_repeats_from_a_seed(corpus: Corpus, tokenizer: Tokenizer) -> None:
    assert train_tokenizer(corpus, seed=0).to_str() == tokenizer.to_str()


def test_mask_covers_exactly_the_answers(tokenizer: Tokenizer) -> None:
    chat = Chat(
        (
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "What is `len`?"},
            {"role": "assistant", "content": "Return the number of items in a container."},
            {"role": "user", "content": "Thanks!"},
            {"role": "assistant", "content": "Welcome.", "reasoning_content": "They are kind."},
        ),
        thinking=True,
    )
    ids, mask = encode_chat(tokenizer, chat)
    assert len(ids) == len(mask)
    covered = [token_id for token_id, bit in zip(ids, mask, strict=True) if bit]
    assert tokenizer.decode(covered, skip_special_tokens=False) == (
        f"Return the number of items in a container.{EOS}They are kind.</think>Welcome.{EOS}"
    )


def test_chats_are_encoded_like_their_whole_text(corpus: Corpus, tokenizer: Tokenizer) -> None:
    for chat in islice(corpus.iter_training_chats(random.Random(4)), 300):
        text = "".join(segment.text for segment in render_segments(chat))
        ids, mask = encode_chat(tokenizer, chat)
        assert ids == encode_prompt(tokenizer, text)
        assert mask[-1] == 1


def test_written_files_work_in_transformers(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    write_tokenizer(tokenizer, tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))
    assert config["add_bos_token"] is False
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (0, 1, 2)
    for heldout in corpus.heldout_chats(30, seed=0):
        chat = heldout.chat
        ids = loaded.apply_chat_template(
            [dict(message) for message in chat.messages],
            tools=[dict(tool) for tool in chat.tools] or None,
            thinking=chat.thinking,
            add_generation_prompt=True,
            return_dict=False,
        )
        finished = Chat((*chat.messages, {"role": "assistant", "content": "."}), tools=chat.tools)
        if not chat.thinking:
            expected, mask = encode_chat(tokenizer, finished)
            assert ids == expected[: len(expected) - 2]
            assert mask[-2:] == [1, 1]
