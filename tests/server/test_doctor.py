"""What would keep the server from serving is found beforehand, and named in a line."""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from safetensors.torch import load_file, save_file
from tokenizers import decoders, models, pre_tokenizers

from leadline.engine.platform_facts import PlatformFacts
from leadline.loader.synthetic import tiny_v3, write_checkpoint
from leadline.server.cli import main
from leadline.server.config import ServerConfig
from leadline.server.doctor import machine
from leadline.server.doctor.finding import Level
from leadline.server.doctor.model import check_model

INDEX = "model.safetensors.index.json"
Damage = Callable[[Path], Any]


def save_tokenizer(directory: Path, num_extra: int = 0) -> None:
    """A token a byte, and more."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([f"<extra{number}>" for number in range(num_extra)])
    backend.save(str(directory / "tokenizer.json"))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint: FP8 weights in several files, a tokenizer, a template."""
    directory = tmp_path_factory.mktemp("good") / "model"
    config = tiny_v3() | {"num_hidden_layers": 2, "n_routed_experts": 8, "hidden_size": 136}
    write_checkpoint(directory, config, fmt="fp8", max_shard_bytes=300_000)
    save_tokenizer(directory)
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    (directory / "chat_template.jinja").write_text(template)
    return directory


@pytest.fixture
def damaged(good: Path, tmp_path: Path) -> Callable[[Damage], Path]:
    def damage(change: Damage) -> Path:
        directory = tmp_path / "model"
        shutil.copytree(good, directory)
        change(directory)
        return directory

    return damage


def examine(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    status = main(["doctor", "--port", "0", *argv])
    captured = capsys.readouterr()
    assert captured.err == ""
    return status, captured.out


def faults(text: str, level: str = "fail") -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.startswith(f"[{level}]")]


def shard(directory: Path, number: int = 0) -> Path:
    return sorted(directory.glob("model-*.safetensors"))[number]


