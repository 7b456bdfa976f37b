"""When requests are sent: at once, or as a Poisson or gamma process."""

import math

import numpy as np
from numpy.typing import NDArray


def arrival_times_s(
    num_requests: int, rate: float, burstiness: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Seconds from the start to each request, in order.

    Intervals follow a gamma distribution of shape `burstiness` (1: a Poisson process; infinite:
    all the same) and are scaled so that the last request is sent at `num_requests / rate`.

    Args:
        num_requests: at least one.
        rate: requests a second; infinite for all at once.
        burstiness: below 1 for bursts, above for regularity.
        rng: draws the intervals.
    """
    if math.isinf(rate):
        return np.zeros(num_requests)
    if math.isinf(burstiness):
        intervals = np.full(num_requests, 1 / rate)
    else:
        intervals = rng.gamma(burstiness, 1 / (rate * burstiness), num_requests)
    times = np.cumsum(intervals)
    if times[-1] > 0:  # a tiny shape draws zeros
        times *= num_requests / rate / times[-1]
    return times
