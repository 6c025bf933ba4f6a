"""What is kept on this machine: given out only where it is sure to be what is stored."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from chrono_backups.storage.base import Storage
from chrono_backups.storage.cached import CachedStorage, KeepingStorage, default_directory
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.backup.taking import mixed_site, new_repository, opened, take
from chrono_backups_tests.contracts.storage_contract import Opener, StorageContract, keys_of


class TestCachedStorage(StorageContract):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        storage = MemoryStorage()
        return lambda: CachedStorage(storage, tmp_path)


class Counted(MemoryStorage):
    """Remembers what was fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | bytearray:
        self.fetched.append(key)
        return super().get(key, offset, length)


@pytest.fixture
def inner() -> Counted:
    return Counted()


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def test_only_what_has_been_seen_stored_is_given_out(inner: Counted, tmp_path: Path) -> None:
    first = CachedStorage(inner, tmp_path)
    assert isinstance(first, KeepingStorage) and not isinstance(inner, KeepingStorage)
    first.put("index/a", b"content")
    assert first.kept("index/a") == b"content"
    second = CachedStorage(inner, tmp_path)
    assert second.kept("index/a") is None  # not yet
    assert keys_of(second.list("index/")) == ["index/a"]
    assert second.kept("index/a") == b"content"
    assert bytes(second.get("index/a")) == b"content"
    assert inner.fetched == ["index/a"]  # whoever asks for what is stored gets it from there


def test_what_is_deleted_is_not_given_out_and_is_cleared_away(inner: Counted, tmp_path: Path) -> None:
    storage = CachedStorage(inner, tmp_path)
    for name in ("a", "b", "c"):
        storage.put(f"manifests/{name}", b"content")
    storage.delete("manifests/a")
    assert storage.kept("manifests/a") is None
    inner.delete("manifests/b")
    assert keys_of(storage.list("manifests/")) == ["manifests/c"]
    assert storage.kept("manifests/b") is None
    assert [path.name for path in files(tmp_path)] == ["c"]


def test_a_file_of_another_size_is_none(inner: Counted, tmp_path: Path) -> None:
    storage = CachedStorage(inner, tmp_path)
    storage.put("index/a", b"content")
    files(tmp_path)[0].write_bytes(b"cont")
    assert storage.kept("index/a") is None


def test_storages_do_not_share_what_they_keep(tmp_path: Path) -> None:
    one, other = (CachedStorage(MemoryStorage(name), tmp_path) for name in ("one", "other"))
    for storage, content in ((one, b"one's"), (other, b"other")):
        storage.put("index/a", content)
    assert (one.kept("index/a"), other.kept("index/a")) == (b"one's", b"other")


def test_packs_and_what_passes_are_not_kept(inner: Counted, tmp_path: Path) -> None:
    storage = CachedStorage(inner, tmp_path)
    for key in ("packs/a", "leases/a", "forgotten/a", "keys/a", "repository"):
        storage.put(key, b"content")
        storage.keep(key, b"content")
        assert storage.kept(key) is None
    assert files(tmp_path) == []


def test_nobody_else_can_read_it(inner: Counted, tmp_path: Path) -> None:
    CachedStorage(inner, tmp_path / "cache").put("index/a", b"content")
    for path in (tmp_path / "cache").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0


def test_a_place_that_can_not_be_written_to(inner: Counted, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    storage = CachedStorage(inner, tmp_path / "file" / "cache")
    storage.put("index/a", b"content")
    assert storage.kept("index/a") is None
    assert keys_of(storage.list("index/")) == ["index/a"]
    storage.delete("index/a")


def test_many_at_once_see_whole_objects(inner: Counted, tmp_path: Path) -> None:
    storages = [CachedStorage(inner, tmp_path) for _ in range(4)]
    for number in range(20):
        inner.put(f"index/{number}", bytes([number]) * 50_000)
    wrong: list[str] = []

    def work(storage: CachedStorage) -> None:
        for _ in range(5):
            for info in storage.list("index/"):
                kept = storage.kept(info.key)
                expected = bytes([int(info.key[6:])]) * 50_000
                if kept not in (None, expected):
                    wrong.append(info.key)
                storage.keep(info.key, expected)

    threads = [threading.Thread(target=work, args=(one,)) for one in storages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(files(tmp_path)) == 20


class TestInARepository:
    def cached(self, inner: Storage, tmp_path: Path) -> CachedStorage:
        return CachedStorage(inner, tmp_path / "cache")

    def test_records_are_fetched_once(self, inner: Counted, tmp_path: Path) -> None:
        new_repository(inner)
        root = mixed_site(tmp_path / "site")
        for _ in range(3):
            take(opened(inner), "full", root)
        for fetched in (3, 0):
            inner.fetched.clear()
            repository = opened(self.cached(inner, tmp_path))
            assert len(repository.backups()) == 3
            assert sum(key.startswith("manifests/") for key in inner.fetched) == fetched
        for some in (True, False):
            inner.fetched.clear()
            opened(self.cached(inner, tmp_path)).load_index()
            assert any(key.startswith("index/") for key in inner.fetched) == some

    @pytest.mark.parametrize("harm", [lambda old: old[:-1] + bytes([old[-1] ^ 1]), lambda old: b"\0" * len(old)])
    def test_a_damaged_or_forged_file_is_fetched_anew(self, inner: Counted, tmp_path: Path, harm: object) -> None:
        assert callable(harm)
        new_repository(inner)
        manifest = take(opened(self.cached(inner, tmp_path)), "full", mixed_site(tmp_path / "site"))
        for path in files(tmp_path / "cache"):
            path.write_bytes(harm(path.read_bytes()))
        repository = opened(self.cached(inner, tmp_path))
        assert repository.backups() == [manifest]
        repository.load_index()
        inner.fetched.clear()
        repository = opened(self.cached(inner, tmp_path))
        assert repository.backups() == [manifest]
        assert [key for key in inner.fetched if key.startswith("manifests/")] == []

    def test_what_is_damaged_in_the_storage_is_found_by_who_verifies(self, inner: Counted, tmp_path: Path) -> None:
        from chrono_backups.maintenance.verify import verify

        new_repository(inner)
        storage = self.cached(inner, tmp_path)
        manifest = take(opened(storage), "full", mixed_site(tmp_path / "site"))
        key = f"manifests/{manifest.backup_id}"
        inner.objects[key] = inner.objects[key][:-1] + bytes([inner.objects[key][-1] ^ 1])
        found = verify(opened(storage)).findings
        assert key in {finding.subject for finding in found}

    def test_no_secret_lies_there(self, inner: Counted, tmp_path: Path) -> None:
        new_repository(inner)
        take(opened(self.cached(inner, tmp_path)), "full", mixed_site(tmp_path / "site"))
        kept = {path.read_bytes() for path in files(tmp_path / "cache")}
        assert kept and kept <= {bytes(one) for one in inner.objects.values()}


def test_the_place_is_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "chrono-backups"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_directory() == tmp_path / ".cache/chrono-backups"
