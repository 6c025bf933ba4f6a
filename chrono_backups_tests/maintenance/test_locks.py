"""A storage that locks: backups work as ever, prune leaves what is locked, and what is needed stays locked."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from chrono_backups.backup.plan import plan_backup
from chrono_backups.clock import FrozenClock
from chrono_backups.errors import ObjectLocked, RepositoryError, StorageDenied
from chrono_backups.maintenance.exclusion import claim
from chrono_backups.maintenance.locks import extend_locks
from chrono_backups.maintenance.marks import MarkedIndex, rows_by_pack
from chrono_backups.maintenance.prune import PruneReport, plan_prune, prune
from chrono_backups.maintenance.replicate import replicate
from chrono_backups.repository.index import by_pack
from chrono_backups.repository.repository import Repository
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.maintenance.site import Site, assert_whole, random_files

DAYS = 30
GRACE = timedelta(hours=24)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    root = tmp_path / "data"
    root.mkdir()
    clock = FrozenClock()
    return Site(root, MemoryStorage(lock_days=DAYS, clock=clock), clock)


def pruned(site: Site, repository: Repository) -> PruneReport:
    return prune(repository, plan_prune(repository, grace=GRACE, now=site.clock.now()))


def keys(site: Site, folder: str) -> set[str]:
    return {key for key in site.storage.objects if key.startswith(f"{folder}/")}


def relied_on(site: Site) -> set[str]:
    """All but what is of the moment."""
    passing = ("leases/", "condemned/", "forgotten/", "locks/")
    return {key for key in site.storage.objects if not key.startswith(passing)}


def least(site: Site) -> datetime:
    return min(site.storage.locks[key] for key in relied_on(site))


def test_a_lease_that_can_not_be_deleted_is_let_go_of(site: Site) -> None:
    with site.create() as repository:
        site.write(random_files(2))
        made = site.backup(repository)
        assert f"leases/{made.backup_id}" in site.storage.objects
        assert repository.leases.all() == []
        for _ in range(2):
            with claim(repository, "prune"):
                pass
        plan = plan_backup(repository, "full", ["files"])
        assert [lease.name for lease in repository.leases.all()] == [plan.backup_id]
        site.backup(repository)


class WithoutDelete(MemoryStorage):
    """What a writer sees that may not delete."""

    allowed = False

    def delete(self, key: str) -> None:
        if not self.allowed:
            raise StorageDenied(f"may not delete {key}", storage=self.name, operation="delete", key=key)
        super().delete(key)


def test_a_writer_without_the_right_to_delete_holds_nobody_up(site: Site) -> None:
    site.storage = WithoutDelete()
    with site.create() as repository:
        site.write(random_files(2))
        site.backup(repository)
        assert repository.leases.all() == []
        site.storage.allowed = True
        pruned(site, repository)
        assert not keys(site, "leases")


def test_prune_leaves_what_is_locked_and_says_until_when(site: Site) -> None:
    with site.create() as repository:
        expected = {}
        for number in range(2):
            site.write(random_files(3 + number))
            gone = site.backup(repository).backup_id
        files = random_files(2)
        site.write(files)
        expected[site.backup(repository).backup_id] = files
        for manifest in repository.backups()[1:]:
            repository.forget(manifest.backup_id, "test")
        assert pruned(site, repository).packs_condemned > 0
        site.clock.advance(GRACE)
        stored = {key for key in site.storage.objects if not key.startswith(("leases/", "condemned/"))}
        plan = plan_prune(repository, grace=GRACE, now=site.clock.now())
        assert plan.sweep == ()
        assert plan.backups == ()
        assert {f"manifests/{gone}"} < {one.key for one in plan.locked}
        assert any(one.key.startswith("packs/") for one in plan.locked)
        assert all(one.until > site.clock.now() for one in plan.locked)
        for _ in range(3):
            report = pruned(site, repository)
            assert (report.packs_deleted, report.index_objects_written, report.locked) == (0, 0, ())
            assert report.still_locked
            assert report.to_json()["unlocked_from"].startswith("2026-01-31")
        assert {key for key in site.storage.objects if not key.startswith(("leases/", "condemned/"))} == stored
        site.clock.advance(timedelta(days=DAYS))
        report = pruned(site, repository)
        assert report.packs_deleted > 0
        assert report.backups_removed == 2
        assert keys(site, "manifests") == {f"manifests/{name}" for name in expected}
        assert not report.still_locked
        assert_whole(site, site.storage, expected)


def test_locks_of_what_is_needed_are_extended_half_way(site: Site) -> None:
    with site.create() as repository:
        files = random_files(2)
        site.write(files)
        made = site.backup(repository).backup_id
        assert extend_locks(repository).extended > 0, "there is no stamp yet"
        begun = site.clock.now()
        for day in range(1, 100):
            site.clock.advance(timedelta(days=1))
            extended = extend_locks(repository).extended
            assert (extended > 0) == (day % 16 == 0)
            assert least(site) >= site.clock.now() + timedelta(days=DAYS / 2)
            assert least(site) >= begun + timedelta(days=DAYS)
        with pytest.raises(ObjectLocked):
            site.storage.delete(f"manifests/{made}")
        assert len(keys(site, "locks")) < 6
        assert_whole(site, site.storage, {made: files})


def test_what_is_put_after_the_stamp_needs_none(site: Site) -> None:
    with site.create() as repository:
        site.write(random_files(2))
        site.backup(repository)
        extend_locks(repository)
        for _ in range(40):
            site.clock.advance(timedelta(days=1))
            site.write(random_files(2))
            site.backup(repository)
            extend_locks(repository)
            assert least(site) >= site.clock.now() + timedelta(days=DAYS / 2)


def test_what_is_forgotten_is_not_kept_for_ever(site: Site) -> None:
    with site.create() as repository:
        first = random_files(3)
        site.write(first)
        gone = site.backup(repository).backup_id
        second = random_files(2)
        site.write(second)
        kept = site.backup(repository).backup_id
        pruned_index = keys(site, "index")
        repository.forget(gone, "test")
        removed = 0
        for _ in range(30):
            site.clock.advance(timedelta(days=3))
            report = pruned(site, repository)
            removed += report.packs_deleted
            assert report.index_objects_written <= 1
        assert removed > 0
        assert keys(site, "manifests") == {f"manifests/{kept}"}
        assert keys(site, "index") != pruned_index
        assert least(site) >= site.clock.now() + timedelta(days=DAYS / 2) - timedelta(days=3)
        assert_whole(site, site.storage, {kept: second})


def test_an_index_object_of_live_and_dead_packs_is_replaced(site: Site) -> None:
    with site.create() as repository:
        site.write(random_files(3))
        gone = site.backup(repository).backup_id
        files = random_files(2)
        site.write(files)
        kept = site.backup(repository).backup_id
        tables = repository.index_tables()
        everything = rows_by_pack(MarkedIndex([table for _, table in tables]).select(lambda _pack: True))
        both = repository.put_index(by_pack(everything).values())
        for name, _ in tables:
            del site.storage.objects[f"index/{name}"]
        repository.reload()
        repository.forget(gone, "test")
        for _ in range(30):
            site.clock.advance(timedelta(days=3))
            pruned(site, repository)
        assert f"index/{both}" not in site.storage.objects
        assert len(keys(site, "index")) == 1
        assert_whole(site, site.storage, {kept: files})


def test_a_killed_extension_is_done_again(site: Site) -> None:
    with site.create() as repository:
        site.write(random_files(2))
        site.backup(repository)
        put_record, repository.put_record = repository.put_record, _killed  # type: ignore[method-assign,assignment]
        with pytest.raises(KeyboardInterrupt):
            extend_locks(repository)
        repository.put_record = put_record  # type: ignore[method-assign]
        assert not keys(site, "locks")
        assert extend_locks(repository).extended > 0


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_storage_without_locks_is_asked_nothing(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    site = Site(tmp_path / "data", MemoryStorage(), FrozenClock())
    with site.create() as repository:
        site.write(random_files(1))
        site.backup(repository)
        before = dict(site.storage.objects)
        report = extend_locks(repository)
        assert report.to_json()["lock_days"] == report.extended == 0
        assert site.storage.objects == before


def test_a_prune_that_goes_on_keeps_others_out(site: Site) -> None:
    with site.create() as repository, claim(repository, "prune"), pytest.raises(RepositoryError, match="prune by"):
        extend_locks(repository)


def test_a_replica_has_locks_of_its_own(site: Site) -> None:
    mirror = MemoryStorage("mirror", lock_days=10, clock=site.clock)
    with site.create() as repository:
        site.write(random_files(2))
        made = site.backup(repository).backup_id
        extend_locks(repository)
        assert replicate(repository, mirror).ok
        assert not any(key.startswith("locks/") for key in mirror.objects)
        with site.open(mirror) as replica:
            assert extend_locks(replica).lock_days == 10
        assert replicate(repository, mirror).objects_copied == 0
        assert f"manifests/{made}" in mirror.locks
