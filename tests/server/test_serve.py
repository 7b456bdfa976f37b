"""The whole server in a process of its own, with an engine that has no model."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from benchmarks.processes import children_of, command_of
from leadline.engine.config import EngineConfig
from leadline.server.config import ServerConfig
from leadline.server.serve import serve

PROGRAM = """
import json
import sys
from leadline.engine.config import EngineConfig
from leadline.server.config import ServerConfig
from leadline.server.health import StallLimits
from leadline.server.serve import serve

engine = EngineConfig(model=sys.argv[1], served_model_name=("it's", "other"), kv_tokens=1024)
with open(sys.argv[3]) as file:  # not an argument: a child that is being started shows these
    options = {"port": 0, "max_engine_restarts": 0} | json.load(file)
server = ServerConfig(**options)
limits = StallLimits(min_s=0.3)
sys.exit(serve(engine, server, builder="paced_builder:" + sys.argv[2], stall_limits=limits))
"""
CHAT = {"model": "it's", "messages": [{"role": "user", "content": "Hi"}]}


pytestmark = pytest.mark.usefixtures("importable")


class Server:
    """A running server process.

    Attributes:
        head: what it has said up to the end of the start-up table and the lines to try.
        url: where it listens.
    """

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.head = ""
        self.url = ""

    def read_until(self, text: str) -> None:
        assert self.process.stdout is not None
        while text not in self.head:
            line = self.process.stdout.readline()
            assert line, self.process.communicate()[1]
            self.head += line

    def end(self) -> tuple[int, str]:
        """Wait for the end; returns the status and what was said on standard error."""
        errors = self.process.communicate(timeout=20)[1]
        return self.process.returncode, errors


@contextlib.contextmanager
def launched(model: Path, builder: str, **options: Any) -> Iterator[Server]:
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
        json.dump(options, file)
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM, str(model), builder, file.name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Server(process)
    finally:
        Path(file.name).unlink()
        for child in children_of(process.pid):  # one that is stopped would not notice the end
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        process.kill()
        process.communicate()


@contextlib.contextmanager
def running(model: Path, builder: str = "paced", **options: Any) -> Iterator[Server]:
    with launched(model, builder, **options) as server:
        server.read_until("leadline chat")
        match = re.search(r"listens on (https?://127\.0\.0\.1:\d+) \(started in", server.head)
        assert match, server.head
        server.url = match[1]
        yield server


@contextlib.contextmanager
def streaming(server: Server, num_tokens: int) -> Iterator[Iterator[str]]:
    """The events of a running answer, whose first has come."""
    body = CHAT | {"stream": True, "max_tokens": num_tokens}
    url = f"{server.url}/v1/chat/completions"
    with (
        httpx.Client(timeout=20) as http,
        http.stream("POST", url, json=body) as response,
    ):
        assert response.status_code == 200
        events = (line for line in response.iter_lines() if line.startswith("data: "))
        next(events)
        yield events


def ask(server: Server, **fields: Any) -> httpx.Response:
    url = f"{server.url}/v1/chat/completions"
    return httpx.post(url, json=CHAT | {"max_tokens": 3} | fields, timeout=20)


def test_running_requests_finish_while_new_ones_are_refused(model: Path) -> None:
    with running(model) as server:
        with streaming(server, num_tokens=100) as events:
            server.process.send_signal(signal.SIGTERM)
            server.read_until("Stopping: running requests (1)")
            refused = ask(server)
            rest = list(events)
        status, _ = server.end()
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    assert rest[-1] == "data: [DONE]"
    assert len(rest) > 10
    assert status == 0


def test_what_is_shown_at_the_start_can_be_pasted(model: Path) -> None:
    with running(model) as server:
        assert "simulated" in server.head
        assert re.search(r"kv_tokens +1024 \(.* MiB\) +as given", server.head)
        line = next(line for line in server.head.splitlines() if "curl" in line)
        _, url, _, header, _, data = shlex.split(line)
        name, _, value = header.partition(": ")
        body = json.loads(data) | {"max_tokens": 3}
        response = httpx.post(url, content=json.dumps(body), headers={name: value})
        assert response.status_code == 200, response.text
        assert response.json()["usage"]["completion_tokens"] == 3
        server.process.send_signal(signal.SIGINT)
        assert server.end() == (0, "")


def test_what_was_settled_is_shown_and_told(model: Path) -> None:
    with running(model, admin_api_key=["sk-1"], limit=["stop_strings=3"]) as server:
        table = server.head.split("\n\n")[0].splitlines()
        assert len(table) <= 20
        shown = {line.split("  ")[0]: line for line in table}
        assert "API off: everybody is let in; administration on" in shown["keys"]
        assert shown["limits"].rstrip().endswith("stop_strings 3")
        assert re.search(r"(imports|reading weights|engine process) \d+\.\d\d s", shown["start-up"])
        url = f"{server.url}/server_info"
        assert httpx.get(url).status_code == 401
        response = httpx.get(url, headers={"x-api-key": "sk-1"})
    info = response.json()
    assert info["directory"] == str(model)
    assert info["models"][0] == "it's"
    assert info["max_model_len"] == 400
    assert info["engine"] == {"model": "simulated"}
    assert info["config"]["kv_tokens"]["reason"] == "as given"
    assert info["limits"]["stop_strings"] == 3
    assert info["keys"] == {"api_key": False, "admin_api_key": True, "metrics_api_key": False}
    assert {"imports", "engine process", "reading weights"} <= set(info["start_up_s"])
    assert "sk-1" not in response.text


def test_requests_that_outlast_the_drain_are_aborted(model: Path) -> None:
    with running(model, drain_timeout_s=0.1) as server:
        with streaming(server, num_tokens=390) as events:
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(httpx.RemoteProtocolError):  # cut, not ended
                list(events)
        status, errors = server.end()
    assert status == 0
    assert "requests that did not finish in time: 1" in errors


def test_a_second_signal_ends_at_once(model: Path) -> None:
    with running(model) as server:
        with streaming(server, num_tokens=390) as events:
            server.process.send_signal(signal.SIGTERM)
            server.read_until("Stopping: running requests (1)")
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(httpx.RemoteProtocolError):
                list(events)
        status, errors = server.end()
    assert status == 128 + signal.SIGTERM
    assert "Traceback" not in errors


def test_a_signal_while_loading(model: Path) -> None:
    with launched(model, "endless") as server:
        server.read_until("reading weights: 1 of 9 MB")
        server.process.send_signal(signal.SIGINT)
        assert server.end() == (128 + signal.SIGINT, "")


def test_an_engine_that_dies(model: Path) -> None:
    with running(model, "mortal") as server:
        response = ask(server)
        status, errors = server.end()
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "engine_dead"
    assert status == 1
    last = errors.splitlines()[-1]
    assert last.startswith("leadline serve: the engine has ended: RuntimeError: the device is on")


def test_an_engine_that_dies_again_and_again_is_given_up(model: Path) -> None:
    with running(model, "mortal", max_engine_restarts=1) as server:
        response = ask(server)
        status, errors = server.end()
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "engine_dead"
    assert status == 1
    assert errors.count("the engine has died and is started again") == 1
    last = errors.splitlines()[-1]
    assert last.startswith("leadline serve: the engine has ended: RuntimeError: the device is on")


def engine_id(server: Server) -> int:
    """The process id of the engine."""
    children = children_of(server.process.pid)
    [engine] = [child for child in children if "engine.process" in command_of(child)]
    return engine


def test_a_stream_outlives_its_engine(model: Path) -> None:
    hold = model / "hold"
    with running(model, "held", max_engine_restarts=3) as server:
        with streaming(server, num_tokens=100) as events:
            whole = list(events)
        with streaming(server, num_tokens=100) as events:
            hold.touch()
            os.kill(engine_id(server), signal.SIGKILL)
            wait_for_probes(server, [200, 503, 503])
            body = httpx.get(f"{server.url}/health").json()
            assert body["status"] == "restarting"
            refused = ask(server)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "engine_restarting"
            assert refused.headers["retry-after"]
            hold.unlink()
            wait_for_probes(server, [200, 200, 200])
            rest = list(events)
        assert len(rest) == len(whole)
        assert rest[-1] == "data: [DONE]"
        server.process.send_signal(signal.SIGTERM)
        assert server.end()[0] == 0


def probes(server: Server) -> list[int]:
    paths = ("livez", "readyz", "health")
    return [httpx.get(f"{server.url}/{path}", timeout=20).status_code for path in paths]


def wait_for_probes(server: Server, statuses: list[int]) -> None:
    deadline_s = time.monotonic() + 20
    while (seen := probes(server)) != statuses:
        assert time.monotonic() < deadline_s, f"{seen}, and not {statuses}"
        time.sleep(0.02)


def test_a_hanging_engine_is_seen_and_seen_to_recover(model: Path) -> None:
    with running(model) as server:
        engine = engine_id(server)
        os.kill(engine, signal.SIGSTOP)
        time.sleep(0.5)
        assert probes(server) == [200, 200, 200]  # it has nothing to do
        os.kill(engine, signal.SIGCONT)
        with streaming(server, num_tokens=100) as events:
            os.kill(engine, signal.SIGSTOP)
            wait_for_probes(server, [200, 503, 503])
            body = httpx.get(f"{server.url}/health").json()
            assert body["status"] == "stuck"
            assert body["progress_age_s"] > 0.3
            os.kill(engine, signal.SIGCONT)
            wait_for_probes(server, [200, 200, 200])
            assert list(events)[-1] == "data: [DONE]"
        assert probes(server) == [200, 200, 200]
        server.process.send_signal(signal.SIGTERM)
        assert server.end()[0] == 0


def test_a_stall_outlives_the_clients_that_notice_it(model: Path) -> None:
    with running(model) as server:
        engine = engine_id(server)
        with streaming(server, num_tokens=390):
            os.kill(engine, signal.SIGSTOP)
        wait_for_probes(server, [200, 503, 503])  # though nobody waits any more
        os.kill(engine, signal.SIGCONT)
        wait_for_probes(server, [200, 200, 200])


def test_an_engine_that_hangs_for_too_long_is_killed(model: Path) -> None:
    with running(model, engine_timeout_s=0.5) as server:
        engine = engine_id(server)
        with streaming(server, num_tokens=390) as events:
            os.kill(engine, signal.SIGSTOP)
            rest = []
            with pytest.raises(httpx.RemoteProtocolError):  # cut, not ended
                rest += events
        status, errors = server.end()
    assert status == 1
    assert "0.5 s (--engine-timeout), and was killed" in errors.splitlines()[-1]
    assert not Path(f"/proc/{engine}").exists()


def post(server: Server, path: str) -> httpx.Response:
    return httpx.post(f"{server.url}/{path}", timeout=20)


def state_of_sleep(server: Server) -> dict[str, Any]:
    body: dict[str, Any] = httpx.get(f"{server.url}/is_sleeping", timeout=20).json()
    return body


@pytest.mark.parametrize("order", ["wake_up", "a request"])
def test_an_engine_that_hangs_while_it_sleeps(model: Path, order: str) -> None:
    with running(model, max_engine_restarts=3, engine_timeout_s=3.0) as server:
        assert post(server, "sleep").json() == {"status": "asleep", "freed_bytes": 800}
        engine = engine_id(server)
        os.kill(engine, signal.SIGSTOP)
        time.sleep(0.5)
        assert probes(server) == [200, 503, 200]  # it has nothing to do
        with ThreadPoolExecutor() as pool:
            is_order = order == "wake_up"
            asked = pool.submit(post, server, order) if is_order else pool.submit(ask, server)
            wait_for_probes(server, [200, 503, 503])
            assert httpx.get(f"{server.url}/health").json()["status"] == "stuck"
            answer = asked.result()
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] in ("engine_restarting", "engine_asleep")
        wait_for_probes(server, [200, 503, 200])
        assert engine_id(server) != engine
        assert state_of_sleep(server) == {"is_sleeping": True, "level": 1}
        assert post(server, "wake_up").json()["status"] == "awake"
        assert probes(server) == [200, 200, 200]
        assert ask(server).status_code == 200
        server.process.send_signal(signal.SIGTERM)
        assert "3 s (--engine-timeout), and was killed" in server.end()[1]


@pytest.mark.parametrize(
    ("builder", "order", "activity"),
    [
        ("drowsy", "wake_up", "waking up: reading weights"),
        ("sleepless", "sleep", "giving up memory"),
    ],
)
def test_waking_up_and_falling_asleep_have_a_limit(
    model: Path, builder: str, order: str, activity: str
) -> None:
    options: dict[str, Any] = {"engine_timeout_s": 0.2, "loading_timeout_s": 1.5}
    with running(model, builder, max_engine_restarts=3, **options) as server:
        if order == "wake_up":
            post(server, "sleep")
        engine = engine_id(server)
        answer = post(server, order)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "engine_restarting"
        wait_for_probes(server, [200, 503, 200])
        assert engine_id(server) != engine
        assert state_of_sleep(server)["is_sleeping"] == (order == "wake_up")
        server.process.send_signal(signal.SIGTERM)
        error = f"1.5 s (--loading-timeout) while it was busy with: {activity}; it was killed"
        assert error in server.end()[1]


def test_an_engine_that_hangs_while_loading_is_killed(model: Path) -> None:
    with launched(model, "endless", loading_timeout_s=1.0) as server:
        status, errors = server.end()
    assert status == 1
    last = errors.splitlines()[-1]
    assert "nothing new for 1 s (--loading-timeout)" in last
    assert "reading weights: 1 of 9 MB" in last


def test_without_a_timeout_a_hanging_engine_is_waited_for(model: Path) -> None:
    with (
        running(model, engine_timeout_s=0) as server,
        streaming(server, num_tokens=50) as events,
    ):
        os.kill(engine_id(server), signal.SIGSTOP)
        time.sleep(1)
        os.kill(engine_id(server), signal.SIGCONT)
        assert list(events)[-1] == "data: [DONE]"


def test_probes_answer_while_loading(model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    with launched(model, "endless", port=port) as server:
        server.read_until("reading weights: 1 of 9 MB")
        server.url = f"http://127.0.0.1:{port}"
        assert probes(server) == [200, 503, 503]
        refused = ask(server)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "server_loading"
        server.process.send_signal(signal.SIGTERM)
        assert server.end() == (128 + signal.SIGTERM, "")


def test_keys_are_shown_to_nobody(model: Path) -> None:
    keys = {"api_key": ["sk-secret-1"], "admin_api_key": ["sk-secret-2"]}
    with running(model, **keys, access_log=True, log_level="debug") as server:
        assert ask(server).status_code == 401
        url = f"{server.url}/v1/models"
        assert httpx.get(url, headers={"authorization": "Bearer sk-secret-1"}).status_code == 200
        wrong = httpx.get(url, headers={"x-api-key": "sk-secret-wrong"})
        assert wrong.status_code == 401
        assert probes(server) == [200, 200, 200]
        assert httpx.get(f"{server.url}/metrics").status_code == 200
        children = children_of(server.process.pid)
        assert children
        for child in children:
            for file in ("cmdline", "environ"):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                    assert b"sk-secret" not in Path(f"/proc/{child}/{file}").read_bytes()
        server.process.send_signal(signal.SIGTERM)
        status, errors = server.end()
    assert status == 0
    assert "GET /v1/models" in errors
    assert "sk-" not in server.head + errors + wrong.text


def test_json_lines_tell_of_requests_and_not_of_what_they_say(model: Path) -> None:
    options = {"log_format": "json", "log_requests": True, "access_log": True}
    with running(model, **options) as server:
        url = f"{server.url}/v1/chat/completions"
        secret = {"messages": [{"role": "user", "content": "wvwv"}], "user": "wvwv"}
        headers = {"x-request-id": "the-id", "authorization": "Bearer wvwv"}
        answer = httpx.post(url, json=CHAT | {"max_tokens": 3} | secret, headers=headers).json()
        with streaming(server, num_tokens=100) as events:
            os.kill(engine_id(server), signal.SIGKILL)
            with pytest.raises(httpx.RemoteProtocolError):
                list(events)
        status, errors = server.end()
    assert status == 1
    *lines, last = errors.splitlines()
    assert last.startswith("leadline serve: the engine has ended")
    records = [json.loads(line) for line in lines]
    assert {name for record in records for name in ("time", "level", "logger", "message")} <= set(
        records[0]
    )
    first, second = [record for record in records if record["message"] == "request finished"]
    assert first["request_id"] == "the-id"
    assert first["response_id"] == answer["id"]
    assert first["prompt_tokens"] == answer["usage"]["prompt_tokens"]
    assert (first["output_tokens"], first["finish_reason"]) == (3, "length")
    assert 0 <= first["queue_s"] <= first["ttft_s"] <= first["e2e_s"]
    assert second["finish_reason"] == "error"
    assert any("POST /v1/chat/completions" in record["message"] for record in records)
    assert "wvwv" not in errors
    assert "ASGI callable" not in errors, "a stream that is cut on purpose is no news"


def test_names_template_and_defaults_as_asked(model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{{ messages[0].content }}!")
    options = {
        "chat_template": str(tmp_path / "mine.jinja"),
        "override_generation_config": '{"max_new_tokens": 3}',
    }
    with running(model, **options) as server:
        listed = httpx.get(f"{server.url}/v1/models").json()["data"]
        assert [entry["id"] for entry in listed] == ["it's", "other"]
        url = f"{server.url}/v1/chat/completions"
        answer = httpx.post(url, json=CHAT | {"model": "other"}).json()
        assert answer["model"] == "other"
        assert answer["usage"]["prompt_tokens"] == 3
        assert answer["usage"]["completion_tokens"] == 3
        assert answer["choices"][0]["finish_reason"] == "length"


def test_https_with_a_key_as_it_is_pasted(model: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    options = {"ssl_certfile": str(tmp_path / "server.pem"), "api_key": ["sk-1"]}
    with running(model, **options, cors_origin=["https://page.example"]) as server:
        assert server.url.startswith("https://")
        [curl] = [line for line in server.head.splitlines() if line.startswith("  curl")]
        assert "sk-1" not in server.head
        line = f"{curl} --silent --cacert {tmp_path / 'ca.pem'}"
        environment = os.environ | {"LEADLINE_API_KEY": "sk-1"}
        result = subprocess.run(
            ["bash", "-c", line], env=environment, capture_output=True, text=True, check=True
        )
        assert json.loads(result.stdout)["object"] == "chat.completion"
        trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        headers = {"origin": "https://page.example"}
        refused = httpx.get(f"{server.url}/v1/models", headers=headers, verify=trusting)
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://page.example"


HANGS_OR_SWELLS = (
    "{% set first = messages[0].content %}{% set one = messages|length %}Hi"
    "{% if first == 'hang' %}{{ (one + 8)**99999999 }}{% endif %}"
    "{% if first == 'swell' %}{{ ('x' * (one * 2**28))|length }}{% endif %}"
)


def test_limits_of_templates_reach_their_processes(model: Path, tmp_path: Path) -> None:
    own = tmp_path / "model"
    shutil.copytree(model, own)
    (own / "chat_template.jinja").write_text(HANGS_OR_SWELLS)
    with running(own, limit=("template_s=0.4", "template_bytes=64M")) as server:

        def error_of(content: str) -> str:
            response = ask(server, messages=[{"role": "user", "content": content}])
            assert response.status_code == 400, response.text
            return str(response.json()["error"]["message"])

        assert ask(server).status_code == 200
        assert "within 0.4 s" in error_of("hang")
        assert "memory" in error_of("swell").lower()
        assert ask(server).status_code == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.end()[0] == 0


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{{ 9**99999999 }}", r"cannot be compiled within 0\.4 s"),
        ("{{ messages|frobnicate }}", "no valid jinja.*frobnicate"),
    ],
)
def test_a_template_that_cannot_be_compiled_ends_the_start(
    model: Path, tmp_path: Path, source: str, problem: str
) -> None:
    own = tmp_path / "model"
    shutil.copytree(model, own)
    (own / "chat_template.jinja").write_text(source)
    with launched(own, "paced", limit=("template_s=0.4",)) as server:
        status, errors = server.end()
    assert status == 1
    assert re.search(problem, errors.splitlines()[-1])


def last_line(capfd: pytest.CaptureFixture[str]) -> str:
    return capfd.readouterr().err.splitlines()[-1]


def test_an_engine_that_does_not_start(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = EngineConfig(model=str(model))
    assert serve(config, ServerConfig(port=0), builder="paced_builder:broken") == 1
    assert "model.norm.weight is missing" in last_line(capfd)


def test_a_used_port_is_noticed_first(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert serve(EngineConfig(model="/nowhere"), ServerConfig(port=port)) == 1
    line = last_line(capfd)
    assert f"cannot listen on port {port} of 127.0.0.1" in line
    assert "--port" in line


@pytest.mark.parametrize(
    ("engine", "server", "words"),
    [
        ({"model": "/nowhere"}, {}, "/nowhere"),
        ({"page_size": 0}, {}, "page_size is 0; allowed: 1 to"),
        ({"max_model_len": 1000}, {}, "max_model_len is 1000"),
        ({}, {"port": 70000}, "port is 70000; allowed: 0 to 65535"),
        ({}, {"api_workers": 0}, "api_workers is 0; allowed: 1 to 256"),
        ({}, {"api_workers": -1}, "api_workers is -1; allowed: 1 to 256"),
        ({}, {"drain_timeout_s": -1.0}, "drain_timeout_s is -1.0; allowed: at least 0"),
        ({}, {"engine_timeout_s": -1.0}, "engine_timeout_s is -1.0; allowed: at least 0"),
        ({}, {"loading_timeout_s": -1.0}, "loading_timeout_s is -1.0; allowed: at least 0"),
        ({}, {"api_key": ("",)}, "api_key: key 1 of 1 is not allowed"),
        ({}, {"log_format": "xml"}, "log_format is 'xml'; allowed: text, json"),
        ({}, {"deadline_s": 0.0}, "deadline_s is 0.0; allowed: greater than 0"),
        ({}, {"chat_template": "/nowhere.jinja"}, "--chat-template: /nowhere.jinja cannot be"),
        ({}, {"generation_config": "/nowhere"}, "--generation-config: there is no file /nowhere"),
        ({}, {"override_generation_config": "{"}, "override_generation_config is no valid JSON"),
        ({}, {"override_generation_config": "[]"}, "override_generation_config is no JSON object"),
        ({}, {"override_generation_config": '{"top_q": 1}'}, "there is no setting 'top_q'"),
        ({"served_model_name": ("",)}, {}, "served_model_name has an empty name"),
        ({}, {"ssl_keyfile": "/nowhere"}, "ssl_keyfile is given without ssl_certfile"),
        ({}, {"ssl_certfile": "/nowhere"}, "--ssl-certfile: /nowhere cannot be read: No such"),
        ({}, {"cors_origin": ("https://a/",)}, "cors_origin is 'https://a/'; allowed: *, or"),
        ({}, {"host": "256.1.1.1"}, "'256.1.1.1' cannot be resolved"),
        ({}, {"host": "203.0.113.1"}, "no such address"),
    ],
)
def test_a_start_that_fails_says_why(
    engine: dict[str, Any],
    server: dict[str, Any],
    words: str,
    model: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    engine_config = EngineConfig(**{"model": str(model)} | engine)
    assert serve(engine_config, ServerConfig(**{"port": 0} | server)) == 1
    errors = capfd.readouterr().err
    assert words in errors
    assert errors.startswith("leadline serve: ")
    assert errors.count("\n") == 1


def test_a_directory_without_a_tokenizer(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text((model / "config.json").read_text())
    assert serve(EngineConfig(model=str(tmp_path)), ServerConfig(port=0)) == 1
    assert "no tokenizer" in last_line(capfd)
