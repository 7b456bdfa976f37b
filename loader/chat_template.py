"""Messages to a prompt, by the chat template of a checkpoint."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from leadline.loader.errors import TemplateError
from leadline.loader.json_files import read_json_object
from leadline.loader.tokenizer import special_tokens

_DEFAULT, _TOOL_USE = "default", "tool_use"


class ChatTemplate:
    """A jinja template in a sandbox that can change nothing; renders what transformers renders.

    Attributes:
        sources: what it was made of, by name.
        variables: the same.
        source: all sources, one after the other.
        reads_tools: whether it tells the model of tools; DeepSeek's own do not.
    """

    def __init__(self, sources: str | Mapping[str, str], variables: Mapping[str, Any]) -> None:
        """Read a template, or several by name, `default` among them; see `compile`.

        Args:
            sources: jinja source; with several, `tool_use` serves requests that have tools.
            variables: what the template sees besides its arguments, such as `bos_token`.

        Raises:
            TemplateError: a source is no valid jinja.
        """
        named = {_DEFAULT: sources} if isinstance(sources, str) else sources
        if _DEFAULT not in named:
            raise TemplateError(
                f"there is no chat template named {_DEFAULT!r} among {', '.join(sorted(named))}"
            )
        self.sources = dict(named)
        self.variables = dict(variables)
        self.source = "\n".join(named.values())
        self.reads_tools = False
        self._templates: dict[str, jinja2.Template] = {}
        self._environment = _environment()
        for name, source in named.items():
            with _naming(name):
                tree = self._environment.parse(source)
            self.reads_tools |= _is_read(tree, "tools") or False

    def compile(self) -> None:
        """Make ready to render, which the first rendering does else.

        What is constant in a template is computed here, however long it takes.

        Raises:
            TemplateError: a source is no valid jinja.
        """
        for name, source in self.sources.items():
            if name not in self._templates:
                with _naming(name):
                    self._templates[name] = self._environment.from_string(source)

    @classmethod
    def from_dir(cls, directory: Path) -> "ChatTemplate | None":
        """The template in chat_template.jinja, else in tokenizer_config.json; None without one.

        Raises:
            TemplateError: it cannot be read.
        """
        path, config_path = directory / "chat_template.jinja", directory / "tokenizer_config.json"
        config = read_json_object(config_path, TemplateError) if config_path.exists() else {}
        if path.exists():
            try:
                return cls(path.read_text(encoding="utf-8"), special_tokens(config))
            except (OSError, UnicodeDecodeError) as error:
                raise TemplateError(f"{path} cannot be read: {error}") from error
        sources = config.get("chat_template")
        if sources is None:
            return None
        if isinstance(sources, list):
            try:
                sources = {entry["name"]: entry["template"] for entry in sources}
            except (TypeError, KeyError):
                sources = None
        if not isinstance(sources, str | dict):
            raise TemplateError(
                f"{config_path}: chat_template must be a string, or a list of objects with `name` "
                "and `template`"
            )
        return cls(sources, special_tokens(config))

    @classmethod
    def from_file(cls, path: Path, directory: Path) -> "ChatTemplate":
        """A template that is not the checkpoint's own, with the checkpoint's special tokens.

        Args:
            path: of the jinja source.
            directory: of the checkpoint.

        Raises:
            TemplateError: it cannot be read, or is no valid jinja; names the file.
        """
        config_path = directory / "tokenizer_config.json"
        config = read_json_object(config_path, TemplateError) if config_path.exists() else {}
        try:
            return cls(path.read_text(encoding="utf-8"), special_tokens(config))
        except (OSError, UnicodeDecodeError, TemplateError) as error:
            raise TemplateError(f"--chat-template: {path} cannot be used: {error}") from error

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str:
        """The prompt's text.

        As in transformers, reasoning may stand in `reasoning_content`, `reasoning` or `thinking`.
        A null stays null: DeepSeek's templates ask whether `content is none`.

        Args:
            messages: plain JSON values, in the form of OpenAI's API.
            tools: tool schemas in that form.
            add_generation_prompt: end with what makes the assistant speak next.
            **kwargs: further variables of the template, such as `thinking`.

        Raises:
            TemplateError: the template refuses the messages, or fails on them.
        """
        self.compile()
        name = _TOOL_USE if tools and _TOOL_USE in self._templates else _DEFAULT
        variables = {
            **self.variables,
            "documents": None,
            **kwargs,
            "messages": [_with_reasoning(message) for message in messages],
            "tools": tools,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return self._templates[name].render(variables)
        except jinja2.TemplateError as error:
            raise TemplateError(f"the chat template refuses these messages: {error}") from error
        except Exception as error:
            raise TemplateError(
                f"the chat template fails on these messages: {type(error).__name__}: {error}"
            ) from error


def reasoning_of(message: Mapping[str, Any]) -> Any:
    """What a message says of its reasoning, under whichever name; None if nothing."""
    names = ("reasoning_content", "thinking", "reasoning")
    return next((message[name] for name in names if message.get(name) is not None), None)


def _is_read(node: jinja2.nodes.Node, name: str) -> bool | None:
    """Whether a variable is read before it is set; None if it is neither.

    jinja2.meta knows better, but computes what is constant while it looks.
    """
    if isinstance(node, jinja2.nodes.Name):
        return node.ctx == "load" if node.name == name else None
    if isinstance(node, jinja2.nodes.Macro) and any(arg.name == name for arg in node.args):
        return None  # its own
    value = getattr(node, "iter", getattr(node, "node", None))  # is read before a target is set
    first = [value] if isinstance(value, jinja2.nodes.Node) else []
    found = (_is_read(child, name) for child in (*first, *node.iter_child_nodes()))
    return next((is_read for is_read in found if is_read is not None), None)


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    try:
        yield
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(
            f"the chat template {name!r} is no valid jinja: line {error.lineno}: {error}"
        ) from error


def _with_reasoning(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message with its reasoning under the names that templates read."""
    if (reasoning := reasoning_of(message)) is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _environment() -> ImmutableSandboxedEnvironment:
    """What templates may use: transformers' set of filters, functions and extensions."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_GenerationBlock, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %}`: marks what the model is trained to say; here its content alone counts."""

    tags = {"generation"}  # noqa: RUF012 - jinja's interface

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(  # unlike jinja's own, it does not escape HTML
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
