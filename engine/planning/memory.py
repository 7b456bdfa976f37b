"""What takes a rank's memory, in closed form: before anything is loaded, and as the server reports.

Weights and pages are exact: the tensors that the engine holds have these sizes. Work space, buffers
and graphs are estimates of the most that a step takes.
"""

from dataclasses import dataclass

from leadline.engine.planning.latent_bytes import latent_bytes_per_token
from leadline.engine.planning.layout import Layout
from leadline.engine.planning.weight_bytes import DTYPE_BYTES, WeightBytes, WeightFormat
from leadline.loader.model_config import ModelConfig

GIB = 2**30
_FLOAT32 = 4
_LOGITS_COPIES = 3  # logits, processed ones, and noise
_EXCHANGE_TOKENS = 128  # a rank and expert, in a buffer of fixed capacity
_EXCHANGE_BUFFERS = 2  # one is filled while the other is read
_GPU_RUNTIME_BYTES = 3 * GIB // 2  # the driver's context, libraries, collectives
_GPU_GRAPH_BYTES = GIB  # of decode steps, captured


def size_text(num_bytes: int) -> str:
    """A size for people."""
    if num_bytes < GIB // 10:
        return f"{num_bytes / 2**20:.1f} MiB"
    return f"{num_bytes / GIB:.2f} GiB"


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """One line of the table.

    Attributes:
        is_estimate: False for sizes of tensors that the engine makes.
    """

    name: str
    num_bytes: int
    note: str = ""
    is_estimate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeeds:
    """What a rank holds, as far as its memory depends on it.

    Attributes:
        device: `cpu` or `cuda`.
        max_num_batched_tokens: most tokens of a step.
        num_drafts: most MTP drafts of a request and step; 0 without speculation.
        has_mtp: the MTP layer is loaded.
        expert_gpu_count: of each layer's routed experts, copies on the device where all lie in the
            host's memory; None where all are on the device.
    """

    model: ModelConfig
    layout: Layout
    held: WeightFormat
    device: str
    kv_cache_dtype: str
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    num_drafts: int
    has_mtp: bool = True
    expert_gpu_count: int | None = None

    def weights(self) -> list[MemoryPart]:
        """The model's parts."""
        sizes = WeightBytes(self.model, self.layout, self.held)
        notes = {"routed experts": self._experts_note(), "attention": self._attention_note()}
        parts = sizes.parts(has_mtp=self.has_mtp)
        if self.expert_gpu_count is not None:
            parts["routed experts"] = self._num_moe * self.expert_gpu_count * sizes.expert()
        return [MemoryPart(name, size, notes.get(name, "")) for name, size in parts.items() if size]

    def host(self) -> list[MemoryPart]:
        """What lies in the host's memory, where that is not the device's."""
        if self.expert_gpu_count is None:
            return []
        size = WeightBytes(self.model, self.layout, self.held).routed_experts() * self._num_moe
        return [MemoryPart("routed experts, host", size, "all of them")]

    @property
    def _num_moe(self) -> int:
        num_layers = self.model.num_hidden_layers
        num_layers += self.model.num_nextn_predict_layers * self.has_mtp
        return sum(map(self.model.is_moe_layer, range(num_layers)))

    def other(self) -> list[MemoryPart]:
        """What is neither weights nor pages."""
        rope = 2 * self.max_model_len * (self.model.qk_rope_head_dim // 2) * _FLOAT32
        parts = [
            MemoryPart("rotary tables", rope, f"{self.max_model_len} positions"),
            MemoryPart("work space", self._work_bytes(), self._work_note(), is_estimate=True),
        ]
        if self.layout.expert_ranks > 1:
            note = f"dispatch and combine, {_EXCHANGE_TOKENS} tokens a rank and expert"
            parts.append(MemoryPart("exchange", self._exchange_bytes(), note, is_estimate=True))
        if self.device != "cpu":
            parts += [
                MemoryPart("graphs", _GPU_GRAPH_BYTES, "decode steps", is_estimate=True),
                MemoryPart("runtime", _GPU_RUNTIME_BYTES, "driver, libraries", is_estimate=True),
            ]
        return parts

    @property
    def fixed_bytes(self) -> int:
        """All but the pages; on a CPU device and host are one."""
        parts = [*self.weights(), *self.other()]
        if self.device == "cpu":
            parts += self.host()
        return sum(part.num_bytes for part in parts)

    @property
    def token_bytes(self) -> int:
        """Latents of a token in all layers."""
        return latent_bytes_per_token(self.model, self.kv_cache_dtype, has_mtp=self.has_mtp)

    def page_bytes(self, page_size: int) -> int:
        """A page: latents, and the hidden state that drafts at a page's end need."""
        return self.token_bytes * page_size + self._state_bytes

    def pages(self, num_pages: int, page_size: int) -> list[MemoryPart]:
        """The latent cache."""
        num_tokens = num_pages * page_size
        note = f"{num_tokens} tokens, {self.token_bytes} bytes each, {self.kv_cache_dtype}"
        parts = [MemoryPart("latent pages", num_tokens * self.token_bytes, note)]
        if self._state_bytes:
            size = num_pages * self._state_bytes
            parts.append(MemoryPart("drafter's states", size, "one a page"))
        return parts

    @property
    def _state_bytes(self) -> int:
        return self.model.hidden_size * DTYPE_BYTES[self.held.dtype] if self.num_drafts else 0

    def _work_bytes(self) -> int:
        """The largest block's intermediates at the most tokens, and the logits."""
        model, item = self.model, DTYPE_BYTES[self.held.dtype]
        tokens, tp = self.max_num_batched_tokens, self.layout.tensor_parallel_size
        heads = model.num_attention_heads // tp
        expanded = model.qk_head_dim + max(model.kv_lora_rank, model.qk_head_dim) + model.v_head_dim
        attention = tokens * heads * expanded
        rows = tokens * model.num_experts_per_tok
        experts = rows * (2 * model.hidden_size + 3 * model.moe_intermediate_size)
        dense = 3 * tokens * max(model.intermediate_size // tp, 1)
        residual = 4 * tokens * model.hidden_size
        sampled = min(self.max_num_seqs * (1 + self.num_drafts), tokens)
        logits = _LOGITS_COPIES * sampled * model.vocab_size * _FLOAT32
        return (residual + max(attention, experts, dense)) * item + logits

    def _exchange_bytes(self) -> int:
        model, layout = self.model, self.layout
        slots = layout.experts_per_rank(model) * layout.num_ranks * _EXCHANGE_TOKENS
        there, back = model.hidden_size + model.hidden_size // 32, 2 * model.hidden_size
        return _EXCHANGE_BUFFERS * slots * (there + back) // layout.tensor_parallel_size

    def _work_note(self) -> str:
        return f"a step of {self.max_num_batched_tokens} tokens, logits of {self.max_num_seqs} rows"

    def _experts_note(self) -> str:
        layout, model = self.layout, self.model
        if self.expert_gpu_count is not None:
            return f"{self.expert_gpu_count} of {model.n_routed_experts} a layer, the busiest"
        if layout.expert_parallel:
            return f"{layout.experts_per_rank(model)} of {model.n_routed_experts} a layer"
        return f"1/{layout.num_ranks} of each" if layout.num_ranks > 1 else ""

    def _attention_note(self) -> str:
        return f"kv_b_proj widened to {self.held.dtype}" if self._is_fp8 else ""

    @property
    def _is_fp8(self) -> bool:
        return self.model.fp8 is not None and self.held.keeps_fp8
