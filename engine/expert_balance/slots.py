"""How many slots for experts each rank has."""

from leadline.engine.errors import ConfigError


def slots_per_rank(num_experts: int, num_ranks: int, num_redundant: int = 0) -> int:
    """Experts that each rank holds.

    Raises:
        ConfigError: they cannot be spread evenly, or a rank would hold an expert twice.
    """
    num_slots = num_experts + num_redundant
    width, rest = divmod(num_slots, num_ranks)
    if rest:
        fitting = num_redundant + num_ranks - rest
        raise ConfigError(
            f"{num_experts} experts and {num_redundant} redundant ones cannot be spread evenly "
            f"over {num_ranks} ranks; allowed: --num-redundant-experts {fitting}, or "
            f"{num_ranks} more or less"
        )
    if not 0 < width <= num_experts:
        raise ConfigError(
            f"{num_redundant} redundant experts give each of {num_ranks} ranks {width} slots; "
            f"allowed: 1 to {num_experts}, the number of experts"
        )
    return width
