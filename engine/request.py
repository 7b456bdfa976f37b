"""What a user asks of the engine and what comes back: plain data that crosses processes."""

import enum

import msgspec

MAX_SEED = 2**64 - 1


class FinishReason(enum.StrEnum):
    """Why a request ended. Every accepted request ends with exactly one of these."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    ABORT = "abort"
    ERROR = "error"


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens are chosen and when to stop; validated by whoever accepts the request.

    Attributes:
        seed: choice seed, 0..2**64-1; the noise of a sample depends on it, the position and the
            token id alone.
        max_tokens: most tokens to generate, at least 1.
        temperature: 0 is greedy, else logits are divided by it.
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the smallest set of tokens whose probability reaches this; in (0, 1].
        min_p: drop tokens less likely than this share of the likeliest; in [0, 1].
        stop_token_ids: ids that end the text (kept in `token_ids`, absent from the text).
        eos_token_ids: the model's own end tokens.
        ignore_eos: do not stop at `eos_token_ids`.
        speculative_tokens: most drafts a step; None leaves it to the engine, 0 drafts nothing.
    """

    seed: int
    max_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    stop_token_ids: tuple[int, ...] = ()
    eos_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    speculative_tokens: int | None = None

    def ends_text(self, token_id: int) -> bool:
        """Whether this token ends the text."""
        if token_id in self.stop_token_ids:
            return True
        return not self.ignore_eos and token_id in self.eos_token_ids


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One choice of one user request, as it enters the engine.

    Attributes:
        request_id: unique among live requests.
        prompt_ids: at least one token id.
        arrival_s: wall-clock seconds since the epoch, when the server accepted it.
        cache_salt: cached pages are shared only between requests of equal salt.
    """

    request_id: str
    prompt_ids: list[int]
    params: SamplingParams
    arrival_s: float = 0.0
    cache_salt: str = ""


class RequestOutput(msgspec.Struct, kw_only=True):
    """New tokens of one request; the last one carries the finish reason.

    Attributes:
        token_ids: tokens since the previous output (an end token is included).
        finish_reason: None until the last output.
        stop_token_id: the token that ended the text, where one did.
        num_cached_tokens: prompt tokens that were taken from the prefix cache.
        error: a sentence for the user, when `finish_reason` is `error`.
    """

    request_id: str
    token_ids: list[int]
    finish_reason: FinishReason | None = None
    stop_token_id: int | None = None
    num_cached_tokens: int = 0
    error: str | None = None
