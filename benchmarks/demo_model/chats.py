"""Turns facts, small talk and tool exchanges into chats, to train on and to measure with."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.demo_model.chat_format import END_THINK, Chat, Message, target_text
from benchmarks.demo_model.copying import draw_copy_chat
from benchmarks.demo_model.facts import MAX_FACTS, Fact, collect_facts
from benchmarks.demo_model.fixed_tools import TOOL_TASKS
from benchmarks.demo_model.page_tools import draw_page_chat, draw_page_tools, draw_page_use
from benchmarks.demo_model.phrasings import HELDOUT_SYSTEM_PROMPTS, SYSTEM_PROMPTS, ask
from benchmarks.demo_model.shares import DEFAULT_SHARES, Shares
from benchmarks.demo_model.smalltalk import UNKNOWN_ANSWER, Intent, UnknownQuestions, load_smalltalk
from benchmarks.demo_model.tool_chats import (
    draw_tool_chat,
    draw_tools,
    draw_use,
    schemas,
)

# Tools may be offered and not be needed, and may come with a system prompt.
SHARE_TOOLS_NOT_NEEDED = 0.2
# Questions for a tool where no tool is offered, among those that must be declined.
SHARE_TOOL_MISSING = 0.2
# Within a chat about facts: how many facts it holds, and what stands around them.
NUM_FACTS_WEIGHTS = {1: 5, 2: 3, 3: 2}
SHARE_SYSTEM_PROMPT = 0.2
SHARE_OPENING = 0.1  # a greeting before the first question
SHARE_CLOSING = 0.12  # thanks or goodbye after the last answer
# The last turn of a thinking chat calls a tool, or is about a fact, or else small talk or unknown.
SHARE_THINKING_TOOL = 0.15
SHARE_THINKING_FACT = 0.8
# Every conversation asks in held-out wordings; some ask a second question, as the training chats
# do.
SHARE_HELDOUT_FOLLOW_UP = 0.2
HELDOUT_WEIGHTS = {
    "fact": 70,
    "smalltalk": 10,
    "unknown": 4,
    "thinking": 6,
    "page_tool_call": 1,
    "page_tool_answer": 1,
    "tool_call": 2,
    "tool_answer": 2,
    "random_tool_call": 2,
    "random_tool_answer": 2,
}
_OPENINGS = ("hello", "good_morning", "good_evening", "how_are_you")
_CLOSINGS = ("thanks", "thanks", "great", "bye", "ok")


@dataclass(frozen=True, slots=True)
class HeldoutChat:
    """A prompt in wordings that training never sees, with the answer that is right.

    Attributes:
        chat: Ends with a user or tool message; render it with `render_prompt`.
        expected: The answer; in thinking mode the part after the reasoning. Compare with
            `normalise_answer`.
        kind: A key of `HELDOUT_WEIGHTS`. A `page_tool` is one of the chat page, with values that
            training knows; a `tool` has held-out values; a `random_tool` was made up for the chat.
    """

    chat: Chat
    expected: str
    kind: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """All that the built-in model is taught.

    Attributes:
        facts: One-line answers about the standard library, sorted by name.
        smalltalk: What people say apart from that, and what the model answers.
        unknown: Questions to which it says that it does not know.
    """

    facts: tuple[Fact, ...]
    smalltalk: tuple[Intent, ...]
    unknown: UnknownQuestions

    def iter_training_chats(
        self, rng: random.Random, *, loose: bool = True, shares: Shares = DEFAULT_SHARES
    ) -> Iterator[Chat]:
        """Yields chats without end; each pass asks about every fact once, in new wordings."""
        writer = _ChatWriter(self, rng, heldout=False, loose=loose, shares=shares)
        while True:
            yield from writer.one_pass()

    def heldout_chats(self, num: int, seed: int, kind: str | None = None) -> list[HeldoutChat]:
        """Returns prompts with their answers: of one kind, or of all kinds by `HELDOUT_WEIGHTS`.

        Facts are drawn without repetition as long as they last: `num=len(facts), kind="fact"` asks
        about each of them.
        """
        rng = random.Random(f"held-out chats {seed}")
        writer = _ChatWriter(self, rng, heldout=True)
        kinds = list(HELDOUT_WEIGHTS) if kind is None else [kind]
        weights = [HELDOUT_WEIGHTS[kind] for kind in kinds]
        return [writer.prompt(rng.choices(kinds, weights)[0]) for _ in range(num)]

    def heldout_conversations(
        self, num: int, seed: int, shares: Shares = DEFAULT_SHARES
    ) -> list[Chat]:
        """Returns whole chats in held-out wordings, mixed as in training, to measure loss on."""
        rng = random.Random(f"held-out conversations {seed}")
        writer = _ChatWriter(self, rng, heldout=True, shares=shares)
        chats: list[Chat] = []
        while len(chats) < num:
            chats.extend(writer.one_pass())
        return chats[:num]


def build_corpus(max_facts: int = MAX_FACTS) -> Corpus:
    """Collects the facts and reads the small talk; the same corpus for the same Python version."""
    smalltalk, unknown = load_smalltalk()
    return Corpus(collect_facts(max_facts), smalltalk, unknown)


def normalise_answer(text: str) -> str:
    """Returns the answer without reasoning and surplus spaces, for exact comparison."""
    return " ".join(text.rpartition(END_THINK)[2].split())


class _ChatWriter:
    """Writes chats with one source of randomness, in training wordings or in held-out ones."""

    def __init__(
        self,
        corpus: Corpus,
        rng: random.Random,
        *,
        heldout: bool,
        loose: bool = False,
        shares: Shares = DEFAULT_SHARES,
    ) -> None:
        self._shares = shares
        self._corpus = corpus
        self._rng = rng
        self._heldout = heldout
        self._loose = loose
        self._intents = {intent.name: intent for intent in corpus.smalltalk}
        self._queue: list[Fact] = []

    def one_pass(self) -> Iterator[Chat]:
        """Yields chats until every fact has been asked about once."""
        queue = self._shuffled_facts()
        shares = self._shares
        other_kinds = (
            (shares.tools, self._tool_chat),
            (shares.page_tools, lambda: self._tool_chat(draw_page_chat)),
            (shares.copying, lambda: draw_copy_chat(self._rng, heldout=self._heldout)),
            (shares.smalltalk, self._smalltalk_chat),
            (shares.unknown, lambda: self._chat([self._unknown_turn()])),
            (shares.thinking * SHARE_THINKING_TOOL, self._thinking_tool_chat),
            (shares.thinking * (1 - SHARE_THINKING_TOOL), lambda: self._thinking_chat(queue)),
        )
        while queue:
            draw = self._rng.random()
            for share, write in other_kinds:
                draw -= share
                if draw < 0:
                    yield write()
                    break
            else:
                yield self._facts_chat(queue)

    def prompt(self, kind: str) -> HeldoutChat:
        """Returns one chat that ends where the model must answer."""
        if kind.endswith(("tool_call", "tool_answer")):
            is_random = kind.startswith("random")
            if kind.startswith("page"):
                tasks, use = draw_page_tools(self._rng), draw_page_use
            else:
                tasks = draw_tools(self._rng, heldout=True, share_random=float(is_random))
                use = draw_use
            messages = use(self._rng.choice(tasks), self._rng, heldout=True).messages()
            num_given = 1 if kind.endswith("call") else 3
            chat = Chat(messages[:num_given], tools=schemas(tasks, self._rng))
            return HeldoutChat(chat, target_text(messages[num_given]), kind)
        if not self._queue:
            self._queue = self._shuffled_facts()
        if kind == "thinking":
            chat = self._thinking_chat(self._queue)
        elif kind == "smalltalk":
            chat = self._chat([self._smalltalk_turn()])
        elif kind == "unknown":
            chat = self._chat([self._unknown_turn()])
        else:
            chat = self._heldout_fact_chat()
        return HeldoutChat(
            Chat(chat.messages[:-1], chat.thinking, chat.tools), chat.messages[-1]["content"], kind
        )

    def _heldout_fact_chat(self) -> Chat:
        fact = self._queue.pop()
        follows = self._rng.random() < SHARE_HELDOUT_FOLLOW_UP
        before = [self._fact_turn(self._rng.choice(self._corpus.facts))] if follows else []
        return self._chat([*before, self._fact_turn(fact, follow_up=follows)])

    def _shuffled_facts(self) -> list[Fact]:
        return self._rng.sample(self._corpus.facts, len(self._corpus.facts))

    def _facts_chat(self, queue: list[Fact]) -> Chat:
        num_facts = self._rng.choices(list(NUM_FACTS_WEIGHTS), list(NUM_FACTS_WEIGHTS.values()))[0]
        turns = []
        if self._rng.random() < SHARE_OPENING:
            turns.append(self._smalltalk_turn(self._rng.choice(_OPENINGS)))
        turns.extend(
            self._fact_turn(queue.pop(), follow_up=index > 0)
            for index in range(min(num_facts, len(queue)))
        )
        if self._rng.random() < SHARE_CLOSING:
            turns.append(self._smalltalk_turn(self._rng.choice(_CLOSINGS)))
        return self._chat(turns)

    def _smalltalk_chat(self) -> Chat:
        return self._chat([self._smalltalk_turn() for _ in range(self._rng.choice((1, 1, 2, 3)))])

    def _thinking_chat(self, queue: list[Fact]) -> Chat:
        if queue and self._rng.random() < SHARE_THINKING_FACT:
            fact = queue.pop()
            question, answer = self._fact_turn(fact)
            reasoning = "This is about Python and its standard library. "
            reasoning += "I answer from the documentation."
        elif self._rng.random() < 0.7:
            question, answer = self._smalltalk_turn()
            reasoning = "This is small talk or about Leadline. I answer briefly."
        else:
            question, answer = self._unknown_turn()
            reasoning = "I was not taught anything about this. I should say so."
        chat = self._chat([(question, {**answer, "reasoning_content": reasoning})])
        return Chat(chat.messages, thinking=True)

    def _thinking_tool_chat(self) -> Chat:
        """A call after a thought; what follows an output has no thought in this format."""
        if self._shares.tools:
            tasks, use = draw_tools(self._rng, heldout=self._heldout), draw_use
        else:
            tasks, use = draw_page_tools(self._rng), draw_page_use
        task = self._rng.choice(tasks)
        question, call, *_ = use(task, self._rng, heldout=self._heldout).messages()
        reasoning = f"The user asks for what the tool {task.name} can do. I call it."
        messages = (question, {**call, "reasoning_content": reasoning})
        tools = schemas(tasks, self._rng)
        return Chat((*self._system_messages(), *messages), thinking=True, tools=tools)

    def _tool_chat(self, draw: Callable[..., Chat] = draw_tool_chat) -> Chat:
        """Mostly uses of tools; else a turn that needs none, after a use of one or at once."""
        chat = draw(self._rng, heldout=self._heldout)
        if self._rng.random() < SHARE_TOOLS_NOT_NEEDED:
            used = draw(self._rng, heldout=self._heldout)
            before = used.messages if self._rng.random() < 0.3 else ()
            messages = (*before, *(m for turn in self._turns_without_tool() for m in turn))
            return Chat((*self._system_messages(), *messages), tools=used.tools)
        return Chat((*self._system_messages(), *chat.messages), tools=chat.tools)

    def _turns_without_tool(self) -> list[tuple[Message, Message]]:
        facts = [self._rng.choice(self._corpus.facts) for _ in range(self._rng.choice((1, 2, 3)))]
        kind = self._rng.random()
        if kind < 0.65:
            return [self._fact_turn(fact) for fact in facts]
        if kind < 0.9:
            return [self._smalltalk_turn()]
        return [self._unknown_turn(share_tool_questions=0)]

    def _chat(self, turns: list[tuple[Message, Message]]) -> Chat:
        messages = [message for turn in turns for message in turn]
        return Chat((*self._system_messages(), *messages))

    def _system_messages(self) -> tuple[Message, ...]:
        if self._rng.random() >= SHARE_SYSTEM_PROMPT:
            return ()
        prompts = HELDOUT_SYSTEM_PROMPTS if self._heldout else SYSTEM_PROMPTS
        return ({"role": "system", "content": self._rng.choice(prompts)},)

    def _fact_turn(self, fact: Fact, *, follow_up: bool = False) -> tuple[Message, Message]:
        question = ask(
            fact, self._rng, heldout=self._heldout, follow_up=follow_up, loose=self._loose
        )
        return _turn(question, fact.answer)

    def _smalltalk_turn(self, name: str | None = None) -> tuple[Message, Message]:
        intent = self._intents[name] if name else self._rng.choice(self._corpus.smalltalk)
        return _turn(intent.say(self._rng, heldout=self._heldout), intent.answer)

    def _unknown_turn(
        self, share_tool_questions: float = SHARE_TOOL_MISSING
    ) -> tuple[Message, Message]:
        if self._rng.random() < share_tool_questions:
            task = self._rng.choice(TOOL_TASKS)
            arguments = task.draw(self._rng, self._heldout)
            return _turn(task.ask(arguments, self._rng, self._heldout), UNKNOWN_ANSWER)
        question = self._corpus.unknown.say(self._rng, self._corpus.facts, heldout=self._heldout)
        return _turn(question, UNKNOWN_ANSWER)


def _turn(question: str, answer: str) -> tuple[Message, Message]:
    return {"role": "user", "content": question}, {"role": "assistant", "content": answer}
