import json
import math
from pathlib import Path

import pytest

from leadline.loader.model_config import parse_model_config
from leadline.loader.tensor_specs import expected_tensors, mtp_prefix

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize(
    ("name", "main", "mtp"),
    [
        ("deepseek_v3", 671.0e9, 11.5e9),  # as the model's own card counts them
        ("deepseek_v2", 235.7e9, 0.0),
        ("deepseek_v2_lite", 15.7e9, 0.0),
        ("kimi_k2_instruct", 1026.4e9, 0.0),
    ],
)
def test_parameters_are_as_many_as_published(name: str, main: float, mtp: float) -> None:
    config = parse_model_config(json.loads((DATA / f"{name}.json").read_text()))
    counts = {"main": 0, "mtp": 0}
    for tensor, spec in expected_tensors(config).items():
        if not spec.optional:
            part = "mtp" if tensor.startswith(mtp_prefix(config)) else "main"
            counts[part] += math.prod(spec.shape)
    assert counts["main"] == pytest.approx(main, rel=2e-3)
    assert counts["mtp"] == pytest.approx(mtp, rel=1e-2)


def test_names_and_shapes_of_v3() -> None:
    config = parse_model_config(json.loads((DATA / "deepseek_v3.json").read_text()))
    specs = expected_tensors(config)
    shapes = {
        "model.layers.0.self_attn.q_a_proj.weight": (1536, 7168),
        "model.layers.0.self_attn.q_b_proj.weight": (24576, 1536),
        "model.layers.0.self_attn.kv_a_proj_with_mqa.weight": (576, 7168),
        "model.layers.0.self_attn.kv_b_proj.weight": (32768, 512),
        "model.layers.0.self_attn.o_proj.weight": (7168, 16384),
        "model.layers.2.mlp.gate_proj.weight": (18432, 7168),
        "model.layers.3.mlp.gate.weight": (256, 7168),
        "model.layers.3.mlp.gate.e_score_correction_bias": (256,),
        "model.layers.60.mlp.experts.255.down_proj.weight": (7168, 2048),
        "model.layers.60.mlp.shared_experts.up_proj.weight": (2048, 7168),
        "model.layers.61.eh_proj.weight": (7168, 14336),
        "model.layers.61.enorm.weight": (7168,),
        "model.layers.61.hnorm.weight": (7168,),
        "model.layers.61.shared_head.norm.weight": (7168,),
        "model.layers.61.shared_head.head.weight": (129280, 7168),
        "model.layers.61.embed_tokens.weight": (129280, 7168),
        "model.layers.61.mlp.experts.0.gate_proj.weight": (2048, 7168),
    }
    for name, shape in shapes.items():
        assert specs[name].shape == shape, name
    # 91,991 tensors are in the official index: these, and one scale for each FP8 weight
    num_quantized = sum(spec.quantized for spec in specs.values())
    assert len(specs) + num_quantized == 91_991
