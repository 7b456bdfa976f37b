"""Templates in processes that can be killed."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from leadline.loader.chat_template import ChatTemplate
from leadline.loader.errors import TemplateError
from leadline.server.template_messages import Launch, Rendering
from leadline.server.template_process import TemplateProcess, TemplateTimeoutError

# jinja computes what is constant when it compiles: the numbers come from a message.
SOURCE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n"
    "{% if m.content == 'hang' %}{{ ((m.content|length + 5)**99999999)|string|length }}{% endif %}"
    "{% if m.content == 'swell' %}{{ (m.content * 900000000)|length }}{% endif %}"
    "{% if m.content == 'refuse' %}{{ raise_exception('no such chat') }}{% endif %}"
    "{% endfor %}{{ tools|tojson if tools else '' }}{{ 'A:' if add_generation_prompt else '' }}"
)
TEMPLATE = ChatTemplate(SOURCE, {"bos_token": "<s>"})


def saying(content: str, **settings: Any) -> Rendering:
    return Rendering(messages=[{"role": "user", "content": content}], **settings)


@pytest_asyncio.fixture
async def process() -> AsyncIterator[TemplateProcess]:
    process = TemplateProcess(TEMPLATE, timeout_s=1.0, memory_bytes=128 * 2**20)
    yield process
    process_ids = process.process_ids
    await process.close()
    for process_id in process_ids:
        with pytest.raises(ProcessLookupError):
            os.kill(process_id, 0)


async def test_it_renders_what_the_template_does(process: TemplateProcess) -> None:
    for content in ("Hi", "two\nlines \u2028 \U0001f600 \0", "x" * 1_000_000):
        job = saying(content, tools=[{"a": 1}], add_generation_prompt=False)
        expected = TEMPLATE.render(job.messages, tools=job.tools, add_generation_prompt=False)
        assert await process.render(job) == expected


async def test_one_that_hangs_is_ended_while_others_go_on(process: TemplateProcess) -> None:
    await process.render(saying("Hi"))
    hanging = asyncio.create_task(process.render(saying("hang")))
    num_others = 0
    while not hanging.done():
        assert (await process.render(saying("Hi"))).endswith("A:")
        num_others += 1
        await asyncio.sleep(0)
    assert num_others > 1
    with pytest.raises(TemplateTimeoutError, match=r"within 1 s.*template_s"):
        await hanging
    for _ in range(4):
        assert await process.render(saying("Hi"))


async def test_all_of_them_hang(process: TemplateProcess) -> None:
    jobs = [process.render(saying("hang")) for _ in range(3)]
    results = await asyncio.gather(*jobs, return_exceptions=True)
    assert [type(result) for result in results] == [TemplateTimeoutError] * 3
    assert await process.render(saying("Hi"))


@pytest.mark.parametrize(
    ("content", "message"), [("refuse", "no such chat"), ("swell", "MemoryError|too much memory")]
)
async def test_what_it_refuses(process: TemplateProcess, content: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        await process.render(saying(content))
    assert await process.render(saying("Hi"))


async def test_one_that_somebody_kills_is_replaced(process: TemplateProcess) -> None:
    await process.render(saying("Hi"))
    for _ in range(2):
        for process_id in process.process_ids:
            os.kill(process_id, signal.SIGKILL)
        assert await process.render(saying("Hi"))


CONSTANTS = {
    "power": "{{ 9**99999999 }}",
    "within an expression": "{% if (7**99999999) > messages|length %}x{% endif %}",
}


@pytest.mark.parametrize("source", CONSTANTS.values(), ids=CONSTANTS)
async def test_one_that_hangs_while_it_is_compiled(source: str) -> None:
    """What is constant is computed then, and nothing of it in this process."""
    template = ChatTemplate(source + "{{ tools }}", {})
    assert template.reads_tools
    process = TemplateProcess(template, timeout_s=0.3, memory_bytes=64 * 2**20)
    with pytest.raises(TemplateTimeoutError, match=r"compiled within 0.3 s.*template_s"):
        await process.check()
    await process.close()


async def test_one_that_swells_while_it_is_compiled() -> None:
    template = ChatTemplate("{{ 'x'|center(2000000000) }}", {})
    process = TemplateProcess(template, timeout_s=5, memory_bytes=64 * 2**20)
    await process.check()  # what cannot be computed ahead is computed at each rendering
    with pytest.raises(TemplateError, match=r"[Mm]emory"):
        await process.render(saying("Hi"))
    await process.close()


async def test_one_that_is_no_template() -> None:
    process = TemplateProcess(
        ChatTemplate("a\n{{ messages|frobnicate }}", {}), timeout_s=5, memory_bytes=64 * 2**20
    )
    with pytest.raises(TemplateError, match=r"no valid jinja: line 2: .*frobnicate"):
        await process.check()
    await process.close()


async def test_a_child_ends_by_itself_where_nobody_kills_it() -> None:
    launch = Launch(sources={"default": SOURCE}, variables={}, memory_bytes=2**27, cpu_s=0.2)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "leadline.server.template_child"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert child.stdin is not None
    lines = [msgspec.json.encode(launch), b"", msgspec.json.encode(saying("hang"))]
    child.stdin.write(b"\n".join(lines) + b"\n")
    assert await asyncio.wait_for(child.wait(), 60) == -signal.SIGPROF
    child.stdin.close()
