"""Fields that have a second flag, under the name that other servers know."""

from leadline.server.flags import Alias, integer
from leadline.server.speculative_config import num_speculative_tokens

ALIASES = {
    "speculative_tokens": Alias(
        "--speculative-config",
        num_speculative_tokens,
        "JSON",
        'the same as vLLM has it: {"method": "mtp", "num_speculative_tokens": N}',
    ),
    "api_workers": Alias("--api-server-count", integer, "N", "the same as vLLM has it"),
}
