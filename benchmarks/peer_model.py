"""The checkpoints that the peers serve: random weights, in FP8 and the same ones in BF16."""

import json
import shutil
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from leadline.kernels.types import QuantTensor
from leadline.loader.checkpoint import Checkpoint
from leadline.loader.load import load_weights
from leadline.loader.model_config import parse_model_config, read_model_config
from leadline.loader.synthetic import tiny_v3, write_checkpoint
from leadline.loader.writer import write_weights

MAX_LEN = 4096
SIZES = ("98m", "1290m")
_SHAPES: dict[str, dict[str, Any]] = {
    "98m": {
        "vocab_size": 16384,
        "hidden_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "q_lora_rank": 256,
        "intermediate_size": 1536,
        "moe_intermediate_size": 256,
        "n_routed_experts": 32,
        "num_experts_per_tok": 4,
        "n_group": 4,
        "topk_group": 2,
    },
    "1290m": {
        "vocab_size": 32768,
        "hidden_size": 1024,
        "num_hidden_layers": 12,
        "num_attention_heads": 16,
        "q_lora_rank": 512,
        "intermediate_size": 4096,
        "moe_intermediate_size": 512,
        "n_routed_experts": 64,
        "num_experts_per_tok": 8,
        "n_group": 8,
        "topk_group": 4,
    },
}
_SPECIAL = ("<bos>", "<eos>")
_WHOLE = "complete"  # the last file of a checkpoint that was written whole
# DeepSeek-V3's own pre-tokeniser, which llama.cpp knows as `deepseek-v3`.
_SPLITS = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)


def config_of(size: str) -> dict[str, Any]:
    """`config.json` of a size in `SIZES`: DeepSeek-V3 with heads and YaRN as in the official one.

    The sizes are parameters without the MTP layer, which each checkpoint has all the same.
    """
    shape = _SHAPES[size]
    heads = shape["num_attention_heads"]
    yarn = tiny_v3()["rope_scaling"] | {"factor": 40, "original_max_position_embeddings": 4096}
    sizes = {
        "num_key_value_heads": heads,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "rope_scaling": yarn,
        "max_position_embeddings": MAX_LEN,
    }
    return tiny_v3() | shape | sizes


def active_bytes(config: dict[str, Any], item_bytes: float) -> float:
    """Weights that one token reads, without the embedding, at so many bytes each."""
    hidden, heads, latent = config["hidden_size"], config["num_attention_heads"], 512
    query, nope, rope, value = config["q_lora_rank"], 128, 64, 128
    attention = (
        hidden * (query + latent + rope)
        + query * heads * (nope + rope)
        + latent * heads * (nope + value)
        + heads * value * hidden
    )
    width = config["moe_intermediate_size"]
    experts = 3 * hidden * width * (config["num_experts_per_tok"] + config["n_shared_experts"])
    router = hidden * config["n_routed_experts"]
    num_dense = config["first_k_dense_replace"]
    num_moe = config["num_hidden_layers"] - num_dense
    dense = 3 * hidden * config["intermediate_size"]
    layers = (num_moe + num_dense) * attention + num_moe * (experts + router) + num_dense * dense
    return item_bytes * float(layers + hidden * config["vocab_size"])


def make_tokenizer(vocab_size: int) -> Tokenizer:
    """Byte-level BPE of exactly that many tokens: bytes, pairs of letters, and pairs of those."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = list(product(ascii_lowercase, repeat=2))
    num_fours = vocab_size - len(_SPECIAL) - len(letters) - len(pairs)
    twos = ["".join(pair) for pair in pairs]
    merges = [*pairs, *islice(product(twos, repeat=2), num_fours)]
    tokens = [*_SPECIAL, *letters, *("".join(merge) for merge in merges)]
    assert len(tokens) == vocab_size, "too small or too large a vocabulary"
    tokenizer = Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)
    )
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in _SPLITS]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in _SPECIAL])
    return tokenizer


def first_word_id() -> int:
    """Token ids from here on are four letters each: what prompts are made of."""
    return len(_SPECIAL) + 256 + len(ascii_lowercase) ** 2


def write_models(folder: Path, size: str) -> tuple[Path, Path]:
    """The FP8 checkpoint and its BF16 twin; those that are there whole are left as they are."""
    fp8, bf16 = folder / f"{size}-fp8", folder / f"{size}-bf16"
    return write_fp8(fp8, config_of(size)), write_bf16(bf16, fp8)


def write_fp8(directory: Path, config: dict[str, Any]) -> Path:
    """A checkpoint of random weights in the official FP8 format, with a tokenizer."""
    if _begin(directory):
        write_checkpoint(directory, config, fmt="fp8")
        _write_tokenizer(directory, config["vocab_size"])
        (directory / _WHOLE).touch()
    return directory


def write_bf16(directory: Path, fp8: Path) -> Path:
    """The same weights after FP8's rounding, in BF16: for peers that read no FP8."""
    if _begin(directory):
        raw = json.loads((fp8 / "config.json").read_text())
        del raw["quantization_config"]
        (directory / "config.json").write_text(json.dumps(raw, indent=2) + "\n")
        write_weights(directory, parse_model_config(raw), _dequantised(fp8))
        _write_tokenizer(directory, raw["vocab_size"])
        (directory / _WHOLE).touch()
    return directory


def _begin(directory: Path) -> bool:
    """Whether it is to be written; then it is empty."""
    if (directory / _WHOLE).exists():
        return False
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return True


def _dequantised(directory: Path) -> Iterator[tuple[str, Tensor]]:
    weights = load_weights(
        Checkpoint.open(directory),
        read_model_config(directory),
        dtype=torch.bfloat16,
        dequantize=True,
    )
    for name, tensor in weights.tensors.items():
        assert not isinstance(tensor, QuantTensor), "it was dequantised"
        yield name, tensor


def _write_tokenizer(directory: Path, vocab_size: int) -> None:
    bos, eos = _SPECIAL
    make_tokenizer(vocab_size).save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": eos,
        "add_bos_token": False,
        "model_max_length": MAX_LEN,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
