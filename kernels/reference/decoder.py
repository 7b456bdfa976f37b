"""Decoder layers operation by operation: `engine/model` composes them, and is the specification."""

from leadline.kernels.decoder import DecoderStack


def one_by_one(stack: DecoderStack) -> None:
    """See `api.FuseLayers`."""
