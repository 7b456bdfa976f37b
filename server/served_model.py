"""The half of a checkpoint that the server reads: config, tokenizer, chat template, defaults."""

from dataclasses import dataclass
from pathlib import Path

from leadline.loader.chat_template import ChatTemplate
from leadline.loader.errors import TokenizerError
from leadline.loader.generation_config import GenerationConfig, read_generation_config
from leadline.loader.model_config import ModelConfig, read_model_config
from leadline.loader.tokenizer import Tokenizer
from leadline.server.config import ServerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """What the files of a checkpoint say to the server.

    Attributes:
        template: None if the checkpoint has no chat template.
    """

    directory: Path
    config: ModelConfig
    tokenizer: Tokenizer
    template: ChatTemplate | None
    generation: GenerationConfig


def read_served_model(directory: Path, server_config: ServerConfig | None = None) -> ServedModel:
    """Read everything but the weights.

    Args:
        directory: of the checkpoint.
        server_config: may name another chat template and other defaults; None for the
            checkpoint's own.

    Raises:
        LoaderError: a file that is missing or cannot be used.
    """
    asked = server_config or ServerConfig()
    config = read_model_config(directory)
    tokenizer = Tokenizer.from_dir(directory)
    if tokenizer.vocab_size > config.vocab_size:
        raise TokenizerError(
            f"the tokenizer in {directory} has {tokenizer.vocab_size} tokens, but config.json has "
            f"vocab_size = {config.vocab_size}; fetch both files again, of the same model"
        )
    if asked.chat_template is None:
        template = ChatTemplate.from_dir(directory)
    else:
        template = ChatTemplate.from_file(Path(asked.chat_template).expanduser(), directory)
    generation = read_generation_config(
        directory,
        other_eos_ids=(*config.eos_token_ids, tokenizer.eos_id),
        source=asked.generation_config,
        overrides=asked.generation_overrides,
    )
    return ServedModel(
        directory=directory,
        config=config,
        tokenizer=tokenizer,
        template=template,
        generation=generation,
    )
