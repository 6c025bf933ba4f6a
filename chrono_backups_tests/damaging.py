"""Damage that is one whatever was there: sealed bytes are by chance any byte, also the one that would be put there."""

from __future__ import annotations


def last_byte_changed(content: bytes | bytearray) -> bytes:
    """All of it but for the last byte."""
    return bytes(content[:-1]) + bytes([content[-1] ^ 1])
