"""What a user asks of the engine and what comes back: plain data that crosses processes."""

import enum

import msgspec

MAX_SEED = 2**64 - 1
ABORTED_BY_OPERATOR = "the request was aborted by the operator of this server"


class FinishReason(enum.StrEnum):
    """Why a request ended. Every accepted request ends with exactly one of these."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    ABORT = "abort"
    ERROR = "error"


class GrammarKind(enum.StrEnum):
    """How the text of a grammar is to be read."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    LARK = "lark"


class Grammar(msgspec.Struct, frozen=True):
    """What the output must match; compiled by `leadline.engine.grammar`.

    Attributes:
        text: the schema as JSON, a regular expression, or a grammar in llguidance's Lark or GBNF.
    """

    kind: GrammarKind
    text: str


class ThinkingLimit(msgspec.Struct, frozen=True, kw_only=True):
    """Where thinking ends: at the latest after `budget` tokens, `end_id` is the only token allowed.

    Attributes:
        begin_id: the token that begins thinking (`<think>`); it may be the prompt's.
        end_id: the token that ends it.
        budget: most tokens between the two; None for as many as the model likes.
    """

    begin_id: int
    end_id: int
    budget: int | None = None


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens are chosen and when to stop; validated by whoever accepts the request.

    The order in which logits are processed, at every position: grammar and `allowed_token_ids`,
    `bad_words_ids` and `min_tokens`, `logit_bias`, repetition penalty, frequency and presence
    penalties, temperature, `min_p`, `top_k`, `top_p`.

    Attributes:
        seed: choice seed, 0..2**64-1; the noise of a sample depends on it, the position and the
            token id alone.
        max_tokens: most tokens to generate, at least 1.
        min_tokens: before this many, no token that ends the text is sampled (unless the grammar
            allows no other).
        temperature: 0 is greedy, else logits are divided by it.
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the smallest set of tokens whose probability reaches this; in (0, 1].
        min_p: drop tokens less likely than this share of the likeliest; in [0, 1].
        frequency_penalty: subtracted for each time that a token is in the output; in [-2, 2].
        presence_penalty: subtracted if a token is in the output; in [-2, 2].
        repetition_penalty: logits of tokens in prompt or output are divided by it if positive,
            else multiplied; above 0, 1 for none.
        logit_bias: (token id, value) pairs added to the logits.
        bad_words_ids: token sequences that the output must not hold.
        allowed_token_ids: the only tokens that may be sampled; None for all. End tokens are no
            exception.
        stop_token_ids: ids that end the text (kept in `token_ids`, absent from the text).
        eos_token_ids: the model's own end tokens.
        ignore_eos: do not stop at `eos_token_ids`.
        num_logprobs: log-probabilities of so many most likely tokens with each output token, beside
            its own; None for none at all.
        num_prompt_logprobs: the same for each prompt token but the first.
        grammar: what the output must match; while the model thinks, nothing is asked of it.
        thinking: how thinking is marked, and its limit; None if the model does not think.
        speculative_tokens: most drafts a step; None leaves it to the engine, 0 drafts nothing.
    """

    seed: int
    max_tokens: int
    min_tokens: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    allowed_token_ids: tuple[int, ...] | None = None
    stop_token_ids: tuple[int, ...] = ()
    eos_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    num_logprobs: int | None = None
    num_prompt_logprobs: int | None = None
    grammar: Grammar | None = None
    thinking: ThinkingLimit | None = None
    speculative_tokens: int | None = None

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end the text."""
        return self.stop_token_ids + (() if self.ignore_eos else self.eos_token_ids)

    def ends_text(self, token_id: int) -> bool:
        """Whether this token ends the text."""
        if token_id in self.stop_token_ids:
            return True
        return not self.ignore_eos and token_id in self.eos_token_ids


class SpeculationCounts(msgspec.Struct, kw_only=True):
    """What drafts did for one request.

    Attributes:
        num_steps: steps that verified at least one draft.
        num_tried_per_pos: verified drafts at each position of a chain, those before it accepted.
        num_accepted_per_pos: how many of them were accepted.
        num_accepted_per_step: how often a step accepted 0, 1, ... drafts.
    """

    num_steps: int = 0
    num_draft_tokens: int = 0
    num_tried_per_pos: list[int] = msgspec.field(default_factory=list)
    num_accepted_per_pos: list[int] = msgspec.field(default_factory=list)
    num_accepted_per_step: list[int] = msgspec.field(default_factory=list)

    def count(self, num_verified: int, num_accepted: int) -> None:
        """Take in a step that verified at least one draft."""
        self.num_steps += 1
        self.num_draft_tokens += num_verified
        for position in range(min(num_accepted + 1, num_verified)):
            _add_at(self.num_tried_per_pos, position, 1)
            _add_at(self.num_accepted_per_pos, position, int(position < num_accepted))
        _add_at(self.num_accepted_per_step, num_accepted, 1)


