"""A server that answers as it is told: what a peer may do, without a model."""

import argparse
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PARSER = argparse.ArgumentParser()
PARSER.add_argument("--port", type=int, required=True)
PARSER.add_argument("--refusals", type=int, default=0, help="answers 503 so often first")
PARSER.add_argument("--token-s", type=float, default=0.0)
PARSER.add_argument("--prompt-tokens", type=int, help="what usage tells, whatever was sent")
PARSER.add_argument("--without-usage", action="store_true")
PARSER.add_argument("--fails-after", type=int, default=1 << 30, help="completions that succeed")
PARSER.add_argument("--holds-bytes", type=int, default=0)
PARSER.add_argument("--ends", action="store_true", help="at once, with status 3")


class Handler(BaseHTTPRequestHandler):
    """`GET /v1/models` and `POST /v1/completions`."""

    options: argparse.Namespace
    refusals = 0
    num_answers = 0

    def do_GET(self) -> None:
        self._send(200, {"data": [{"id": "fake"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if Handler.refusals < self.options.refusals:
            Handler.refusals += 1
            self._send(503, {"error": {"message": "loading"}})
            return
        Handler.num_answers += 1
        if Handler.num_answers > self.options.fails_after:
            self._send(500, {"error": {"message": "it is over"}})
            return
        if not body.get("stream"):
            self._send(200, {"choices": [{"text": "a", "finish_reason": "length"}]})
            return
        assert body["ignore_eos"] is True
        assert body["temperature"] == 0
        self.send_response(200)
        self.end_headers()
        for number in range(body["max_tokens"]):
            time.sleep(self.options.token_s)
            last = number == body["max_tokens"] - 1
            self._event({"choices": [{"text": "a", "finish_reason": "length" if last else None}]})
        if not self.options.without_usage:
            num_prompt = self.options.prompt_tokens or len(body["prompt"])
            usage = {"prompt_tokens": num_prompt, "completion_tokens": body["max_tokens"]}
            self._event({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _event(self, event: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    Handler.options = PARSER.parse_args()
    if Handler.options.ends:
        sys.stderr.write("no such model\n")
        sys.exit(3)
    held = bytearray(b"x" * Handler.options.holds_bytes)
    ThreadingHTTPServer.request_queue_size = 64
    server = ThreadingHTTPServer(("127.0.0.1", Handler.options.port), Handler)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        held.clear()


if __name__ == "__main__":
    main()
