"""Two things that must be known of a cluster before it can be asked: read from its catalogues' files.

Sources: ``src/backend/utils/cache/relmapper.c`` for ``pg_filenode.map``; PostgreSQL documentation, "Database Page
Layout"; ``src/include/catalog/pg_authid.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

_MAP_MAGIC = 0x592717
_PAIR = struct.Struct("<ii")
_PAGE = 8192
_PAGE_HEADER = struct.Struct("<QHHHHHH")
_LINE_POINTER = struct.Struct("<I")
_NORMAL = 1
_HEADER_SIZE_AT = 22
_ROLE = struct.Struct("<I64s?????")
_ROLES = 1260
_SUBSCRIPTIONS = 6100
BOOTSTRAP_OID = 10


def superusers(data: Path) -> list[str]:
    """Names of roles that may do everything and log in, the one that the cluster was made by first.

    Of all versions of the rows that are in the file, so that some may have been renamed or dropped since.
    """
    found: dict[str, int] = {}
    for row in _rows(_file(data, _ROLES)):
        if len(row) >= _ROLE.size:
            oid, name, may_all, _, _, _, may_log_in = _ROLE.unpack_from(row)
            if may_all and may_log_in:
                found.setdefault(name.rstrip(b"\0").decode("utf-8", "replace"), oid)
    return sorted(found, key=lambda name: found[name] != BOOTSTRAP_OID)


def has_subscriptions(data: Path) -> bool:
    """Whether the cluster takes part in logical replication as a subscriber, or once did."""
    file = _file(data, _SUBSCRIPTIONS)
    return file is not None and any(True for _ in _rows(file))


def _file(data: Path, oid: int) -> Path | None:
    """The file of a catalogue that all databases share."""
    try:
        content = (data / "global" / "pg_filenode.map").read_bytes()
    except OSError:
        return None
    magic, count = _PAIR.unpack_from(content, 0)
    if magic != _MAP_MAGIC or _PAIR.size * (count + 1) > len(content):
        return None
    filenodes = dict(_PAIR.unpack_from(content, _PAIR.size * (one + 1)) for one in range(count))
    return data / "global" / str(filenodes[oid]) if oid in filenodes else None


def _rows(file: Path | None) -> Iterator[bytes]:
    """What follows the header of each row in the file, in pages of the usual size."""
    if file is None or not file.is_file():
        return
    content = file.read_bytes()
    for start in range(0, len(content) - _PAGE + 1, _PAGE):
        page = content[start : start + _PAGE]
        lower = _PAGE_HEADER.unpack_from(page)[3]
        for at in range(24, min(lower, _PAGE - 3), _LINE_POINTER.size):
            pointer = _LINE_POINTER.unpack_from(page, at)[0]
            offset, state, length = pointer & 0x7FFF, pointer >> 15 & 3, pointer >> 17
            if state == _NORMAL and length > _HEADER_SIZE_AT and offset + length <= _PAGE:
                row = page[offset : offset + length]
                yield row[row[_HEADER_SIZE_AT] :]
