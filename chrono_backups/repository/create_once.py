"""Whether a storage creates once, asked of the header that was just made.

Some stores accept the condition "only where there is none yet" and ignore it: two writers that meet on a name would
overwrite each other there. ``storage.probe`` tries it with parallel writers; this is the one request that ``init`` can
afford, and it leaves nothing behind.
"""

from __future__ import annotations

from contextlib import suppress

from chrono_backups.errors import ObjectExists, StorageError
from chrono_backups.repository.format import HEADER_KEY, KEYS_FOLDER
from chrono_backups.storage.base import Storage

_TRIES = 3
"""A put whose answer was lost is repeated and taken for done, though nothing was overwritten: once, but not thrice."""


def check_creates_once(storage: Storage, header: bytes) -> None:
    """Put the header a second time, the same bytes, which must be refused.

    Raises ``StorageError`` where it is not; the new repository is then taken away again, as far as may be.
    """
    for _ in range(_TRIES):
        try:
            storage.put(HEADER_KEY, header)
        except ObjectExists:
            return
    with suppress(StorageError):
        for key in [HEADER_KEY, *(info.key for info in storage.list(f"{KEYS_FOLDER}/"))]:
            storage.delete(key)
    raise StorageError(
        f"{storage.name} ({storage.location}): init refused: the store overwrites an object that exists, although it "
        "is told to create it only where there is none",
        storage=storage.name,
        operation="init",
        key=HEADER_KEY,
        hint="Writers would destroy each other's work there. Use a store that knows conditional writes (for S3: "
        f"If-None-Match), or a newer version of its server; `chrono-backups storage test {storage.name}` tries it out.",
    )
