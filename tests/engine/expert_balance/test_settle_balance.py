"""What is balanced, and what is refused."""

from dataclasses import dataclass

import pytest

from leadline.engine.errors import ConfigError
from leadline.engine.expert_balance.settle_balance import settle_balance
from leadline.engine.parallel.layout import ParallelLayout


@dataclass
class Asked:
    num_redundant_experts: int = 0
    expert_balance_steps: int | None = None


def ranks(number: int) -> ParallelLayout:
    return ParallelLayout(dp_size=number, expert_parallel=number > 1)


@pytest.mark.parametrize(
    ("asked", "num_experts", "num_ranks", "steps"),
    [
        (Asked(), 256, 32, 1000),
        (Asked(expert_balance_steps=0), 256, 32, 0),
        (Asked(32, 50), 256, 72, 50),
        (Asked(), 256, 72, 0),
        (Asked(), 256, 1, 0),
        (Asked(), 0, 4, 0),
    ],
)
def test_settled(asked: Asked, num_experts: int, num_ranks: int, steps: int) -> None:
    settled, lines = settle_balance(asked, num_experts, ranks(num_ranks))
    assert settled == steps
    assert bool(lines) == (num_ranks > 1 and num_experts > 0)


def test_sliced_experts_stay_where_they_are() -> None:
    layout = ParallelLayout(tp_size=4)
    assert settle_balance(Asked(), 256, layout) == (0, [])
    with pytest.raises(ConfigError, match="no effect"):
        settle_balance(Asked(4), 256, layout)


def test_the_reason_is_told() -> None:
    _, lines = settle_balance(Asked(), 256, ranks(72))
    assert lines[1].reason == "256 experts cannot be spread evenly over 72 ranks"


@pytest.mark.parametrize(
    ("asked", "num_ranks", "message"),
    [
        (Asked(-1), 4, "num_redundant_experts is -1; allowed: at least 0"),
        (Asked(0, -5), 4, "expert_balance_steps is -5"),
        (Asked(32), 1, "num_redundant_experts has no effect"),
        (Asked(0, 100), 1, "expert_balance_steps has no effect"),
        (Asked(30), 32, "allowed: --num-redundant-experts 32"),
        (Asked(0, 100), 72, "allowed: --num-redundant-experts 32"),
    ],
)
def test_refused(asked: Asked, num_ranks: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settle_balance(asked, 256, ranks(num_ranks))
