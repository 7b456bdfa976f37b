"""Chat templates rendered in processes that can be killed: jinja cannot be interrupted.

A template computes with what messages say, and one short expression can hold the interpreter for
minutes; no thread and no signal gets it back.
"""

import msgspec

from leadline.engine.child_pool import MAX_START_S, Child, ChildPool, PoolBusyError
from leadline.loader.chat_template import ChatTemplate
from leadline.loader.errors import TemplateError
from leadline.server.errors import UnavailableError
from leadline.server.template_messages import Launch, Rendered, Rendering

NUM_CHILDREN = 2
CPU_MARGIN_S = 1.0
"""A child's own limit is for where nobody is left to kill it."""
MAX_ANSWER_BYTES = 2**30
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Rendered).decode


class TemplateTimeoutError(TemplateError):
    """The template did not come to an end in time, and its process was killed."""


class TemplateProcess:
    """Renders one chat template; for use within one event loop."""

    def __init__(self, template: ChatTemplate, *, timeout_s: float, memory_bytes: int) -> None:
        """Nothing is started yet.

        Args:
            template: what to render.
            timeout_s: that one rendering may take.
            memory_bytes: the same.
        """
        self._timeout_s = timeout_s
        launch = Launch(
            sources=template.sources,
            variables=template.variables,
            memory_bytes=memory_bytes,
            cpu_s=timeout_s + CPU_MARGIN_S,
        )
        self._launch = _encode(launch)
        self._pool = ChildPool(
            "leadline.server.template_child",
            NUM_CHILDREN,
            self._begin,
            line_bytes=MAX_ANSWER_BYTES,
            is_silent=True,
        )
        self._problem: TemplateError | None = None

    @property
    def process_ids(self) -> list[int]:
        """Of the processes that run."""
        return self._pool.process_ids

    def start(self) -> None:
        """Start the processes ahead of the first request; does not wait until they are ready."""
        self._pool.start()

    async def check(self) -> None:
        """Start the processes, and wait until they have compiled the template.

        Raises:
            TemplateError: it is no valid jinja, or compiling it takes too long.
        """
        self._pool.start()
        await self._pool.wait_until_started()
        if self._problem is not None:
            raise self._problem

    async def render(self, job: Rendering) -> str:
        """The prompt's text.

        Raises:
            TemplateError: the template refuses the messages, fails on them, or takes too long.
            UnavailableError: no process is free in time, or none can be started.
        """
        wait_s = MAX_START_S + NUM_CHILDREN * self._timeout_s
        try:
            answer = await self._pool.ask(_encode(job), self._timeout_s, wait_s=wait_s)
        except TimeoutError:
            raise TemplateTimeoutError(
                f"the chat template did not come to an end within {self._timeout_s:g} s on "
                "these messages, and was stopped (--limit template_s)"
            ) from None
        except PoolBusyError:
            raise _unavailable("too many chat templates are being rendered") from None
        except EOFError:
            raise _unavailable("the processes that render chat templates keep ending") from None
        rendered = _decode(answer)
        if rendered.error is not None:
            raise TemplateError(rendered.error)
        return rendered.text

    async def close(self) -> None:
        """End the processes."""
        await self._pool.close()

    async def _begin(self, child: Child) -> None:
        await child.exchange(self._launch, MAX_START_S)
        try:
            compiled = _decode(await child.exchange(b"", self._timeout_s))
        except TimeoutError:
            self._problem = TemplateTimeoutError(
                f"the chat template cannot be compiled within {self._timeout_s:g} s "
                "(--limit template_s)"
            )
            raise
        if compiled.error is not None:
            self._problem = TemplateError(compiled.error)


def _unavailable(what: str) -> UnavailableError:
    return UnavailableError(f"{what}; try again later", code="template_unavailable")
