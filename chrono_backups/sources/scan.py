"""Scanning directories: their order, their stretches, their entries' attributes in columns."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from zlib import crc32

from chrono_backups.pipeline.attributes import Attributes

KIND = 0o170000
"""The bits of ``st_mode`` that say what an entry is."""
_STRETCH = 4096
"""A directory with more entries than about this is yielded in stretches, cut by name, so that an entry more
or less moves no other stretch."""
_TIME_MOST = 2**63 - 1


def leading(roots: Sequence[bytes]) -> dict[bytes, set[bytes]]:
    """For each directory that only leads to roots, the names to go on with."""
    leading: dict[bytes, set[bytes]] = {}
    whole = [root.strip(b"/") for root in roots]
    for root in whole:
        parts = root.split(b"/")
        for depth in range(len(parts) if root else 0):
            path = b"/".join(parts[:depth])
            if any(path == other or (path + b"/").startswith(other + b"/") or not other for other in whole):
                break  # inside another root, which takes all of it
            leading.setdefault(path, set()).add(parts[depth])
    return leading


def stretches(names: list[bytes]) -> Iterator[list[bytes]]:
    """Runs of names, cut where a name's checksum says, or at twice the usual size."""
    if len(names) <= _STRETCH:
        yield names
        return
    run: list[bytes] = []
    for name in names:
        run.append(name)
        if len(run) >= 2 * _STRETCH or (len(run) >= _STRETCH // 2 and crc32(name) % (_STRETCH // 2) == 0):
            yield run
            run = []
    if run:
        yield run


def attributes(names: list[bytes], stats: list[os.stat_result]) -> Attributes:
    columns = [
        [one.st_mode for one in stats],
        [one.st_uid for one in stats],
        [one.st_gid for one in stats],
        [one.st_size if one.st_mode & KIND == stat.S_IFREG else 0 for one in stats],
        [one.st_mtime_ns for one in stats],
        [one.st_ctime_ns for one in stats],
        [one.st_ino for one in stats],
    ]
    try:
        return Attributes.build(names, columns)
    except OverflowError:
        columns[4:6] = [list(map(representable, times)) for times in columns[4:6]]
        return Attributes.build(names, columns)


def representable(nanoseconds: int) -> int:
    """A time as 64 bits hold it: some file systems keep times before 1677 and after 2262, set by mistake."""
    return max(-_TIME_MOST, min(_TIME_MOST, nanoseconds))


def update(columns: Attributes, position: int, found: os.stat_result) -> None:
    columns.mode[position] = found.st_mode
    columns.uid[position] = found.st_uid
    columns.gid[position] = found.st_gid
    columns.size[position] = found.st_size
    columns.mtime[position] = representable(found.st_mtime_ns)
    columns.ctime[position] = representable(found.st_ctime_ns)
    columns.inode[position] = found.st_ino
