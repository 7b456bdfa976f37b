"""How the ranks of a unit are numbered, and which sizes a model can be cut into."""

from typing import Protocol

import msgspec

from leadline.engine.errors import ConfigError


class CutSizes(Protocol):
    """What is cut of a checkpoint's config (`loader.model_config.ModelConfig`)."""

    @property
    def num_attention_heads(self) -> int:
        """Heads of the queries."""
        ...

    @property
    def vocab_size(self) -> int:
        """Rows of embedding and head."""
        ...

    @property
    def intermediate_size(self) -> int:
        """Width of the dense MLPs."""
        ...

    @property
    def moe_intermediate_size(self) -> int:
        """Width of an expert."""
        ...

    @property
    def n_shared_experts(self) -> int:
        """Shared experts of a layer."""
        ...

    @property
    def n_routed_experts(self) -> int:
        """Routed experts of a layer; 0 for a model without any."""
        ...


class ParallelLayout(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of a unit's groups, with vLLM's meaning.

    Rank r has index r % tp_size in its tensor parallel group, which is number r // tp_size of the
    data parallel ones. Expert parallel ranks are all ranks of the unit.

    Attributes:
        tp_size: ranks that share attention heads, dense MLPs and the vocabulary.
        dp_size: groups with requests and a cache of their own.
        expert_parallel: experts lie whole on one rank; else every rank has a slice of each.
    """

    tp_size: int = 1
    dp_size: int = 1
    expert_parallel: bool = False

    @property
    def num_ranks(self) -> int:
        """Processes of the unit."""
        return self.tp_size * self.dp_size

    def tp_rank(self, rank: int) -> int:
        """The rank's index among those that share its requests."""
        return rank % self.tp_size

    def dp_rank(self, rank: int) -> int:
        """Which requests the rank has."""
        return rank // self.tp_size

    def tp_groups(self) -> list[list[int]]:
        """Ranks that share requests."""
        return [
            list(range(first, first + self.tp_size))
            for first in range(0, self.num_ranks, self.tp_size)
        ]

    def dp_groups(self) -> list[list[int]]:
        """Ranks with the same slices, each with other requests."""
        return [list(range(tp, self.num_ranks, self.tp_size)) for tp in range(self.tp_size)]

    def check(self, model: CutSizes) -> None:
        """Refuse cuts that the model's sizes do not allow, before anything is read.

        Raises:
            ConfigError: with all sizes that do not fit.
        """
        tp, problems = self.tp_size, []
        cuts = [
            ("num_attention_heads", model.num_attention_heads),
            ("vocab_size", model.vocab_size),
            ("intermediate_size", model.intermediate_size),
            (
                "moe_intermediate_size x n_shared_experts",
                model.moe_intermediate_size * model.n_shared_experts,
            ),
        ]
        wrong = [f"{name} = {size}" for name, size in cuts if size % tp]
        if wrong:
            problems.append(
                f"tensor_parallel_size is {tp}, which does not divide {', '.join(wrong)}"
            )
        num_experts, num_ranks = model.n_routed_experts, self.num_ranks
        if self.expert_parallel and num_experts == 0:
            problems.append(
                "enable_expert_parallel has no effect on a model without experts; leave it out"
            )
        elif self.expert_parallel and -(-num_experts // num_ranks) * (num_ranks - 1) >= num_experts:
            problems.append(
                f"n_routed_experts = {num_experts} cannot be spread over tensor_parallel_size x "
                f"data_parallel_size = {num_ranks} ranks: one would have none"
            )
        elif not self.expert_parallel and num_experts and model.moe_intermediate_size % num_ranks:
            problems.append(
                f"tensor_parallel_size x data_parallel_size is {num_ranks}, which does not divide "
                f"moe_intermediate_size = {model.moe_intermediate_size}; add "
                "enable_expert_parallel, which places experts whole"
            )
        if problems:
            raise ConfigError("; ".join(problems))
