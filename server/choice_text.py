"""One choice's tokens to its text, cut where the text ends."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from leadline.engine.request import FinishReason, RequestOutput
from leadline.server.detokenizer import Detokenizer
from leadline.server.stop_strings import StopStringMatcher


@dataclass(slots=True)
class Delta:
    """New text of one choice.

    Attributes:
        finish_reason: None until the last delta of the choice.
        num_tokens: tokens of the choice so far, all that count.
        num_cached_tokens: prompt tokens that were taken from the prefix cache.
    """

    index: int
    text: str
    finish_reason: FinishReason | None
    num_tokens: int
    num_cached_tokens: int


class ChoiceText:
    """Follows one choice; text and token count are cut at the token that completes the match."""

    def __init__(
        self, index: int, token_bytes: Callable[[int], bytes], stop_strings: Sequence[str]
    ) -> None:
        """Arguments: see `Delta`, `Detokenizer` and `StopStringMatcher`."""
        self._index = index
        self._detokenizer = Detokenizer(token_bytes)
        self._matcher = StopStringMatcher(stop_strings)
        self._num_tokens = 0

    def push(self, output: RequestOutput) -> Delta:
        """The text that an output adds.

        The delta finishes with `stop` before the output does where a stop string is complete; the
        engine is to be told, and nothing may be pushed afterwards.
        """
        pieces = []
        finish_reason = output.finish_reason
        token_ids = output.token_ids
        # The token that ends the text counts, and is no part of it.
        num_shown = len(token_ids) - (output.stop_token_id is not None)
        for place, token_id in enumerate(token_ids):
            self._num_tokens += 1
            if place < num_shown:
                pieces.append(self._matcher.push(self._detokenizer.push(token_id)))
                if self._matcher.matched is not None:
                    finish_reason = FinishReason.STOP
                    break
        if finish_reason is not None and self._matcher.matched is None:
            pieces.append(self._matcher.push(self._detokenizer.flush()))
            if self._matcher.matched is not None:
                finish_reason = FinishReason.STOP
            pieces.append(self._matcher.flush())
        return Delta(
            index=self._index,
            text="".join(pieces),
            finish_reason=finish_reason,
            num_tokens=self._num_tokens,
            num_cached_tokens=output.num_cached_tokens,
        )
