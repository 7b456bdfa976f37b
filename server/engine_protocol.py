"""What the server asks of the engine: no more than this."""

from collections.abc import AsyncGenerator
from typing import Protocol

from leadline.engine.delivery import Push
from leadline.engine.engine_control import EngineControl
from leadline.engine.messages import EngineStats
from leadline.engine.progress import Progress
from leadline.engine.request import EngineRequest, FinishReason, RequestOutput
from leadline.engine.survey import EngineSurvey


class Engine(Protocol):
    """A running engine (`leadline.engine.client.EngineClient`)."""

    @property
    def stats(self) -> EngineStats:
        """Gauges and counters as of the engine's last message."""
        ...

    @property
    def alive(self) -> bool:
        """Whether requests can be served."""
        ...

    @property
    def is_restarting(self) -> bool:
        """Whether the engine has died and is being started again."""
        ...

    @property
    def progress(self) -> Progress:
        """Whether the engine gets on with its work."""
        ...

    @property
    def control(self) -> EngineControl:
        """An operator's hold on the engine."""
        ...

    def generate(
        self, request: EngineRequest, push: Push | None = None
    ) -> AsyncGenerator[RequestOutput, None]:
        """Yield a request's outputs, the last with a finish reason; closing it early aborts.

        `push` may be offered outputs first while the reader waits, and may take them.

        Raises:
            RequestError: at the first step, if the engine refuses the request.
            EngineDeadError: at the first step, if the engine has ended before.
        """
        ...

    def finish(self, request_id: str, reason: FinishReason) -> None:
        """End a request, for example at a stop string."""
        ...

    async def reset_prefix_cache(self) -> int:
        """Forget all cached pages; returns how many there were.

        Raises:
            EngineDeadError: the engine has ended.
        """
        ...

    async def survey(self) -> EngineSurvey:
        """How pages, queue and experts stand.

        Raises:
            EngineDeadError: the engine has ended.
        """
        ...
