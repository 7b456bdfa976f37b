"""vLLM's `--speculative-config`, as far as this server goes: how many MTP drafts a step."""

import argparse
import json

METHODS = ("mtp", "deepseek_mtp")
_KEYS = ("method", "num_speculative_tokens")
_ALLOWED = (
    f'allowed: {{"method": "mtp", "num_speculative_tokens": N}}, method being '
    f"{' or '.join(METHODS)}"
)


def num_speculative_tokens(text: str) -> int:
    """The number of drafts that a `--speculative-config` asks for.

    Raises:
        argparse.ArgumentTypeError: it is no JSON object, or asks for anything else.
    """
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"no valid JSON ({error}); {_ALLOWED}") from None
    if not isinstance(config, dict):
        raise argparse.ArgumentTypeError(f"no JSON object; {_ALLOWED}")
    for key in config:
        if key not in _KEYS:
            raise argparse.ArgumentTypeError(f"unknown key {key[:40]!r}; {_ALLOWED}")
    method, num_tokens = config.get("method", "mtp"), config.get("num_speculative_tokens")
    if method not in METHODS:
        raise argparse.ArgumentTypeError(f"method is {str(method)[:40]!r}; {_ALLOWED}")
    if not isinstance(num_tokens, int) or isinstance(num_tokens, bool) or num_tokens < 0:
        shown = str(num_tokens)[:40]
        raise argparse.ArgumentTypeError(
            f"num_speculative_tokens is {shown}, but must be an integer from 0 on; {_ALLOWED}"
        )
    return num_tokens
