"""How long a unit's steps take: a roofline of each part, and what published units reach of it.

A rank's step over T tokens, layer by layer (DeepSeek-V3 on the H800 in brackets):

- attention over the context: 2 H (2 C + R) FLOP a token and context token [278,528], or the bytes
  of the latents; expanded, for prompts: 2 H (N + R + V);
- projections, shared experts: FLOP, or their bytes: below 340 tokens each micro-batch pays bytes;
- routed experts: top-k x T rows a rank, and the bytes of those experts that any token has chosen;
- dispatch and combine: top-k copies of a token, FP8 there and BF16 back, over the network for few
  tokens; for many, one copy for each node that a token visits, over InfiniBand, then NVLink.

Two micro-batches overlap: a layer takes the longer of computing and communicating. What units
reach of it is in `Calibration`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from leadline.engine.planning.gpus import Gpu
from leadline.engine.planning.host import Host
from leadline.engine.planning.layout import Layout
from leadline.engine.planning.step_load import StepLoad, load_of
from leadline.engine.planning.weight_bytes import WeightBytes, WeightFormat
from leadline.loader.model_config import ModelConfig

_BANDWIDTH_SHARE = 0.8  # of weights that stream through products
_CACHE_BANDWIDTH_SHARE = 0.9  # of latents that stream through attention
_EXPANDED_SHARE = 0.9  # of the attention rate, where keys and values are expanded
_SMALL_OPERATIONS_S = 25e-6  # norms, rotary embedding, router, quantisation: a layer and batch
_SMALL_BYTES_PER_HIDDEN = 24  # what these move for each hidden value of a token
_DISPATCH_SCALE_BYTES = 16  # of a row's routing data
_BULK_SM_SHARE = 24 / 132  # what the dispatch of many tokens takes of the processors
_MIN_OVERLAP_TOKENS = 64  # of a micro-batch that is worth its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What units reach of their roofline; fitted to published ones (docs/planning.md).

    Attributes:
        decode: share of the roofline that steps of few tokens a row reach, with balanced experts.
        prefill: the same for prompts.
        balance: mean over maximum of the ranks' load, for those that wait for each other with
            experts or requests of their own.
        tp_layer_s: launches, small operations and all-reduces of a layer under tensor parallelism.
    """

    decode: float = 0.63
    prefill: float = 0.70
    balance: float = 0.85
    tp_layer_s: float = 70e-6


@dataclass(slots=True)
class LayerTimes:
    """Roofline seconds of an MoE layer, one micro-batch."""

    attention_s: float
    projections_s: float
    shared_s: float
    experts_s: float
    small_s: float
    dispatch_s: float
    combine_s: float

    @property
    def compute_s(self) -> float:
        """What keeps the processors busy."""
        return self.attention_s + self.projections_s + self.shared_s + self.experts_s + self.small_s

    @property
    def communication_s(self) -> float:
        """What keeps the links busy."""
        return self.dispatch_s + self.combine_s


