import argparse
import dataclasses
import json
import os
import subprocess
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import pytest

from leadline.engine.config import EngineConfig
from leadline.engine.errors import ConfigError
from leadline.server.cli import main, make_parser
from leadline.server.config import KEY_VARIABLE, ServerConfig
from leadline.server.flags import add_flag, flag_of, integer
from leadline.server.serve_flags import COMMON
from leadline.server.settings import settings_from

CONFIGS = (EngineConfig, ServerConfig)
FIELDS = [(config, field) for config in CONFIGS for field in dataclasses.fields(config)]
Field = dataclasses.Field[Any]


def configs_of(*flags: str) -> list[Any]:
    settings = settings_from(make_parser().parse_args(["serve", *flags]))
    return [settings.engine, settings.server]


def other_value(config_type: type, field: Field) -> tuple[list[str], Any]:
    """Flags that give a field a value that is not its default, and the value."""
    flag, hint = flag_of(field.name), typing.get_type_hints(config_type)[field.name]
    parts = typing.get_args(hint) or (hint,)
    if field.name == "model":
        return ["org/name"], "org/name"
    if bool in parts:
        return ([flag.replace("--", "--no-")], False) if field.default else ([flag], True)
    if field.metadata["choices"]:
        value = field.metadata["choices"][-1]
        return [flag, value], value
    if int in parts:
        return [flag, "3k"], 3000
    if float in parts:
        return [flag, "1.5"], 1.5
    if typing.get_origin(hint) is tuple:
        return [flag, "one", flag, "two"], ("one", "two")
    if typing.get_origin(hint) is Mapping:
        return [flag, "linear=a", flag, "route=b"], {"linear": "a", "route": "b"}
    return [flag, "word"], "word"


def test_without_flags_everything_is_the_default() -> None:
    assert configs_of() == [EngineConfig(), ServerConfig()]


@pytest.mark.parametrize(("config_type", "field"), FIELDS, ids=[f.name for _, f in FIELDS])
def test_every_field_has_its_flag(config_type: type, field: Field) -> None:
    flags, value = other_value(config_type, field)
    for config in configs_of(*flags):
        given = {field.name: value} if type(config) is config_type else {}
        assert config == type(config)(**given)
        assert given == {} or config != config_type()


def test_switches_go_both_ways() -> None:
    flags = ["--prefix-caching", "--no-batch-invariant", "--no-access-log"]
    engine, server = configs_of(*flags, "--drain-timeout", "0")
    assert engine == EngineConfig(prefix_caching=True, batch_invariant=False)
    assert server == ServerConfig(access_log=False, drain_timeout_s=0)


@pytest.mark.parametrize("flag", ["--api-workers", "--api-server-count"])
def test_the_number_of_workers_has_vllm_s_flag_too(flag: str) -> None:
    _, server = configs_of(flag, "4")
    assert server == ServerConfig(api_workers=4)


@pytest.mark.parametrize("method", ["mtp", "deepseek_mtp"])
def test_vllm_s_way_to_ask_for_drafts(method: str) -> None:
    text = json.dumps({"method": method, "num_speculative_tokens": 3})
    engine, _ = configs_of("--speculative-config", text)
    assert engine == EngineConfig(speculative_tokens=3)
    engine, _ = configs_of("--speculative-config", '{"num_speculative_tokens": 0}')
    assert engine == EngineConfig(speculative_tokens=0)


@dataclasses.dataclass
class OddDefaults:
    """Fields as some config may have them."""

    one: int = dataclasses.field(default=1, metadata={"help": "a number", "choices": None})
    zero: float = dataclasses.field(default=0.0, metadata={"help": "a share", "choices": None})
    is_on: bool = dataclasses.field(default=True, metadata={"help": "a switch", "choices": None})
    old: Optional[float] = dataclasses.field(  # noqa: UP045 - the older way to write it
        default=None, metadata={"help": "any", "choices": None}
    )


