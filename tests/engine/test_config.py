"""Every open choice is settled, with a reason, or refused, with the numbers."""

from dataclasses import fields
from typing import Any

import msgspec
import pytest

from leadline.engine.cache_size import CPU_HEADROOM_BYTES
from leadline.engine.config import (
    ConfigLine,
    EngineConfig,
    ResolvedConfig,
    resolve,
)
from leadline.engine.errors import ConfigError, NotEnoughMemoryError
from leadline.engine.memory_needs import memory_parts, needs_of
from leadline.engine.planning.latent_bytes import latent_bytes_per_token
from leadline.engine.platform_facts import PlatformFacts, cpu_facts
from leadline.kernels.latent_cache import LatentLayout
from leadline.loader.model_config import ModelConfig, parse_model_config
from leadline.loader.synthetic import tiny_v3

CPU = PlatformFacts(device="cpu", num_cores=6, available_bytes=2**30)
GPU = PlatformFacts(device="cuda", num_cores=6, available_bytes=2**37)


def Model(**other: Any) -> ModelConfig:
    """Nine layers of 64 + 16 cached values; small weights."""
    sizes = {"max_position_embeddings": 4096, "num_hidden_layers": 8, "num_nextn_predict_layers": 1}
    latent = {"kv_lora_rank": 64, "qk_rope_head_dim": 16}
    return parse_model_config(tiny_v3() | sizes | latent | other)


def resolved(
    facts: PlatformFacts = CPU, model: ModelConfig | None = None, **options: Any
) -> tuple[ResolvedConfig, dict[str, ConfigLine]]:
    config, lines = resolve(
        EngineConfig(**options), model or Model(), facts, model_path="/models/demo"
    )
    return config, {line.name: line for line in lines}


def test_defaults_on_a_cpu() -> None:
    config, lines = resolved()
    assert config.model == "/models/demo"
    assert config.served_model_name == "leadline-demo"
    assert (config.dtype, config.kv_cache_dtype) == ("float32", "float32")
    assert config.batch_invariant
    assert config.num_threads == 6
    assert config.max_num_batched_tokens == 512
    assert config.max_model_len == 4096
    assert lines["kv_tokens"].reason.startswith("what 1.00 GiB leave beside")
    assert lines["max_model_len"].reason == "the model's"
    assert lines["page_size"] == ConfigLine("page_size", "64", "default")


def test_the_cache_takes_what_weights_steps_and_headroom_leave() -> None:
    facts = PlatformFacts(device="cpu", num_cores=1, available_bytes=2**30)
    config, lines = resolved(facts, max_num_seqs=512)
    parts = memory_parts(config, needs_of(config, Model()))
    total = sum(part.num_bytes for part in parts)
    a_page = (9 * 80 * 64 + 64) * 4  # latents of 64 tokens, a hidden state
    assert 0 <= 2**30 - CPU_HEADROOM_BYTES - total < a_page
    assert lines["kv_tokens"].reason.endswith("and 0.50 GiB that stay free")
    more, _ = resolved(facts, max_num_seqs=512, memory_headroom_gib=0.25)
    assert (more.num_pages - config.num_pages) * a_page == pytest.approx(2**28, abs=a_page)


def test_a_cpu_is_not_the_servers_alone() -> None:
    facts = PlatformFacts(device="cpu", num_cores=1, available_bytes=2**40)
    config, lines = resolved(facts, max_num_seqs=5000)
    assert config.num_pages == 2**32 // ((9 * 80 * 64 + 64) * 4)
    assert lines["kv_tokens"].reason == "what 4.00 GiB hold"
    more, _ = resolved(facts, max_num_seqs=5000, memory_headroom_gib=1)
    assert more.num_pages > config.num_pages


def test_defaults_on_a_gpu() -> None:
    config, lines = resolved(GPU)
    assert (config.dtype, config.kv_cache_dtype) == ("bfloat16", "bfloat16")
    assert not config.batch_invariant
    assert config.max_num_batched_tokens == 8192
    assert config.num_pages == 64 * 4096 // 64
    assert lines["kv_tokens"].reason == "enough for max_num_seqs requests of max_model_len"


def test_what_is_given_is_taken() -> None:
    config, lines = resolved(
        kv_tokens=1000,
        page_size=10,
        max_model_len=900,
        dtype="bfloat16",
        kv_cache_dtype="fp8",
        seed=7,
        num_threads=1,
        kernels={"rms_norm": "reference"},
        batch_invariant=False,
        prefix_caching=False,
        served_model_name=("demo", "alias"),
    )
    assert (config.num_pages, config.max_model_len, config.seed) == (100, 900, 7)
    assert config.kernels == {"rms_norm": "reference"}
    assert (config.served_model_name, config.other_model_names) == ("demo", ("alias",))
    assert lines["served_model_name"] == ConfigLine("served_model_name", "demo", "as given")
    assert not config.batch_invariant
    assert not config.prefix_caching
    assert {line.reason for name, line in lines.items() if name == "kv_tokens"} == {"as given"}
    assert lines["kernels"].value == "rms_norm=reference"
    assert lines["prefix_caching"] == ConfigLine("prefix_caching", "off", "as given")
    assert config.capacity().max_model_len == 900


def test_the_model_length_yields_to_the_cache() -> None:
    config, lines = resolved(kv_tokens=640)
    assert config.max_model_len == 640
    assert lines["max_model_len"].reason == "what the cache holds"


def test_many_requests_raise_the_step_budget() -> None:
    assert resolved(max_num_seqs=600)[0].max_num_batched_tokens == 600


