"""`leadline chat`: a conversation in the terminal, or over a pipe."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.text import Text

from leadline.server.chat_stream import ChatClient, ChatError, Kind, Piece
from leadline.server.console import make_console
from leadline.server.demo_tools import TOOLS, answer_call

_MAX_ROUNDS = 8  # of tool calls after one message
_HELP = """\
/reset   forget the conversation
/help    this text
/quit    end (Ctrl-D does too)
Ctrl-C stops an answer. Everything else is said to the model."""
# A model's text must not move the cursor or change the terminal's settings.
_CONTROLS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions:
    """Whom to talk to, and how; None leaves a choice to the server.

    Attributes:
        thinking: The model thinks before it answers.
        demo_tools: Offer the demo tools, and answer their calls here.
    """

    url: str
    model: str | None = None
    system: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    thinking: bool = False
    demo_tools: bool = False
    api_key: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class _Conversation:
    """The messages so far, and the fields that every request has."""

    client: ChatClient
    console: Console
    system: str | None
    fields: dict[str, Any]
    messages: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.messages = []
        if self.system is not None:
            self.messages.append({"role": "system", "content": self.system})

    def say(self, text: str) -> None:
        """Print the answer as it comes, and remember it. Ctrl-C stops it.

        A terminal is shown the reasoning too. Calls of the demo tools are answered, and the model
        goes on from there. A question without any answer is forgotten.

        Raises:
            ChatError: there is no answer, or none to its end.
        """
        num_before = len(self.messages)
        self.messages.append({"role": "user", "content": text})
        try:
            for _ in range(_MAX_ROUNDS):
                if not self._answer_calls(self._hear()):
                    break
        except ChatError:
            del self.messages[num_before:]
            raise
        if len(self.messages) == num_before + 1:
            self.messages.pop()

    def _hear(self) -> list[list[str]]:
        """Print and remember one answer; returns its calls, each a name and its arguments."""
        texts: list[str] = []
        calls: list[list[str]] = []
        writer = _Writer(self.console)
        try:
            with closing(self.client.answer(self.messages, self.fields)) as answer:
                for piece in answer:
                    if piece.kind is Kind.CONTENT:
                        texts.append(piece.text)
                    elif piece.begins:
                        calls.append([piece.text, ""])
                    elif piece.kind is Kind.CALL:
                        calls[-1][1] += piece.text
                    writer.write(piece)
            writer.end("\n")
        except KeyboardInterrupt:
            writer.end(" [stopped]\n")
            calls = []
        except ChatError:
            if writer.has_written:
                writer.end("\n")
            raise
        if texts or (calls and "tools" in self.fields):
            self.messages.append({"role": "assistant", "content": "".join(texts)})
        return calls

    def _answer_calls(self, calls: list[list[str]]) -> bool:
        """Answer the calls of the last message with the demo tools; False if there is nothing."""
        if not calls or "tools" not in self.fields:
            return False
        entries: list[dict[str, object]] = []
        outputs = []
        for name, arguments in calls:
            call_id = f"call_{len(self.messages)}_{len(entries)}"
            function = {"name": name, "arguments": arguments}
            entries.append({"id": call_id, "type": "function", "function": function})
            output = answer_call(name, arguments)
            self.console.print(Text(f"<- {output}", style="dim"), soft_wrap=True)
            outputs.append({"role": "tool", "tool_call_id": call_id, "content": output})
        self.messages[-1]["tool_calls"] = entries
        self.messages += outputs
        return True


class _Writer:
    """Writes one answer: reasoning dimmed, and only to a terminal; each call on a line.

    Attributes:
        has_written: anything at all.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._kind: Kind | None = None
        self._ends_line = True
        self.has_written = False

    def write(self, piece: Piece) -> None:
        """Write a piece, on a new line where something else begins."""
        if piece.kind is Kind.REASONING and not self._console.is_terminal:
            return
        text = piece.text.translate(_CONTROLS)
        if piece.begins:
            text = f"-> {text} "
        is_other = piece.kind is not self._kind or piece.begins
        if is_other and not self._ends_line:
            self._put("\n")
        if is_other and self._kind is Kind.REASONING:
            text = text.lstrip("\n")
        self._kind = piece.kind
        self._put(text)

    def end(self, text: str) -> None:
        """Write what comes after the answer."""
        self._kind = None
        self._put(text)

    def _put(self, text: str) -> None:
        if not text:
            return
        self.has_written = True
        self._ends_line = text.endswith("\n")
        if self._kind is Kind.REASONING:
            self._console.print(Text(text, style="dim"), end="", soft_wrap=True)
        else:
            self._console.file.write(text)
        self._console.file.flush()


def chat(options: ChatOptions) -> int:
    """Talk until the user has had enough; returns the exit status.

    On a terminal an error is shown and the conversation goes on; over a pipe it is the end, with
    status 1.
    """
    console = make_console()
    try:
        with ChatClient(options.url, options.api_key) as client:
            fields = {
                "model": options.model or client.first_model(),
                "max_tokens": options.max_tokens,
                "temperature": options.temperature,
                "chat_template_kwargs": {"thinking": True} if options.thinking else None,
                "tools": TOOLS if options.demo_tools else None,
            }
            fields = {name: value for name, value in fields.items() if value is not None}
            conversation = _Conversation(client, console, options.system, fields)
            if sys.stdin.isatty():
                console.print(f"{fields['model']} at {client.url}; /help says more", style="dim")
                _talk(conversation)
            else:
                for line in sys.stdin:
                    if line.strip():
                        conversation.say(line.strip())
    except ChatError as error:
        sys.stderr.write(f"leadline chat: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _talk(conversation: _Conversation) -> None:
    for line in _typed_lines(conversation.console):
        match line.strip():
            case "":
                pass
            case "/quit" | "/exit":
                return
            case "/reset":
                conversation.reset()
                conversation.console.print("forgotten", style="dim")
            case command if command.startswith("/"):
                conversation.console.print(_HELP, style="dim")
            case text:
                try:
                    conversation.say(text)
                except ChatError as error:
                    conversation.console.print(str(error), style="red", soft_wrap=True)


def _typed_lines(console: Console) -> Iterator[str]:
    """Lines from the terminal until Ctrl-D, with editing and history where there is readline."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (`input` uses it from now on)
    read: Callable[[str], str] = input
    while True:
        try:
            yield read("> ")
        except KeyboardInterrupt:
            console.print()  # Ctrl-C throws away what has been typed
        except EOFError:
            console.print()
            return
