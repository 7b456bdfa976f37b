from pathlib import Path

import torch

from benchmarks.peer_model import (
    SIZES,
    active_bytes,
    config_of,
    first_word_id,
    make_tokenizer,
    write_bf16,
    write_fp8,
)
from leadline.kernels.types import QuantTensor
from leadline.loader.checkpoint import Checkpoint
from leadline.loader.load import load_weights
from leadline.loader.model_config import parse_model_config, read_model_config
from leadline.loader.synthetic import tiny_v3
from leadline.loader.tensor_specs import expected_tensors, mtp_prefix
from leadline.loader.tokenizer import Tokenizer

TINY = tiny_v3() | {"vocab_size": 1100}


def num_parameters(size: str) -> int:
    config = parse_model_config(config_of(size))
    return sum(
        torch.Size(spec.shape).numel()
        for name, spec in expected_tensors(config).items()
        if not name.startswith(mtp_prefix(config))
    )


def test_sizes() -> None:
    assert {size: round(num_parameters(size) / 1e5) / 10 for size in SIZES} == {
        "98m": 98.5,
        "1290m": 1287.6,
    }
    assert [round(active_bytes(config_of(size), 1.0) / 1e5) / 10 for size in SIZES] == [35.0, 285.1]


def test_both_formats_hold_the_same_weights(tmp_path: Path) -> None:
    fp8 = write_fp8(tmp_path / "fp8", TINY)
    bf16 = write_bf16(tmp_path / "bf16", fp8)
    as_stored = load_weights(Checkpoint.open(fp8), read_model_config(fp8)).tensors
    assert any(isinstance(tensor, QuantTensor) for tensor in as_stored.values())
    widened = load_weights(
        Checkpoint.open(fp8), read_model_config(fp8), dtype=torch.bfloat16, dequantize=True
    ).tensors
    twin = load_weights(Checkpoint.open(bf16), read_model_config(bf16)).tensors
    assert twin.keys() == widened.keys()
    for name, tensor in widened.items():
        assert isinstance(tensor, torch.Tensor)
        assert torch.equal(twin[name], tensor.to(twin[name].dtype)), name


def test_a_checkpoint_is_written_once_and_anew_if_it_is_not_whole(tmp_path: Path) -> None:
    path = write_fp8(tmp_path / "fp8", TINY)
    weights = path / "model.safetensors"
    before = weights.stat().st_mtime_ns
    write_fp8(path, TINY)
    assert weights.stat().st_mtime_ns == before
    (path / "complete").unlink()
    (path / "left_over").touch()
    write_fp8(path, TINY)
    assert weights.stat().st_mtime_ns != before
    assert not (path / "left_over").exists()


def test_every_token_of_the_vocabulary_is_there(tmp_path: Path) -> None:
    make_tokenizer(1100).save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_dir(tmp_path)
    assert tokenizer.vocab_size == 1100
    assert make_tokenizer(1100).decode([first_word_id(), 1099]) == "aaaaaagj"
    for text in ("Hello 1234, world!\n\u4e2d\u6587", " \t"):
        backend = make_tokenizer(1100)
        assert backend.decode(backend.encode(text).ids) == text
