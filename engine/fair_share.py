"""Equal shares between tenants: the virtual token counter (Sheng et al., 2024, section 4)."""

from collections import Counter, OrderedDict

PROMPT_WEIGHT = 1
OUTPUT_WEIGHT = 2  # an output token costs a step; a prompt token shares one
_MAX_REMEMBERED = 4096  # tenants without requests whose counters are kept


class FairShare:
    """Counts the service that each tenant has had; the one with the least is served next.

    A tenant that comes back from idleness starts at least where the least served active one stands,
    so that nobody saves up service by waiting.
    """

    def __init__(self) -> None:
        self._served: OrderedDict[str, float] = OrderedDict()
        self._num_requests: Counter[str] = Counter()

    def arrive(self, tenant: str) -> None:
        """A request of this tenant has come."""
        if self._num_requests[tenant] == 0:
            least = min(
                (
                    self._served[other]
                    for other in self._num_requests
                    if other != tenant and self._num_requests[other]
                ),
                default=0.0,
            )
            self._served[tenant] = max(self._served.get(tenant, 0.0), least)
        self._num_requests[tenant] += 1

    def leave(self, tenant: str) -> None:
        """A request of this tenant has ended."""
        self._num_requests[tenant] -= 1
        if self._num_requests[tenant] == 0:
            del self._num_requests[tenant]
            self._served.move_to_end(tenant)
            while len(self._served) > len(self._num_requests) + _MAX_REMEMBERED:
                self._forget_oldest()

    def charge(
        self, tenant: str, *, num_prompt_tokens: int = 0, num_output_tokens: int = 0
    ) -> None:
        """A request of this tenant was served."""
        cost = PROMPT_WEIGHT * num_prompt_tokens + OUTPUT_WEIGHT * num_output_tokens
        self._served[tenant] = self._served.get(tenant, 0.0) + cost

    def served(self, tenant: str) -> float:
        """Weighted tokens that the tenant has had."""
        return self._served.get(tenant, 0.0)

    def _forget_oldest(self) -> None:
        for tenant in self._served:
            if tenant not in self._num_requests:
                del self._served[tenant]
                return
