"""Pruning in two phases, beside backups that go on."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from chrono_backups.backup.plan import BackupPlan, Outcome, plan_backup
from chrono_backups.backup.service import abandon, capture, commit
from chrono_backups.errors import Damaged, LeaseLost, RepositoryError, StorageDenied
from chrono_backups.maintenance.exclusion import claim
from chrono_backups.maintenance.prune import PrunePlan, PruneReport, plan_prune, prune
from chrono_backups.maintenance.verify import verify
from chrono_backups.repository.leases import TERM
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.files import FilesSource
from chrono_backups.storage.local import LocalStorage
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.maintenance.site import KEY, OPTIONS, Content, Site, assert_whole, random_files

GRACE = timedelta(hours=24)


def planned(site: Site, repository: Repository, grace: timedelta = GRACE) -> PrunePlan:
    return plan_prune(repository, grace=grace, now=site.clock.now())


def pruned(site: Site, repository: Repository, grace: timedelta = GRACE) -> PruneReport:
    return prune(repository, planned(site, repository, grace))


def packs(site: Site) -> set[str]:
    return {key for key in site.storage.objects if key.startswith("packs/")}


def capture_only(site: Site, repository: Repository) -> tuple[BackupPlan, Outcome]:
    """A backup up to the moment before its commit."""
    plan = plan_backup(repository, "full", ["files"])
    return plan, capture(repository, plan, FilesSource("files", [site.root]), options=OPTIONS)


@pytest.fixture
def two(site: Site) -> tuple[Site, Repository, dict[str, Content]]:
    """Two backups without a byte in common, the first forgotten."""
    repository = site.create()
    expected: dict[str, Content] = {}
    for _ in range(2):
        files = random_files()
        site.write(files)
        expected[site.backup(repository).backup_id] = files
    repository.forget(next(iter(expected)), "test")
    return site, repository, expected


Two = tuple[Site, Repository, dict[str, Content]]


def test_nothing_to_do(site: Site) -> None:
    with site.create() as repository:
        site.write(random_files())
        site.backup(repository)
        before = dict(site.storage.objects)
        plan = planned(site, repository)
        assert not (plan.condemn or plan.repack or plan.sweep or plan.backups or plan.snapshots)
        prune(repository, plan)
        assert site.storage.objects == before


def test_condemn_wait_sweep(two: Two) -> None:
    site, repository, expected = two
    before, all_packs = dict(site.storage.objects), packs(site)
    plan = planned(site, repository)
    assert site.storage.objects == before, "planning changes nothing"
    assert len(plan.condemn) == 2
    assert plan.backups == ()
    report = prune(repository, plan)
    assert (report.packs_condemned, report.packs_deleted) == (2, 0)
    assert packs(site) == all_packs

    site.clock.advance(GRACE - timedelta(seconds=1))
    waiting = planned(site, repository)
    assert len(waiting.waiting) == 2
    assert waiting.next_sweep == plan.planned_at + GRACE
    assert pruned(site, repository).packs_deleted == 0

    site.clock.advance(timedelta(seconds=2))
    due = planned(site, repository)
    assert due.backups == (next(iter(expected)),)
    report = prune(repository, due)
    assert (report.packs_deleted, report.backups_removed, report.snapshots_removed) == (2, 1, 1)
    assert report.bytes_freed == plan.to_json()["bytes_to_condemn"] == sum(one.size for one in plan.condemn)
    assert not [key for key in site.storage.objects if key.startswith(("condemned/", "forgotten/", "leases/"))]
    assert len([key for key in site.storage.objects if key.startswith(("manifests/", "snapshots/"))]) == 2
    assert assert_whole(site, site.storage, expected) == [list(expected)[1]]
    assert not any(planned(site, repository).to_json()[f"packs_to_{verb}"] for verb in ("condemn", "delete", "repack"))


def test_the_plan_can_be_shown(two: Two) -> None:
    site, repository, _ = two
    shown = planned(site, repository).to_json()
    assert shown["packs_to_condemn"] == 2
    assert shown["bytes_to_condemn"] > 100_000
    assert shown["backups_to_remove"] == []


def test_only_what_was_shown_is_done(two: Two) -> None:
    site, repository, expected = two
    plan = planned(site, repository)
    repository.forget(list(expected)[1], "test")
    report = prune(repository, plan)
    assert report.packs_condemned == 2
    assert len(planned(site, repository).condemn) == 2


def test_what_is_needed_again_is_spared(two: Two) -> None:
    """A backup that began before the condemnation may rely on the packs, and is committed after it."""
    site, repository, expected = two
    site.clock.advance(timedelta(hours=2))
    files = expected[next(iter(expected))]
    site.write(files)
    plan, outcome = capture_only(site, repository)
    other = site.open()
    assert len(planned(site, other).condemn) == 2, "nobody knows yet that they are needed"
    pruned(site, other)
    site.clock.advance(timedelta(hours=2))

    due = planned(site, other, timedelta(hours=1))
    assert due.sweep == ()
    assert due.blocked_by == (plan.backup_id,)
    assert pruned(site, other, timedelta(hours=1)).packs_deleted == 0

    expected[commit(repository, plan, [outcome], trigger="test").backup_id] = files
    report = pruned(site, other, timedelta(hours=1))
    assert (report.packs_spared, report.packs_deleted) == (1, 1), "the content, but not the old listing"
    assert not other.condemned(), "the condemnation is lifted"
    assert_whole(site, site.storage, expected)


def test_a_backup_that_begins_later_relies_on_nothing_condemned(two: Two) -> None:
    site, repository, expected = two
    pruned(site, repository)
    site.clock.advance(timedelta(hours=2))
    files = expected[next(iter(expected))]
    site.write(files)
    before = packs(site)
    plan, outcome = capture_only(site, repository)
    assert len(packs(site) - before) == 2, "it stores anew"
    site.clock.advance(GRACE)
    with pytest.raises(LeaseLost):
        commit(repository, plan, [outcome], trigger="test")
    with site.open() as later:
        plan, outcome = capture_only(site, later)
        report = pruned(site, site.open())
        assert report.packs_deleted == 2, "and holds nothing up"
        expected[commit(later, plan, [outcome], trigger="test").backup_id] = files
    assert_whole(site, site.storage, expected)


def test_the_packs_of_a_running_backup_are_not_condemned(two: Two) -> None:
    site, repository, expected = two
    pruned(site, repository)
    site.write({"new": b"new" * 1000})
    plan, outcome = capture_only(site, repository)
    assert planned(site, repository).condemn == ()
    expected[commit(repository, plan, [outcome], trigger="test").backup_id] = {"new": b"new" * 1000}
    assert_whole(site, site.storage, expected)


def test_what_a_killed_run_left_goes(site: Site) -> None:
    with site.create() as repository:
        site.write(random_files())
        site.backup(repository)
        kept = set(site.storage.objects)
        site.write(random_files())
        capture_only(site, repository)
        index = next(key for key in site.storage.objects.keys() - kept if key.startswith("index/"))
        del site.storage.objects[index]
        site.storage.objects[f"packs/{bytes(32).hex()}"] = b"not a pack"
        assert pruned(site, repository).packs_condemned == 0, "its lease holds"
        site.clock.advance(TERM + timedelta(hours=2))
        report = pruned(site, repository)
        assert report.packs_condemned == 3
        assert report.leases_removed == 1
        assert report.snapshots_removed == 0
        site.clock.advance(GRACE)
        report = pruned(site, repository)
        assert report.packs_deleted == 3
        assert report.snapshots_removed == 1
        assert set(site.storage.objects) == kept


def test_what_a_killed_run_left_is_used_by_the_next_one(site: Site) -> None:
    with site.create() as repository:
        files = random_files()
        site.write(files)
        plan, _ = capture_only(site, repository)
        abandon(repository, plan)
        before = packs(site)
        expected: Mapping[str, Content] = {site.backup(repository).backup_id: files}
        assert packs(site) == before
        site.clock.advance(GRACE * 2)
        pruned(site, repository)
        assert assert_whole(site, site.storage, expected)
        assert len([key for key in site.storage.objects if key.startswith("snapshots/")]) == 1


def test_a_mostly_useless_pack_is_copied_and_condemned(site: Site) -> None:
    with site.create() as repository:
        large = random_files(3, 400_000)
        kept = {"folder0/0.bin": large["folder0/0.bin"]}
        site.write(large)
        first = site.backup(repository)
        site.write(kept)
        expected = {site.backup(repository, "incremental").backup_id: kept}
        repository.forget(first.backup_id, "test")
        plan = planned(site, repository)
        assert len(plan.repack) == 1
        report = prune(repository, plan)
        assert report.packs_repacked == 1
        assert 400_000 <= report.bytes_repacked < 800_000
        assert verify(repository, full=True).ok
        before = sum(len(site.storage.objects[key]) for key in packs(site))
        site.clock.advance(GRACE)
        pruned(site, repository)
        assert before - sum(len(site.storage.objects[key]) for key in packs(site)) > 1_200_000
        assert_whole(site, site.storage, expected)
        assert not planned(site, repository).repack
        site.clock.advance(GRACE)
        pruned(site, repository)
        assert_whole(site, site.storage, expected)


def test_a_damaged_repository_is_not_pruned(two: Two) -> None:
    site, repository, expected = two
    pruned(site, repository)
    site.clock.advance(GRACE * 2)
    whole = dict(site.storage.objects)
    needed = {key.removeprefix("manifests/") for key in whole if key.startswith("manifests/")} - {next(iter(expected))}
    for key in whole:
        if not key.startswith(("packs/", "index/", "snapshots/", "manifests/", "leases/")):
            continue
        for changed in (None, whole[key][:-1]):
            if changed is None:
                del site.storage.objects[key]
            else:
                site.storage.objects[key] = changed
            before = set(site.storage.objects)
            try:
                pruned(site, repository)
            except Damaged as error:
                assert error.hint
                assert set(site.storage.objects) == before
            else:
                backups = {one.backup_id for one in repository.backups()}
                assert backups == needed or key.startswith("manifests/")
                assert all(verify(repository, backup_id=one, full=True).ok for one in backups)
            site.storage.objects.clear()
            site.storage.objects.update(whole)


def test_one_prune_at_a_time(two: Two) -> None:
    site, repository, _ = two
    plan = planned(site, repository)
    with claim(site.open(), "prune"):
        with pytest.raises(RepositoryError, match="a prune by"):
            prune(repository, plan)
        with pytest.raises(RepositoryError, match="a prune by"), claim(repository, "replicate"):
            pass
    with claim(site.open(), "replicate"), pytest.raises(RepositoryError, match="a replication"):
        prune(repository, plan)
    with claim(site.open(), "replicate"), claim(repository, "replicate"):
        pass
    repository.leases.take("prune-killed")
    with pytest.raises(RepositoryError):
        prune(repository, plan)
    site.clock.advance(TERM + timedelta(hours=1))
    assert pruned(site, repository).packs_condemned == 2
    assert not repository.leases.names()


class Locked(MemoryStorage):
    """Write-once storage: some objects can't be deleted."""

    kinds: tuple[str, ...] = ()

    def delete(self, key: str) -> None:
        if key.startswith(self.kinds):
            raise StorageDenied(f"{key} is locked", key=key)
        super().delete(key)


