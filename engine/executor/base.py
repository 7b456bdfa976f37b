"""The seam between the engine's bookkeeping and whatever computes a step."""

from concurrent.futures import Future
from typing import Protocol

import msgspec

from leadline.engine.request import SamplingParams
from leadline.engine.step import ModelOutput, SchedulerOutput
from leadline.engine.survey import ExpertLoad


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What an executor can hold.

    Attributes:
        num_pages: pages in the pool.
        page_size: tokens a page.
        max_model_len: most tokens (prompt + output) of one request.
        max_num_seqs: most requests in one step.
        num_host_pages: places in the host tier; 0 for no such tier.
        vocab_size: token ids are 0..vocab_size - 1; 0 for any, where nothing indexes by them.
    """

    num_pages: int
    page_size: int
    max_model_len: int
    max_num_seqs: int
    num_host_pages: int = 0
    vocab_size: int = 0


class Executor(Protocol):
    """Carries out plans, in the order in which they are given."""

    def capacity(self) -> Capacity:
        """Sizes that the scheduler plans within."""
        ...

    def prepare(self, params: SamplingParams) -> Future[None] | None:
        """Begin what a request needs before its first step (its grammar is compiled).

        Returns None if it needs nothing; a future that fails refuses the request.
        """
        ...

    def execute(self, plan: SchedulerOutput) -> Future[ModelOutput]:
        """Start a step; the future holds its result, or the error that ended the engine."""
        ...

    def expert_load(self) -> list[ExpertLoad]:
        """How often each expert was chosen since start, while steps may run; empty without any."""
        ...

    def sleep(self, level: int) -> None:
        """Give up memory, with no step in flight: pages (level 1), or the weights too (2).

        What it held of requests is lost.
        """
        ...

    def wake_up(self) -> Future[None]:
        """Take the memory back, as it was at the start; the future may hold a LoaderError."""
        ...

    @property
    def num_bytes(self) -> int:
        """Memory that pages and weights take now."""
        ...

    def close(self) -> None:
        """Release the device and everything held."""
        ...
