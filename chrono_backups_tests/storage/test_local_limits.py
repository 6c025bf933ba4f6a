"""A storage in a file system where there is no more room: full disks and limits."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.clock import FrozenClock
from chrono_backups.errors import (
    ObjectExists,
    StorageFull,
    StorageUnavailable,
)
from chrono_backups.storage.local import LocalStorage
from chrono_backups_tests.contracts.storage_contract import keys_of
from chrono_backups_tests.storage.watching import everything_in, fail_with, folders_read, in_child


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB. Where mounting is not permitted (no root), the test skips; the one with a
    file size limit covers the same path there."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


class TestFull:
    def test_a_full_disk(self, small_disk: Path) -> None:
        storage = LocalStorage(small_disk)
        storage.put("small", b"x" * 1000)
        free = storage.usage().free
        with pytest.raises(StorageFull, match="No space left") as caught:
            storage.put("packs/large", b"x" * 2_000_000)
        assert str(small_disk) in caught.value.hint
        assert caught.value.key == "packs/large"
        assert everything_in(small_disk / ".tmp") == []
        assert keys_of(storage.list()) == ["small"]
        assert storage.usage().free == free
        storage.put("packs/large", b"x" * 200_000)

    def test_no_room_for_the_folder(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        storage = LocalStorage(root)
        monkeypatch.setattr(os, "mkdir", fail_with(errno.ENOSPC))
        with pytest.raises(StorageFull):
            storage.put("packs/a", b"content")
        assert everything_in(root) == [".tmp"]

    def test_a_file_size_limit(self, root: Path) -> None:
        def run(answer: Any) -> None:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            try:
                LocalStorage(root).put("large", b"x" * 200_000)
            except StorageFull as error:
                answer.send(str(error))

        assert "File too large" in in_child(run)
        assert everything_in(root) == [".tmp"]

    def test_the_size_limit_is_never_passed(self, root: Path) -> None:
        storage = LocalStorage(root, max_size=1000)
        storage.put("a", b"x" * 600)
        with pytest.raises(StorageFull, match="limit of 1000 bytes") as caught:
            storage.put("b", b"x" * 401)
        assert "prune" in caught.value.hint
        assert everything_in(root) == [".tmp", "a"]
        storage.put("b", b"x" * 400)
        assert storage.usage().used == 1000
        assert storage.usage().free == 0
        with pytest.raises(StorageFull):
            storage.put("c", b"x")
        storage.put("empty", b"")
        with pytest.raises(ObjectExists):
            storage.put("a", b"x" * 5000)
        storage.delete("a")
        storage.delete("a")
        storage.put("c", b"x" * 600)

    def test_the_size_limit_counts_what_was_there_before(self, root: Path) -> None:
        LocalStorage(root).put("a/b", b"x" * 600)
        with pytest.raises(StorageFull):
            LocalStorage(root, max_size=1000).put("b", b"x" * 401)

    def test_a_failed_put_gives_its_room_back(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        storage = LocalStorage(root, max_size=1000)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail_with(errno.EIO))
            for _ in range(3):
                with pytest.raises(StorageUnavailable):
                    storage.put("a", b"x" * 600)
        storage.put("a", b"x" * 1000)

    def test_the_size_limit_learns_what_others_wrote_and_deleted(self, root: Path) -> None:
        clock = FrozenClock()
        storage = LocalStorage(root, max_size=1000, clock=clock)
        storage.put("a", b"x" * 100)
        other = LocalStorage(root)
        other.put("b", b"x" * 800)
        clock.sleep(61)
        with pytest.raises(StorageFull):
            storage.put("c", b"x" * 200)
        other.delete("b")
        clock.sleep(2)  # far less than the minute: before it refuses, it looks again
        storage.put("c", b"x" * 200)

    def test_the_size_limit_does_not_scan_for_every_put(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        storage = LocalStorage(root, max_size=10_000, clock=FrozenClock())
        scans = folders_read(monkeypatch)
        for number in range(20):
            storage.put(f"a/{number}", b"x")
        assert sum(path == f"{root}/" for path in scans) == 1

    def test_racing_threads_do_not_pass_the_limit(self, root: Path) -> None:
        storage = LocalStorage(root, max_size=1000)

        def put(number: int) -> bool:
            try:
                storage.put(f"a/{number}", b"x" * 300)
            except StorageFull:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(put, range(24))) == 3
        assert storage.usage().used == 900

    @pytest.mark.parametrize("max_size", [0, -1])
    def test_a_limit_of_nothing_is_refused(self, root: Path, max_size: int) -> None:
        with pytest.raises(ValueError, match="limit"):
            LocalStorage(root, max_size=max_size)