@pytest.mark.parametrize("kinds", [("packs/",), ("index/",), ("manifests/",), ("packs/", "index/", "manifests/")])
def test_what_is_locked_is_left_and_named(site: Site, kinds: tuple[str, ...]) -> None:
    site.storage = storage = Locked()
    with site.create() as repository:
        site.write(random_files())
        first = site.backup(repository)
        files = random_files()
        site.write(files)
        expected = {site.backup(repository).backup_id: files}
        repository.forget(first.backup_id, "test")
        pruned(site, repository)
        site.clock.advance(GRACE)
        storage.kinds = kinds
        for _ in range(3):
            count = len(site.storage.objects)
            report = pruned(site, repository)
            assert report.locked
            assert all(key.startswith(kinds) for key in report.locked)
            assert_whole(site, storage, expected)
            site.clock.advance(GRACE)
        assert len(site.storage.objects) <= count, "trying again and again leaves nothing behind"
        storage.kinds = ()
        report = pruned(site, repository)
        assert report.locked == ()
        assert not repository.forgotten()
        assert not repository.condemned()
        assert len(packs(site)) == 2
        assert_whole(site, storage, expected)


def test_small_index_objects_are_gathered(site: Site) -> None:
    with site.create() as repository:
        expected = {}
        for number in range(20):
            files = {"file": b"%d" % number * 100}
            site.write(files)
            expected[site.backup(repository).backup_id] = files
        assert len(repository.names("index")) == 20
        report = pruned(site, repository)
        assert (report.index_objects_written, report.index_objects_deleted) == (1, 20)
        assert len(repository.names("index")) == 1
        assert_whole(site, site.storage, expected)


