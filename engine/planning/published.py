"""Published units of DeepSeek-V3 and R1, and what the time model expects of them."""

from dataclasses import dataclass

from leadline.engine.planning.gpus import find_gpu
from leadline.engine.planning.layout import Layout
from leadline.engine.planning.step_load import load_of
from leadline.engine.planning.unit_times import Calibration, UnitTimes
from leadline.loader.model_config import ModelConfig

_EVEN = 1.0  # routing simulated as perfectly balanced
_FITTED = 0.97  # experts placed by the statistics of the same data
_PREFILL_TOKENS = 16_384  # a GPU and step


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedUnit:
    """A measured unit.

    Attributes:
        requests: a GPU; of prompts: 16,384 tokens' worth.
        context: tokens of context a request; of prompts their length.
        drafts: a step; 0 without speculation.
        tokens_a_step: of each request, the accepted drafts included.
        is_prefill: prompt tokens are counted, else output tokens.
        measured: tokens a second and GPU, or of `is_latency` seconds a token.
        balance: of its experts; None for what units reach in production.
    """

    name: str
    source: str
    gpu: str
    layout: Layout
    context: int
    measured: float
    requests: int = 0
    drafts: int = 0
    tokens_a_step: float = 1.0
    is_prefill: bool = False
    is_latency: bool = False
    balance: float | None = None


def _ep(ranks: int, redundant: int = 32) -> Layout:
    return Layout(data_parallel_size=ranks, expert_parallel=True, num_redundant_experts=redundant)


_TP8 = Layout(tensor_parallel_size=8)
_DEEPSEEK = "DeepSeek, open infra index, day 6"
_SGLANG = "SGLang, large-scale EP, May 2025"
_VLLM = "vLLM, wide EP, December 2025"
_INFERENCEX = "InferenceX issue 870, SGLang 0.5.7"
PUBLISHED = (
    PublishedUnit(
        name="decode, production, MTP-1",
        source=_DEEPSEEK,
        gpu="H800",
        layout=_ep(144),
        requests=88,
        context=4989,
        drafts=1,
        tokens_a_step=1.85,
        measured=1850,
    ),
    PublishedUnit(
        name="decode, profile, even routing",
        source="DeepSeek, profile data, by SGLang",
        gpu="H800",
        layout=_ep(128),
        requests=128,
        context=4096,
        measured=2325,
        balance=_EVEN,
    ),
    PublishedUnit(
        name="decode, experts fitted to the data",
        source=_SGLANG,
        gpu="H100",
        layout=_ep(72),
        requests=256,
        context=2050,
        measured=2785,
        balance=_FITTED,
    ),
    PublishedUnit(
        name="decode, simulated MTP, experts fitted",
        source=_SGLANG,
        gpu="H100",
        layout=_ep(72),
        requests=128,
        context=4000,
        drafts=1,
        tokens_a_step=1.6,
        measured=2172,
        balance=_FITTED,
    ),
    *(
        PublishedUnit(
            name="decode",
            source=_VLLM,
            gpu="H200",
            layout=_ep(ranks),
            requests=256,
            context=3000,
            measured=measured,
        )
        for ranks, measured in ((32, 2180), (72, 2070), (96, 1970))
    ),
    PublishedUnit(
        name="decode, prefill's share taken out",
        source="TensorRT-LLM, best performance practice",
        gpu="H200",
        layout=_ep(8, 0),
        requests=128,
        context=2000,
        measured=1613,
    ),
    PublishedUnit(
        name="prefill 4K, profile, even routing",
        source="DeepSeek, profile data, by SGLang",
        gpu="H800",
        layout=_ep(32),
        context=4096,
        is_prefill=True,
        measured=7839,
        balance=_EVEN,
    ),
    *(
        PublishedUnit(
            name=f"prefill {context // 1024}K",
            source=_SGLANG,
            gpu="H100",
            layout=_ep(32),
            context=context,
            is_prefill=True,
            measured=measured,
        )
        for context, measured in ((1024, 7209), (2048, 6818), (4096, 6288))
    ),
    PublishedUnit(
        name="prefill 4K, even routing",
        source=_SGLANG,
        gpu="H100",
        layout=_ep(32),
        context=4096,
        is_prefill=True,
        measured=7417,
        balance=_EVEN,
    ),
    *(
        PublishedUnit(
            name="prefill 2K",
            source=_VLLM,
            gpu="H200",
            layout=_ep(ranks, 0),
            context=2048,
            is_prefill=True,
            measured=measured,
        )
        for ranks, measured in ((8, 6500), (16, 7000), (32, 5100))
    ),
    *(
        PublishedUnit(
            name=f"time per token, {requests} at once",
            source=_INFERENCEX,
            gpu="H200",
            layout=_TP8,
            requests=requests,
            context=1536,
            is_latency=True,
            measured=measured,
        )
        for requests, measured in ((8, 12.8e-3), (16, 17.2e-3), (32, 25.6e-3), (64, 34.6e-3))
    ),
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A published unit beside the model's figures, in the unit's own measure."""

    unit: PublishedUnit
    roofline: float
    expected: float

    @property
    def deviation(self) -> float:
        """Expected over measured, less one."""
        return self.expected / self.unit.measured - 1


def compare(model: ModelConfig, unit: PublishedUnit) -> Comparison:
    """What the model expects of a published unit.

    Args:
        model: DeepSeek-V3's config.
        unit: what was measured.
    """
    balance = Calibration().balance if unit.balance is None else unit.balance
    times = UnitTimes(
        model, find_gpu(unit.gpu), unit.layout, calibration=Calibration(balance=balance)
    )
    if unit.is_prefill:
        rows = [(unit.context, unit.context)] * (_PREFILL_TOKENS // unit.context)
        tokens: float = _PREFILL_TOKENS
    else:
        rows = [(1 + unit.drafts, unit.context)] * unit.requests
        tokens = unit.requests * unit.tokens_a_step
    load = load_of(rows, unit.layout, draft_passes=unit.drafts)
    roofline_s, expected_s = times.roofline_s(load), times.expected_s(load)
    if unit.is_latency:
        return Comparison(unit, roofline_s, expected_s)
    return Comparison(unit, tokens / roofline_s, tokens / expected_s)
