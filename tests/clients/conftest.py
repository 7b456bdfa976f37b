"""Client libraries, each in an environment of its own, against a real `leadline serve`.

The environments are made at first use, with `uv` or `npm`, from `environments.toml`; that needs the
network, so these tests run only where they are asked for: `pytest -m clients`.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from leadline.engine.errors import QueueFullError
from leadline.engine.request import EngineRequest, FinishReason
from leadline.loader.chat_template import ChatTemplate
from leadline.loader.hub import resolve_model
from leadline.server.app import create_app
from leadline.server.dialects.dialect import DEEPSEEK_TEXTS, Mark

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCRIPTS = HERE / "scripts"
CACHE = Path(os.environ.get("LEADLINE_CLIENTS_DIR", ROOT / ".cache" / "clients"))
WAIT_S = 300.0  # generous: a starved machine is no failure
MODEL = "demo"
ENVIRONMENTS: dict[str, dict[str, Any]] = tomllib.loads((HERE / "environments.toml").read_text())
CASES = {
    ".py": re.compile(r"^(?:async )?def ([a-z]\w*)\(\)", re.MULTILINE),
    ".mjs": re.compile(r"^export async function ([a-z]\w*)\(\)", re.MULTILINE),
}
# Nothing of this process, or of the user's settings, is to change what a client does.
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS")
OFFLINE = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "NO_PROXY": "127.0.0.1",
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave these tests out unless they are asked for by their marker."""
    if "clients" in config.option.markexpr:
        return
    out = [item for item in items if item.get_closest_marker("clients")]
    items[:] = [item for item in items if not item.get_closest_marker("clients")]
    config.hook.pytest_deselected(items=out)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each public function of each script that the module names an environment of."""
    if "case" not in metafunc.fixturenames:
        return
    cases = []
    for name in metafunc.module.CLIENTS:
        script = SCRIPTS / ENVIRONMENTS[name]["script"]
        found = CASES[script.suffix].findall(script.read_text())
        assert found, f"{script} has no case"
        cases += [pytest.param(name, case, id=f"{name}-{case}") for case in found]
    metafunc.parametrize(("client", "case"), cases)


# Environments


def run(
    *command: str | Path,
    stdin: Path | None = None,
    allowed: tuple[int, ...] = (0,),
    **settings: Any,
) -> "subprocess.CompletedProcess[str]":
    """Run to the end; what it has printed is in the failure, which any other exit status is."""
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    done = subprocess.run(
        [str(part) for part in command],
        input=None if stdin is None else stdin.read_text(),
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
        cwd=settings.get("cwd"),
        env=environment | OFFLINE | settings.get("env", {}),
    )
    if done.returncode not in allowed:
        pytest.fail(f"{command[0]} gave {done.returncode}\n{done.stdout}\n{done.stderr}", False)
    return done


def tool(name: str, remedy: str = "install it") -> str:
    """The path of a program, or a reason to skip."""
    beside = Path(sys.executable).with_name(name)
    path = str(beside) if beside.exists() else shutil.which(name)
    if path is None:
        pytest.skip(f"there is no {name} here: {remedy}")
    return path


def install(directory: Path, spec: dict[str, Any]) -> None:
    """Make an environment from what the table says of it."""
    settings = dict(os.environ)  # the user's: proxies, mirrors
    if "npm" in spec:
        directory.mkdir()
        (directory / "package.json").write_text('{"private": true}')
        run(tool("npm"), "install", *spec["npm"], cwd=directory, env=settings)
        return
    uv = tool("uv", "pip install '.[clients]'")
    run(uv, "venv", "--python", sys.executable, directory, env=settings)
    overrides = directory / "without.txt"
    without = spec.get("without", ())
    overrides.write_text("".join(f"{name}; python_version < '3'\n" for name in without))
    pip = (uv, "pip", "install", "--python", directory / "bin" / "python")
    run(*pip, "--overrides", overrides, *spec["requires"], env=settings)
    if "alone" in spec:
        run(*pip, "--no-deps", *spec["alone"], env=settings)
    if spec.get("shares_torch"):
        torch = importlib.util.find_spec("torch")
        assert torch is not None
        assert torch.origin is not None
        (site_packages,) = directory.glob("lib/python*/site-packages")
        (site_packages / "shared_torch.pth").write_text(str(Path(torch.origin).parents[1]))


@pytest.fixture(scope="session")
def environment() -> Callable[[str], Path]:
    """Gives the directory of a client's environment, which is made where there is none yet."""

    def make(name: str) -> Path:
        spec = ENVIRONMENTS[name]
        told = json.dumps([spec, sys.version], sort_keys=True)
        directory = CACHE / f"{name}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"
        ready = directory / "ready"
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not ready.exists():
                shutil.rmtree(directory, ignore_errors=True)
                install(directory, spec)
                ready.touch()
        return directory

    return make


