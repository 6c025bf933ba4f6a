"""The server's own dumps and snapshots, where the folder that it writes them to is mounted."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from chrono_backups.errors import SourceError
from chrono_backups.sources.base import StreamedEntry

_NAMES = (".dump", ".snapshot")


def mounted_files(folder: Path) -> Iterator[StreamedEntry]:
    """Each of them as an entry below ``dumps``. Raises ``SourceError`` where the folder can't be read.

    A file that is being written has another name with the server, and is not there yet.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(_NAMES))
    except OSError as error:
        raise SourceError(
            f"{folder} can't be read: {error.strerror}",
            source="meilisearch",
            hint="Mount the server's folder of dumps there, or unset BACKUP_MEILISEARCH_DUMP_DIR.",
        ) from error
    for name in names:
        yield from _file(folder / name)


def _file(path: Path) -> Iterator[StreamedEntry]:
    try:
        with path.open("rb", buffering=0) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                return
            yield StreamedEntry(
                b"dumps/" + os.fsencode(path.name),
                stat.S_IFREG | 0o600,
                size=-1,
                mtime_ns=found.st_mtime_ns,
                read_into=lambda view: file.readinto(view) or 0,
            )
    except FileNotFoundError:  # the server removes old ones
        return
    except OSError as error:
        raise SourceError(f"{path} can't be read: {error.strerror}", source="meilisearch") from error
