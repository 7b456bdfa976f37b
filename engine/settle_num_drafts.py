"""Most drafts a step."""

from leadline.engine.errors import ConfigError
from leadline.loader.model_config import ModelConfig

DEFAULT_SPECULATIVE_TOKENS = 3


def settle_num_drafts(asked: int | None, model: ModelConfig) -> int:
    """The user's choice, or what the model allows.

    Raises:
        ConfigError: drafts without an MTP layer.
    """
    has_mtp = model.num_nextn_predict_layers > 0
    if asked is None:
        return DEFAULT_SPECULATIVE_TOKENS if has_mtp else 0
    if asked > 0 and not has_mtp:
        raise ConfigError(
            f"speculative_tokens is {asked}, but the model has no MTP layer; "
            "leave it out or set it to 0"
        )
    return asked
