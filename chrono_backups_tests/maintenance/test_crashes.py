"""The crash loop: the n-th storage call fails, and all after it, for every n.

Each time every backup in sight is whole and reads back byte for byte, and repeating the call, once the killed
one's lease has run out, does the rest.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from chrono_backups.backup.plan import plan_backup
from chrono_backups.errors import Damaged, StorageError
from chrono_backups.maintenance.forget import forget, forget_ids, plan_forget
from chrono_backups.maintenance.prune import plan_prune, prune
from chrono_backups.maintenance.replicate import replicate
from chrono_backups.maintenance.settings import RetentionPolicy
from chrono_backups.repository.leases import TERM
from chrono_backups.repository.repository import Repository
from chrono_backups.storage.base import Storage
from chrono_backups.storage.faulty import FailFrom, FaultyStorage
from chrono_backups.storage.local import LocalStorage
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.maintenance.site import Content, Site, assert_whole, random_files

GRACE = timedelta(hours=1)
LATER = TERM + timedelta(hours=2)
ONE = RetentionPolicy(
    retention_days=0,
    keep_daily_for_days=0,
    keep_weekly_for_weeks=0,
    keep_monthly_for_months=0,
    keep_yearly_for_years=0,
    min_backups_to_keep=1,
)


@pytest.fixture
def taken(site: Site) -> dict[str, Content]:
    """Four backups: some share content, one pack is mostly of the first ones."""
    taken: dict[str, Content] = {}
    with site.create() as repository:
        for files in (random_files(3, 300_000), random_files(), random_files(4)):
            site.write(files)
            taken[site.backup(repository).backup_id] = files
        files = {"folder0/0.bin": taken[next(iter(taken))]["folder0/0.bin"], "new": b"new"}
        site.write(files)
        taken[site.backup(repository).backup_id] = files
    return taken


def crashes(
    site: Site, faulty: Callable[[FailFrom], FaultyStorage], work: Callable[[FaultyStorage], None]
) -> Iterator[int]:
    """Has ``work`` fail at every call, before and after its effect, until it succeeds; yields behind each."""
    for after_effect in (False, True):
        for call in range(10_000):
            storage = faulty(FailFrom(call, after_effect=after_effect))
            try:
                work(storage)
            except (StorageError, Damaged):  # what can't be read is taken for damage, and nothing is done
                assert not storage.unreached
            yield call
            if storage.unreached:
                break
        assert call > 3, "there was something to interrupt"


def restored(storage: MemoryStorage, objects: dict[str, bytes]) -> MemoryStorage:
    storage.objects.clear()
    storage.objects.update(objects)
    return storage


def repository_in(site: Site, storage: Storage) -> Repository:
    with site.open() as opened:
        return Repository(storage, opened.keyring, site.clock)


def test_forget(site: Site, taken: dict[str, Content]) -> None:
    start = dict(site.storage.objects)
    newest = list(taken)[-1]
    for by_policy in (True, False):

        def work(storage: Storage, by_policy: bool = by_policy) -> None:
            repository = repository_in(site, storage)
            if by_policy:
                forget(repository, plan_forget(repository, ONE, site.clock.now()))
            else:
                forget_ids(repository, list(taken)[:-1])

        for _ in crashes(site, lambda fault: FaultyStorage(restored(site.storage, start), fault), work):
            assert newest in assert_whole(site, site.storage, taken)
            work(site.storage)
            assert assert_whole(site, site.storage, taken) == [newest]


def test_prune(site: Site, taken: dict[str, Content]) -> None:
    """Interrupted at each call of the first prune, which condemns and copies; and of the second, which sweeps."""
    kept = list(taken)[-1]
    with site.open() as repository:
        forget_ids(repository, list(taken)[:-1])
        killed = plan_backup(repository, "full", ["files"])
        site.clock.advance(LATER)
        fresh = dict(site.storage.objects)
        plan = plan_prune(repository, grace=GRACE, now=site.clock.now())
        assert plan.condemn
        assert plan.repack
        assert plan.leases == (killed.backup_id,)
        prune(repository, plan)
        condemned = dict(site.storage.objects)

    def work(storage: Storage) -> None:
        repository = repository_in(site, storage)
        prune(repository, plan_prune(repository, grace=GRACE, now=site.clock.now()))

    for start in (fresh, condemned):
        site.clock.advance(GRACE * 2)
        for _ in crashes(site, lambda fault, start=start: FaultyStorage(restored(site.storage, start), fault), work):  # type: ignore[misc]
            assert assert_whole(site, site.storage, taken) == [kept]
            for _ in range(3):
                site.clock.advance(LATER)
                work(site.storage)
                assert assert_whole(site, site.storage, taken) == [kept]
            left = {key.partition("/")[0] for key in site.storage.objects}
            assert left == {"repository", "keys", "packs", "index", "snapshots", "manifests"}
            assert len([key for key in site.storage.objects if key.startswith(("snapshots/", "manifests/"))]) == 2
            assert sum(map(len, site.storage.objects.values())) < 700_000, "all that was useless is gone"


@pytest.mark.parametrize("chosen", [None, 2])
def test_replicate_into(site: Site, taken: dict[str, Content], chosen: int | None) -> None:
    ids = None if chosen is None else list(taken)[:chosen]
    mirror = MemoryStorage("mirror")

    def work(storage: Storage) -> None:
        with site.open() as repository:
            assert replicate(repository, storage, backup_ids=ids).ok

    for _ in crashes(site, lambda fault: FaultyStorage(restored(mirror, {}), fault), work):
        if "repository" in mirror.objects:
            assert_whole(site, mirror, taken)
        work(mirror)
        assert set(assert_whole(site, mirror, taken)) == set(ids or taken)
        site.clock.advance(LATER)


def test_replicate_from(site: Site, taken: dict[str, Content]) -> None:
    mirror = MemoryStorage("mirror")

    def work(storage: Storage) -> None:
        replicate(repository_in(site, storage), mirror)

    def faulty(fault: FailFrom) -> FaultyStorage:
        restored(mirror, {})
        return FaultyStorage(site.storage, fault)

    for _ in crashes(site, faulty, work):
        if "repository" in mirror.objects:
            assert_whole(site, mirror, taken)
        work(site.storage)
        assert len(assert_whole(site, mirror, taken)) == 4


def test_replicate_between_disks(site: Site, taken: dict[str, Content], tmp_path: Path) -> None:
    with site.open() as repository:
        storage = LocalStorage(tmp_path / "mirror")
        for call in range(8, 200, 5):
            faulty = FaultyStorage(storage, FailFrom(call))
            try:
                replicate(repository, faulty)
            except StorageError:
                assert not faulty.unreached
                if list(storage.list("repository")):
                    assert_whole(site, storage, taken)
                continue
            break
        assert faulty.unreached, "each try got further than the last"
    assert len(assert_whole(site, storage, taken)) == 4