@pytest.fixture(name="run", scope="session")
def _run() -> Callable[..., Any]:
    """Runs a command to its end."""
    return run


@pytest.fixture(scope="session")
def tokenizer() -> Path:
    """The directory of the built-in model, whose tokenizer clients count with."""
    return resolve_model("leadline-demo")


@pytest.fixture(scope="session")
def use(
    environment: Callable[[str], Path], servers: dict[str, str]
) -> Callable[[str, str], "subprocess.CompletedProcess[str]"]:
    """Runs a function of a client's script in its environment; it asserts by itself."""

    def start(client: str, case: str) -> "subprocess.CompletedProcess[str]":
        directory = environment(client)
        script = SCRIPTS / ENVIRONMENTS[client]["script"]
        settings = {"LEADLINE_SERVERS": json.dumps(servers)}
        if script.suffix == ".mjs":
            # Modules are looked for beside the script, wherever it is run from.
            place = directory / script.name
            shutil.copy(script, place)
            return run(tool("node"), place, case, cwd=directory, env=settings)
        return run(directory / "bin" / "python", script, case, env=settings)

    return start


# Servers


def neighbour(path: str) -> ModuleType:
    """The module of another folder's fixtures."""
    name = "clients_" + path.replace("/", "_").removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, HERE.parent / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


scripted = neighbour("api/conftest.py")
processes = neighbour("api/end_to_end/conftest.py")

TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}\n{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}<{{ c.function.name }} {{ c.function.arguments }}>"
    "{% endfor %}|{% endfor %}"
)
RESULT, SAID_AFTER = "21 degrees", "It is 21 degrees in Rome."
SAID_BEFORE_FAILURE = '{"days": 1'


def weather_call() -> str:
    """A call of `get_weather`, as DeepSeek-V3.1 writes it."""
    marks = DEEPSEEK_TEXTS
    return (
        f"{marks[Mark.CALLS_BEGIN]}{marks[Mark.CALL_BEGIN]}get_weather{marks[Mark.NAME_END]}"
        f'{{"city": "Rome"}}{marks[Mark.CALL_END]}{marks[Mark.CALLS_END]}'
    )


def scripted_apps() -> dict[str, Any]:
    """Applications that do on demand what the built-in model does not.

    `agent` calls `get_weather` until it has been told the result; `failing` dies within its answer;
    `busy` refuses all.
    """
    tokenizer = scripted.make_tokenizer("<think>", "</think>", *DEEPSEEK_TEXTS.values())

    def say(request: EngineRequest) -> str:
        return SAID_AFTER if RESULT in tokenizer.decode(request.prompt_ids) else weather_call()

    engines = {
        "agent": scripted.ScriptedEngine(text=say, tokenizer=tokenizer),
        "failing": scripted.ScriptedEngine(
            text=lambda request: SAID_BEFORE_FAILURE,
            ends=False,
            failure=FinishReason.ERROR,
            tokenizer=tokenizer,
        ),
        "busy": scripted.ScriptedEngine(
            refusal=QueueFullError("too many requests wait", retry_after_s=1)
        ),
    }
    settings: Any = {
        "tokenizer": tokenizer,
        "template": ChatTemplate(TEMPLATE, {}),
        "model_names": (MODEL,),
        "max_model_len": 10_000,
    }
    return {
        name: create_app(scripted.make_state(engine, **settings))
        for name, engine in engines.items()
    }


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """URLs: `model` is the built-in one in a process of its own, the others are scripted."""
    log = tmp_path_factory.mktemp("log") / "stderr"
    with contextlib.ExitStack() as stack:
        arguments = ("leadline-demo", "--served-model-name", MODEL)
        process = stack.enter_context(processes.leadline_serve(log, *arguments))
        urls = {"model": process.url}
        for name, app in scripted_apps().items():
            (host, port), _ = stack.enter_context(scripted.served(app))
            urls[name] = f"http://{host}:{port}"
        yield urls