def test_a_missing_pack_that_nobody_needs_is_taken_off_the_index(two: Two) -> None:
    site, repository, expected = two
    doomed = planned(site, repository).condemn
    for one in doomed:
        del site.storage.objects[f"packs/{one.digest.hex()}"]
    assert pruned(site, repository).index_objects_deleted == 1
    assert verify(repository, full=True).findings == ()
    assert_whole(site, site.storage, expected)


def test_condemnations_and_tombstones_that_can_not_be_read_block_nothing(two: Two) -> None:
    site, repository, expected = two
    pruned(site, repository)
    for key in list(site.storage.objects):
        if key.startswith(("condemned/", "forgotten/")):
            site.storage.objects[key] = b"?"
    pruned(site, repository)
    assert not [key for key in site.storage.objects if key.startswith("forgotten/")]
    site.clock.advance(GRACE)
    assert pruned(site, repository).packs_deleted + pruned(site, repository).packs_deleted == 2
    assert_whole(site, site.storage, expected)


def test_pins_of_removed_backups_go(two: Two) -> None:
    site, repository, expected = two
    repository.put_record("pin", next(iter(expected)), {"reason": "x", "at": "2026-01-01T00:00:00Z"})
    pruned(site, repository)
    site.clock.advance(GRACE)
    pruned(site, repository)
    assert repository.names("pin") == []


