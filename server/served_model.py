"""The half of a checkpoint that the server reads: config, tokenizer, chat template, defaults."""

from dataclasses import dataclass
from pathlib import Path

from leadline.loader.chat_template import ChatTemplate
from leadline.loader.generation_config import GenerationConfig, read_generation_config
from leadline.loader.model_config import ModelConfig, read_model_config
from leadline.loader.tokenizer import Tokenizer


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


def read_served_model(directory: Path) -> ServedModel:
    """Read everything but the weights.

    Raises:
        LoaderError: a file that is missing or cannot be used.
    """
    config = read_model_config(directory)
    tokenizer = Tokenizer.from_dir(directory)
    other_eos_ids = (*config.eos_token_ids, tokenizer.eos_id)
    return ServedModel(
        directory=directory,
        config=config,
        tokenizer=tokenizer,
        template=ChatTemplate.from_dir(directory),
        generation=read_generation_config(directory, other_eos_ids=other_eos_ids),
    )
