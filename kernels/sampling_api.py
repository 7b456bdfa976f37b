"""The contracts of what makes tokens of logits; `api` has those of all other operations.

B rows of the batch, V tokens of the vocabulary, S of its shards, N drafts.
"""

from typing import Protocol

from torch import Tensor

from leadline.kernels.sampling import SamplingBatch


class ProcessLogits(Protocol):
    """Logits as tokens are sampled from them; what cannot be sampled is at -inf.

    In this order: tokens that are not allowed or are banned go to -inf; bias is added; then the
    repetition penalty, frequency and presence penalties; the temperature divides (0 counts as 1);
    min-p, top-k and top-p cut. Top-k keeps every token that ties with the k-th. Of a row with a
    forced token, that one is at 0 and all others are at -inf, whatever else is asked for.
    """

    def __call__(self, logits_BV: Tensor, batch: SamplingBatch) -> Tensor:
        """Float32 in and out; the argument is left as it is."""
        ...


class Sample(Protocol):
    """One token for each row: Gumbel-max over the processed logits.

    The noise is `sampling.gumbel_noise(seed, position, token id)`; at temperature 0 there is none,
    and nothing is cut. A forced token is sampled whatever the logits are. Ties: the lowest id wins.
    """

    def __call__(self, logits_BV: Tensor, batch: SamplingBatch) -> Tensor:
        """Logits float32, left as they are.

        Returns int64 [B]; `sampling.NAN_LOGITS` for a row whose logits hold a NaN, else
        `sampling.NO_TOKEN` for one that allows no token.
        """
        ...


class SampleShard(Protocol):
    """The best token of one shard of the vocabulary, for rows that have no rules and no cuts.

    Noise and ties as in `Sample`, over the ids that the tokens have in the whole vocabulary.
    """

    def __call__(
        self, logits_BV: Tensor, batch: SamplingBatch, first_id: int
    ) -> tuple[Tensor, Tensor]:
        """Logits float32 of the tokens from `first_id` on, a multiple of 4.

        Returns the best token's logit over temperature plus noise, float32 [B], NaN where the
        shard has one; and its id, int64 [B].
        """
        ...


class MergeShards(Protocol):
    """The token of each row from the results of all shards: what `Sample` takes of the whole."""

    def __call__(self, values_SB: Tensor, ids_SB: Tensor) -> Tensor:
        """Shards in the order of their ids. Returns int64 [B], `NAN_LOGITS` as in `Sample`."""
        ...


class CountAccepted(Protocol):
    """How many drafts of each request are accepted: those before the first that is not sampled."""

    def __call__(self, drafts_BN: Tensor, sampled_BN: Tensor, num_drafts_B: Tensor) -> Tensor:
        """`sampled[b, i]`: the target's token at the position of `drafts[b, i]`; all int64.

        Drafts from `num_drafts[b]` on are padding. Returns int64 [B].
        """
        ...


class TokenLogprobs(Protocol):
    """Log-probabilities (natural logarithm) of one token a row, and of the most likely ones."""

    def __call__(
        self, logits_BV: Tensor, ids_B: Tensor, num_top: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits float32, ids int64.

        Returns the token's own log-probability, float32 [B]; its rank, int64 [B]: one more than
        there are more likely tokens; ids, int64, and log-probabilities of the `num_top` most likely
        tokens [B, num_top], the most likely first, of equals the lowest id. Nothing is said of a
        row that holds a NaN, but that its ids exist.
        """
        ...