def test_on_a_disk(site: Site, tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "repository")
    with Repository.create(storage, algorithm="AES-256-GCM", operator_key=KEY, clock=site.clock) as repository:
        site.write(random_files())
        repository.forget(site.backup(repository).backup_id, "test")
        files = random_files()
        site.write(files)
        expected = {site.backup(repository).backup_id: files}
        pruned(site, repository)
        site.clock.advance(GRACE)
        assert pruned(site, repository).packs_deleted == 2
        assert_whole(site, storage, expected)


def test_an_interrupted_removal_leaves_no_snapshot_behind(two: Two) -> None:
    site, repository, expected = two
    del site.storage.objects[f"manifests/{next(iter(expected))}"]
    pruned(site, repository)
    site.clock.advance(GRACE)
    pruned(site, repository)
    assert repository.forgotten() == []
    assert len(repository.names("snapshot")) == 1
    assert_whole(site, site.storage, expected)


def test_a_writer_does_not_adopt_what_a_prune_is_sweeping(two: Two) -> None:
    """Between the rewriting of the index and the deletion of the packs, when a prune was interrupted there."""
    site, repository, expected = two
    doomed = {one.digest for one in planned(site, repository).condemn}
    pruned(site, repository)
    named = {name for name, table in repository.index_tables() if doomed & {pack.digest for pack in table.packs}}
    for name in named:
        del site.storage.objects[f"index/{name}"]
    files = random_files()
    site.write(files)
    expected[site.backup(repository).backup_id] = files
    assert not doomed & repository.load_index().packs().keys()
    site.clock.advance(GRACE)
    assert pruned(site, repository).packs_deleted == 2
    assert_whole(site, site.storage, expected)
