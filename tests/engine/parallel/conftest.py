"""Units whose ranks are threads of one process, joined by gloo."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
import torch.distributed as dist

from leadline.engine.build import LoadedModel, load_model
from leadline.engine.config import ResolvedConfig
from leadline.engine.parallel.layout import ParallelLayout
from leadline.engine.parallel.process_group import make_context
from leadline.engine.parallel.rank_context import RankContext

T = TypeVar("T")
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Unit:
    """A layout whose ranks can be run."""

    layout: ParallelLayout
    directory: Path
    ordered: bool = True

    def run(self, work: Callable[[RankContext], T]) -> list[T]:
        """What each rank returns; the first error is raised."""
        results: dict[int, T] = {}
        errors: list[BaseException] = []
        name = str(self.directory / f"store-{threading.get_ident()}-{id(work)}")

        def rank(number: int) -> None:
            try:
                store = dist.FileStore(name, self.layout.num_ranks)
                parallel = make_context(
                    self.layout,
                    number,
                    store,
                    device="cpu",
                    ordered=self.ordered,
                    timeout_s=TIMEOUT_S,
                )
                with torch.inference_mode():
                    results[number] = work(RankContext(self.layout, number, parallel))
            except BaseException as error:  # noqa: BLE001 (raised below)
                errors.append(error)

        threads = [
            threading.Thread(target=rank, args=(number,), daemon=True)
            for number in range(self.layout.num_ranks)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return [results[number] for number in range(self.layout.num_ranks)]

    def load(self, config: ResolvedConfig) -> Callable[[RankContext], LoadedModel]:
        """Loads a rank's share of a checkpoint."""
        return lambda rank: load_model(config, rank=rank)


UnitOf = Callable[..., Unit]


@pytest.fixture
def unit_of(tmp_path: Path) -> UnitOf:
    """Makes units: `unit_of(tp, dp, expert_parallel)`."""

    def make(tp: int, dp: int, expert_parallel: bool = True, **options: Any) -> Unit:
        layout = ParallelLayout(tp_size=tp, dp_size=dp, expert_parallel=expert_parallel)
        return Unit(layout, tmp_path, **options)

    return make


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
