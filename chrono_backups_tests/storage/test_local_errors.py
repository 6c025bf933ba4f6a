"""A storage in a file system whose calls fail or are not permitted."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.errors import (
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from chrono_backups.storage.local import LocalStorage
from chrono_backups_tests.contracts.storage_contract import keys_of
from chrono_backups_tests.storage.watching import everything_in, fail_with, in_child


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


class TestRights:
    @pytest.fixture
    def owned_by_root(self) -> Iterator[Path]:
        """Not below tmp_path, which other users can't enter."""
        import shutil
        import tempfile

        if os.geteuid() != 0:
            pytest.skip("becoming another user needs root")
        top = Path(tempfile.mkdtemp())
        top.chmod(0o755)
        LocalStorage(top / "storage", directory_mode=0o755).put("a/b", b"content")
        LocalStorage(top / "secret").put("a/b", b"content")
        yield top
        shutil.rmtree(top)

    @pytest.mark.parametrize(
        ("call", "operation"),
        [
            (lambda top: LocalStorage(top / "storage").put("a/c", b"content"), "put"),
            (lambda top: LocalStorage(top / "storage").delete("a/b"), "delete"),
            (lambda top: LocalStorage(top / "secret", create=False).get("a/b"), "get"),
            (lambda top: LocalStorage(top / "secret", create=False).info("a/b"), "info"),
            (lambda top: LocalStorage(top / "secret", create=False).put("a/c", b""), "put"),
            (lambda top: list(LocalStorage(top / "secret", create=False).list()), "list"),
            (lambda top: LocalStorage(top / "new"), "create"),
        ],
    )
    def test_another_users_folder(self, owned_by_root: Path, call: Callable[[Path], object], operation: str) -> None:
        def run(answer: Any) -> None:
            try:
                call(owned_by_root)
            except StorageDenied as error:
                answer.send(f"{error.operation}: {error.hint}")

        answer = in_child(run, uid=65534)
        assert answer.startswith(f"{operation}: "), answer
        assert "uid 65534" in answer
        assert str(owned_by_root) in answer
        assert LocalStorage(owned_by_root / "storage").get("a/b") == b"content"

    def test_what_others_may_read_they_can(self, owned_by_root: Path) -> None:
        def run(answer: Any) -> None:
            storage = LocalStorage(owned_by_root / "storage", create=False)
            answer.send(f"{keys_of(storage.list())} {bytes(storage.get('a/b'))!r}")

        assert in_child(run, uid=65534) == "['a/b'] b'content'"


class TestErrors:
    TABLE = (
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EACCES, StorageDenied),
        (errno.EPERM, StorageDenied),
        (errno.EROFS, StorageDenied),
        (errno.EIO, StorageUnavailable),
        (errno.ESTALE, StorageUnavailable),
        (errno.ETIMEDOUT, StorageUnavailable),
        (errno.ENOTCONN, StorageUnavailable),
        (errno.ELOOP, StorageError),
    )

    @pytest.mark.parametrize(
        ("step", "number", "kind"),
        [
            (step, number, kind)
            for step in ("open", "write", "fsync", "close", "link")
            for number, kind in (
                (errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull),
                (errno.EACCES, StorageDenied), (errno.EPERM, StorageDenied), (errno.EROFS, StorageDenied),
                (errno.EIO, StorageUnavailable), (errno.ESTALE, StorageUnavailable), (errno.ELOOP, StorageError),
            )
            if (step, number) != ("link", errno.EPERM)  # is what file systems without hard links say
        ],
    )  # fmt: skip
    def test_each_step_of_a_put(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int, kind: type[StorageError]
    ) -> None:
        storage = LocalStorage(root)
        storage.put("packs/before", b"content")
        with monkeypatch.context() as patch:
            if step == "close":
                real = os.close
                patch.setattr(os, "close", lambda handle: (real(handle), fail_with(number)()))
            else:
                patch.setattr(os, step, fail_with(number))
            with pytest.raises(StorageError) as caught:
                storage.put("packs/a", b"content")
        assert type(caught.value) is kind
        assert (caught.value.storage, caught.value.operation, caught.value.key) == ("local", "put", "packs/a")
        assert os.strerror(number) in str(caught.value)
        assert isinstance(caught.value.__cause__, OSError)
        assert everything_in(root) == [".tmp", "packs", "packs/before"]
        storage.put("packs/a", b"content")

    @pytest.mark.parametrize(("number", "kind"), TABLE)
    def test_the_other_calls(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StorageError]
    ) -> None:
        storage = LocalStorage(root)
        storage.put("a/b", b"content")
        calls: list[tuple[str, str, Callable[[], object]]] = [
            ("pread", "get", lambda: storage.get("a/b")),
            ("open", "get", lambda: storage.get("a/b")),
            ("stat", "info", lambda: storage.info("a/b")),
            ("unlink", "delete", lambda: storage.delete("a/b")),
            ("scandir", "list", lambda: list(storage.list())),
            ("statvfs", "usage", lambda: storage.usage()),
        ]
        for function, operation, call in calls:
            with monkeypatch.context() as patch:
                patch.setattr(os, function, fail_with(number))
                with pytest.raises(StorageError) as caught:
                    call()
            assert type(caught.value) is kind
            assert caught.value.operation == operation
        assert storage.get("a/b") == b"content"

    def test_an_object_cut_on_disk_is_named(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        storage = LocalStorage(root)
        storage.put("a/b", b"0123456789")
        os.truncate(root / "a/b", 6)
        with pytest.raises(StorageError, match=r"a/b: expected bytes 2 to 10, found only 6"):
            storage.get("a/b", 2, 8)
        monkeypatch.setattr(os, "pread", lambda *_: b"01")
        monkeypatch.setattr(os, "preadv", lambda *_: 0)
        with pytest.raises(StorageError, match=r"a/b: expected bytes 0 to 6, found only 2"):
            storage.get("a/b")

    def test_reads_and_writes_in_pieces_are_put_together(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As the kernel does beyond 2 GiB, or when a signal comes in between."""
        pread, preadv, write = os.pread, os.preadv, os.write
        monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:7]))
        monkeypatch.setattr(os, "pread", lambda handle, count, at: pread(handle, min(count, 7), at))
        monkeypatch.setattr(os, "preadv", lambda handle, views, at: preadv(handle, [views[0][:7]], at))
        storage = LocalStorage(root)
        data = bytes(range(256))
        storage.put("a", data)
        assert (root / "a").read_bytes() == data
        assert storage.get("a") == data
        assert storage.get("a", 3, 200) == data[3:203]
