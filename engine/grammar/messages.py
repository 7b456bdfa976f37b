"""llguidance's messages, as they are shown to users."""

MAX_MESSAGE_CHARS = 300
_STATE_MARKS = ("<non-verbose/>", "<state>", "<backtrace>")
_REASONS = {
    "NoExtensionBias": "no text matches it",
    "fuel exhausted": "it is too complex",
    "panic": "llguidance cannot work with it",
}


def shortened(message: str) -> str:
    """The first sentences of a message, without the parser's state, on one line."""
    for mark in _STATE_MARKS:
        message = message.split(mark, 1)[0]
    text = " ".join(message.split())
    for beginning, reason in _REASONS.items():
        if text.startswith(beginning):
            text = reason
    text = text.encode("utf-8", "replace").decode()  # the text may hold lone surrogates
    if len(text) > MAX_MESSAGE_CHARS:
        text = text[:MAX_MESSAGE_CHARS] + "..."
    return text or "the grammar cannot be used"
