"""Verification of what is whole, and of what goes on meanwhile."""

from datetime import timedelta
from pathlib import Path

import pytest

from chrono_backups.backup.plan import plan_backup
from chrono_backups.clock import FrozenClock
from chrono_backups.errors import BackupMissing, StorageDenied, StorageError, StorageUnavailable
from chrono_backups.events import Finding, Progress
from chrono_backups.maintenance.prune import plan_prune, prune
from chrono_backups.maintenance.verify import verify
from chrono_backups.repository.repository import Repository
from chrono_backups.storage.faulty import FailFrom, FaultyStorage
from chrono_backups.storage.local import LocalStorage
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.maintenance.site import KEY, Site, random_files


def test_a_whole_repository(site: Site) -> None:
    with site.create() as repository:
        assert verify(repository, full=True).ok, "an empty one"
        site.write(random_files())
        site.backup(repository)
        site.write(random_files(8))
        manifest = site.backup(repository, "incremental")
        quick, full = verify(repository), verify(repository, full=True)
        assert quick.ok
        assert quick.findings == ()
        assert full.ok
        assert full.objects == len(site.storage.objects)
        assert full.bytes == sum(map(len, site.storage.objects.values()))
        assert quick.objects >= full.objects
        assert quick.bytes < full.bytes
        assert full.chunks >= quick.chunks > 0
        one = verify(repository, backup_id=manifest.backup_id, full=True)
        assert one.ok
        assert 0 < one.bytes < full.bytes
        assert set(full.to_json()) == {"ok", "objects", "bytes", "chunks", "seconds", "findings"}


@pytest.mark.parametrize("algorithm", ["CHACHA20-POLY1305", "none"])
def test_other_algorithms(site: Site, algorithm: str) -> None:
    site.algorithm = algorithm  # type: ignore[assignment]
    with site.create() as repository:
        site.write(random_files())
        site.backup(repository)
        assert verify(repository, full=True).findings == ()


def test_on_a_disk(site: Site, tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "repository")
    with Repository.create(storage, algorithm="AES-256-GCM", operator_key=KEY, clock=site.clock) as repository:
        site.write(random_files())
        site.backup(repository)
        assert verify(repository, full=True).ok


def test_a_huge_file_has_rows_that_are_followed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chrono_backups.backup.segments.MAX_DIRECT_EXTENTS", 2)
    with site.create() as repository:
        site.write({"large": random_files(1, 4_000_000)["folder0/0.bin"]})
        site.backup(repository)
        report = verify(repository, full=True)
        assert report.ok
        assert verify(repository).chunks == report.chunks


def test_an_unknown_backup_is_refused(site: Site) -> None:
    with site.create() as repository, pytest.raises(BackupMissing):
        verify(repository, backup_id="full_20200101_000000")


def test_what_a_running_backup_has_stored_is_no_damage(site: Site) -> None:
    with site.create() as repository:
        site.write(random_files())
        site.backup(repository)
        plan_backup(repository, "full", ["files"])
        pack = next(key for key in site.storage.objects if key.startswith("packs/"))
        index = next(key for key in site.storage.objects if key.startswith("index/"))
        assert pack
        manifest = next(key for key in site.storage.objects if key.startswith("manifests/"))
        del site.storage.objects[manifest], site.storage.objects[index]
        assert verify(repository, full=True).ok


def test_forgotten_and_pruned_backups_leave_it_whole(site: Site) -> None:
    with site.create() as repository:
        site.write(random_files())
        first = site.backup(repository)
        site.write(random_files())
        site.backup(repository)
        repository.forget(first.backup_id, "test")
        for _ in range(3):
            assert verify(repository, full=True).findings == ()
            plan = plan_prune(repository, grace=timedelta(0), now=site.clock.now())
            prune(repository, plan)


def test_progress_has_totals_and_comes_from_this_thread(site: Site) -> None:
    events: list[Progress | Finding] = []
    with site.create() as repository:
        site.write(random_files())
        site.backup(repository)
        report = verify(repository, full=True, listener=events.append)
    last = events[-1]
    assert isinstance(last, Progress)
    assert last.total_items == last.done_items == 2
    assert last.total_bytes == last.done_bytes
    assert report.bytes > (last.total_bytes or 0)


@pytest.mark.parametrize("error", [StorageDenied, StorageError, StorageUnavailable])
@pytest.mark.parametrize("full", [False, True], ids=["quick", "full"])
def test_an_object_that_can_not_be_read_is_a_finding(site: Site, full: bool, error: type[StorageError]) -> None:
    class BadSector(MemoryStorage):
        bad = ""

        def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | bytearray:
            if key == self.bad:
                raise error(f"{key} is on a bad sector", key=key)
            return super().get(key, offset, length)

    site.storage = BadSector()
    with site.create() as repository:
        site.write(random_files())
        site.backup(repository)
        for key in site.storage.objects:
            if key.startswith("packs/") and len(site.storage.objects[key]) > 10_000 and not full:
                continue
            site.storage.bad = key
            if key == "repository" and error is StorageUnavailable:
                with pytest.raises(StorageUnavailable):
                    verify(repository, full=full)
            else:
                report = verify(repository, full=full)
                assert not report.ok
                assert key in {one.subject for one in report.findings}


def test_a_storage_that_is_away_is_an_error(site: Site) -> None:
    with site.create() as repository:
        site.write(random_files())
        site.backup(repository)
        counted = FaultyStorage(site.storage)
        verify(Repository(counted, repository.keyring, site.clock), full=True)
        for call in range(counted.calls):
            storage = FaultyStorage(site.storage, FailFrom(call, error=StorageUnavailable))
            with pytest.raises(StorageUnavailable):
                verify(Repository(storage, repository.keyring, site.clock), full=True)


def test_an_empty_replica_of_another_clock(site: Site) -> None:
    storage = MemoryStorage()
    with Repository.create(storage, algorithm="none", operator_key=None, clock=FrozenClock()) as repository:
        assert verify(repository, full=True).findings == ()
