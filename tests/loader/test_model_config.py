import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import DeepseekV2Config, DeepseekV3Config, PreTrainedConfig

from leadline.loader.errors import ConfigFileError, UnsupportedModelError
from leadline.loader.model_config import (
    Fp8Config,
    ModelConfig,
    YarnConfig,
    parse_model_config,
    read_model_config,
)
from leadline.loader.synthetic import tiny_kimi, tiny_v2_lite, tiny_v3

DATA = Path(__file__).parent / "data"


def published(name: str) -> ModelConfig:
    return parse_model_config(json.loads((DATA / f"{name}.json").read_text()))


def yarn(factor: float, mscale: float, beta_fast: float = 32.0) -> YarnConfig:
    return YarnConfig(
        factor=factor,
        original_max_position_embeddings=4096,
        beta_fast=beta_fast,
        beta_slow=1.0,
        mscale=mscale,
        mscale_all_dim=mscale,
    )


V3 = ModelConfig(
    architecture="DeepseekV3ForCausalLM",
    vocab_size=129280,
    hidden_size=7168,
    num_hidden_layers=61,
    num_nextn_predict_layers=1,
    num_attention_heads=128,
    q_lora_rank=1536,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    intermediate_size=18432,
    moe_intermediate_size=2048,
    n_routed_experts=256,
    n_shared_experts=1,
    num_experts_per_tok=8,
    n_group=8,
    topk_group=4,
    first_k_dense_replace=3,
    moe_layer_freq=1,
    scoring_func="sigmoid",
    topk_method="noaux_tc",
    norm_topk_prob=True,
    routed_scaling_factor=2.5,
    rms_norm_eps=1e-6,
    rope_theta=10_000.0,
    yarn=yarn(40.0, 1.0),
    max_position_embeddings=163840,
    tie_word_embeddings=False,
    dtype="bfloat16",
    fp8=Fp8Config(scale_fmt=None),
    bos_token_id=0,
    eos_token_ids=(1,),
)


@pytest.mark.parametrize("name", ["deepseek_v3", "deepseek_r1"])
def test_v3_and_r1(name: str) -> None:
    config = published(name)
    assert config == V3
    assert config.qk_head_dim == 192
    assert config.has_correction_bias
    assert [config.is_moe_layer(i) for i in (0, 2, 3, 60, 61)] == [False, False, True, True, True]


def test_v3_1_has_power_of_two_scales() -> None:
    config = published("deepseek_v3_1")
    assert config.fp8 == Fp8Config(scale_fmt="ue8m0")
    assert config.hidden_size == 7168


def test_v2() -> None:
    config = published("deepseek_v2")
    assert config.architecture == "DeepseekV2ForCausalLM"
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (5120, 60, 102400)
    assert (config.n_routed_experts, config.n_group, config.topk_group) == (160, 8, 3)
    assert (config.num_experts_per_tok, config.n_shared_experts) == (6, 2)
    assert (config.scoring_func, config.topk_method) == ("softmax", "group_limited_greedy")
    assert config.routed_scaling_factor == 16.0
    assert not config.norm_topk_prob
    assert not config.has_correction_bias
    assert config.num_nextn_predict_layers == 0
    assert config.fp8 is None
    assert config.yarn == yarn(40.0, 0.707)
    assert (config.bos_token_id, config.eos_token_ids) == (100000, (100001,))


def test_v2_lite_has_no_query_compression() -> None:
    config = published("deepseek_v2_lite")
    assert config.q_lora_rank is None
    assert (config.topk_method, config.n_group, config.topk_group) == ("greedy", 1, 1)
    assert (config.hidden_size, config.num_hidden_layers) == (2048, 27)
    assert [config.is_moe_layer(i) for i in (0, 1, 26)] == [False, True, True]


def test_kimi_k2() -> None:
    config = published("kimi_k2_instruct")
    assert config.architecture == "DeepseekV3ForCausalLM"
    assert (config.n_routed_experts, config.n_group, config.num_attention_heads) == (384, 1, 64)
    assert (config.routed_scaling_factor, config.rope_theta) == (2.827, 50_000.0)
    assert config.yarn == yarn(32.0, 1.0, beta_fast=1.0)
    assert config.num_nextn_predict_layers == 0
    assert config.first_k_dense_replace == 1
    assert config.eos_token_ids == (163585,)


TRANSFORMERS_YARN = {
    "rope_type": "yarn",
    "rope_theta": 50_000.0,
    "factor": 40.0,
    "original_max_position_embeddings": 4096,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}


def saved(config: PreTrainedConfig, directory: Path) -> ModelConfig:
    config.save_pretrained(directory)
    return read_model_config(directory)


def test_written_by_transformers_5(tmp_path: Path) -> None:
    config = saved(
        DeepseekV3Config(architectures=["DeepseekV3ForCausalLM"], dtype="float16"), tmp_path
    )
    assert (config.scoring_func, config.topk_method) == ("sigmoid", "noaux_tc")
    assert (config.n_routed_experts, config.n_group, config.norm_topk_prob) == (256, 8, True)
    assert config.num_nextn_predict_layers == 1
    assert (config.rope_theta, config.yarn) == (10_000.0, None)
    assert (config.dtype, config.fp8) == ("float16", None)


