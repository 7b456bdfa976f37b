"""Images, compose file and chart: what can be checked of them where no container engine runs."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from leadline.server.cli import make_parser

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
CHART = DOCKER / "helm/leadline"
EVERYTHING = {
    "gpus": 8,
    "models": {"size": "1Ti"},
    "podMonitor": {"enabled": True},
    "inferencePool": {"enabled": True, "extension": "picker"},
    "secrets": {
        "apiKey": {"name": "keys"},
        "adminApiKey": {"name": "admin"},
        "huggingFaceToken": {"name": "hub"},
    },
    "servedModelNames": ["a", "b"],
    "drainTimeoutSeconds": 120,
    "flags": ["--max-model-len", "32768"],
}


def tool(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"needs {name}")
    return program


def run(*arguments: str | Path) -> str:
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_dashboards_are_what_their_script_writes() -> None:
    path = DOCKER / "grafana/make_dashboards.py"
    spec = importlib.util.spec_from_file_location("make_dashboards", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_dashboards"] = module
    spec.loader.exec_module(module)
    written = {path.stem: path.read_text() for path in (DOCKER / "grafana/dashboards").glob("*")}
    assert written == {name: module.written(name) for name in module.DASHBOARDS}


def test_an_image_asks_for_what_the_project_depends_on(tmp_path: Path) -> None:
    printed = run(sys.executable, DOCKER / "dependencies.py", ROOT / "pyproject.toml", "traces")
    names = {re.split(r"[^\w-]", line)[0] for line in printed.splitlines()}
    assert {"torch", "numpy", "uvicorn", "opentelemetry-sdk"} <= names
    pinned = (DOCKER / "constraints.txt").read_text()
    versions = dict(re.findall(r"^([\w-]+)==(\S+)", pinned, re.MULTILINE))
    wanted = {name.lower().replace("_", "-") for name in names}
    assert wanted <= versions.keys(), "make docker/constraints.txt anew"
    torch = re.search(r"^torch==(\S+)$", printed, re.MULTILINE)
    assert torch
    assert versions["torch"] == torch[1]


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cpu"])
def test_dockerfiles(name: str) -> None:
    text = (DOCKER / name).read_text()
    assert re.search(r"^USER 10001$", text, re.MULTILINE)
    assert "HEALTHCHECK" in text
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    let_in = (ROOT / ".dockerignore").read_text()
    for path in " ".join(copied).split():
        assert (ROOT / path).exists(), path
        assert path == "." or f"!/{path}\n" in let_in, path
    run(tool("hadolint"), DOCKER / name)


def test_compose_mounts_what_is_there() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    assert services.keys() == {"cpu", "gpu", "prometheus", "grafana"}
    mounts = [mount for service in services.values() for mount in service.get("volumes", ())]
    sources = [mount.split(":")[0] for mount in mounts if mount.startswith("./")]
    assert len(sources) == 4
    for source in sources:
        assert (DOCKER / source).exists(), source
    providers = DOCKER / "grafana/provisioning/dashboards/leadline.yaml"
    folder = yaml.safe_load(providers.read_text())["providers"][0]["options"]["path"]
    assert f"./grafana/dashboards:{folder}:ro" in mounts


def test_prometheus_reads_its_files() -> None:
    run(tool("promtool"), "check", "config", DOCKER / "prometheus/prometheus.yaml")


def rendered(tmp_path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """What the chart makes of values, by kind."""
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(values))
    text = run(tool("helm"), "template", "try", CHART, "--values", file)
    return {document["kind"]: document for document in yaml.safe_load_all(text) if document}


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_the_chart_starts_a_server_with_flags_that_exist(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    kinds = rendered(tmp_path, values)
    pod = kinds["Deployment"]["spec"]["template"]
    container = pod["spec"]["containers"][0]
    args = make_parser().parse_args(["serve", *container["args"]])
    assert args.model == "leadline-demo"
    assert args.drain_timeout_s < pod["spec"]["terminationGracePeriodSeconds"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    labels = pod["metadata"]["labels"].items()
    assert kinds["Service"]["spec"]["selector"].items() <= labels
    assert kinds["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels
    if values:
        assert kinds.keys() >= {"PersistentVolumeClaim", "PodMonitor", "InferencePool"}
        assert args.max_model_len == 32768
        assert {entry["name"] for entry in container["env"]} == {"LEADLINE_API_KEY", "HF_TOKEN"}
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"


def test_the_chart_is_well_formed() -> None:
    run(tool("helm"), "lint", "--strict", CHART)
