"""The alphabet in which byte-level BPE vocabularies are written: one printable character a byte.

Source: GPT-2's `bytes_to_unicode`. Bytes that are printable in Latin-1 stand for themselves, the
others are moved to U+0100 and up.
"""


def _characters() -> dict[int, str]:
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(0x100 + i) for i, byte in enumerate(others)
    }


CHARACTER_OF_BYTE = _characters()
BYTE_OF_CHARACTER = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}
