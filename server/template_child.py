"""Renders chat templates for the server: `python -m leadline.server.template_child`.

It reads a `Launch`, an empty line that lets it compile the template, and then `Rendering`s, one
JSON object a line, from its standard input, and writes a `Rendered` for each to its standard
output. The server kills it where one takes too long; it ends with its parent, or by itself where
that is gone while it computes.
"""

import faulthandler
import resource
import signal
import sys

import msgspec

from leadline.loader.chat_template import ChatTemplate
from leadline.loader.errors import TemplateError
from leadline.server.template_messages import Launch, Rendered, Rendering

_encode = msgspec.json.Encoder().encode


def compile_(template: ChatTemplate) -> Rendered:
    """Nothing, or what is wrong with the template itself."""
    try:
        template.compile()
    except TemplateError as error:
        return Rendered(error=str(error)[:1000])
    except (MemoryError, RecursionError) as error:
        return Rendered(error=f"the chat template cannot be compiled: {type(error).__name__}")
    return Rendered()


def render(template: ChatTemplate, job: Rendering) -> Rendered:
    """The prompt's text, or what the template says against it."""
    try:
        text = job.render(template)
        text.encode()  # half a surrogate pair cannot be sent
    except TemplateError as error:
        return Rendered(error=str(error)[:1000])
    except MemoryError:
        return Rendered(error="the chat template takes too much memory on these messages")
    except UnicodeEncodeError:
        return Rendered(error="the chat template writes half of a surrogate pair")
    return Rendered(text=text)


def _limit_memory(num_bytes: int) -> None:
    """Address space beyond what this process has now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        own = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or own + num_bytes < hard:
        resource.setrlimit(resource.RLIMIT_AS, (own + num_bytes, hard))


def main() -> int:
    """Run the process; returns its exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent decides when this process ends
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends a process wherever it is
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    lines, answers = sys.stdin.buffer, sys.stdout.buffer
    launch = msgspec.json.decode(lines.readline(), type=Launch)
    template = ChatTemplate(launch.sources, launch.variables)
    decode = msgspec.json.Decoder(Rendering).decode
    if sys.platform == "linux":
        _limit_memory(launch.memory_bytes)
    answer = Rendered()
    while True:
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(_encode(answer) + b"\n")
        answers.flush()
        if not (line := lines.readline()):
            return 0
        signal.setitimer(signal.ITIMER_PROF, launch.cpu_s)
        answer = compile_(template) if line == b"\n" else render(template, decode(line))


if __name__ == "__main__":
    sys.exit(main())
