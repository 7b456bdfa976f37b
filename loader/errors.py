"""What can go wrong while files are read.

LoaderError
|-- ModelNotFoundError     no such directory, and no such name in the hub or its cache
|-- ConfigFileError        config.json or generation_config.json is missing, malformed, out of range
|-- UnsupportedModelError  an architecture or option that Leadline does not have
|-- CheckpointError        tensors that are missing, unexpected, truncated, wrongly shaped or typed
|-- ShardingError          a cut that the model's sizes do not allow
|-- TokenizerError         no tokenizer, or one that cannot be read
`-- TemplateError          no chat template, or one that fails on these messages
"""

from collections.abc import Sequence

_MAX_SHOWN = 10


class LoaderError(Exception):
    """Base of every error that the loader raises on purpose."""


class ModelNotFoundError(LoaderError):
    """The model is neither a directory nor a name that can be had."""


class ConfigFileError(LoaderError):
    """A JSON config that is missing, malformed, or has values out of range."""


class UnsupportedModelError(LoaderError):
    """An architecture or option that is not supported; the message names it."""


class CheckpointError(LoaderError):
    """Tensors that do not fit the config.

    Attributes:
        problems: one sentence for each thing that is wrong.
    """

    def __init__(self, path: object, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        if len(problems) == 1:
            text = f" {problems[0]}"
        else:
            text = "".join(f"\n  - {problem}" for problem in problems[:_MAX_SHOWN])
        if len(problems) > _MAX_SHOWN:
            num_more = len(problems) - _MAX_SHOWN
            text += f"\n  - and {num_more} more; `leadline doctor {path}` lists all"
        super().__init__(f"the checkpoint {path} cannot be served:{text}")


class ShardingError(LoaderError):
    """A parallel layout that the model's sizes do not allow; the message has the numbers."""


class TokenizerError(LoaderError):
    """The tokenizer is missing or cannot be read."""


class TemplateError(LoaderError):
    """The chat template is missing, or fails on the messages that it was given."""
