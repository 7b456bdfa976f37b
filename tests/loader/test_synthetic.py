import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from leadline.loader.checkpoint import Checkpoint
from leadline.loader.model_config import parse_model_config, read_model_config
from leadline.loader.synthetic import (
    random_tensors,
    tiny_kimi,
    tiny_v2_lite,
    tiny_v3,
    write_checkpoint,
)
from leadline.loader.tensor_specs import expected_tensors

PRESETS = [tiny_v3, tiny_v2_lite, tiny_kimi]


@pytest.mark.parametrize("fmt", ["float32", "bfloat16", "float16", "fp8"])
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_can_be_served_in_every_format(
    tmp_path: Path, preset: Callable[[], dict[str, Any]], fmt: str
) -> None:
    written = write_checkpoint(tmp_path / "new" / "model", preset(), fmt=fmt)
    config = read_model_config(tmp_path / "new" / "model")
    assert config == written
    assert Checkpoint.open(tmp_path / "new" / "model").check(config) == []
    assert (config.fp8 is not None) == (fmt == "fp8")
    assert config.dtype == ("bfloat16" if fmt == "fp8" else fmt)


def test_config_is_in_the_official_style(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, tiny_v3(), fmt="fp8", scale_fmt="ue8m0")
    raw = json.loads((tmp_path / "config.json").read_text())
    assert raw["quantization_config"] == {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [128, 128],
        "scale_fmt": "ue8m0",
    }
    assert raw["rope_scaling"]["type"] == "yarn"


def test_a_seed_gives_the_same_weights() -> None:
    config = parse_model_config(tiny_v3())
    first, again, other = (dict(random_tensors(config, s, with_mtp=True)) for s in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_weights_are_of_sensible_scale() -> None:
    config = parse_model_config(tiny_v3())
    tensors = dict(random_tensors(config, 0, with_mtp=True))
    for name, tensor in tensors.items():
        if name.endswith("e_score_correction_bias"):
            assert 0.02 < float(tensor.std()) < 0.3
        elif tensor.dim() == 1:
            assert 0.7 < float(tensor.mean()) < 1.3
            assert float(tensor.std()) > 0.05
        else:
            assert float(tensor.std()) == pytest.approx(tensor.shape[-1] ** -0.5, rel=0.2)


def test_mtp_layer_can_be_left_out() -> None:
    config = parse_model_config(tiny_v3())
    names = {name for name, _ in random_tensors(config, 0, with_mtp=False)}
    assert not any(name.startswith("model.layers.3.") for name in names)
    optional = {name for name, spec in expected_tensors(config).items() if spec.optional}
    assert optional == {
        "model.layers.3.embed_tokens.weight",
        "model.layers.3.shared_head.head.weight",
    }
