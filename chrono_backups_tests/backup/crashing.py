"""Backups that are made to fail, and checks of what they leave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from chrono_backups.identifiers import BackupType
from chrono_backups.repository.records import Manifest
from chrono_backups.storage.base import Storage
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.backup.taking import (
    Thing,
    in_repository,
    noise,
    on_disk,
    opened,
    snapshot_of,
    take,
    write_all,
)

Trees = dict[str, dict[bytes, Thing]]
T = TypeVar("T")
PATIENCE = 120.0
"""Seconds after which something hangs: it takes one or two of them."""
PROJECT = Path(__file__).parents[2]


def ending(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """What the function returns or raises; a failure where it does neither: a deadlock."""
    ended: list[tuple[T | None, BaseException | None]] = []

    def run() -> None:
        try:
            ended.append((function(*args, **kwargs), None))
        except BaseException as error:
            ended.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if not ended:
        pytest.fail(f"still running after {PATIENCE} s")
    result, error = ended[0]
    if error is not None:
        raise error
    return cast("T", result)


@contextmanager
def no_thread_left() -> Iterator[None]:
    """Every thread that is begun within it ends."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive(), f"{thread} goes on"


def attempt(storage: Storage, backup_type: BackupType, root: Path) -> Manifest:
    """One backup as a process of its own would take it."""
    return take(opened(storage), backup_type, root)


def copy_of(storage: MemoryStorage) -> MemoryStorage:
    copied = MemoryStorage()
    for key, data in storage.objects.items():
        copied.put(key, data)
    return copied


def check_all(storage: Storage, root: Path, trees: Trees) -> list[Manifest]:
    """Every backup in sight reads back byte for byte, as its tree was; all of ``trees`` are in sight."""
    repository = opened(storage)
    manifests = repository.backups()
    now = on_disk(root)
    for manifest in manifests:
        expected = trees.get(manifest.backup_id, now)
        assert in_repository(repository, snapshot_of(repository, manifest), root) == expected
    assert set(trees) <= {manifest.backup_id for manifest in manifests}
    return manifests


def small_site(path: Path) -> Path:
    write_all(path, {f"small/{n}": noise(n, 500 + n) for n in range(12)})
    write_all(path, {"large": noise(100, 600_000), "deep/er/x": b"x"})
    return path
