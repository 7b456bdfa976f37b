import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from leadline.loader.checkpoint import INDEX_FILE, SINGLE_FILE, Checkpoint
from leadline.loader.errors import CheckpointError
from leadline.loader.load import load_weights
from leadline.loader.model_config import parse_model_config, read_model_config
from leadline.loader.synthetic import tiny_v3

Write = Callable[..., Path]
Edit = Callable[[Path, Callable[[dict[str, torch.Tensor]], object]], None]

NORM = "model.norm.weight"
O_PROJ = "model.layers.0.self_attn.o_proj.weight"
EXPERT = "model.layers.1.mlp.experts.3.up_proj.weight"
MTP = "model.layers.2."


def problems(directory: Path) -> list[str]:
    return Checkpoint.open(directory).check(read_model_config(directory))


def index_of(directory: Path) -> dict[str, str]:
    weight_map: dict[str, str] = json.loads((directory / INDEX_FILE).read_text())["weight_map"]
    return weight_map


def write_index(directory: Path, weight_map: dict[str, str]) -> None:
    (directory / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize("fmt", ["float32", "bfloat16", "float16", "fp8"])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_good_checkpoint_has_no_problems(write: Write, fmt: str, sharded: bool) -> None:
    directory = write(fmt, sharded=sharded)
    assert (directory / INDEX_FILE).exists() == sharded
    assert (directory / SINGLE_FILE).exists() != sharded
    assert problems(directory) == []
    assert Checkpoint.open(directory).has_mtp(read_model_config(directory))


def test_missing_and_unexpected(write: Write, edit: Edit) -> None:
    directory = write()

    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[EXPERT]
        tensors["model.layers.0.self_attn.q_proj.weight"] = torch.zeros(3, 5)
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(8)

    edit(directory / SINGLE_FILE, change)
    assert problems(directory) == [
        f"{EXPERT} is missing; expected shape [160, 136]",
        "model.layers.0.self_attn.q_proj.weight is unexpected (shape [3, 5]); by config.json there "
        "is no such tensor",
    ]


def test_wrong_shape_and_dtype(write: Write, edit: Edit) -> None:
    directory = write()

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[EXPERT] = tensors[EXPERT][:100].clone()
        tensors[O_PROJ] = tensors[O_PROJ].to(torch.int8)
        tensors[NORM] = tensors[NORM][:1].to(torch.float8_e4m3fn)

    edit(directory / SINGLE_FILE, change)
    assert set(problems(directory)) == {
        f"{EXPERT} has shape [100, 136]; expected [160, 136] by config.json",
        f"{O_PROJ} has dtype I8; expected F32, BF16, F16, F8_E4M3",
        f"{NORM} has shape [1]; expected [136] by config.json",
        f"{NORM} has dtype F8_E4M3; expected F32, BF16, F16",
    }


def test_fp8_scales_that_are_missing_or_wrong(write: Write, edit: Edit) -> None:
    directory = write("fp8")
    assert problems(directory) == []
    down = "model.layers.0.mlp.down_proj.weight_scale_inv"

    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[EXPERT + "_scale_inv"]
        tensors[O_PROJ + "_scale_inv"] = torch.ones(1, 1)
        tensors[down] = tensors[down].to(torch.bfloat16)

    edit(directory / SINGLE_FILE, change)
    assert set(problems(directory)) == {
        f"{EXPERT}_scale_inv is missing; an FP8 weight needs its scales, shape [2, 2]",
        f"{O_PROJ}_scale_inv has shape [1, 1]; expected [2, 1], one scale for each 128x128 block",
        f"{down} has dtype BF16; expected F32, F8_E8M0",
    }


def test_fp8_without_quantization_config(write: Write) -> None:
    directory = write("fp8")
    path = directory / "config.json"
    raw = json.loads(path.read_text())
    del raw["quantization_config"]
    path.write_text(json.dumps(raw))
    found = problems(directory)
    assert any(problem.startswith(f"{EXPERT} has dtype F8_E4M3, but") for problem in found)
    assert all("no quantization_config" in problem for problem in found)


def test_a_scale_without_fp8_is_unexpected(write: Write, edit: Edit) -> None:
    directory = write()
    edit(directory / SINGLE_FILE, lambda t: t.update({O_PROJ + "_scale_inv": torch.ones(2, 1)}))
    assert len(problems(directory)) == 1
    assert problems(directory)[0].startswith(f"{O_PROJ}_scale_inv is unexpected")


@pytest.mark.parametrize("cut", [1, 5_000])
def test_a_single_file_cut_short_is_noticed_at_open(write: Write, cut: int) -> None:
    directory = write()
    path = directory / SINGLE_FILE
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(CheckpointError, match=r"has \d+ bytes, but by its header \d+;") as error:
        Checkpoint.open(directory)
    assert len(error.value.problems) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"is empty \(0 bytes\); fetch it again"),
        (b"not safetensors at all" * 10, "has 220 bytes, but begins as if its header had"),
        (b"\x02\0\0\0\0\0\0\0[]", "is damaged or truncated"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 4567\n", "4567 bytes"),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
    ],
)
def test_a_file_that_is_no_safetensors(write: Write, content: bytes, words: str) -> None:
    directory = write()
    (directory / SINGLE_FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"served: model\.safetensors .*{words}"):
        Checkpoint.open(directory)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": 3}'])
