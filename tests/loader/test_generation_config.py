"""Sampling defaults and end tokens."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from leadline.loader.errors import ConfigFileError
from leadline.loader.generation_config import GenerationConfig, read_generation_config


def read(directory: Path, eos_token: str | None = None) -> GenerationConfig:
    model: Any = SimpleNamespace(eos_token_ids=(1,))
    tokenizer: Any = SimpleNamespace(eos_token=eos_token, token_id={"<end>": 9}.get)
    return read_generation_config(directory, model, tokenizer)


def write(directory: Path, **values: Any) -> None:
    (directory / "generation_config.json").write_text(json.dumps(values))


def test_absent_file_is_neutral(tmp_path: Path) -> None:
    assert read(tmp_path) == GenerationConfig(eos_token_ids=(1,))


def test_end_tokens_are_joined(tmp_path: Path) -> None:
    write(tmp_path, eos_token_id=[5, 1], temperature=0.6, top_p=0.95, top_k=40)
    config = read(tmp_path, "<end>")
    assert config.eos_token_ids == (1, 5, 9)
    assert (config.temperature, config.top_p, config.top_k) == (0.6, 0.95, 40)


def test_greedy_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, do_sample=False, temperature=0.6)
    assert read(tmp_path).temperature == 0.0


@pytest.mark.parametrize("values", [{"temperature": -1}, {"top_p": "x"}, {"top_k": 1.5}])
def test_bad_values_are_named(tmp_path: Path, values: dict[str, Any]) -> None:
    write(tmp_path, **values)
    with pytest.raises(ConfigFileError, match=rf"generation_config\.json.*{next(iter(values))}"):
        read(tmp_path)


def test_no_json(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text("[")
    with pytest.raises(ConfigFileError, match="not valid JSON"):
        read(tmp_path)
