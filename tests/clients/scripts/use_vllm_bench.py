"""The request functions of `vllm bench serve`, which run without the rest of vLLM."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

from harness import MODEL, SERVERS, main

OUTPUT_LEN = 8
PATHS = {
    "openai": "/v1/completions",
    "openai-chat": "/v1/chat/completions",
    "openai-responses": "/v1/responses",
}


def _request_functions() -> Any:
    package = importlib.util.find_spec("vllm")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "benchmarks" / "lib" / "endpoint_request_func.py"
    spec = importlib.util.spec_from_file_location("endpoint_request_func", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


async def ask(backend: str, server: str = "model") -> Any:
    functions = _request_functions()
    wanted = functions.RequestFuncInput(
        prompt="What does itertools.chain do?",
        api_url=SERVERS[server] + PATHS[backend],
        prompt_len=8,
        output_len=OUTPUT_LEN,
        model=MODEL,
        ignore_eos=True,
        request_id="bench-1",
    )
    async with functions.aiohttp.ClientSession() as session:
        return await functions.ASYNC_REQUEST_FUNCS[backend](wanted, session)


async def check(backend: str) -> None:
    output = await ask(backend)
    assert output.success, output.error
    assert output.generated_text
    assert output.output_tokens == OUTPUT_LEN
    assert 0 < output.ttft < output.latency
    assert output.prompt_len > 0
    assert len(output.itl) >= 1


async def completions() -> None:
    await check("openai")


async def chat() -> None:
    await check("openai-chat")


async def responses() -> None:
    await check("openai-responses")


async def failure_within_a_stream() -> None:
    for backend in PATHS:
        output = await ask(backend, "failing")
        assert not output.success, backend
        assert output.error, backend


if __name__ == "__main__":
    main(globals())