def test_rope_parameters_of_transformers_5(tmp_path: Path) -> None:
    config = saved(DeepseekV3Config(rope_parameters=TRANSFORMERS_YARN), tmp_path)
    assert (config.rope_theta, config.yarn) == (50_000.0, yarn(40.0, 1.0))


@pytest.mark.parametrize(
    ("made", "architecture"),
    [(DeepseekV3Config, "DeepseekV3ForCausalLM"), (DeepseekV2Config, "DeepseekV2ForCausalLM")],
)
def test_model_type_implies_the_architecture(
    tmp_path: Path, made: Callable[..., PreTrainedConfig], architecture: str
) -> None:
    config = saved(made(num_experts_per_tok=4), tmp_path)
    assert "architectures" not in json.loads((tmp_path / "config.json").read_text())
    assert config.architecture == architecture


def test_v2_written_by_transformers_5(tmp_path: Path) -> None:
    made = DeepseekV2Config(
        architectures=["DeepseekV2ForCausalLM"],
        q_lora_rank=None,
        num_experts_per_tok=6,
        topk_method="group_limited_greedy",
        n_group=8,
        topk_group=3,
        routed_scaling_factor=16.0,
        rope_parameters=TRANSFORMERS_YARN,
    )
    config = saved(made, tmp_path)
    assert config.q_lora_rank is None
    assert (config.scoring_func, config.topk_method) == ("softmax", "group_limited_greedy")
    assert (config.n_group, config.topk_group, config.routed_scaling_factor) == (8, 3, 16.0)
    assert not config.norm_topk_prob


def test_transformers_4_implies_gating_and_frequency() -> None:
    """Its V3 class writes `rope_scaling`, `torch_dtype`, `rope_interleave`, but no gating."""
    raw = tiny_v3() | {"rope_interleave": True, "torch_dtype": "float32", "head_dim": 16}
    for name in ("scoring_func", "topk_method", "moe_layer_freq"):
        del raw[name]
    expected = parse_model_config(tiny_v3() | {"torch_dtype": "float32"})
    assert parse_model_config(raw) == expected


def test_null_groups_and_no_experts() -> None:
    assert parse_model_config(tiny_v2_lite() | {"n_group": None, "topk_group": None}).n_group == 1
    dense = parse_model_config(tiny_v2_lite() | {"n_routed_experts": None})
    assert not any(dense.is_moe_layer(i) for i in range(3))


def test_every_other_layer_has_experts() -> None:
    config = parse_model_config(tiny_v2_lite() | {"num_hidden_layers": 6, "moe_layer_freq": 2})
    assert [config.is_moe_layer(i) for i in range(6)] == [False, False, True, False, True, False]


def test_several_end_tokens() -> None:
    assert parse_model_config(tiny_kimi() | {"eos_token_id": [5, 7]}).eos_token_ids == (5, 7)
    assert parse_model_config(tiny_kimi() | {"eos_token_id": None}).eos_token_ids == ()


YARN = tiny_v3()["rope_scaling"]
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}


def fp8(**changes: Any) -> dict[str, Any]:
    return {"quantization_config": FP8 | changes}


UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    ({"architectures": ["DeepseekV32ForCausalLM"]}, "DeepseekV32ForCausalLM"),
    ({"architectures": ["LlamaForCausalLM"], "model_type": "deepseek_v3"}, "LlamaForCausalLM"),
    ({"architectures": None, "model_type": "kimi_k25"}, "kimi_k25"),
    ({"architectures": "DeepseekV4ForCausalLM"}, "DeepseekV4ForCausalLM"),
    ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
    ({"attention_bias": True}, "attention_bias = True"),
    ({"mlp_bias": True}, "mlp_bias = True"),
    ({"rope_interleave": False}, "rope_interleave = False"),
    ({"pretraining_tp": 2}, "pretraining_tp = 2"),
    ({"qk_layernorm": True}, "qk_layernorm = True"),
    ({"scoring_func": "softmax"}, "scoring_func = 'softmax'"),
    ({"topk_method": "greedy"}, "topk_method = 'greedy'"),
    ({"torch_dtype": "int8"}, "torch_dtype = 'int8'"),
    ({"rope_scaling": YARN | {"type": "linear"}}, "rope_scaling.type = 'linear'"),
    ({"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters.rope_type = 'llama3'"),
    ({"rope_scaling": YARN | {"attention_factor": 1.5}}, "rope_scaling.attention_factor = 1.5"),
    ({"rope_scaling": YARN | {"truncate": False}}, "rope_scaling.truncate = False"),
    ({"rope_scaling": YARN | {"mscale": None}}, "mscale"),
    (fp8(quant_method="awq"), "quantization_config.quant_method = 'awq'"),
    (fp8(quant_method=None), "quantization_config.quant_method = None"),
    (fp8(fmt="e5m2"), "quantization_config.fmt = 'e5m2'"),
    (fp8(activation_scheme="static"), "quantization_config.activation_scheme = 'static'"),
    (fp8(weight_block_size=None), "quantization_config.weight_block_size = None"),
    (fp8(weight_block_size=[64, 64]), "quantization_config.weight_block_size = [64, 64]"),
    (fp8(scale_fmt="mx"), "quantization_config.scale_fmt = 'mx'"),
    (fp8(expert_dtype="fp4"), "quantization_config.expert_dtype = 'fp4'"),
]


