import random
from collections import Counter
from itertools import islice, pairwise

import pytest

from benchmarks.demo_model.chat_format import Chat
from benchmarks.demo_model.chats import HELDOUT_WEIGHTS, Corpus, normalise_answer
from benchmarks.demo_model.phrasings import normalise_wording


def _small(corpus: Corpus, num_facts: int) -> Corpus:
    return Corpus(corpus.facts[:num_facts], corpus.smalltalk, corpus.unknown)


def _questions(chat: Chat) -> list[str]:
    return [message["content"] for message in chat.messages if message["role"] == "user"]


def test_each_pass_asks_about_every_fact_about_once(corpus: Corpus) -> None:
    unique = {fact.answer: fact for fact in corpus.facts}
    small = Corpus(tuple(unique.values())[:200], corpus.smalltalk, corpus.unknown)
    answers = {fact.answer for fact in small.facts}
    counts: Counter[str] = Counter()
    for chat in small.iter_training_chats(random.Random(3)):
        if not chat.tools:  # a fact asked about beside unneeded tools is an extra exposure
            counts.update(m["content"] for m in chat.messages if m["content"] in answers)
        if sum(counts.values()) == 4 * len(small.facts):
            break
    assert set(counts) == answers
    assert max(counts.values()) <= 5
    assert min(counts.values()) >= 3


def test_training_chats_repeat_from_a_seed(corpus: Corpus) -> None:
    first, again, other = (
        list(islice(corpus.iter_training_chats(random.Random(seed)), 50)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_chats_alternate_and_end_with_the_assistant(corpus: Corpus) -> None:
    for chat in islice(corpus.iter_training_chats(random.Random(5)), 2000):
        roles = [message["role"] for message in chat.messages if message["role"] != "system"]
        assert roles[0] == "user"
        assert roles[-1] == "assistant"
        assert all(left != right or left == "tool" for left, right in pairwise(roles))
        last = chat.messages[-1]
        assert chat.thinking == ("reasoning_content" in last)


def test_all_kinds_of_chats_occur(corpus: Corpus) -> None:
    chats = list(islice(corpus.iter_training_chats(random.Random(6)), 3000))
    assert 0.06 < sum(chat.thinking for chat in chats) / len(chats) < 0.12
    assert 0.13 < sum(bool(chat.tools) for chat in chats) / len(chats) < 0.19
    assert any(chat.messages[0]["role"] == "system" for chat in chats)
    assert any(len(_questions(chat)) > 2 for chat in chats)


def test_no_heldout_question_is_asked_in_training(corpus: Corpus) -> None:
    small = _small(corpus, 60)
    heldout = {
        normalise_wording(question)
        for chat in small.heldout_conversations(1500, seed=0)
        for question in _questions(chat)
    }
    train = {
        normalise_wording(question)
        for chat in islice(small.iter_training_chats(random.Random(7)), 6000)
        for question in _questions(chat)
    }
    assert heldout
    assert heldout & train == set()


def test_heldout_chats_cover_every_kind(corpus: Corpus) -> None:
    chats = corpus.heldout_chats(600, seed=1)
    assert {heldout.kind for heldout in chats} == set(HELDOUT_WEIGHTS)
    for heldout in chats:
        assert heldout.chat.messages[-1]["role"] in ("user", "tool")
        assert heldout.expected == normalise_answer(heldout.expected)
    assert chats == corpus.heldout_chats(600, seed=1)
    assert chats != corpus.heldout_chats(600, seed=2)


def test_heldout_facts_are_each_asked_about_once(corpus: Corpus) -> None:
    small = _small(corpus, 100)
    chats = small.heldout_chats(100, seed=0, kind="fact")
    assert Counter(chat.expected for chat in chats) == Counter(f.answer for f in small.facts)


@pytest.mark.parametrize(
    ("text", "answer"),
    [("An  answer.\n", "An answer."), ("A thought.</think>An answer.", "An answer.")],
)
def test_normalised_answers_have_no_reasoning(text: str, answer: str) -> None:
    assert normalise_answer(text) == answer
