"""Spans, as a receiver of OpenTelemetry's own protocol gets them."""

import contextlib
import importlib
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    add_TraceServiceServicer_to_server,
)

from leadline.engine.errors import ConfigError
from leadline.engine.request import EngineRequest, FinishReason, RequestTiming, SamplingParams
from leadline.server import traces
from leadline.server.config import ServerConfig
from leadline.server.reporters import reporters_of
from leadline.server.request_record import ChoiceRecord, RequestRecord
from leadline.server.traces import attributes_of

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Receiver(HTTPServer):
    """Keeps what is posted to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.posts: list[tuple[str, ExportTraceServiceRequest]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def spans(self) -> list[Any]:
        return spans_of(post for _, post in self.posts)


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        import gzip

        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        assert isinstance(self.server, Receiver)
        self.server.posts.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


class GrpcReceiver:
    """A collector that speaks gRPC, and keeps what it is sent."""

    def __init__(self) -> None:
        self.posts: list[ExportTraceServiceRequest] = []
        self._server = grpc.server(ThreadPoolExecutor(1))
        add_TraceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def Export(
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        self.posts.append(request)
        return ExportTraceServiceResponse()

    @property
    def spans(self) -> list[Any]:
        return spans_of(self.posts)

    def close(self) -> None:
        self._server.stop(None).wait()


def spans_of(posts: Iterable[ExportTraceServiceRequest]) -> list[Any]:
    return [
        span
        for post in posts
        for resource in post.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


@pytest.fixture
def grpc_receiver() -> Iterator[GrpcReceiver]:
    receiver = GrpcReceiver()
    yield receiver
    receiver.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def record(*, reason: FinishReason = FinishReason.STOP, traceparent: str = "") -> RequestRecord:
    params = SamplingParams(seed=0, max_tokens=16, temperature=0.5, top_p=0.75)
    choice = ChoiceRecord(
        num_prompt_tokens=7,
        num_cached_tokens=4,
        num_tokens=3,
        first_token_s=101.0,
        last_token_s=103.0,
        end_s=104.0,
        timing=RequestTiming(queue_s=0.25, prefill_s=0.5),
        reason=reason,
    )
    return RequestRecord(
        request_id="the-id",
        response_id="chatcmpl-1",
        model="demo",
        num_choices=1,
        first=EngineRequest(request_id="x", prompt_ids=[1] * 7, params=params, arrival_s=0.0),
        choices=[choice],
        arrived_s=100.0,
        trace_headers={"traceparent": traceparent} if traceparent else {},
    )


def reported(receiver: Receiver, *records: RequestRecord) -> list[Any]:
    with reporters_of(ServerConfig(otlp_traces_endpoint=receiver.url)) as [report]:
        for each in records:
            report(each)
    return receiver.spans


def attributes(span: Any) -> dict[str, Any]:
    found = {}
    for pair in span.attributes:
        kind = pair.value.WhichOneof("value")
        value = getattr(pair.value, kind)
        if kind == "array_value":
            value = [item.string_value for item in value.values]
        found[pair.key] = value
    return found


def test_a_request_is_a_span(receiver: Receiver) -> None:
    [span] = reported(receiver, record())
    assert receiver.posts[0][0] == "/v1/traces"
    assert span.name == "llm_request"
    assert span.end_time_unix_nano - span.start_time_unix_nano == pytest.approx(4e9, abs=1e3)
    assert span.parent_span_id == b""
    assert attributes(span) == {
        "gen_ai.response.model": "demo",
        "gen_ai.request.id": "the-id",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.request.n": 1,
        "gen_ai.request.max_tokens": 16,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.75,
        "gen_ai.usage.num_sequences": 1,
        "gen_ai.usage.prompt_tokens": 7,
        "gen_ai.usage.cached_tokens": 4,
        "gen_ai.usage.completion_tokens": 3,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.latency.e2e": 4.0,
        "gen_ai.latency.time_to_first_token": 1.0,
        "gen_ai.latency.time_in_queue": 0.25,
        "gen_ai.latency.time_in_model_prefill": 0.5,
        "gen_ai.latency.time_in_model_decode": 2.0,
        "gen_ai.latency.time_in_model_inference": 2.5,
    }
    resource = receiver.posts[0][1].resource_spans[0].resource
    assert any(
        pair.key == "service.name" and pair.value.string_value == "leadline"
        for pair in resource.attributes
    )


def test_a_caller_s_trace_goes_on(receiver: Receiver) -> None:
    sampled = record(traceparent=f"00-{TRACE_ID}-{PARENT_ID}-01")
    not_sampled = record(traceparent=f"00-{TRACE_ID}-{PARENT_ID}-00")
    garbage = record(traceparent="00-zz-\xff")
    first, second = reported(receiver, sampled, not_sampled, garbage)
    assert (first.trace_id.hex(), first.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert second.trace_id.hex() != TRACE_ID


def test_a_failure_is_marked(receiver: Receiver) -> None:
    [span] = reported(receiver, record(reason=FinishReason.ERROR))
    assert span.status.code == span.status.STATUS_CODE_ERROR


def test_a_receiver_that_is_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "CLOSE_S", 0.05)
    with Receiver() as gone:
        url = gone.url
    with reporters_of(ServerConfig(otlp_traces_endpoint=url)) as [report]:
        report(record())


@pytest.mark.parametrize("endpoint", ["", "localhost:4317", "ftp://x", "http://", "grpc://"])
def test_what_is_no_url(endpoint: str) -> None:
    with (
        pytest.raises(ConfigError, match="allowed: a URL"),
        reporters_of(ServerConfig(otlp_traces_endpoint=endpoint)),
    ):
        pass


@pytest.mark.parametrize(
    ("scheme", "variable"),
    [
        ("http", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"),
        ("http", "OTEL_EXPORTER_OTLP_PROTOCOL"),
        ("grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"),
        ("grpc", ""),
    ],
)
def test_spans_over_grpc(
    grpc_receiver: GrpcReceiver, monkeypatch: pytest.MonkeyPatch, scheme: str, variable: str
) -> None:
    """Those that a receiver over HTTP gets; "grpc" is with TLS unless it is told otherwise."""
    if variable:
        monkeypatch.setenv(variable, "grpc")
    if scheme == "grpc":
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "true")
    endpoint = f"{scheme}://127.0.0.1:{grpc_receiver.port}"
    with reporters_of(ServerConfig(otlp_traces_endpoint=endpoint)) as [report]:
        report(record(traceparent=f"00-{TRACE_ID}-{PARENT_ID}-01"))
    [span] = grpc_receiver.spans
    assert (span.name, span.trace_id.hex()) == ("llm_request", TRACE_ID)
    assert attributes(span) == attributes_of(record())


def test_a_grpc_receiver_that_is_away_is_given_up(
    grpc_receiver: GrpcReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "CLOSE_S", 0.05)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "true")
    grpc_receiver.close()
    endpoint = f"grpc://127.0.0.1:{grpc_receiver.port}"
    with reporters_of(ServerConfig(otlp_traces_endpoint=endpoint)) as [report]:
        report(record())


@pytest.mark.parametrize(
    ("protocol", "endpoint", "message"),
    [
        ("http/json", "http://localhost:4318", "PROTOCOL is 'http/json'; allowed: http/protobuf"),
        ("http/protobuf", "grpc://localhost:4317", "allowed: a URL"),
        ("grpc", "http://localhost:4318/v1/traces", "over grpc it has no path"),
        ("grpc", "localhost:4317", "allowed: a URL"),
    ],
)
def test_what_does_not_go_with_a_protocol(
    monkeypatch: pytest.MonkeyPatch, protocol: str, endpoint: str, message: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    with (
        pytest.raises(ConfigError, match=message),
        reporters_of(ServerConfig(otlp_traces_endpoint=endpoint)),
    ):
        pass


@pytest.mark.parametrize(
    ("protocol", "endpoint", "extra"),
    [("http", "http://localhost:4318", "traces"), ("grpc", "grpc://localhost:4317", "traces-grpc")],
)
def test_without_opentelemetry_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch, protocol: str, endpoint: str, extra: str
) -> None:
    module = f"opentelemetry.exporter.otlp.proto.{protocol}.trace_exporter"
    monkeypatch.setitem(sys.modules, module, None)
    with (
        pytest.raises(ConfigError, match=rf"pip install 'leadline\[{extra}\]'"),
        reporters_of(ServerConfig(otlp_traces_endpoint=endpoint)),
    ):
        pass


def test_nobody_imports_it_for_nothing() -> None:
    assert importlib.util.find_spec("opentelemetry") is not None
    with contextlib.ExitStack() as stack:
        assert stack.enter_context(reporters_of(ServerConfig())) == []
