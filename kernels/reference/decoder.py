"""Decoder layers operation by operation: `engine/model` composes them, and is the specification."""

from leadline.kernels.decoder import DecoderStack, PairingWeights


def one_by_one(stack: DecoderStack, pairing: PairingWeights | None = None) -> None:
    """See `api.FuseLayers` and `api.FuseMTP`."""
