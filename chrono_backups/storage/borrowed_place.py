"""A local storage's place for as long as a test takes: made where it is not there, and gone with all that was made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chrono_backups.storage.local import TEMPORARY_FOLDER
from chrono_backups.storage.probe import PREFIX


@contextmanager
def borrowed_place(root: Path, make: Callable[[], None]) -> Iterator[bool]:
    """Whether the place had to be made. Only empty folders are ever removed."""
    made = not (root / TEMPORARY_FOLDER).is_dir()
    standing = next(path for path in (root, *root.parents) if path.is_dir())
    if made:
        make()
    try:
        yield made
    finally:
        _clear(root / PREFIX.rstrip("/"))
        if made:
            _clear(root / TEMPORARY_FOLDER)
            for path in (root, *root.parents):
                if path == standing:
                    break
                with suppress(OSError):
                    path.rmdir()


def _clear(folder: Path) -> None:
    """Remove the folders below and the folder itself, as far as they are empty."""
    for path, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            os.rmdir(path)
