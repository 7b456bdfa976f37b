"""Sampling defaults and end tokens."""

import json
from pathlib import Path
from typing import Any

import pytest

from leadline.loader.errors import ConfigFileError
from leadline.loader.generation_config import GenerationConfig, read_generation_config


def write(directory: Path, **values: Any) -> None:
    (directory / "generation_config.json").write_text(json.dumps(values))


def test_absent_file_is_neutral(tmp_path: Path) -> None:
    expected = GenerationConfig(eos_token_ids=(1,))
    assert read_generation_config(tmp_path, other_eos_ids=[1, None]) == expected


def test_as_deepseek_v3_has_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        _from_model_config=True,
        bos_token_id=0,
        eos_token_id=1,
        do_sample=True,
        temperature=0.6,
        top_p=0.95,
        transformers_version="4.39.3",
    )
    assert read_generation_config(tmp_path) == GenerationConfig(
        temperature=0.6, top_p=0.95, eos_token_ids=(1,)
    )


def test_end_tokens_are_joined(tmp_path: Path) -> None:
    write(tmp_path, eos_token_id=[5, 1], top_k=40)
    config = read_generation_config(tmp_path, other_eos_ids=(9, 1))
    assert config.eos_token_ids == (1, 5, 9)
    assert config.top_k == 40


@pytest.mark.parametrize("top_k", [0, -1, None])
def test_all_tokens_are_kept(tmp_path: Path, top_k: int | None) -> None:
    write(tmp_path, top_k=top_k, temperature=None)
    assert read_generation_config(tmp_path) == GenerationConfig()


def test_greedy_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, do_sample=False, temperature=0.6)
    assert read_generation_config(tmp_path).temperature == 0.0


def test_a_penalty_of_the_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, repetition_penalty=1.05)
    config = read_generation_config(tmp_path)
    assert (config.repetition_penalty, config.not_honoured) == (1.05, ())


def test_what_is_not_honoured_is_named(tmp_path: Path) -> None:
    write(tmp_path, guidance_scale=1.05, no_repeat_ngram_size=0, typical_p=0.9, num_beams=1)
    expected = ("guidance_scale=1.05", "typical_p=0.9")
    assert read_generation_config(tmp_path).not_honoured == expected


def test_every_bad_value_is_listed(tmp_path: Path) -> None:
    bad = {"temperature": -1, "top_p": "x", "top_k": 1.5, "min_p": 2, "eos_token_id": "end"}
    write(tmp_path, **bad)
    with pytest.raises(ConfigFileError, match=r"generation_config\.json") as caught:
        read_generation_config(tmp_path)
    for name in bad:
        assert f"{name} is" in str(caught.value)
    assert "min_p is 2; allowed: 0 to 1" in str(caught.value)


@pytest.mark.parametrize(
    "bad",
    [
        {"top_k": True},
        {"temperature": float("inf")},
        {"temperature": float("nan")},
        {"top_p": 0},
        {"repetition_penalty": 0},
        {"do_sample": "no"},
        {"do_sample": 1},
        {"eos_token_id": [True]},
    ],
)
def test_odd_values_are_named(tmp_path: Path, bad: dict[str, Any]) -> None:
    write(tmp_path, **bad)
    with pytest.raises(ConfigFileError, match=f"{next(iter(bad))} is"):
        read_generation_config(tmp_path)


@pytest.mark.parametrize("content", ["[", "[1]"])
def test_no_object(tmp_path: Path, content: str) -> None:
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(ConfigFileError, match=r"generation_config\.json"):
        read_generation_config(tmp_path)


def test_another_source(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    other.mkdir()
    write(own, temperature=0.6, eos_token_id=[1, 2])
    write(other, top_p=0.5)
    expected = GenerationConfig(eos_token_ids=(1, 2, 9))
    assert read_generation_config(own, other_eos_ids=[9], source="none") == expected
    for source in (other, other / "generation_config.json"):
        config = read_generation_config(own, source=str(source))
        assert config == GenerationConfig(top_p=0.5)
    for missing in (tmp_path, tmp_path / "no.json"):
        with pytest.raises(ConfigFileError, match=r"--generation-config: .*; allowed: auto, none"):
            read_generation_config(own, source=str(missing))


@pytest.mark.parametrize("source", ["auto", "none"])
def test_overrides_win(tmp_path: Path, source: str) -> None:
    write(tmp_path, temperature=0.6, top_k=5)
    overrides = {"temperature": 0.25, "max_new_tokens": 7, "eos_token_id": 3}
    config = read_generation_config(tmp_path, source=source, overrides=overrides)
    assert (config.temperature, config.max_new_tokens, config.eos_token_ids) == (0.25, 7, (3,))
    assert config.top_k == (5 if source == "auto" else 0)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"temprature": 1}, "there is no setting 'temprature'; allowed: temperature, top_p"),
        ({"no_repeat_ngram_size": 3}, "there is no setting 'no_repeat_ngram_size'"),
        ({"top_p": 2}, "top_p is 2; allowed: 0 to 1"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; allowed: an integer from 1 on"),
        ({"max_new_tokens": True}, "max_new_tokens is True"),
    ],
)
def test_bad_overrides(tmp_path: Path, overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigFileError) as caught:
        read_generation_config(tmp_path, overrides=overrides)
    assert str(caught.value).startswith("--override-generation-config: ")
    assert words in str(caught.value)
