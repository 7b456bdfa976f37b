"""How pages, queue, steps and experts stand: what is told to those who look, and only then."""

import msgspec


class ExpertLoad(msgspec.Struct, frozen=True, array_like=True):
    """How often each routed expert of a layer was chosen.

    Attributes:
        layer: the layer's number; that of the MTP layer is the first after the main ones.
        is_mtp: whether it is the MTP layer.
        counts: (token, expert) pairs since start, by expert.
    """

    layer: int
    is_mtp: bool
    counts: list[int]


class EngineSurvey(msgspec.Struct, tag="engine_survey", kw_only=True):
    """Engine -> client: the answer to `TakeSurvey`.

    Attributes:
        page_size: tokens a page.
        pages: one byte a page (`PagePool.states`).
        num_waiting_tokens: known tokens of the requests that wait.
        oldest_waiting_s: for how long the request that arrived first among them has waited.
        draft_depth: most drafts a row of the last step planned; None without speculation.
        expert_load: of every layer that has routed experts; empty if the executor has no model.
    """

    page_size: int
    pages: bytes
    num_waiting_tokens: int
    oldest_waiting_s: float
    draft_depth: int | None
    expert_load: list[ExpertLoad] = msgspec.field(default_factory=list)
