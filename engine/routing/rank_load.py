"""What a data-parallel rank has to do, as far as whoever routes to it knows."""

from dataclasses import dataclass


@dataclass(slots=True)
class RankLoad:
    """One rank.

    Attributes:
        max_tokens: tokens that its latent pages hold.
        num_requests: sent there and not over.
        num_prompt_tokens: of those without a first token, the tokens that are not cached.
        num_latent_tokens: that their pages hold, or will when their prompts are computed.
        is_alive: whether it takes requests.
    """

    max_tokens: int
    num_requests: int = 0
    num_prompt_tokens: int = 0
    num_latent_tokens: int = 0
    is_alive: bool = True


@dataclass(slots=True, frozen=True)
class Candidate:
    """A living rank for a request.

    Attributes:
        num_hit_tokens: of its prompt, in the rank's prefix cache.
        has_session: whether the request's session was there last.
    """

    rank: int
    load: RankLoad
    num_hit_tokens: int
    has_session: bool