def _add_at(counts: list[int], index: int, amount: int) -> None:
    counts.extend([0] * (index + 1 - len(counts)))
    counts[index] += amount


class Resumption(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request goes on that another engine process had begun.

    Attributes:
        token_ids: output tokens that have been told.
        num_cached_tokens: prompt tokens found in the first process's prefix cache.
        speculation: what drafts did until then.
        is_suspect: the process died while it computed this request: it is tried alone, until it has
            a new token.
    """

    token_ids: list[int]
    num_cached_tokens: int
    speculation: SpeculationCounts
    is_suspect: bool = False


class RequestTiming(msgspec.Struct, kw_only=True):
    """How long a request was where, in seconds by the engine's clock.

    Attributes:
        queue_s: from its arrival in the engine until it first got pages.
        prefill_s: from then to its first token; 0 before that.
        decode_s: from its first token to its last one so far.
        num_preemptions: how often it lost its pages.
        num_host_tokens: prompt tokens that were taken from the host tier.
    """

    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    num_preemptions: int = 0
    num_host_tokens: int = 0


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One choice of one user request, as it enters the engine.

    Attributes:
        request_id: unique among live requests.
        prompt_ids: at least one token id.
        arrival_s: when the server accepted it, by `time.monotonic`, a clock of the whole machine.
        cache_salt: cached pages are shared only between requests of equal salt.
        priority: lower is earlier.
        tenant: whose request it is; tenants of equal priority get equal shares of the engine.
        session_id: requests of one session are computed where its earlier ones were, if that costs
            no more than it saves; empty for none.
        deadline_s: by the same clock, when the request is ended with `abort`; None for never.
        leader_id: a request of the same prompt, submitted before, which computes the prompt; this
            one waits for it and shares its full pages. None for no such request.
        resumption: where it goes on, if an engine that died had begun it.
        names: under which operators know the API request that it is part of.
    """

    request_id: str
    prompt_ids: list[int]
    params: SamplingParams
    arrival_s: float = 0.0
    cache_salt: str = ""
    priority: int = 0
    tenant: str = ""
    session_id: str = ""
    deadline_s: float | None = None
    leader_id: str | None = None
    resumption: Resumption | None = None
    names: tuple[str, ...] = ()


class TokenLogprobs(msgspec.Struct, array_like=True):
    """Log-probabilities (natural logarithm) at one position.

    Attributes:
        logprob: of the token itself.
        rank: of the token itself, 1 for the most likely.
        top_ids: the most likely tokens, the most likely first; as many as were asked for.
        top_logprobs: of `top_ids`.
    """

    token_id: int
    logprob: float
    rank: int
    top_ids: list[int]
    top_logprobs: list[float]


class RequestOutput(msgspec.Struct, kw_only=True, array_like=True, gc=False):
    """New tokens of one request; the last one carries the finish reason.

    Attributes:
        token_ids: tokens since the previous output (an end token is included).
        finish_reason: None until the last output.
        stop_token_id: the token that ended the text, where one did.
        num_cached_tokens: prompt tokens that were taken from the prefix cache.
        timing: with the first tokens, and with the finish reason.
        error: a sentence for the user, when `finish_reason` is `error`, or `abort` for a deadline
            or an operator.
        logprobs: one for each of `token_ids`, if they were asked for.
        prompt_logprobs: one for each prompt token but the first, once, with the first tokens, if
            they were asked for.
        speculation: with the finish reason, where the engine speculates.
        num_verified: drafts that were verified for `token_ids`; `num_accepted` of them were right,
            which are the first of `token_ids` (all, where the text ended within them).
        is_lost: the engine has ended before the request did.
    """

    request_id: str
    token_ids: list[int]
    finish_reason: FinishReason | None = None
    stop_token_id: int | None = None
    num_cached_tokens: int = 0
    error: str | None = None
    logprobs: list[TokenLogprobs] | None = None
    prompt_logprobs: list[TokenLogprobs] | None = None
    speculation: SpeculationCounts | None = None
    timing: RequestTiming | None = None
    num_verified: int = 0
    num_accepted: int = 0
    is_lost: bool = False
