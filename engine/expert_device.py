"""Where routed experts are computed: `--expert-device` and `--expert-gpu-count`."""

from typing import Protocol

from leadline.engine.errors import ConfigError
from leadline.loader.model_config import ModelConfig


class AskedExperts(Protocol):
    """What is read of `config.EngineConfig`, or of a command's flags."""

    @property
    def expert_device(self) -> str:
        """`auto` for the model's own device, or `cpu`."""
        ...

    @property
    def expert_gpu_count(self) -> int:
        """Routed experts of each layer that stay on the device."""
        ...


def check_expert_device(
    asked: AskedExperts, model: ModelConfig, *, device: str, num_ranks: int
) -> None:
    """Refuse what has no effect or cannot be honoured.

    Args:
        asked: where experts are to be.
        model: the checkpoint's config.
        device: of the model, `cpu` or `cuda`.
        num_ranks: of the unit.

    Raises:
        ConfigError: with what to do.
    """
    expert_gpu_count = asked.expert_gpu_count
    if asked.expert_device == "auto":
        if expert_gpu_count:
            raise ConfigError(
                "expert_gpu_count has no effect without expert_device cpu: all experts are on the "
                "model's device; leave it out"
            )
        return
    if not model.n_routed_experts:
        raise ConfigError("expert_device has no effect: the model has no routed experts")
    if device == "cpu":
        raise ConfigError(
            "expert_device has no effect: the whole model is computed on the CPU; leave it out"
        )
    if num_ranks > 1:
        raise ConfigError(
            f"expert_device cpu takes a unit of one GPU, not of {num_ranks}: each of several would "
            "hold the same experts in the host's memory"
        )
    if expert_gpu_count >= model.n_routed_experts:
        raise ConfigError(
            f"expert_gpu_count is {expert_gpu_count}; allowed: 0 to {model.n_routed_experts - 1}, "
            "one less than there are (all of them: leave expert_device out)"
        )
