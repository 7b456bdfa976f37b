import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.server.bench.arrivals import arrival_times_s


def draw(count: int, rate: float, burstiness: float, seed: int = 0) -> np.ndarray:
    return arrival_times_s(count, rate, burstiness, np.random.default_rng(seed))


@given(
    count=st.integers(1, 200),
    rate=st.floats(0.01, 1e4),
    burstiness=st.floats(0.05, 50) | st.just(math.inf),
    seed=st.integers(0, 2**32),
)
def test_times_rise_to_what_the_rate_says(
    count: int, rate: float, burstiness: float, seed: int
) -> None:
    times = draw(count, rate, burstiness, seed)
    assert times.shape == (count,)
    assert times[0] >= 0
    assert np.all(np.diff(times) >= 0)
    assert times[-1] == pytest.approx(count / rate)
    assert np.array_equal(times, draw(count, rate, burstiness, seed))


def test_at_once() -> None:
    assert not draw(5, math.inf, 1.0).any()


def test_no_burstiness_at_all_is_a_beat() -> None:
    assert draw(4, 2.0, math.inf) == pytest.approx([0.5, 1.0, 1.5, 2.0])


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_intervals_vary_as_a_gamma_distribution(burstiness: float) -> None:
    """Its squared coefficient of variation is 1 / shape."""
    intervals = np.diff(draw(50_000, 10.0, burstiness))
    assert intervals.mean() == pytest.approx(0.1, rel=0.01)
    assert intervals.var() / intervals.mean() ** 2 == pytest.approx(1 / burstiness, rel=0.05)


def test_burstiness_one_is_a_poisson_process() -> None:
    """Kolmogorov and Smirnov's distance from the exponential distribution, at the 1 % level."""
    intervals = np.sort(np.diff(draw(20_000, 5.0, 1.0)))
    shares = np.arange(1, len(intervals) + 1) / len(intervals)
    distance = np.abs(shares - (1 - np.exp(-5.0 * intervals))).max()
    assert distance < 1.63 / math.sqrt(len(intervals))
