"""GPUs as plans see them: memory, and the rates that good kernels reach on them.

Rates are what published kernels sustain, not what data sheets promise. FP8 and attention of the
H100 class: DeepGEMM (1.3 PFLOP/s over DeepSeek-V3's shapes) and FlashMLA (640 TFLOP/s under its
power limit); H20: FlashMLA's 125 and 85 % of the data sheet's FP8, for it is never throttled; B200
and A100: the same shares of their data sheets as the H100's. Links: DeepEP's rates for its
low-latency and its normal kernels.
"""

from dataclasses import dataclass

from leadline.engine.errors import ConfigError

GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU and its links.

    Attributes:
        memory_bytes: what the driver leaves to programs.
        bandwidth: of the memory, bytes a second, from the data sheet.
        fp8_flops: products of FP8 weights with large batches, FLOP/s; where the GPU has no FP8
            arithmetic, what it does in BF16.
        bf16_flops: of BF16 products.
        attention_flops: of latent attention.
        link_bandwidth: to the other GPUs of the node, bytes a second in one direction, as
            all-to-all kernels reach it.
        network_bandwidth: to other nodes, for messages of few tokens.
        bulk_network_bandwidth: to other nodes, for messages of many tokens.
        source: where the figures are from.
    """

    name: str
    memory_bytes: int
    bandwidth: float
    fp8_flops: float
    bf16_flops: float
    attention_flops: float
    link_bandwidth: float
    network_bandwidth: float = 45e9
    bulk_network_bandwidth: float = 57e9
    source: str = ""


def _gib(number: float) -> int:
    return int(number * GIB)


_HOPPER = "DeepGEMM and FlashMLA on H800; DeepEP on 400 Gb/s InfiniBand; data sheet"
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu(
            name="H100",
            memory_bytes=_gib(79.6),
            bandwidth=3.35e12,
            fp8_flops=1.3e15,
            bf16_flops=0.75e15,
            attention_flops=640e12,
            link_bandwidth=350e9,
            source=_HOPPER,
        ),
        Gpu(
            name="H800",
            memory_bytes=_gib(79.6),
            bandwidth=3.35e12,
            fp8_flops=1.3e15,
            bf16_flops=0.75e15,
            attention_flops=640e12,
            link_bandwidth=160e9,
            source=f"{_HOPPER}; NVLink cut to 400 GB/s",
        ),
        Gpu(
            name="H200",
            memory_bytes=_gib(140.4),
            bandwidth=4.8e12,
            fp8_flops=1.3e15,
            bf16_flops=0.75e15,
            attention_flops=640e12,
            link_bandwidth=350e9,
            source=_HOPPER,
        ),
        Gpu(
            name="H20",
            memory_bytes=_gib(95.6),
            bandwidth=4.0e12,
            fp8_flops=0.25e15,
            bf16_flops=0.125e15,
            attention_flops=125e12,
            link_bandwidth=350e9,
            source="FlashMLA on H20; 85 % of the data sheet's 296 TFLOP/s FP8",
        ),
        Gpu(
            name="B200",
            memory_bytes=_gib(179.0),
            bandwidth=8.0e12,
            fp8_flops=2.95e15,
            bf16_flops=1.7e15,
            attention_flops=1.45e15,
            link_bandwidth=700e9,
            source="the H100's shares of the data sheet; DeepEP at 726 GB/s within a node",
        ),
        Gpu(
            name="A100",
            memory_bytes=_gib(79.3),
            bandwidth=2.04e12,
            fp8_flops=0.24e15,
            bf16_flops=0.24e15,
            attention_flops=200e12,
            link_bandwidth=230e9,
            network_bandwidth=22e9,
            bulk_network_bandwidth=22e9,
            source="the H100's shares of the data sheet (80 GB, no FP8); 200 Gb/s network",
        ),
    )
}


def find_gpu(name: str) -> Gpu:
    """A GPU by its name, whatever the case.

    Raises:
        ConfigError: an unknown name, with those that are known.
    """
    gpu = GPUS.get(name.upper())
    if gpu is None:
        raise ConfigError(f"{name!r} is no GPU that plans know; there is {', '.join(GPUS)}")
    return gpu