def test_a_seed_is_drawn_where_none_is_given() -> None:
    assert resolved()[0].seed != resolved()[0].seed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"page_size": 0}, ["page_size is 0", "1 to 1024"]),
        ({"page_size": 2000}, ["page_size is 2000", "1 to 1024"]),
        ({"max_num_seqs": 0}, ["max_num_seqs is 0", "at least 1"]),
        ({"max_num_batched_tokens": 63}, ["max_num_batched_tokens is 63", "at least 64"]),
        ({"max_model_len": 5000}, ["max_model_len is 5000", "4096"]),
        ({"served_model_name": ("a", " ")}, ["served_model_name has an empty name"]),
        ({"served_model_name": ("a", "b", "a")}, ["served_model_name has a name twice"]),
        ({"max_model_len": 1}, ["max_model_len is 1", "at least 2"]),
        ({"kv_tokens": 63}, ["kv_tokens is 63", "at least 64"]),
        ({"kv_tokens": 640, "max_model_len": 700}, ["640 tokens", "700", "2880 bytes"]),
        ({"memory_headroom_gib": -1}, ["memory_headroom_gib is -1", "at least 0"]),
        (
            {"memory_headroom_gib": 1, "kv_tokens": 640},
            ["memory_headroom_gib has no effect beside kv_tokens"],
        ),
        ({"seed": -1}, ["seed is -1"]),
        ({"num_threads": 0}, ["num_threads is 0"]),
        ({"dtype": "int4"}, ["dtype is 'int4'", "auto, float32, bfloat16"]),
        ({"kv_cache_dtype": "fp4"}, ["kv_cache_dtype is 'fp4'", "fp8"]),
        (
            {"verify_pages": True, "prefix_caching": False},
            ["verify_pages has no effect with prefix_caching off"],
        ),
        ({"seed": -1, "page_size": 0}, ["seed is -1", "page_size is 0"]),
    ],
)
def test_refusals_name_value_and_range(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as info:
        resolved(**options)
    assert all(word in str(info.value) for word in words)


def test_no_memory_is_an_error_with_numbers() -> None:
    facts = PlatformFacts(device="cpu", num_cores=1, available_bytes=1000)
    with pytest.raises(NotEnoughMemoryError, match=r"weights take .* MiB.* bfloat16 takes less"):
        resolved(facts)


def test_a_model_that_leaves_nothing_for_the_cache() -> None:
    facts = PlatformFacts(device="cpu", num_cores=1, available_bytes=2**28)
    with pytest.raises(NotEnoughMemoryError, match="none are left for the cache"):
        resolved(facts)
    assert resolved(facts, memory_headroom_gib=0)[0].num_pages > 0
    assert resolved(facts, kv_tokens=640)[0].num_pages == 10


def test_a_cache_that_does_not_fit() -> None:
    with pytest.raises(NotEnoughMemoryError, match=r"kv_tokens take 26.*room for 3[0-9]{5} tokens"):
        resolved(kv_tokens=10**7)


@pytest.mark.parametrize(
    ("facts", "model", "options", "words"),
    [
        (GPU, {}, {"expert_gpu_count": 3}, "no effect without expert_device cpu"),
        (CPU, {}, {"expert_device": "cpu"}, "the whole model is computed on the CPU"),
        (GPU, {"n_routed_experts": 0}, {"expert_device": "cpu"}, "has no routed experts"),
        (GPU, {}, {"expert_device": "cpu", "expert_gpu_count": 16}, "is 16; allowed: 0 to 15"),
        (GPU, {}, {"expert_device": "cpu", "expert_gpu_count": -1}, "is -1; allowed: at least 0"),
        (GPU, {}, {"expert_device": "tpu"}, "is 'tpu'; allowed: auto, cpu"),
    ],
)
def test_experts_on_the_cpu_are_refused_where_that_makes_no_sense(
    facts: PlatformFacts, model: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        resolved(facts, Model(**model), **options)


def test_experts_on_the_cpu_leave_the_gpu_to_the_cache() -> None:
    config, _ = resolved(GPU, expert_device="cpu", expert_gpu_count=2)
    assert (config.expert_device, config.expert_gpu_count) == ("cpu", 2)
    everything, _ = resolved(GPU)
    hosted, whole = (needs_of(each, Model()) for each in (config, everything))
    assert hosted.fixed_bytes < whole.fixed_bytes
    [host] = hosted.host()
    assert (
        host.num_bytes == {part.name: part.num_bytes for part in whole.weights()}["routed experts"]
    )


def test_the_resolved_config_crosses_as_json() -> None:
    config, _ = resolved(kernels={"swiglu": "reference"})
    assert msgspec.json.decode(msgspec.json.encode(config), type=ResolvedConfig) == config


def test_every_field_has_help() -> None:
    assert all(field.metadata["help"] for field in fields(EngineConfig))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "fp8"])
@pytest.mark.parametrize(("latent", "rope"), [(64, 16), (512, 64)])
def test_bytes_are_those_of_the_cache(dtype: str, latent: int, rope: int) -> None:
    model = Model(kv_lora_rank=latent, qk_rope_head_dim=rope)
    layout = LatentLayout(kv_lora_rank=latent, qk_rope_head_dim=rope, dtype=dtype)
    assert latent_bytes_per_token(model, dtype) == 9 * layout.bytes_per_token


def test_the_machine_has_cores_and_memory() -> None:
    facts = cpu_facts()
    assert facts.num_cores >= 1
    assert facts.available_bytes > 0
