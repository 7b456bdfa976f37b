"""Templates in processes that can be killed."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from leadline.loader.chat_template import ChatTemplate
from leadline.loader.errors import TemplateError
from leadline.server.template_messages import Rendering
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
