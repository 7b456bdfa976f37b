"""Grafana's dashboards and the alerts, asked of a real Prometheus that reads a real server."""

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml

DOCKER = Path(__file__).parents[3] / "docker"
DASHBOARDS = sorted((DOCKER / "grafana/dashboards").glob("*.json"))
SCRAPE_S = 0.2
WANTS_MORE = {  # series that a server has only when something has gone wrong, or was asked of it
    "Refused",
    "Grammar compilation",
    "Idle time of a page before it is given away",
}


@pytest.fixture(scope="module")
def prometheus(service: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Prometheus that reads the service and evaluates the alerts."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs prometheus (Debian's package of that name)")
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load((DOCKER / "prometheus/prometheus.yaml").read_text())
    config["global"] = dict.fromkeys(config["global"], f"{int(SCRAPE_S * 1000)}ms")
    config["rule_files"] = [str(DOCKER / "prometheus/alerts.yaml")]
    target = service.url.removeprefix("http://")
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    arguments = [
        *(program, f"--config.file={folder / 'prometheus.yaml'}"),
        *(f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}"),
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log)
    try:
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()


def ask(prometheus: str, query: str) -> list[Any]:
    try:
        response = httpx.get(f"{prometheus}/api/v1/query", params={"query": query}, timeout=20)
    except httpx.TransportError:
        return []  # it is starting
    if response.status_code == 503:
        return []  # likewise
    assert response.status_code == 200, f"{query}: {response.text}"
    result: list[Any] = response.json()["data"]["result"]
    return result


def filled_in(query: str) -> str:
    values = {"$model": ".*", "$instance": ".*", "$__rate_interval": "1m"}
    return re.sub(r"\$\w+", lambda name: values[name[0]], query)


def panels() -> dict[str, list[str]]:
    """The queries of each panel of all dashboards."""
    found = [panel for path in DASHBOARDS for panel in json.loads(path.read_text())["panels"]]
    return {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in found}


def test_every_panel_shows_something(
    prometheus: str, client: openai.OpenAI, eventually: Any
) -> None:
    def scraped_tokens() -> float:
        series = ask(prometheus, "leadline:generation_tokens_total")
        return float(series[0]["value"][1]) if series else -1.0

    eventually(lambda: scraped_tokens() >= 0, "a first scrape")  # a rate wants two of them
    seen = scraped_tokens()
    for question in ("What does itertools.chain do?", "Hello!"):
        messages = [{"role": "user", "content": question}]
        client.chat.completions.create(model="demo", messages=messages, max_tokens=20)  # type: ignore[arg-type]
    eventually(lambda: scraped_tokens() > seen, "a scrape of the answers")

    queries = panels()
    assert queries.keys() >= WANTS_MORE
    for title, expressions in queries.items():
        for expression in expressions:
            series = ask(prometheus, filled_in(expression))
            if title not in WANTS_MORE and "external_prefix" not in expression:
                assert series, f"{title}: {expression}"


def test_every_metric_of_a_dashboard_exists(service: Any) -> None:
    text = httpx.get(f"{service.url}/metrics").text
    rules = (DOCKER / "prometheus/alerts.yaml").read_text()
    asked = " ".join([rules, *(query for queries in panels().values() for query in queries)])
    declared = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    names = set(re.findall(r"leadline:\w+", asked))
    assert len(names) > 20
    for name in names:
        assert name.removesuffix("_bucket") in declared | {"leadline:up"}, name


def test_alerts_are_loaded_and_silent(prometheus: str, eventually: Any) -> None:
    def rules() -> list[Any]:
        groups = httpx.get(f"{prometheus}/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    eventually(lambda: bool(ask(prometheus, "up")), "a first scrape")
    eventually(lambda: all(rule["health"] == "ok" for rule in rules()), "an evaluation")
    assert len(rules()) == 5
    assert {rule["state"] for rule in rules()} == {"inactive"}
