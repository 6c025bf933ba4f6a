"""What a storage in a file system keeps when its writers or the machine die."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.errors import (
    ObjectExists,
    StorageUnavailable,
)
from chrono_backups.storage.local import LocalStorage
from chrono_backups_tests.storage.watching import everything_in, fail_with
from chrono_backups_tests.storage.without_hard_links import LocalStorageWithoutHardLinks


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


class TestKilledWriters:
    WRITER = """
import hashlib, sys
from pathlib import Path
from chrono_backups.storage.local import LocalStorage
from chrono_backups_tests.storage.without_hard_links import LocalStorageWithoutHardLinks
kind = {"links": LocalStorage, "renames": LocalStorageWithoutHardLinks}[sys.argv[2]]
storage, number = kind(Path(sys.argv[1]), create=False), int(sys.argv[3])
while True:
    key = f"packs/{number % 4}/{number}"
    storage.put(key, hashlib.sha256(key.encode()).digest() * 100_000)
    print(key, flush=True)
    number += 1
"""

    @pytest.mark.parametrize("kind", ["links", "renames"])
    def test_a_kill_at_any_moment_leaves_whole_objects_and_all_that_were_acknowledged(
        self, root: Path, kind: str
    ) -> None:
        import hashlib

        storage = (LocalStorage if kind == "links" else LocalStorageWithoutHardLinks)(root)
        acknowledged: set[str] = set()
        for round_ in range(8):
            writer = subprocess.Popen(
                [sys.executable, "-c", self.WRITER, str(root), kind, str(round_ * 100_000)],
                stdout=subprocess.PIPE,
                text=True,
            )
            assert writer.stdout is not None
            acknowledged.add(writer.stdout.readline().strip())
            time.sleep(0.005 + 0.0073 * round_)
            writer.kill()
            acknowledged.update(line.strip() for line in writer.stdout if line.endswith("\n"))
            writer.wait()
        stored = list(storage.list())
        assert acknowledged <= {info.key for info in stored}
        for info in stored:
            assert storage.get(info.key) == hashlib.sha256(info.key.encode()).digest() * 100_000
        # What the dead left blocks nobody: the very next object of each goes through.
        for round_ in range(8):
            number = max(int(info.key.rpartition("/")[2]) for info in stored if f"{round_}" == _round_of(info.key))
            storage.put(f"packs/{(number + 1) % 4}/{number + 1}", b"retried")

    def test_temporary_files_of_the_dead_are_removed_after_a_day(self, root: Path) -> None:
        LocalStorage(root)
        now = time.time()
        for name, age in (("put-old", 25 * 3600), ("put-young", 23 * 3600), ("lock", 90 * 3600)):
            (root / ".tmp" / name).write_bytes(b"rest")
            os.utime(root / ".tmp" / name, (now - age, now - age))
        storage = LocalStorage(root, create=False)
        assert list(storage.list()) == []
        assert storage.usage().used == 0
        assert len(everything_in(root / ".tmp")) == 3, "reading removes nothing"
        storage.put("a", b"content")
        assert everything_in(root / ".tmp") == ["lock", "put-young"]

    def test_nothing_temporary_is_left_by_the_living(self, root: Path) -> None:
        storage = LocalStorage(root)
        storage.put("a", b"content")
        with pytest.raises(ObjectExists):
            storage.put("a", b"content")
        assert everything_in(root) == [".tmp", "a"]


def _round_of(key: str) -> str:
    return str(int(key.rpartition("/")[2]) // 100_000)


class TestDurability:
    """A power failure can't be had here; the order of system calls can."""

    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        calls: list[str] = []

        def watch(name: str, describe: Callable[..., str]) -> None:
            real = getattr(os, name)

            def called(*args: Any, **options: Any) -> Any:
                calls.append(f"{name} {describe(*args)}")
                return real(*args, **options)

            monkeypatch.setattr(os, name, called)

        def target(handle: int) -> str:
            path = Path(f"/proc/self/fd/{handle}").readlink()
            return "temporary" if path.parent.name == ".tmp" else path.name

        watch("fsync", target)
        watch("close", target)
        watch("mkdir", lambda path, _mode: Path(path).name)
        watch("link", lambda _temporary, path: Path(path).name)
        watch("unlink", lambda path: "temporary" if "/.tmp/" in path else Path(path).name)
        return calls

    def of(self, calls: list[str]) -> list[str]:
        return [call for call in calls if not call.startswith("close") or call == "close temporary"]

    def test_data_before_name_and_name_before_return(self, root: Path, calls: list[str]) -> None:
        storage = LocalStorage(root)
        calls.clear()
        storage.put("packs/ab/abc", b"content")
        data = ["fsync temporary", "close temporary"]
        folders = ["mkdir packs", "fsync storage", "mkdir ab", "fsync packs"]
        name = ["link abc", "unlink temporary", "fsync ab"]
        assert self.of(calls) == data + folders + name
        calls.clear()
        storage.put("packs/ab/abd", b"content")
        assert self.of(calls) == [*data, "link abd", "unlink temporary", "fsync ab"]

    def test_folders_that_others_made_are_not_trusted_to_be_durable(self, root: Path, calls: list[str]) -> None:
        LocalStorage(root).put("packs/ab/abc", b"content")
        calls.clear()
        LocalStorage(root, create=False).put("packs/ab/abd", b"content")
        assert [call for call in calls if call.startswith("fsync")] == [
            "fsync temporary", "fsync storage", "fsync packs", "fsync ab",
        ]  # fmt: skip

    def test_who_is_told_that_an_object_exists_may_rely_on_it(self, root: Path, calls: list[str]) -> None:
        LocalStorage(root).put("packs/abc", b"content")
        calls.clear()
        with pytest.raises(ObjectExists):
            LocalStorage(root, create=False).put("packs/abc", b"content")
        assert [call for call in calls if call.startswith("fsync")] == ["fsync storage", "fsync packs"]

    def test_deletes_are_durable_too(self, root: Path, calls: list[str]) -> None:
        storage = LocalStorage(root)
        storage.put("packs/abc", b"content")
        calls.clear()
        storage.delete("packs/abc")
        assert self.of(calls) == ["unlink abc", "fsync packs"]

    def test_a_made_root_is_durable(self, root: Path, calls: list[str]) -> None:
        LocalStorage(root / "deep" / "er")
        assert [call for call in calls if call.startswith("fsync")] == [
            f"fsync {root.parent.name}", "fsync storage", "fsync deep", "fsync er",
        ]  # fmt: skip

    def test_a_folder_that_could_not_be_made_durable_fails_the_put(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage = LocalStorage(root)
        storage.put("packs/abc", b"content")
        real = os.fsync

        def broken(handle: int) -> None:
            if Path(f"/proc/self/fd/{handle}").readlink().name == "packs":
                fail_with(errno.EIO)()
            real(handle)

        monkeypatch.setattr(os, "fsync", broken)
        with pytest.raises(StorageUnavailable):
            storage.put("packs/abd", b"content")