def config_values(directory: Path, **values: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_tensors(directory: Path, suffix: str, change: Callable[[Any], Any]) -> None:
    """Change the first tensor of such a name; None removes it, from the index too."""
    index = json.loads((directory / INDEX).read_text())
    name = min(name for name in index["weight_map"] if name.endswith(suffix))
    path = directory / index["weight_map"][name]
    content = {key: tensor.clone() for key, tensor in load_file(path).items()}
    changed = change(content.pop(name))
    if changed is None:
        del index["weight_map"][name]
        (directory / INDEX).write_text(json.dumps(index))
    else:
        content[name] = changed
    path.unlink()
    save_file(content, path)


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:abcd\nsize 4567\n"
WEIGHT_FAULTS: dict[str, tuple[Damage, list[str]]] = {
    "a shard that is cut short": (
        lambda d: shard(d).write_bytes(shard(d).read_bytes()[:-100]),
        ["model-00001-of-", "bytes, but by its header", "fetch it again"],
    ),
    "a Git LFS pointer": (
        lambda d: shard(d, 1).write_text(LFS),
        ["model-00002-of-", "Git LFS pointer to a file of 4567 bytes", "git lfs pull"],
    ),
    "a web page": (
        lambda d: shard(d).write_text("<!doctype html>"),
        ["model-00001-of-", "is a web page", "fetch it again"],
    ),
    "an empty shard": (
        lambda d: shard(d).write_text(""),
        ["model-00001-of-", "is empty (0 bytes)", "fetch it again"],
    ),
    "a shard that is not there": (
        lambda d: shard(d).unlink(),
        [INDEX, "model-00001-of-", "which is not there"],
    ),
    "an index that is none": (
        lambda d: (d / INDEX).write_text("{"),
        [INDEX, "cannot be read", "fetch it again"],
    ),
    "a tensor that is missing": (
        lambda d: change_tensors(d, "o_proj.weight", lambda tensor: None),
        ["self_attn.o_proj.weight is missing; expected shape"],
    ),
    "a scale that is missing": (
        lambda d: change_tensors(d, "o_proj.weight_scale_inv", lambda tensor: None),
        ["o_proj.weight_scale_inv is missing; an FP8 weight needs its scales"],
    ),
    "a wrong dtype": (
        lambda d: change_tensors(d, "norm.weight", lambda tensor: tensor.to(int)),
        ["norm.weight has dtype I64; expected F32, BF16, F16"],
    ),
    "a wrong shape": (
        lambda d: change_tensors(d, "norm.weight", lambda tensor: tensor[:5].clone()),
        ["norm.weight has shape [5]; expected ["],
    ),
    "other experts than in the config": (
        lambda d: config_values(d, n_routed_experts=16),
        ["experts", "is missing; expected shape"],
    ),
    "another rope dimension": (
        lambda d: config_values(d, qk_rope_head_dim=32),
        ["has shape", "by config.json"],
    ),
    "no weights": (
        lambda d: [path.unlink() for path in (*d.glob("*.safetensors"), d / INDEX)],
        ["there is neither model.safetensors nor model.safetensors.index.json"],
    ),
}
OTHER_FAULTS: dict[str, tuple[Damage, list[str]]] = {
    "an unknown quantisation": (
        lambda d: config_values(d, quantization_config={"quant_method": "awq"}),
        ["config.json", "awq"],
    ),
    "an unknown architecture": (
        lambda d: config_values(d, architectures=["LlamaForCausalLM"], model_type="llama"),
        ["config.json", "LlamaForCausalLM"],
    ),
    "no config": (lambda d: (d / "config.json").unlink(), ["config.json does not exist", "give"]),
    "a config that is a pointer": (
        lambda d: (d / "config.json").write_text(LFS),
        ["config.json is a Git LFS pointer", "git lfs pull"],
    ),
    "no tokenizer": (lambda d: (d / "tokenizer.json").unlink(), ["no tokenizer in", "expected"]),
    "a tokenizer that is a web page": (
        lambda d: (d / "tokenizer.json").write_text("<html>"),
        ["tokenizer.json is a web page", "fetch it again"],
    ),
    "more tokens than embeddings": (
        lambda d: save_tokenizer(d, num_extra=300),
        ["has 556 tokens, but config.json has vocab_size = 512", "fetch both files again"],
    ),
    "a template that is none": (
        lambda d: (d / "chat_template.jinja").write_text("{% if %}"),
        ["the chat template 'default' is no valid jinja: line 1"],
    ),
}
ALL_FAULTS = WEIGHT_FAULTS | OTHER_FAULTS


def test_a_good_checkpoint(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = examine(capsys, str(good))
    assert faults(text) == []
    assert status == 0
    subjects = {line.split()[1] for line in faults(text, "ok")}
    assert subjects >= {"packages", "port", "config.json", "tokenizer", "weights", "memory"}


def test_the_built_in_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert examine(capsys)[0] == 0


@pytest.mark.parametrize("name", ALL_FAULTS)
def test_the_doctor_finds(
    name: str, damaged: Callable[[Damage], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    damage, words = ALL_FAULTS[name]
    status, text = examine(capsys, str(damaged(damage)))
    assert status == 1
    assert any(all(word in line for word in words) for line in faults(text)), text


@pytest.mark.parametrize(
    "name",
    [
        *OTHER_FAULTS,
        "a Git LFS pointer",
        "a shard that is cut short",
        "a scale that is missing",
        "other experts than in the config",
    ],
)
def test_serve_refuses(
    name: str, damaged: Callable[[Damage], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    damage, words = ALL_FAULTS[name]
    assert main(["serve", str(damaged(damage)), "--port", "0"]) == 1
    errors = capfd.readouterr().err
    assert errors.startswith("leadline serve: ")
    assert any(all(word in line for word in words) for line in errors.splitlines()), errors
    assert "Traceback" not in errors
    assert len(errors.splitlines()) <= (12 if "experts" in name else 1)


def test_a_bad_start_for_other_reasons(
    good: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        cases = [
            (["--port", port], [f"cannot listen on port {port}", "stop the program that has it"]),
            (
                ["--kv-tokens", "640", "--max-model-len", "200", "--host-kv-tokens", "3"],
                ["host_kv"],
            ),
            (["--kv-tokens", "64", "--max-model-len", "200"], ["200", "64 tokens"]),
            (["--max-model-len", "9999"], ["max_model_len is 9999", "256"]),
            (["--ssl-certfile", "/nowhere"], ["--ssl-certfile: /nowhere cannot be read"]),
        ]
        for flags, words in cases:
            for command in ("serve", "doctor"):
                argv = [command, str(good), *flags]
                assert main(argv if "--port" in flags else [*argv, "--port", "0"]) == 1
                captured = capfd.readouterr()
                lines = faults(captured.out) if command == "doctor" else captured.err.splitlines()
                assert len(lines) == 1, lines
                assert all(word in lines[0] for word in words), lines


def test_what_is_only_worth_knowing(
    damaged: Callable[[Damage], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def change(directory: Path) -> None:
        (directory / "chat_template.jinja").unlink()
        (directory / "generation_config.json").write_text('{"num_beams": 4}')

    status, text = examine(capsys, str(damaged(change)), "--limit", "connections=1m")
    assert status == 0
    found = "\n".join(faults(text, "warn"))
    assert "give one with --chat-template" in found
    assert "num_beams=4" in found
    assert "ulimit -n" in found


def test_a_model_that_is_not_here_is_not_downloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    status, text = examine(capsys, "org/name")
    assert status == 0
    assert "`leadline serve org/name` downloads it" in text
    assert list(tmp_path.iterdir()) == []
    assert examine(capsys, "/nowhere")[0] == 1


@pytest.mark.parametrize(
    ("available_bytes", "level"), [(2**34, Level.OK), (8_400_000, Level.WARN), (1, Level.FAIL)]
)
def test_memory_against_weights(good: Path, available_bytes: int, level: Level) -> None:
    from leadline.engine.config import EngineConfig

    facts = PlatformFacts(device="cpu", num_cores=1, available_bytes=available_bytes)
    engine = EngineConfig(kv_tokens=256)
    findings = list(check_model(good, engine, ServerConfig(), facts))
    [memory] = [finding for finding in findings if finding.subject == "memory"]
    assert memory.level is level, memory.text


def test_packages_that_are_missing_or_other_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["torch==1.0", "no-such-package>=3", "numpy>=2", "pytest>=9; extra == 'test'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: wanted)
    texts = [finding.text for finding in machine.check_packages()]
    assert len(texts) == 2
    assert texts[0].endswith("needed: 1.0: pip install 'torch==1.0'")
    assert texts[1] == "no-such-package is missing; pip install 'no-such-package'"
