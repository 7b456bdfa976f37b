"""Config files, presets, and the layers of settings."""

import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.engine.config import EngineConfig
from leadline.engine.errors import ConfigError
from leadline.server.cli import main, make_parser
from leadline.server.config import KEY_FIELDS, KEY_VARIABLE, ServerConfig
from leadline.server.config_file import field_hints, preset_names, read_config_file, read_preset
from leadline.server.config_text import config_text
from leadline.server.settings import Settings, settings_from


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


def settings_of(*flags: str) -> Settings:
    return settings_from(make_parser().parse_args(["serve", *flags]))


def read(tmp_path: Path, text: str) -> dict[str, Any]:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return read_config_file(str(path))


def test_keys_by_field_and_by_flag(tmp_path: Path) -> None:
    text = """
    model: org/name
    drain-timeout: 5          # the flag's name
    deadline_s: 1e-1          # a text, to YAML
    --max-num-seqs: 4
    kv_tokens: 4K
    prefix_caching: off
    seed: null
    limit: {n: 3, body_bytes: 64M}
    kernels: {linear: reference}
    api_key: ["@keys"]
    admin_api_key: sk-admin
    kv_events_config: {publisher: "null"}
    speculative_config: {method: mtp, num_speculative_tokens: 2}
    """
    assert read(tmp_path, text) == {
        "model": "org/name",
        "drain_timeout_s": 5.0,
        "deadline_s": 0.1,
        "max_num_seqs": 4,
        "kv_tokens": 4096,
        "prefix_caching": False,
        "seed": None,
        "limit": ("n=3", "body_bytes=64M"),
        "kernels": {"linear": "reference"},
        "api_key": ("@keys",),
        "admin_api_key": ("sk-admin",),
        "kv_events_config": '{"publisher": "null"}',
        "speculative_tokens": 2,
    }
    assert read(tmp_path, "# nothing\n") == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_nums_seqs: 1", "unknown key 'max_nums_seqs' (did you mean max_num_seqs?)"),
        ("drain-timeot: 1", "unknown key 'drain-timeot' (did you mean drain_timeout?)"),
        ("qqq: 1", "unknown key 'qqq'; `leadline config` lists all keys"),
        ("1: 1", "unknown key '1'"),
        ("port: 1\nport: 2", "line 2: the key 'port' is there twice"),
        ("limit: {n: 1, n: 2}", "the key 'n' is there twice"),
        ("drain_timeout: 1\ndrain_timeout_s: 2", "sets drain_timeout_s, which is set already"),
        ("speculative_tokens: 1\nspeculative_config: '{}'", "sets speculative_tokens, which"),
        ("speculative_config: {method: eagle}", "method is 'eagle'"),
        ("port: http", 'port is "http"; allowed: a whole number'),
        ("port: 1.5", "port is 1.5; allowed: a whole number"),
        ("port: true", "port is true; allowed: a whole number"),
        ("port: null", "port is null; allowed: a whole number"),
        ("strict: 1", "strict is 1; allowed: true or false"),
        ("deadline_s: soon", 'deadline_s is "soon"; allowed: a number'),
        ("deadline_s: true", "deadline_s is true; allowed: a number"),
        ("host: 127", "host is 127; allowed: a text (in quotes"),
        ("limit: [1]", "limit is [1]; allowed: a text or a list"),
        ("api_key: 12345", "api_key is 12345; allowed: a text or a list"),
        ("kernels: [a]", 'kernels is ["a"]; allowed: names and values'),
        ("kernels: {a: 1}", 'kernels is {"a": 1}; allowed: names and values'),
        ("dtype: int3", 'dtype is "int3"; allowed: auto, float32'),
        ("- port", "a key and a value a line"),
        ("port: [", "is no valid YAML: line"),
        ("!!python/object/apply:os.getpid []", "is no valid YAML"),
        ("port: \x00", "is no valid YAML"),
        ("[" * 5000, "is no valid YAML"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert words in message
    assert message.startswith(str(tmp_path / "c.yaml"))
    assert "\n" not in message
    assert len(message) < 500


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "no", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=words):
            read_config_file(str(path))
    (tmp_path / "large").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(ConfigError, match="larger than"):
        read_config_file(str(tmp_path / "large"))


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=200, deadline=None)
def test_any_file_is_read_or_refused(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with contextlib.suppress(ConfigError):
            assert set(read_config_file(file.name)) <= set(field_hints())


def test_the_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag wins over the file, that over the preset, that over the environment."""
    path = tmp_path / "c.yaml"
    path.write_text("max_num_seqs: 5\nmodel: from-file\napi_key: sk-file\nlimit: {}\n")
    monkeypatch.setenv(KEY_VARIABLE, "sk-env")
    preset = read_preset("laptop")
    only_preset = settings_of("--preset", "laptop")
    assert only_preset.engine == EngineConfig(**preset)
    assert only_preset.server.api_key == ("sk-env",)
    both = settings_of("--preset", "laptop", "--config", str(path), "--port", "1")
    assert both.engine == EngineConfig(**preset | {"max_num_seqs": 5, "model": "from-file"})
    assert both.server == ServerConfig(api_key=("sk-file",), port=1)
    assert both.origins["max_num_seqs"] == str(path)
    assert both.origins["kv_tokens"] == "preset laptop"
    assert both.origins["port"] == "flag"
    flags = ("--config", str(path), "--max-num-seqs", "6", "--api-key", "sk-flag", "from-flag")
    given_all = settings_of(*flags)
    assert given_all.engine == EngineConfig(max_num_seqs=6, model="from-flag")
    assert given_all.server.api_key == ("sk-flag",)


def test_presets_are_read_and_no_others() -> None:
    assert preset_names() == ["laptop", "latency", "throughput"]
    for name in preset_names():
        assert read_preset(name)
        settings_of("--preset", name).server.check()
    with pytest.raises(ConfigError, match=r"allowed: laptop, latency, throughput"):
        read_preset("../presets/laptop")


def test_an_error_of_the_file_ends_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text("prot: 1")
    for command in ("serve", "config"):
        assert main([command, "--config", str(tmp_path / "c.yaml")]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"leadline {command}: {tmp_path}/c.yaml: unknown key 'prot'")
        assert error.count("\n") == 1


TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=20
)
FLOAT = st.floats(min_value=0, allow_nan=False)


def value_of(name: str) -> st.SearchStrategy[Any]:
    hint, choices = field_hints()[name]
    if choices:
        return st.sampled_from(choices)
    strategies: dict[str, st.SearchStrategy[Any]] = {
        "bool": st.booleans(),
        "int": st.integers(0, 2**63),
        "float": FLOAT,
        "str": TEXT,
        "tuple[str, ...]": st.lists(TEXT, max_size=3).map(tuple),
        "collections.abc.Mapping[str, str]": st.dictionaries(TEXT, TEXT, max_size=2),
    }
    kind = str(hint).removeprefix("<class '").removesuffix("'>")
    base = strategies[kind.removesuffix(" | None")]
    return st.none() | base if kind.endswith(" | None") else base


VALUES = st.fixed_dictionaries({}, optional={name: value_of(name) for name in field_hints()})


@given(VALUES, st.booleans())
@settings(max_examples=100, deadline=None)
def test_what_is_shown_can_be_read_again(values: dict[str, Any], shows_keys: bool) -> None:
    engine_names = EngineConfig.__dataclass_fields__
    engine = EngineConfig(**{n: v for n, v in values.items() if n in engine_names})
    server = ServerConfig(**{n: v for n, v in values.items() if n not in engine_names})
    shown = Settings(engine=engine, server=server, origins=dict.fromkeys(values, "flag"))
    text = config_text(shown, shows_keys=shows_keys)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        again = read_config_file(file.name)
    hidden = {
        name
        for name in KEY_FIELDS
        if not shows_keys and any(not key.startswith("@") for key in values.get(name, ()))
    }
    assert again == {name: value for name, value in values.items() if name not in hidden}


def test_config_shows_the_layers_and_no_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "sk-secret-1")
    argv = ["config", "--preset", "laptop", "--port", "81", "--admin-api-key", "sk-secret-2"]
    assert main([*argv, "--metrics-api-key", "@keys"]) == 0
    text = capsys.readouterr().out
    assert "# from: flag\nport: 81\n" in text
    assert "# from: preset laptop\nmax_num_seqs: 2\n" in text
    assert f"# api_key: not shown (${KEY_VARIABLE})" in text
    assert "metrics_api_key:\n- '@keys'\n" in text
    assert "sk-secret" not in text
    for name in field_hints():
        assert f"{name}:" in text
    (tmp_path / "c.yaml").write_text(text)
    assert settings_of("--config", str(tmp_path / "c.yaml")).engine.max_num_seqs == 2
    assert main([*argv, "--show-keys"]) == 0
    assert "sk-secret-2" in capsys.readouterr().out


def test_a_bad_value_is_refused_before_it_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--port", "70000"]) == 1
    assert "port is 70000; allowed: 0 to 65535" in capsys.readouterr().err


def test_the_command_itself(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "leadline.server.cli"]
    path = tmp_path / "c.yaml"
    with path.open("w") as file:
        subprocess.run([*program, "config", "--seed", "5"], stdout=file, check=True)
    result = subprocess.run(
        [*program, "config", "--config", path], capture_output=True, text=True, check=True
    )
    assert f"# from: {path}\nseed: 5\n" in result.stdout
