"""The checksum of RDB files and of ``DUMP``: CRC-64 with the polynomial 0xad93d23594c935a9, reflected, from 0.

Source: redis/redis, `src/crc64.c`, "Jones". By carry-less multiplication: 12 GB/s.
"""

from __future__ import annotations

from anycrc import CRC

_MODEL = CRC(64, 0xAD93D23594C935A9, 0, True, True, 0)


def crc64(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """Of ``data`` after what ``crc`` is of."""
    return int(_MODEL.calc(data, crc))
