import random

from benchmarks.demo_model.chats import Corpus
from benchmarks.demo_model.facts import Fact
from benchmarks.demo_model.fixed_tools import TOOL_TASKS
from benchmarks.demo_model.phrasings import (
    FOLLOW_UPS,
    HELDOUT_FOLLOW_UPS,
    HELDOUT_QUESTIONS,
    TRAIN_QUESTIONS,
    TRAIN_QUESTIONS_BY_KIND,
    ask,
    normalise_wording,
)

CHAIN = Fact("itertools.chain", "class", "Iterate over several iterables.", "itertools")


def test_heldout_wordings_about_facts_never_occur_in_training(corpus: Corpus) -> None:
    by_kind = [wording for wordings in TRAIN_QUESTIONS_BY_KIND.values() for wording in wordings]
    concepts = [wording for intent in corpus.smalltalk for wording in intent.train]
    train = {
        normalise_wording(w)
        for w in (*TRAIN_QUESTIONS, *FOLLOW_UPS, *by_kind, *concepts, *corpus.unknown.train)
    }
    heldout = {normalise_wording(wording) for wording in (*HELDOUT_QUESTIONS, *HELDOUT_FOLLOW_UPS)}
    assert len(heldout) >= 14
    assert not heldout & train


def test_heldout_wordings_of_small_talk_never_occur_in_training(corpus: Corpus) -> None:
    train = {normalise_wording(w) for intent in corpus.smalltalk for w in intent.train}
    for intent in corpus.smalltalk:
        assert intent.heldout, intent.name
        assert not train & {normalise_wording(wording) for wording in intent.heldout}, intent.name
    unknown = {normalise_wording(wording) for wording in corpus.unknown.train}
    assert not unknown & {normalise_wording(wording) for wording in corpus.unknown.heldout}


def test_heldout_wordings_of_tools_never_occur_in_training() -> None:
    rng = random.Random(0)
    for task in TOOL_TASKS:
        arguments = task.draw(rng, False)
        train, heldout = (
            {normalise_wording(task.ask(arguments, rng, part)) for _ in range(100)}
            for part in (False, True)
        )
        assert len(train) > len(heldout) > 1
        assert not train & heldout


def test_no_wording_of_small_talk_has_two_answers(corpus: Corpus) -> None:
    answers: dict[str, str] = {}
    for intent in corpus.smalltalk:
        for wording in (*intent.train, *intent.heldout):
            key = normalise_wording(wording)
            assert answers.setdefault(key, intent.answer) == intent.answer, wording


def test_questions_name_the_fact_in_many_wordings() -> None:
    rng = random.Random(0)
    train = {ask(CHAIN, rng) for _ in range(2000)}
    heldout = {ask(CHAIN, rng, heldout=True) for _ in range(500)}
    assert all("itertools.chain" in question for question in train | heldout)
    assert len(train) > 100
    assert len({normalise_wording(question) for question in heldout}) >= 14


def test_only_callables_are_written_with_parentheses() -> None:
    rng = random.Random(0)
    module = Fact("itertools", "module", "Tools for iterators.", "itertools")
    assert not any("()" in ask(module, rng) for _ in range(300))
