"""The guide of attention wants the right keys, and its loss is the attention that they miss."""

import math

import pytest
import torch
from tokenizers import Tokenizer

from benchmarks.demo_model.guide import (
    COPYING_HEADS,
    PREVIOUS_HEADS,
    AttentionGuide,
    Lesson,
    look_at_source,
    look_back,
    token_forms,
)
from benchmarks.demo_model.packing import PackedBatch, pack

LENGTH = 12
FORMS = torch.arange(100)
NUM_HEADS = 4


def batch_of(*chats: tuple[list[int], list[int]]) -> PackedBatch:
    """One row of chats; the one after them is too long for it."""
    too_long = ([99] * LENGTH, [0] * LENGTH)
    return next(pack(iter([*chats, too_long, too_long]), [(1, LENGTH)]))


def looks(lesson: Lesson) -> dict[int, list[int]]:
    """The wanted keys of each query, both as places in the only row."""
    assert not lesson.rows_W.any()
    keys = [wanted.nonzero().flatten().tolist() for wanted in lesson.wanted_WL]
    return dict(zip(lesson.queries_W.tolist(), keys, strict=True))


def test_looking_back_stays_within_the_chat() -> None:
    batch = batch_of(([11, 12, 13], [0, 0, 1]), ([14, 15], [0, 1]))
    assert looks(look_back(batch, 1)) == {1: [0], 2: [1], 4: [3]}
    assert looks(look_back(batch, 2)) == {2: [0]}


def test_a_copied_text_is_looked_up_token_by_token() -> None:
    #                  0   1   2   3   4   5   6   7
    batch = batch_of(([20, 31, 32, 33, 40, 31, 32, 33], [0, 0, 0, 0, 0, 1, 1, 1]))
    assert looks(look_at_source(batch, FORMS)) == {4: [1], 5: [2], 6: [3]}


def test_the_longest_equal_text_counts_and_a_tie_counts_twice() -> None:
    batch = batch_of(([31, 32, 9, 31, 32, 33, 40, 31, 32, 33], [0] * 7 + [1] * 3))
    assert looks(look_at_source(batch, FORMS)) == {6: [3], 7: [4], 8: [5]}
    batch = batch_of(([31, 32, 9, 31, 32, 40, 31, 32], [0] * 6 + [1] * 2))
    assert looks(look_at_source(batch, FORMS)) == {5: [0, 3], 6: [1, 4]}


def test_a_single_token_and_another_chat_are_no_source() -> None:
    batch = batch_of(([31, 32, 40, 31], [0, 0, 0, 1]), ([50, 31, 32], [0, 1, 1]))
    assert looks(look_at_source(batch, FORMS)) == {}


def test_a_word_is_the_same_with_its_space_and_without(tokenizer: Tokenizer) -> None:
    forms = token_forms(tokenizer)
    ids = tokenizer.get_vocab()
    assert forms[ids["\u0120is"]] == forms[ids["is"]] == ids["is"]
    bare, spaced = ([ids["is"], ids["it"]], [ids["\u0120is"], ids["it"]])
    batch = batch_of(([*spaced, 5, *bare], [0, 0, 0, 1, 1]))
    assert looks(look_at_source(batch, forms)) == {2: [0], 3: [1]}


def observed(batch: PackedBatch, strength: float) -> torch.Tensor:
    """The guide's losses where every query likes the key before it, so strongly."""
    guide = AttentionGuide(batch, FORMS)
    places = torch.eye(LENGTH).expand(1, NUM_HEADS, LENGTH, LENGTH)
    for layer in range(8):
        guide.observe(layer, places.roll(-1, dims=-1) * strength, places, 1.0)
    return guide.losses()


def test_the_loss_is_the_attention_that_is_missing() -> None:
    batch = batch_of(([31, 32, 9, 31, 32], [0, 0, 0, 1, 1]))
    previous = [d for heads in PREVIOUS_HEADS.values() for d in heads.values()]
    evenly = observed(batch, 0.0).tolist()
    assert len(evenly) == len(previous) + len(COPYING_HEADS)
    for loss, distance in zip(evenly, previous, strict=False):
        keys = range(distance + 1, 6)  # of the queries that have a token so far back
        assert loss == pytest.approx(sum(map(math.log, keys)) / len(keys))
    assert evenly[-1] == pytest.approx((math.log(3) + math.log(4)) / 2)
    sharply = observed(batch, 30.0).tolist()
    for loss, distance in zip(sharply, previous, strict=False):
        assert loss < 0.01 if distance == 1 else loss > 20
