"""Public models are known by name; a config.json that is here comes first."""

import json
from pathlib import Path

import pytest

from leadline.loader.errors import ModelNotFoundError
from leadline.loader.family import FAMILY, find_config, hub_name, known_config, short_name
from leadline.loader.synthetic import tiny_v2_lite, tiny_v3


@pytest.mark.parametrize("name", FAMILY)
def test_every_model_has_a_valid_config(name: str) -> None:
    config = known_config(name)
    assert config == known_config(short_name(name)) == known_config(name.lower())
    assert hub_name(short_name(name)) == name


def test_other_names_are_unknown() -> None:
    assert known_config("deepseek-v9") is None
    assert known_config("somebody/DeepSeek-V3") is None
    with pytest.raises(
        ModelNotFoundError, match=r"no config.json of 'deepseek-v9' .* deepseek-v3,"
    ):
        find_config("deepseek-v9")


def test_a_directory_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deepseek-v3").mkdir()
    (tmp_path / "deepseek-v3/config.json").write_text(json.dumps(tiny_v3()))
    monkeypatch.chdir(tmp_path)
    assert find_config("deepseek-v3").hidden_size == 64
    assert find_config("deepseek-r1").hidden_size == 7168
    assert find_config("leadline-demo").vocab_size == 4096


def test_the_hubs_cache_needs_no_weights(tmp_path: Path) -> None:
    repo = tmp_path / "models--org--name"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs/main").write_text("abc")
    (repo / "snapshots/abc").mkdir(parents=True)
    (repo / "snapshots/abc/config.json").write_text(json.dumps(tiny_v2_lite()))
    assert find_config("org/name", cache_directory=tmp_path).q_lora_rank is None
    with pytest.raises(ModelNotFoundError):
        find_config("org/other", cache_directory=tmp_path)