def test_an_index_that_is_none(write: Write, content: str) -> None:
    directory = write(sharded=True)
    (directory / INDEX_FILE).write_text(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        Checkpoint.open(directory)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none(write: Write, edit: Edit, scale: float) -> None:
    directory = write("fp8")
    name = f"{O_PROJ}_scale_inv"
    edit(directory / SINGLE_FILE, lambda tensors: tensors[name].flatten()[-1:].fill_(scale))
    config = read_model_config(directory)
    with pytest.raises(CheckpointError, match=rf"{name} holds a scale that is not finite or not"):
        load_weights(Checkpoint.open(directory), config)


def test_many_problems_are_cut(write: Write) -> None:
    directory = write()
    raw = json.loads((directory / "config.json").read_text())
    config = parse_model_config(raw | {"n_routed_experts": 16})
    with pytest.raises(CheckpointError) as caught:
        load_weights(Checkpoint.open(directory), config)
    lines = str(caught.value).splitlines()
    assert len(lines) == 12
    assert lines[-1].endswith(f"more; `leadline doctor {directory}` lists all")
    assert len(caught.value.problems) > 20


def test_index_naming_an_absent_file(write: Write) -> None:
    directory = write("fp8", sharded=True)
    file = index_of(directory)[EXPERT]
    (directory / file).unlink()
    assert problems(directory) == [f"{INDEX_FILE} names the file {file}, which is not there"]


def test_a_shard_cut_short(write: Write) -> None:
    directory = write("fp8", sharded=True)
    file = index_of(directory)[EXPERT]
    content = (directory / file).read_bytes()
    (directory / file).write_bytes(content[: len(content) // 2])
    found = problems(directory)
    assert len(found) == 1
    half = len(content) // 2
    assert found[0] == f"{file} has {half} bytes, but by its header {len(content)}; fetch it again"


def test_index_and_files_disagree(write: Write, edit: Edit) -> None:
    directory = write(sharded=True)
    index = index_of(directory)
    files = sorted(set(index.values()))
    other = next(file for file in files if file != index[NORM])
    holding = next(file for file in files if file not in (index[NORM], other))
    edit(directory / holding, lambda tensors: tensors.update({NORM: torch.ones(136)}))
    home, expert_file = index[NORM], index.pop(EXPERT)
    index["model.layers.7.input_layernorm.weight"] = other
    write_index(directory, index)
    found = Checkpoint.open(directory).file_problems
    assert set(found) == {
        f"{INDEX_FILE} has model.layers.7.input_layernorm.weight in {other}, which does not hold "
        "it",
        f"{holding} holds {NORM}, which {INDEX_FILE} has in {home}",
        f"{expert_file} holds {EXPERT}, which {INDEX_FILE} does not name",
    }


def test_one_error_lists_everything(write: Write, edit: Edit) -> None:
    """An absent file, a truncated one and a wrong shape in a third, told at once by the load."""
    directory = write(sharded=True)
    index = index_of(directory)
    absent, cut = index[EXPERT], index["lm_head.weight"]
    embed = "model.embed_tokens.weight"
    assert len({absent, cut, index[embed]}) == 3
    (directory / absent).unlink()
    (directory / cut).write_bytes((directory / cut).read_bytes()[:-7])
    edit(directory / index[embed], lambda t: t.update({embed: t[embed][:500].clone()}))
    config = read_model_config(directory)
    with pytest.raises(CheckpointError) as error:
        load_weights(Checkpoint.open(directory), config)
    found = error.value.problems
    assert len(found) == 3
    assert all(problem in str(error.value) for problem in found)
    assert any(absent in problem for problem in found)
    assert any(cut in problem for problem in found)
    assert f"{embed} has shape [500, 136]; expected [512, 136] by config.json" in found


def test_config_that_disagrees_with_the_tensors(write: Write, two_layers: dict[str, Any]) -> None:
    directory = write(changes={"num_nextn_predict_layers": 0})
    raw = two_layers | {"num_nextn_predict_layers": 0}
    larger = Checkpoint.open(directory).check(
        parse_model_config(raw | {"hidden_size": 144, "num_hidden_layers": 3})
    )
    assert "model.norm.weight has shape [136]; expected [144] by config.json" in larger
    assert "model.layers.2.input_layernorm.weight is missing; expected shape [144]" in larger
    fewer = Checkpoint.open(directory).check(parse_model_config(raw | {"num_hidden_layers": 1}))
    assert len(fewer) == 1
    assert "tensors of model.layers.1 are unexpected" in fewer[0]
    assert "num_hidden_layers = 1" in fewer[0]


def test_mtp_layer_announced_but_absent_is_fine(write: Write) -> None:
    directory = write(with_mtp=False)
    config = read_model_config(directory)
    assert config.num_nextn_predict_layers == 1
    checkpoint = Checkpoint.open(directory)
    assert checkpoint.check(config) == []
    assert not checkpoint.has_mtp(config)


def test_mtp_layer_partly_there(write: Write, edit: Edit) -> None:
    directory = write()
    gone = [f"{MTP}enorm.weight", f"{MTP}mlp.experts.0.down_proj.weight"]

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in gone:
            del tensors[name]

    edit(directory / SINGLE_FILE, change)
    assert [problem.split()[0] for problem in problems(directory)] == gone


def test_mtp_layer_in_a_shard_that_is_absent(write: Write) -> None:
    """It is not taken for a checkpoint without one."""
    directory = write(sharded=True)
    index = index_of(directory)
    files = {file for name, file in index.items() if name.startswith(MTP)}
    for file in files:
        (directory / file).unlink()
    checkpoint = Checkpoint.open(directory)
    assert checkpoint.has_mtp(read_model_config(directory))
    assert len(problems(directory)) == len(files)


def test_mtp_tensors_that_the_config_does_not_announce(
    write: Write, two_layers: dict[str, Any]
) -> None:
    checkpoint = Checkpoint.open(write())
    config = parse_model_config(two_layers | {"num_nextn_predict_layers": 0})
    assert not checkpoint.has_mtp(config)
    (problem,) = checkpoint.check(config)
    num_mtp = sum(name.startswith(MTP) for name in checkpoint.tensors)
    assert problem.startswith(f"{num_mtp} tensors of model.layers.2 are unexpected")
    assert problem.endswith("if it is the MTP layer, the latter must be 1")


def test_index_naming_a_file_elsewhere(write: Write) -> None:
    directory, other = write(sharded=True), write(name="other")
    index = index_of(directory)
    index[NORM] = f"../{other.name}/{SINGLE_FILE}"
    write_index(directory, index)
    assert f"{INDEX_FILE} names {index[NORM]!r}; allowed: files beside it" in problems(directory)
    assert NORM not in Checkpoint.open(directory).tensors


def test_index_that_is_a_directory(write: Write) -> None:
    directory = write()
    (directory / INDEX_FILE).mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        Checkpoint.open(directory)


def test_tied_embeddings_need_no_head(write: Write, edit: Edit) -> None:
    directory = write(changes={"tie_word_embeddings": True})
    assert "lm_head.weight" not in Checkpoint.open(directory).tensors
    assert problems(directory) == []


def test_written_by_transformers(tmp_path: Path) -> None:
    """Its save_pretrained leaves the MTP layer out and announces it all the same."""
    raw = tiny_v3()
    known = {name: raw[name] for name in raw if name not in ("architectures", "model_type")}
    torch.manual_seed(0)
    model = DeepseekV3ForCausalLM(DeepseekV3Config(**known))
    model.save_pretrained(tmp_path)
    config = read_model_config(tmp_path)
    assert config.num_nextn_predict_layers == 1
    weights = load_weights(Checkpoint.open(tmp_path), config)
    assert not weights.has_mtp
    expert = weights.tensors["model.layers.2.mlp.experts.5.down_proj.weight"]
    fused = model.model.layers[2].mlp.experts.down_proj
    assert isinstance(expert, torch.Tensor)
    assert torch.equal(expert, fused[5])
