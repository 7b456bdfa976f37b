"""`leadline plan` on the command line."""

import json
import shlex
from pathlib import Path

import pytest
import yaml

from leadline.engine.config import resolve
from leadline.engine.memory_needs import needs_of
from leadline.engine.platform_facts import PlatformFacts
from leadline.loader.family import find_config
from leadline.loader.synthetic import tiny_v3
from leadline.server.cli import main, make_parser
from leadline.server.settings import settings_from

ROOT = Path(__file__).parents[2]


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = main(["plan", *argv])
    return status, *capsys.readouterr()


def test_a_unit_of_four_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "deepseek-v3", "--gpus", "32xH800", "--itl-ms", "50")
    assert status == 0
    assert "routed experts" in out
    assert "8 of 256 a layer" in out
    lines = [line.strip() for line in out.splitlines() if "leadline serve" in line]
    assert [shlex.split(line)[-1] for line in lines] == ["0", "1", "2", "3"]
    assert all(line.startswith("leadline serve deepseek-ai/DeepSeek-V3 ") for line in lines)


def test_json_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "deepseek-v2-lite", "--gpus", "H100", "--json")
    assert status == 0
    plan = json.loads(out)
    assert plan["layout"]["num_nodes"] == plan["num_gpus"] == 1
    assert sum(part["num_bytes"] for part in plan["memory"]) == int(79.6 * 2**30)
    assert plan["commands"] == [
        "leadline serve deepseek-ai/DeepSeek-V2-Lite --max-num-seqs "
        f"{plan['expected']['requests']} --kv-tokens {plan['kv_tokens']}"
    ]


def test_the_command_of_one_gpu_is_one_that_serve_knows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, out, _ = run(capsys, "deepseek-v2-lite", "--gpus", "1xH200", "--json")
    (command,) = json.loads(out)["commands"]
    args = make_parser().parse_args(shlex.split(command)[1:])
    assert args.model == "deepseek-ai/DeepSeek-V2-Lite"


@pytest.mark.parametrize(
    "argv",
    [
        ("deepseek-v3", "--gpus", "8xH200", "--itl-ms", "60"),
        ("deepseek-v3", "--gpus", "8xH200", "--no-enable-expert-parallel"),
        ("deepseek-v3", "--gpus", "8xB200", "--tensor-parallel-size", "8"),
        ("kimi-k2-instruct", "--gpus", "8xB200", "--kv-cache-dtype", "fp8"),
    ],
)
def test_a_server_of_the_printed_command_has_that_layout(
    argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """The command's flags are parsed and settled by the server's own code."""
    _, out, _ = run(capsys, *argv, "--json")
    plan = json.loads(out)
    (command,) = plan["commands"]
    args = make_parser().parse_args(shlex.split(command)[1:])
    asked = settings_from(args).engine
    memory = PlatformFacts(device="cuda", num_cores=96, available_bytes=8 * 200 * 2**30)
    resolved, _ = resolve(asked, find_config(args.model), memory, model_path="/model")
    layout = plan["layout"]
    assert resolved.tensor_parallel_size == layout["tensor_parallel_size"]
    assert resolved.data_parallel_size == layout["data_parallel_size"]
    assert resolved.enable_expert_parallel == layout["expert_parallel"]
    assert resolved.num_pages * resolved.page_size == plan["kv_tokens"]
    assert resolved.speculative_tokens == plan["num_drafts"]
    weights = {
        part.name: part.num_bytes for part in needs_of(resolved, find_config(argv[0])).weights()
    }
    planned = {part["name"]: part["num_bytes"] for part in plan["memory"]}
    assert weights.items() <= planned.items()


def test_helm_values_are_values_of_the_chart(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "deepseek-v3", "--gpus", "8xH200", "--json")
    values = json.loads(out)["helm_values"]
    chart = yaml.safe_load((ROOT / "docker/helm/leadline/values.yaml").read_text())
    assert set(values) <= set(chart)
    assert set(values["resources"]) <= set(chart["resources"])
    assert set(values["models"]) <= set(chart["models"])


def test_a_config_alone_is_enough(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(tiny_v3()))
    lengths = ("--input", "100", "--output", "50")
    status, out, _ = run(capsys, str(tmp_path), "--gpus", "2xA100", *lengths)
    assert status == 0
    assert f"leadline serve {tmp_path}" in out


def test_no_plan_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, error = run(capsys, "deepseek-r1", "--gpus", "8xH100")
    assert (status, out) == (1, "")
    assert error.startswith("leadline plan: no layout of 8 x H100 serves this model as wished:")
    assert "16 x H100" in error


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["deepseek-v9", "--gpus", "H100"], "no config.json of 'deepseek-v9' is here"),
        (["deepseek-v3", "--gpus", "8xTPU"], "'TPU' is no GPU that plans know"),
        (["deepseek-v3", "--gpus", "H200", "--input", "1M"], "positions end at 163840"),
        (["deepseek-v3", "--gpus", "H200", "--itl-ms", "0"], "allowed: more than 0"),
        (["deepseek-v3", "--gpus", "H200", "--memory-headroom-gib", "-1"], "allowed: from 0"),
        (["deepseek-v3", "--gpus", "H200", "--speculative-tokens", "9"], "in a plan: 0 to 3"),
        (["kimi-k2-instruct", "--gpus", "H200", "--speculative-tokens", "1"], "no MTP layer"),
        (["deepseek-v3", "--gpus", "H200", "--enable-expert-parallel"], "more than one GPU"),
    ],
)
def test_what_cannot_be_planned(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, error = run(capsys, *argv)
    assert (status, out) == (1, "")
    assert words in error


def test_experts_in_the_hosts_memory(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("deepseek-v3", "--gpus", "H100", "--expert-device", "cpu", "--host-memory-gib", "720")
    status, out, _ = run(capsys, *asked, "--expert-gpu-count", "4", "--json")
    assert status == 0
    plan = json.loads(out)
    [host] = plan["host_memory"]
    assert host["num_bytes"] == pytest.approx(620 * 2**30, rel=0.03)
    assert "--expert-device cpu --expert-gpu-count 4" in plan["commands"][0]
    assert int(plan["helm_values"]["resources"]["limits"]["memory"][:-2]) > 620
    parts = {part["name"]: part["num_bytes"] for part in plan["memory"]}
    assert parts["routed experts"] == pytest.approx(4 * 2.4 * 2**30, rel=0.05)
    _, text, _ = run(capsys, *asked)
    assert "Memory of the host: " in text


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--gpus", "H100", "--host-memory-gib", "512"], "the host needs 6"),
        (["--gpus", "H100"], "wants host_memory_gib"),
        (["--gpus", "2xH100", "--host-memory-gib", "720"], "a unit of one GPU, not of 2"),
        (["--gpus", "H100", "--host-memory-gib", "0"], "are more than 0"),
        (["--gpus", "H100", "--host-memory-gib", "720", "--expert-gpu-count", "256"], "0 to 255"),
        (["--gpus", "H100", "--host-memory-gib", "720", "--expert-gpu-count", "99"], "a GPU needs"),
    ],
)
def test_experts_that_the_host_cannot_have(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, error = run(capsys, "deepseek-v3", "--expert-device", "cpu", *argv)
    assert status == 1
    assert words in error


@pytest.mark.parametrize("value", ["0xH100", "8", "8 GPUs", "8*H100"])
def test_gpus_that_are_no_number(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, error = run(capsys, "deepseek-v3", "--gpus", value)
    assert status == 2
    assert "write it as 32xH800" in error
