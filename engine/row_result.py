"""From what a row produced to what the user is told."""

from leadline.engine.request import FinishReason, RequestOutput
from leadline.engine.request_state import RequestState
from leadline.engine.step import RowOutput, ScheduledRow


def take_result(
    state: RequestState, row: ScheduledRow, result: RowOutput, *, now_s: float
) -> RequestOutput | None:
    """Advance a request by a row that succeeded; None if it has produced no tokens.

    The executor cuts a row's tokens at the one that ends the request.
    """
    if result.prompt_logprobs:
        state.prompt_logprobs += result.prompt_logprobs
    num_computed = state.num_computed_tokens + row.num_tokens
    if not row.samples:
        assert not result.token_ids, "a row that does not sample has no tokens"
        state.num_computed_tokens = num_computed
        return None
    num_new = len(result.token_ids)
    assert 0 < num_new <= result.num_accepted + 1, "tokens that are neither drafts nor a sample"
    assert result.num_accepted <= result.num_verified, "more accepted than verified"
    if result.num_verified:
        state.speculation.count(result.num_verified, result.num_accepted)
    state.num_held_drafts = result.num_drafts
    state.token_ids += result.token_ids
    state.num_computed_tokens = num_computed + num_new - 1
    output = RequestOutput(
        request_id=state.request_id,
        token_ids=result.token_ids,
        finish_reason=_reason(state),
        num_cached_tokens=state.num_cached_tokens or 0,
        logprobs=result.logprobs,
        num_verified=result.num_verified,
        num_accepted=result.num_accepted,
    )
    state.is_suspect = False
    is_first = state.num_output_tokens == num_new
    if is_first:
        state.first_token_s = now_s
    if is_first or output.finish_reason is not None:
        output.timing = state.timing(now_s)
    if is_first and state.request.params.num_prompt_logprobs is not None:
        output.prompt_logprobs, state.prompt_logprobs = state.prompt_logprobs, []
    if output.finish_reason is FinishReason.STOP:
        output.stop_token_id = state.token_ids[-1]
    if output.finish_reason is not None:
        output.speculation = state.speculation
    return output


def final_output(
    state: RequestState, reason: FinishReason, error: str | None = None, *, now_s: float
) -> RequestOutput:
    """The last output of a request that ends without new tokens."""
    return RequestOutput(
        request_id=state.request_id,
        token_ids=[],
        finish_reason=reason,
        num_cached_tokens=state.num_cached_tokens or 0,
        error=error,
        speculation=state.speculation,
        timing=state.timing(now_s),
    )


def _reason(state: RequestState) -> FinishReason | None:
    assert state.num_output_tokens <= state.max_tokens, "more tokens than were asked for"
    if state.request.params.ends_text(state.token_ids[-1]):
        return FinishReason.STOP
    return FinishReason.LENGTH if state.num_output_tokens == state.max_tokens else None
