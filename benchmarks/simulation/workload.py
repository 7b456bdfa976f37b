"""Who asks what and when: chat sessions with shared beginnings, or a recorded trace."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.simulation.executor import VOCAB_SIZE, mixed

NUM_SYSTEM_PROMPTS = 16
TRACE_BLOCK_TOKENS = 512  # a hash of the trace stands for so many tokens


@dataclass(slots=True)
class Turn:
    """A message and its answer.

    Attributes:
        new_ids: what the user adds to the conversation.
        num_output_tokens: of the answer.
        pause_s: after the answer before.
    """

    new_ids: list[int]
    num_output_tokens: int
    pause_s: float = 0.0


@dataclass(slots=True)
class Session:
    """A conversation.

    Attributes:
        arrival_s: of its first request.
        turns: still to come, the next one first.
        token_ids: what has been said.
    """

    session_id: str
    arrival_s: float
    turns: list[Turn]
    token_ids: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatWorkload:
    """Sessions of chats.

    Attributes:
        requests_s: mean rate of requests, those of all turns counted.
        duration_s: no session begins after it.
        burstiness: coefficient of variation of the times between sessions; 1 is Poisson.
        mean_turns: of a session, geometrically distributed.
        system_tokens: of each of the system prompts that sessions share.
        input_tokens: median of a user's message (lognormal, sigma 1).
        output_tokens: median of an answer (lognormal, sigma 0.7).
        think_s: mean time between an answer and the next message.
    """

    requests_s: float
    duration_s: float
    burstiness: float = 1.0
    mean_turns: float = 3.0
    system_tokens: int = 1024
    input_tokens: int = 256
    output_tokens: int = 192
    think_s: float = 2.0
    seed: int = 0

    def sessions(self) -> Iterator[Session]:
        """In the order of their arrival."""
        rng = np.random.default_rng(self.seed)
        shape = 1 / self.burstiness**2
        mean_gap_s = self.mean_turns / self.requests_s
        now_s, number = 0.0, 0
        popularity = 1 / np.arange(1, NUM_SYSTEM_PROMPTS + 1)
        popularity /= popularity.sum()
        while True:
            now_s += float(rng.gamma(shape, mean_gap_s / shape))
            if now_s > self.duration_s:
                return
            system = int(rng.choice(NUM_SYSTEM_PROMPTS, p=popularity))
            turns = [self._turn(rng) for _ in range(int(rng.geometric(1 / self.mean_turns)))]
            system_ids = [mixed(system, i) % VOCAB_SIZE for i in range(self.system_tokens)]
            yield Session(f"session-{number}", now_s, turns, system_ids)
            number += 1

    def _turn(self, rng: np.random.Generator) -> Turn:
        num_input = int(np.clip(rng.lognormal(np.log(self.input_tokens), 1.0), 8, 16_384))
        num_output = int(np.clip(rng.lognormal(np.log(self.output_tokens), 0.7), 4, 2_048))
        new_ids = rng.integers(0, VOCAB_SIZE, num_input).tolist()
        return Turn(new_ids, num_output, float(rng.exponential(self.think_s)))


def read_trace(path: Path, *, speed: float = 1.0, duration_s: float = 1e9) -> Iterator[Session]:
    """Requests of a trace as Mooncake publishes them, each a session of its own.

    A line is a JSON object: `timestamp` (ms), `input_length`, `output_length` and `hash_ids`, one
    for each 512 tokens of the prompt; equal ones stand for equal tokens.

    Args:
        path: the file.
        speed: how many times faster than recorded.
        duration_s: what arrives later is left out.
    """
    with path.open() as lines:
        for number, line in enumerate(lines):
            entry = json.loads(line)
            arrival_s = entry["timestamp"] / 1e3 / speed
            if arrival_s > duration_s:
                return
            blocks = (
                [mixed(hash_id, i) % VOCAB_SIZE for i in range(TRACE_BLOCK_TOKENS)]
                for hash_id in entry["hash_ids"]
            )
            token_ids = [token_id for block in blocks for token_id in block]
            token_ids = token_ids[: max(1, entry["input_length"])]
            turn = Turn(token_ids, max(1, entry["output_length"]))
            yield Session(f"trace-{number}", arrival_s, [turn])
