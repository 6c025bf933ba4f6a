"""Strings of RDB files, decoded: plain, integers, LZF. Source: redis/redis, `src/rdb.c` and `src/lzf_d.c`."""

from __future__ import annotations

from chrono_backups.sources.redis.rdb_format import NoRdb, read_length

_LZF_LITERALS = 1 << 5
_LZF_LONG = 7


def read_string(buffer: bytes, position: int) -> tuple[bytes, int]:
    """A string, decoded, and where it ends. Raises ``IndexError`` where the buffer ends before it, ``NoRdb``."""
    first = buffer[position]
    if first in {0xC0, 0xC1, 0xC2}:
        end = position + 1 + (1 << (first - 0xC0))
        content = str(int.from_bytes(buffer[position + 1 : end], "little", signed=True)).encode()
    elif first == 0xC3:
        compressed, position = read_length(buffer, position + 1)
        size, position = read_length(buffer, position)
        end = position + compressed
        if end > len(buffer):
            raise IndexError
        return _decompressed(buffer[position:end], size), end
    else:
        size, position = read_length(buffer, position)
        end = position + size
        content = buffer[position:end]
    if end > len(buffer):
        raise IndexError
    return content, end


def _decompressed(data: bytes, size: int) -> bytes:
    found = bytearray()
    position = 0
    try:
        while position < len(data):
            control = data[position]
            position += 1
            if control < _LZF_LITERALS:
                found += data[position : position + control + 1]
                position += control + 1
                continue
            length = control >> 5
            if length == _LZF_LONG:
                length += data[position]
                position += 1
            start = len(found) - ((control & 0x1F) << 8) - data[position] - 1
            position += 1
            if start < 0:
                raise NoRdb("a compressed string refers to what is before it")
            repeated = found[start : start + length + 2]
            if len(repeated) < length + 2:  # it goes on with what it has just written
                repeated = (repeated * (length + 2))[: length + 2]
            found += repeated
    except IndexError:
        raise NoRdb("a compressed string is cut off") from None
    if len(found) != size:
        raise NoRdb(f"a compressed string has {len(found)} bytes, and was to have {size}")
    return bytes(found)
