"""Writes trained parameters as an official-format FP8 checkpoint.

`python -m benchmarks.demo_model.export --run DIR --out DIR`: config.json, generation_config.json,
tokenizer files and FP8 block-scaled safetensors, without the MTP copies of embedding and head.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.demo_model.model import demo_config
from benchmarks.demo_model.parameters import Initializer, load_parameters
from benchmarks.demo_model.quantize import quantize_best
from benchmarks.demo_model.train import PARAMETERS_FILE
from leadline.engine.model.weights import ModelWeights
from leadline.kernels.parameters import (
    AttentionWeights,
    DenseWeights,
    LayerWeights,
    MoEWeights,
    Weight,
)
from leadline.loader.model_config import ModelConfig, parse_model_config
from leadline.loader.writer import write_weights

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
GENERATION_CONFIG = {
    "bos_token_id": 0,
    "eos_token_id": 1,
    "do_sample": True,
    "temperature": 0.3,
    "top_p": 0.95,
}

Named = Iterator[tuple[str, Tensor]]


def _tensor(weight: Weight | None) -> Tensor:
    assert isinstance(weight, Tensor), "training parameters are plain tensors"
    return weight.detach()


def _attention(weights: AttentionWeights, prefix: str) -> Named:
    yield f"{prefix}.q_a_proj.weight", _tensor(weights.q_a_proj)
    yield f"{prefix}.q_a_layernorm.weight", _tensor(weights.q_a_layernorm)
    yield f"{prefix}.q_b_proj.weight", _tensor(weights.q_b_proj)
    yield f"{prefix}.kv_a_proj_with_mqa.weight", _tensor(weights.kv_a_proj_with_mqa)
    yield f"{prefix}.kv_a_layernorm.weight", _tensor(weights.kv_a_layernorm)
    kv_b = torch.cat((weights.kv_b.w_uk_HNC, weights.kv_b.w_uv_HVC), dim=1)
    yield f"{prefix}.kv_b_proj.weight", kv_b.detach().flatten(0, 1)
    yield f"{prefix}.o_proj.weight", _tensor(weights.o_proj)


def _split_mlp(gate_up: Tensor, down: Tensor, prefix: str) -> Named:
    gate, up = gate_up.detach().chunk(2)
    yield f"{prefix}.gate_proj.weight", gate
    yield f"{prefix}.up_proj.weight", up
    yield f"{prefix}.down_proj.weight", down.detach()


def _mlp(weights: DenseWeights | MoEWeights, prefix: str) -> Named:
    if isinstance(weights, DenseWeights):
        yield from _split_mlp(_tensor(weights.gate_up), _tensor(weights.down), prefix)
        return
    assert weights.shared_experts is not None
    yield f"{prefix}.gate.weight", weights.gate.detach()
    yield f"{prefix}.gate.e_score_correction_bias", _tensor(weights.e_score_correction_bias)
    experts = zip(_tensor(weights.gate_up_E2FD), _tensor(weights.down_EDF), strict=True)
    for i, (gate_up, down) in enumerate(experts):
        yield from _split_mlp(gate_up, down, f"{prefix}.experts.{i}")
    yield from _mlp(weights.shared_experts, f"{prefix}.shared_experts")


def _layer(weights: LayerWeights, prefix: str) -> Named:
    yield f"{prefix}.input_layernorm.weight", weights.input_layernorm.detach()
    yield from _attention(weights.self_attn, f"{prefix}.self_attn")
    yield f"{prefix}.post_attention_layernorm.weight", weights.post_attention_layernorm.detach()
    yield from _mlp(weights.mlp, f"{prefix}.mlp")


def checkpoint_tensors(weights: ModelWeights, config: ModelConfig) -> Named:
    """Every tensor under its checkpoint name, float32, without the MTP layer's shared copies."""
    yield "model.embed_tokens.weight", weights.embed_tokens.detach()
    for i, layer in enumerate(weights.layers):
        yield from _layer(layer, f"model.layers.{i}")
    yield "model.norm.weight", weights.norm.detach()
    yield "lm_head.weight", weights.lm_head.detach()
    mtp = weights.mtp
    assert mtp is not None
    prefix = f"model.layers.{config.num_hidden_layers}"
    yield f"{prefix}.enorm.weight", mtp.enorm.detach()
    yield f"{prefix}.hnorm.weight", mtp.hnorm.detach()
    yield f"{prefix}.eh_proj.weight", _tensor(mtp.eh_proj)
    yield from _layer(mtp.layer, prefix)
    yield f"{prefix}.shared_head.norm.weight", mtp.norm.detach()


def export(run: Path, out: Path, fmt: str) -> None:
    """Writes the checkpoint of a training run; `fmt` is `fp8` or `bfloat16`."""
    raw = demo_config()
    if fmt != "fp8":
        del raw["quantization_config"]
    config = parse_model_config(raw)
    weights = Initializer(config, seed=0).model()
    load_parameters(weights, run / PARAMETERS_FILE)
    out.mkdir(parents=True, exist_ok=True)
    write_weights(out, config, checkpoint_tensors(weights, config), quantize=quantize_best)
    (out / "config.json").write_text(json.dumps(raw, indent=2) + "\n")
    (out / "generation_config.json").write_text(json.dumps(GENERATION_CONFIG, indent=2) + "\n")
    for name in TOKENIZER_FILES:
        shutil.copyfile(run / name, out / name)
    num_bytes = sum(file.stat().st_size for file in out.iterdir())
    print(f"{out}: {num_bytes / 1e6:.2f} MB")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of the training run")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--format", choices=("fp8", "bfloat16"), default="fp8")
    arguments = parser.parse_args()
    export(arguments.run, arguments.out, arguments.format)


if __name__ == "__main__":
    main()