def test_numbers_are_not_taken_for_switches() -> None:
    parser = argparse.ArgumentParser()
    for field in dataclasses.fields(OddDefaults):
        add_flag(parser, OddDefaults, field.name)
    text = " ".join(parser.format_help().split())
    assert "a number (default: 1)" in text
    assert "a share (default: 0.0)" in text
    assert "a switch (default: on)" in text
    assert parser.parse_args(["--old", "0.5"]).old == 0.5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("512", 512),
        ("4k", 4000),
        ("4K", 4096),
        ("0.5K", 512),
        ("2M", 2**21),
        ("1g", 10**9),
    ],
)
def test_whole_numbers(text: str, value: int) -> None:
    assert integer(text) == value


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1.5", "1e3", "k", "1kk", "0.0001k", " 1", "\u0661"]
)
def test_what_is_no_whole_number(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="whole number"):
        integer(text)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "COMMAND"),
        (["fly"], "fly"),
        (["serv"], "(did you mean serve?); see leadline --help"),
        (["serve", "--max-modl-len", "9"], "unknown flag --max-modl-len (did you mean --max-model"),
        (["serve", "--prefix-cachin"], "unknown flag --prefix-cachin (did you mean --prefix-cach"),
        (["serve", "--qqq=1", "--zzz"], "unknown flag --qqq; see leadline serve --help"),
        (["serve", "--dtype", "floot32"], "(did you mean float32?)"),
        (["chat", "--modle", "x"], "unknown flag --modle (did you mean --model?)"),
        (["completion", "bsh"], "(did you mean bash?)"),
        (["serve", "--port", "http"], "--port: 'http' is no whole number"),
        (["serve", "--drain-timeout", "long"], "--drain-timeout: 'long' is no number"),
        (["serve", "--kernels", "tiled"], "--kernels: 'tiled' has not the form operation=name"),
        (["serve", "--dtype", "int3"], "--dtype: invalid choice: 'int3' (choose from 'auto'"),
        (["serve", "--max-model", "3"], "--max-model"),
        (["serve", "--speculative-config", "mtp"], "no valid JSON"),
        (["serve", "--speculative-config", "[3]"], "no JSON object; allowed: {"),
        (["serve", "--speculative-config", '{"method": "eagle"}'], "method is 'eagle'; allowed"),
        (["serve", "--speculative-config", '{"model": "x"}'], "unknown key 'model'; allowed"),
        (["serve", "--speculative-config", '{"method": "mtp"}'], "num_speculative_tokens is None"),
        (
            ["serve", "--speculative-config", '{"num_speculative_tokens": true}'],
            "num_speculative_tokens is True, but must be an integer",
        ),
        (
            [
                *("serve", "--speculative-tokens", "1"),
                *("--speculative-config", '{"num_speculative_tokens": 1}'),
            ],
            "not allowed with argument --speculative-tokens",
        ),
        (["serve", "a", "b"], "unrecognized arguments: b"),
        (["chat", "--temperature", "hot"], "--temperature"),
        (["kernels", "--device", "tpu"], "--device"),
    ],
)
def test_a_bad_command_line_is_one_line(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert "--help" in captured.err


HEAVY = {
    *("torch", "numpy", "tokenizers", "huggingface_hub", "safetensors", "jinja2", "zmq"),
    *("pydantic", "starlette", "uvicorn", "uvloop", "httpx", "prometheus_client", "rich", "yaml"),
    *("asyncio", "llguidance", "shtab", "ssl"),
}


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--version"], 0),
        (["--help"], 0),
        (["serve", "--help"], 0),
        (["serve", "--help-all"], 0),
        (["chat", "--help"], 0),
        (["config", "--help"], 0),
        (["kernels", "-h"], 0),
        (["serve", "--prot", "1"], 2),
        (["serve", "--port", "x"], 2),
        (["sevre"], 2),
    ],
)
def test_help_and_errors_import_little(argv: list[str], expected: int) -> None:
    program = (
        "import json, sys\n"
        "from leadline.server.cli import main\n"
        "status = main(json.loads(sys.argv[1]))\n"
        "sys.stderr.write('\\n' + json.dumps([status, sorted(sys.modules)]))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, json.dumps(argv)],
        capture_output=True,
        text=True,
        check=True,
    )
    status, modules = json.loads(result.stderr.splitlines()[-1])
    assert status == expected
    assert "leadline" in result.stdout + result.stderr
    assert not HEAVY & set(modules)