class UnitTimes:
    """Step times of a model on a unit of GPUs."""

    def __init__(
        self,
        model: ModelConfig,
        gpu: Gpu,
        layout: Layout,
        *,
        held: WeightFormat | None = None,
        cache_bytes: float = 1152,
        calibration: Calibration | None = None,
        overlaps: bool = True,
        host: Host | None = None,
        num_resident: int = 0,
    ) -> None:
        """The unit.

        Args:
            model: its config.
            gpu: what each rank has.
            layout: how the ranks share the model.
            held: how weights are held; FP8 as stored, else BF16, if None.
            cache_bytes: of a token's latent in one layer.
            calibration: what is reached of the roofline.
            overlaps: whether two micro-batches overlap where that is faster.
            host: computes the routed experts from its memory; None: the GPU does.
            num_resident: experts of each layer that the GPU computes beside the host.
        """
        self._model = model
        self._gpu = gpu
        self._layout = layout
        self._sizes = WeightBytes(model, layout, held or WeightFormat())
        self._cache_bytes = cache_bytes
        self._host = host
        self._num_resident = num_resident
        self._calibration = calibration or Calibration()
        self._overlaps = overlaps and layout.data_parallel_size > 1
        layers = range(model.num_hidden_layers)
        self._num_moe = sum(model.is_moe_layer(i) for i in layers)
        self._num_dense = model.num_hidden_layers - self._num_moe

    def step_s(
        self,
        rows: Iterable[tuple[int, int]],
        *,
        others: int | None = None,
        draft_passes: int = 0,
    ) -> float:
        """Expected seconds of a step; arguments as `load_of`'s."""
        load = load_of(rows, self._layout, others=others, draft_passes=draft_passes)
        return self.expected_s(load) if load.unit_tokens else 0.0

    def expected_s(self, load: StepLoad) -> float:
        """What a unit needs for a step: the roofline, by what units reach of it."""
        calibration = self._calibration
        is_prefill = load.expanded_pairs > load.absorbed_pairs
        share = calibration.prefill if is_prefill else calibration.decode
        if self._layout.data_parallel_size > 1 or self._layout.expert_parallel:
            share *= calibration.balance
        fixed_s = 0.0
        if self._layout.tensor_parallel_size > 1:
            fixed_s = calibration.tp_layer_s * (self._model.num_hidden_layers + load.draft_passes)
        return fixed_s + self.roofline_s(load) / share

    def roofline_s(self, load: StepLoad) -> float:
        """The least that a step can take, its drafts included."""
        dense_s = self._num_dense * self._dense_layer_s(load)
        draft_s = 0.0
        if load.draft_passes:
            one = load.one_token_each()
            draft_s = load.draft_passes * (self._moe_layer_s(one) + self._head_s(one))
        moe_s = self._num_moe * self._moe_layer_s(load)
        return dense_s + moe_s + self._head_s(load) + draft_s

    def _moe_layer_s(self, load: StepLoad) -> float:
        whole = self.layer(load)
        alone_s = whole.compute_s + whole.communication_s
        if not self._overlaps or load.tokens < 2 * _MIN_OVERLAP_TOKENS:
            return alone_s
        half = self.layer(load.half())
        return min(alone_s, 2 * max(half.compute_s, half.communication_s))

    def layer(self, load: StepLoad) -> LayerTimes:
        """An MoE layer (a dense one has no experts)."""
        model, gpu = self._model, self._gpu
        is_bulk = load.expanded_pairs > 0
        slowdown = 1.0
        if is_bulk and self._crosses_nodes:
            slowdown = 1 / (1 - _BULK_SM_SHARE)
        dispatch_s, combine_s = self._exchange_s(load, is_bulk=is_bulk)
        small_bytes = _SMALL_BYTES_PER_HIDDEN * model.hidden_size * load.tokens
        small_s = small_bytes / (_BANDWIDTH_SHARE * gpu.bandwidth)
        if self._layout.tensor_parallel_size == 1:
            small_s = max(_SMALL_OPERATIONS_S, small_s)
        return LayerTimes(
            attention_s=self._attention_s(load) * slowdown,
            projections_s=self._projections_s(load) * slowdown,
            shared_s=self._shared_s(load) * slowdown,
            experts_s=self._experts_s(load) * slowdown,
            small_s=small_s,
            dispatch_s=dispatch_s,
            combine_s=combine_s,
        )

    @property
    def _crosses_nodes(self) -> bool:
        layout = self._layout
        return layout.data_parallel_size > 1 and layout.num_nodes > 1

    def _dense_layer_s(self, load: StepLoad) -> float:
        layer = self.layer(load)
        mlp_s = self._product_s(self._sizes.mlp(self._model.intermediate_size), load.tokens)
        return layer.attention_s + layer.projections_s + layer.small_s + mlp_s

    def _attention_s(self, load: StepLoad) -> float:
        model, gpu = self._model, self._gpu
        heads = model.num_attention_heads / self._layout.tensor_parallel_size
        absorbed = 2 * heads * (2 * model.kv_lora_rank + model.qk_rope_head_dim)
        expanded = 2 * heads * (model.qk_head_dim + model.v_head_dim)
        read_s = load.context_tokens * self._cache_bytes / (_CACHE_BANDWIDTH_SHARE * gpu.bandwidth)
        absorbed_s = max(absorbed * load.absorbed_pairs / gpu.attention_flops, read_s)
        rate = _EXPANDED_SHARE * gpu.attention_flops
        return absorbed_s + expanded * load.expanded_pairs / rate

    def _projections_s(self, load: StepLoad) -> float:
        model, tp = self._model, self._layout.tensor_parallel_size
        heads = model.num_attention_heads // tp
        widened = 2 * heads * (model.qk_nope_head_dim + model.v_head_dim) * model.kv_lora_rank
        widened_s = max(
            widened * load.tokens / self._gpu.bf16_flops,
            widened / (_BANDWIDTH_SHARE * self._gpu.bandwidth),
        )
        return self._product_s(self._sizes.attention() - widened, load.tokens) + widened_s

    def _shared_s(self, load: StepLoad) -> float:
        """The shared experts; while the host computes the others, they cost nothing."""
        if self._host is not None:
            return 0.0
        return self._product_s(self._sizes.shared_experts(), load.tokens)

    def _experts_s(self, load: StepLoad) -> float:
        """The busiest rank's share of the routed experts, were all loaded alike."""
        model, layout = self._model, self._layout
        if not model.n_routed_experts:
            return 0.0
        if self._host is not None:
            return self._host.experts_s(
                model,
                tokens=load.unit_tokens,
                expert_bytes=self._sizes.expert(),
                num_resident=self._num_resident,
            )
        missed = (1 - model.num_experts_per_tok / model.n_routed_experts) ** load.unit_tokens
        read = self._sizes.routed_experts() * (1 - missed)
        params = 3 * model.hidden_size * model.moe_intermediate_size
        rows = model.num_experts_per_tok * load.unit_tokens / layout.num_ranks
        flops = 2 * params * rows
        return max(flops / self._flops, read / (_BANDWIDTH_SHARE * self._gpu.bandwidth))

    def _exchange_s(self, load: StepLoad, *, is_bulk: bool) -> tuple[float, float]:
        """Dispatch and combine; one group alone has every token on every rank."""
        model, layout = self._model, self._layout
        if layout.data_parallel_size == 1 or not model.n_routed_experts:
            return 0.0, 0.0
        there = model.hidden_size + model.hidden_size // 32 + _DISPATCH_SCALE_BYTES
        back = 2 * model.hidden_size
        copies, rate = self._copies(load, is_bulk=is_bulk), self._exchange_rate(is_bulk=is_bulk)
        return copies * there / rate, copies * back / rate

    def _copies(self, load: StepLoad, *, is_bulk: bool) -> float:
        """Rows that a rank sends, and gets back."""
        model, layout = self._model, self._layout
        if not layout.expert_parallel:  # every rank needs every token of the other groups
            return load.unit_tokens * (1 - 1 / layout.data_parallel_size)
        tokens = load.tokens / layout.tensor_parallel_size
        if is_bulk and self._crosses_nodes:
            limit = model.topk_group if model.n_group > 1 else model.num_experts_per_tok
            nodes = layout.num_nodes
            return tokens * min(limit, nodes) * (1 - 1 / nodes)
        rows = model.num_experts_per_tok * tokens
        return rows * (1 - 1 / layout.expert_ranks) if is_bulk else rows

    def _exchange_rate(self, *, is_bulk: bool) -> float:
        gpu = self._gpu
        if not self._crosses_nodes:
            return gpu.link_bandwidth
        return gpu.bulk_network_bandwidth if is_bulk else gpu.network_bandwidth

    def _head_s(self, load: StepLoad) -> float:
        model = self._model
        params = model.vocab_size * model.hidden_size / self._layout.tensor_parallel_size
        rate = _BANDWIDTH_SHARE * self._gpu.bandwidth
        return max(2 * params * load.sampled / self._gpu.bf16_flops, 2 * params / rate)

    @property
    def _flops(self) -> float:
        return self._gpu.bf16_flops if self._model.fp8 is None else self._gpu.fp8_flops

    def _product_s(self, weight_bytes: int, tokens: int) -> float:
        """A product with weights of so many bytes, one or two a value."""
        params = weight_bytes / (2 if self._model.fp8 is None else 1)
        return max(
            2 * params * tokens / self._flops,
            weight_bytes / (_BANDWIDTH_SHARE * self._gpu.bandwidth),
        )