@pytest.mark.parametrize(("change", "named"), UNSUPPORTED, ids=[named for _, named in UNSUPPORTED])
def test_unsupported_options_are_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedModelError) as error:
        parse_model_config(tiny_v3() | change)
    assert named in str(error.value)


@pytest.mark.parametrize(
    "change", [{"norm_topk_prob": True}, {"scoring_func": "sigmoid"}, {"topk_method": "noaux_tc"}]
)
def test_v2_gating_is_softmax_without_normalisation(change: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError, match=next(iter(change))):
        parse_model_config(tiny_v2_lite() | change)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"hidden_size": None}, "hidden_size is missing"),
    ({"vocab_size": "512"}, "vocab_size is '512'; allowed: an integer"),
    ({"num_hidden_layers": 0}, "num_hidden_layers is 0; allowed: at least 1"),
    ({"num_attention_heads": True}, "num_attention_heads is True; allowed: an integer"),
    ({"num_nextn_predict_layers": 2}, "num_nextn_predict_layers is 2; allowed: 0 to 1"),
    ({"num_experts_per_tok": 17}, "num_experts_per_tok is 17; allowed: 1 to 16"),
    ({"qk_rope_head_dim": 15}, "qk_rope_head_dim is 15; it must be even"),
    ({"n_group": 5}, "n_group is 5; it must divide n_routed_experts = 16"),
    ({"n_group": 16, "topk_group": 8}, "n_group is 16; allowed: 1 to n_routed_experts / 2 = 8"),
    ({"topk_group": 5}, "topk_group is 5; allowed: 1 to n_group = 4"),
    ({"topk_group": 1, "num_experts_per_tok": 5}, "1 groups of 4 experts hold 4"),
    ({"first_k_dense_replace": 4}, "first_k_dense_replace is 4; allowed: 0 to num_hidden_layers"),
    ({"rms_norm_eps": 0}, "rms_norm_eps is 0; allowed: greater than 0"),
    ({"routed_scaling_factor": float("nan")}, "routed_scaling_factor is nan; allowed: a finite"),
    ({"norm_topk_prob": 1}, "norm_topk_prob is 1; allowed: true or false"),
    ({"eos_token_id": [1, -1]}, "eos_token_id is [1, -1]; allowed: a token id or a list"),
    ({"rope_scaling": [4.0]}, "rope_scaling is [4.0]; it must be an object"),
    ({"rope_scaling": YARN | {"type": None}}, "rope_scaling has a factor but no rope_type"),
    ({"rope_scaling": YARN | {"factor": 0.5}}, "rope_scaling.factor is 0.5; allowed: at least 1"),
    (
        {"rope_scaling": YARN | {"original_max_position_embeddings": None}},
        "rope_scaling.original_max_position_embeddings is missing",
    ),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_values_are_named_with_the_allowed_range(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigFileError) as error:
        parse_model_config(tiny_v3() | change)
    assert message in str(error.value)


def test_all_problems_are_in_one_error() -> None:
    change = {"hidden_act": "gelu", "hidden_size": -1, "n_group": 3, "vocab_size": None}
    with pytest.raises(UnsupportedModelError) as error:
        parse_model_config(tiny_v3() | change | fp8(quant_method="gptq"))
    for part in ("hidden_act", "gptq", "hidden_size is -1", "n_group is 3", "vocab_size is miss"):
        assert part in str(error.value)


def test_a_missing_field_does_not_cause_further_complaints() -> None:
    with pytest.raises(ConfigFileError) as error:
        parse_model_config(tiny_v3() | {"num_hidden_layers": None})
    assert str(error.value) == "config.json: num_hidden_layers is missing"


@pytest.mark.parametrize(
    "name", ["routed_scaling_factor", "first_k_dense_replace", "n_group", "topk_group"]
)
def test_what_cannot_be_guessed_must_be_written(name: str) -> None:
    with pytest.raises(ConfigFileError) as error:
        parse_model_config(tiny_v3() | {name: None})
    assert str(error.value) == f"config.json: {name} is missing"


def test_file_that_is_absent_or_no_object(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileError, match="does not exist"):
        read_model_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigFileError, match="cannot be read"):
        read_model_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ConfigFileError, match="must be an object"):
        read_model_config(tmp_path)