def help_of(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(argv) == 0
    return capsys.readouterr().out


def test_the_help_of_serve_is_short(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = help_of(capsys, "serve", "--help")
    assert len(text.splitlines()) <= 52
    assert "--help-all" in text
    assert "examples:" in text
    for names in COMMON.values():
        assert all(f"  {flag_of(name)} " in text for name in names)
    assert "--page-size" not in text


@pytest.mark.parametrize("command", ["serve", "config"])
def test_help_all_shows_every_flag(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, command, "--help-all").replace("[no-]", "")
    for _, field in FIELDS:
        assert field.name == "model" or f"  {flag_of(field.name)} " in text
    assert "--speculative-config JSON" in text


def test_a_shell_completes_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    script = help_of(capsys, "completion", "bash")
    program = f"{script}\ncomplete -p leadline"
    shown = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert "leadline" in shown.stdout
    assert all(flag_of(f.name) in script for _, f in FIELDS if f.name != "model")
    assert help_of(capsys, "completion", "zsh").startswith("#compdef leadline")


def test_serving_needs_no_torch() -> None:
    program = "import sys, leadline.server.serve; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_the_table_of_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "--batch-invariant"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["operation", "chosen", "formats", "rejected"]
    rows = {line.split()[0]: line for line in lines[1:]}
    assert rows["count_accepted"].split() == ["count_accepted", "reference"]
    assert "triton: needs a CUDA device, not cpu" in rows["route"]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServerConfig]:
    """The configs with which `leadline serve` was started."""
    configs: list[ServerConfig] = []

    def serve(engine: EngineConfig, server: ServerConfig, *, begin_s: float) -> int:
        configs.append(server)
        return 0

    monkeypatch.setattr("leadline.server.serve.serve", serve)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    return configs


def test_keys_from_flags_files_and_the_environment(
    served: list[ServerConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text("sk-one\n\n  sk-two \r\nsk-three")
    file = f"@{tmp_path / 'keys'}"
    assert main(["serve", "--api-key", "sk-zero", "--api-key", file]) == 0
    assert main(["serve", "--admin-api-key", file, "--metrics-api-key", "m"]) == 0
    monkeypatch.setenv(KEY_VARIABLE, "sk-env")
    assert main(["serve"]) == 0
    assert KEY_VARIABLE not in os.environ
    monkeypatch.setenv(KEY_VARIABLE, "sk-env")
    assert main(["serve", "--api-key", "sk-flag"]) == 0
    assert [config.api_key for config in served] == [
        ("sk-zero", "sk-one", "sk-two", "sk-three"),
        (),
        ("sk-env",),
        ("sk-flag",),
    ]
    assert served[1].admin_api_key == ("sk-one", "sk-two", "sk-three")
    assert served[1].metrics_api_key == ("m",)
    assert not any("sk-" in repr(config) for config in served)


def test_a_file_of_keys_that_cannot_be_read(
    served: list[ServerConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").write_text("\n \n")
    (tmp_path / "binary").write_bytes(b"\xff")
    for name, words in (("no", "No such file"), ("empty", "no keys"), ("binary", "no ASCII")):
        assert main(["serve", "--admin-api-key", f"@{tmp_path / name}"]) == 1
        error = capsys.readouterr().err
        assert error.startswith("leadline serve: --admin-api-key: the file ")
        assert words in error
        assert error.count("\n") == 1
    assert served == []


@pytest.mark.parametrize("key", ["", "with space", "caf\u00e9", "line\nend", "x" * 513])
def test_a_bad_key_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ConfigError, match="api_key: key 2 of 2 is not allowed") as info:
        ServerConfig(api_key=("sk-good", key)).check()
    assert "sk-good" not in str(info.value)
    assert key == "" or key not in str(info.value)


def test_help_does_not_show_keys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "sk-secret")
    text = help_of(capsys, "serve", "--help-all")
    assert "--admin-api-key" in text
    assert KEY_VARIABLE in text
    assert "sk-secret" not in text
