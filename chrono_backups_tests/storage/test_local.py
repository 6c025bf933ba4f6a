"""What only a storage in a file system can get wrong."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chrono_backups.errors import (
    ObjectExists,
    ObjectMissing,
    StorageError,
    StorageUnavailable,
)
from chrono_backups.storage.local import LocalStorage
from chrono_backups_tests.contracts.storage_contract import keys_of
from chrono_backups_tests.storage.watching import everything_in, fail_with, folders_read
from chrono_backups_tests.storage.without_hard_links import LocalStorageWithoutHardLinks
from chrono_backups_tests.undisturbed import once_undisturbed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestModes:
    @pytest.mark.parametrize("umask", [0, 0o022, 0o777])
    @pytest.mark.parametrize(("directory", "file"), [(0o700, 0o600), (0o750, 0o640), (0o755, 0o644), (0o2770, 0o660)])
    def test_modes_are_as_set_whatever_the_umask(self, root: Path, umask: int, directory: int, file: int) -> None:
        before = os.umask(umask)
        try:
            LocalStorage(root, directory_mode=directory).put("packs/ab/abc", b"content")
        finally:
            os.umask(before)
        for folder in (root, root / ".tmp", root / "packs", root / "packs/ab"):
            assert mode_of(folder) == directory, folder
        assert mode_of(root / "packs/ab/abc") == file

    def test_the_default_is_closed_to_others(self, root: Path) -> None:
        LocalStorage(root).put("a/b", b"content")
        assert (mode_of(root), mode_of(root / "a"), mode_of(root / "a/b")) == (0o700, 0o700, 0o600)

    def test_what_was_there_keeps_its_mode(self, root: Path) -> None:
        root.mkdir()
        root.chmod(0o751)
        LocalStorage(root).put("a", b"content")
        assert mode_of(root) == 0o751


class TestMissingRoot:
    def test_only_the_constructor_makes_it_and_only_when_told(self, root: Path) -> None:
        storage = LocalStorage(root, create=False)
        calls: list[Callable[[], object]] = [
            lambda: storage.put("a", b"content"),
            lambda: storage.put("a/b", b"content"),
            lambda: storage.get("a"),
            lambda: storage.info("a/b"),
            lambda: storage.delete("a"),
            lambda: list(storage.list()),
            lambda: list(storage.list("a/b")),
            lambda: storage.usage(),
        ]
        for call in calls:
            with pytest.raises(StorageUnavailable, match="holds no storage") as caught:
                call()
            assert "mount" in caught.value.hint
            assert "init" in caught.value.hint
            assert not root.exists()
        # A mount point without its disk: the folder is there, and empty.
        root.mkdir()
        for call in calls:
            with pytest.raises(StorageUnavailable, match="holds no storage"):
                call()
            assert everything_in(root) == []

    def test_a_fresh_disk_is_no_storage(self, root: Path) -> None:
        (root / "lost+found").mkdir(parents=True)
        with pytest.raises(StorageUnavailable):
            list(LocalStorage(root, create=False).list())

    @pytest.mark.parametrize("max_size", [None, 1000])
    def test_a_disk_unmounted_in_the_middle_is_not_written_below(self, root: Path, max_size: int | None) -> None:
        storage = LocalStorage(root, max_size=max_size)
        storage.put("packs/a", b"content")
        root.rename(root.with_name("unmounted"))
        root.mkdir()
        with pytest.raises(StorageUnavailable):
            storage.put("packs/b", b"content")
        with pytest.raises(StorageUnavailable):
            storage.get("packs/a")
        with pytest.raises(StorageUnavailable):
            list(storage.list("packs/"))
        with pytest.raises(StorageUnavailable):
            storage.delete("packs/a")
        assert everything_in(root) == []
        root.rmdir()
        root.with_name("unmounted").rename(root)
        storage.put("packs/b", b"content")
        assert keys_of(storage.list()) == ["packs/a", "packs/b"]

    def test_a_copy_without_hidden_folders_can_be_read(self, root: Path) -> None:
        LocalStorage(root).put("a/b", b"content")
        (root / ".tmp").rmdir()
        storage = LocalStorage(root, create=False)
        assert storage.get("a/b") == b"content"
        assert keys_of(storage.list()) == ["a/b"]
        with pytest.raises(ObjectMissing):
            storage.get("a/c")
        with pytest.raises(StorageUnavailable, match="holds no storage") as caught:
            storage.put("a/c", b"content")
        assert "mkdir -m 700" in caught.value.hint

    def test_a_root_that_is_a_file(self, root: Path) -> None:
        root.write_bytes(b"")
        with pytest.raises(StorageError, match="file lies where a folder"):
            LocalStorage(root)

    def test_a_disk_swapped_for_another_gets_its_folders_anew(self, root: Path) -> None:
        storage = LocalStorage(root)
        storage.put("packs/ab/1", b"content")
        (root / "packs/ab/1").unlink()
        (root / "packs/ab").rmdir()
        storage.put("packs/ab/2", b"content")
        assert keys_of(storage.list()) == ["packs/ab/2"]


class TestCreateOnce:
    def test_a_link_whose_answer_was_lost_is_a_success(self, root: Path) -> None:
        """NFS repeats the request, and then reports its own link as somebody else's."""

        class Nfs(LocalStorage):
            def _link(self, temporary: str, target: str) -> None:
                super()._link(temporary, target)
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

        storage = Nfs(root)
        storage.put("a", b"content")
        assert storage.get("a") == b"content"
        with pytest.raises(ObjectExists):
            LocalStorage(root).put("a", b"other")

    @pytest.mark.parametrize("kind", [LocalStorage, LocalStorageWithoutHardLinks])
    def test_the_name_decides_and_not_the_look_before(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, kind: type[LocalStorage]
    ) -> None:
        storage = kind(root)
        real = os.fsync

        def overtaken(handle: int) -> None:
            real(handle)
            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", real)
                if not (root / "a/b").exists():
                    kind(root).put("a/b", b"the other's")

        monkeypatch.setattr(os, "fsync", overtaken)
        with pytest.raises(ObjectExists):
            storage.put("a/b", b"ours")
        assert storage.get("a/b") == b"the other's"
        assert [name for name in everything_in(root) if name.startswith(".tmp/put")] == []

    def test_without_links_and_locks_it_is_refused(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import fcntl

        monkeypatch.setattr(fcntl, "flock", fail_with(errno.ENOTSUP))
        with pytest.raises(StorageError, match="neither hard links nor locks"):
            LocalStorageWithoutHardLinks(root).put("a", b"content")
        assert not (root / "a").exists()

    def test_an_error_is_not_taken_for_absence(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        storage = LocalStorageWithoutHardLinks(root)
        monkeypatch.setattr(os, "lstat", fail_with(errno.EIO))
        with pytest.raises(StorageUnavailable):
            storage.put("a", b"content")
        assert not (root / "a").exists()

    @pytest.mark.parametrize("kind", [LocalStorage, LocalStorageWithoutHardLinks])
    def test_an_object_and_a_folder_of_one_name(self, root: Path, kind: type[LocalStorage]) -> None:
        storage = kind(root)
        storage.put("a/b", b"content")
        with pytest.raises(StorageError, match="both an object and a folder") as caught:
            storage.put("a", b"content")
        assert not isinstance(caught.value, ObjectExists)
        with pytest.raises(StorageError, match="folder"):
            storage.put("a/b/c", b"content")
        assert keys_of(storage.list()) == ["a/b"]


class TestForeignFiles:
    def test_what_is_no_object_is_not_listed(self, root: Path) -> None:
        storage = LocalStorage(root)
        storage.put("packs/a", b"content")
        for name in ("README.TXT", ".nfs000012", ".hidden", "packs/.nfs000013", "packs/ä", "packs/a b"):
            (root / name).write_bytes(b"foreign")
        (root / "lost+found").mkdir(mode=0)
        (root / ".snapshot/packs").mkdir(parents=True)
        (root / ".snapshot/packs/a").write_bytes(b"foreign")
        os.mkfifo(root / "packs/pipe")
        (root / "packs/dangling").symlink_to("nowhere")
        (root / ("x" * 201)).write_bytes(b"foreign")
        assert keys_of(storage.list()) == ["packs/a"]
        assert keys_of(storage.list("packs/")) == ["packs/a"]
        assert storage.usage().used == 7

    def test_a_listing_reads_no_unrelated_folder(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        storage = LocalStorage(root)
        for key in ("index/a", "packs/ab/1", "packs/ab/2", "packs/cd/1", "snapshots/a"):
            storage.put(key, b"")
        read = folders_read(monkeypatch)
        assert keys_of(storage.list("packs/a")) == ["packs/ab/1", "packs/ab/2"]
        assert [Path(path).name for path in read] == ["packs", "ab"]

    def test_a_listing_streams(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        storage = LocalStorage(root)
        for folder in range(5):
            storage.put(f"packs/{folder}/a", b"")
        read = folders_read(monkeypatch)
        listing = storage.list()
        assert read == []
        assert next(listing).key == "packs/0/a"
        assert len(read) == 3


def test_many_objects_are_listed_quickly(root: Path) -> None:
    """10,000 in 0.04 s on the machine this was written on: about what reading their names and sizes takes."""
    storage = LocalStorage(root)
    for folder in range(100):
        (root / f"packs/{folder:02x}").mkdir(parents=True)
        for number in range(100):
            (root / f"packs/{folder:02x}/{number:04x}").touch()

    def seconds(count: Callable[[], int]) -> float:
        began = time.process_time()
        assert count() == 10_000
        return time.process_time() - began

    def barely() -> int:
        return sum(entry.stat().st_size == 0 for folder in os.scandir(root / "packs") for entry in os.scandir(folder))

    def quickly() -> None:
        assert seconds(lambda: sum(1 for _ in storage.list("packs/"))) < 5 * seconds(barely)

    once_undisturbed(quickly)


def test_a_put_copies_nothing(root: Path) -> None:
    import tracemalloc

    storage = LocalStorage(root)
    data = bytearray(16 * 2**20)
    tracemalloc.start()
    try:
        storage.put("large", memoryview(data))
        _, put_peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        got = storage.get("large")
        _, get_peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert put_peak < 2**20
    assert get_peak < len(got) + 2**20


def test_importing_it_imports_no_sdk() -> None:
    check = "import sys, chrono_backups.storage.local; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.split()
    assert "chrono_backups.storage.local" in loaded
    heavy = {"pydantic", "boto3", "google.cloud", "azure", "paramiko", "dagster", "cryptography", "asyncio"}
    assert heavy.isdisjoint(loaded)


def test_threads_making_the_same_folders(root: Path) -> None:
    storage = LocalStorage(root)
    barrier = threading.Barrier(8)

    def put(worker: int) -> None:
        for number in range(10):
            barrier.wait(240)
            storage.put(f"{number}/a/b/{worker}", b"")

    with ThreadPoolExecutor(8) as pool:
        for result in [pool.submit(put, worker) for worker in range(8)]:
            result.result()
    assert len(list(storage.list())) == 80
