"""Replicas: whole at every moment, alone enough to restore from, and never worse than what was copied."""

from datetime import timedelta
from pathlib import Path

import pytest

from chrono_backups.backup.plan import plan_backup
from chrono_backups.clock import FrozenClock
from chrono_backups.errors import BackupMissing, Damaged, RepositoryError, StorageFull
from chrono_backups.events import Finding, Progress
from chrono_backups.maintenance.prune import plan_prune, prune
from chrono_backups.maintenance.replicate import ReplicationReport, replicate
from chrono_backups.maintenance.verify import verify
from chrono_backups.repository.repository import Repository
from chrono_backups.storage.faulty import Fail, FaultyStorage
from chrono_backups.storage.local import LocalStorage
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.maintenance.site import Content, Site, assert_whole, random_files

GRACE = timedelta(hours=24)


@pytest.fixture
def mirror() -> MemoryStorage:
    return MemoryStorage("mirror")


@pytest.fixture
def expected(site: Site) -> dict[str, Content]:
    """Three backups that share some content."""
    taken: dict[str, Content] = {}
    files: dict[str, bytes] = {}
    with site.create() as repository:
        for number in range(3):
            files = {**files, f"new{number}": random_files(1, 300_000)["folder0/0.bin"]}
            site.write(files)
            taken[site.backup(repository, "incremental" if number else "full").backup_id] = files
    return taken


def copied(site: Site, mirror: MemoryStorage, *backup_ids: str) -> ReplicationReport:
    with site.open() as repository:
        return replicate(repository, mirror, backup_ids=list(backup_ids) or None)


def test_all_of_it(site: Site, mirror: MemoryStorage, expected: dict[str, Content]) -> None:
    before = dict(site.storage.objects)
    report = copied(site, mirror)
    assert report.ok
    assert report.findings == ()
    assert mirror.objects == before == site.storage.objects
    assert report.objects_copied == len(before)
    assert report.bytes_copied == sum(map(len, before.values()))
    assert len(assert_whole(site, mirror, expected)) == 3

    again = copied(site, mirror)
    assert (again.objects_copied, again.bytes_copied) == (0, 0)
    assert again.objects_present == len(before) - 1
    assert again.to_json()["complete"] is True


def test_nothing_to_do_reads_next_to_nothing(site: Site, mirror: MemoryStorage, expected: dict[str, Content]) -> None:
    copied(site, mirror)
    with site.open() as repository:
        here, there = FaultyStorage(site.storage), FaultyStorage(mirror)
        replicate(Repository(here, repository.keyring, site.clock), there)
    assert here.calls_of("get") == 1, "the key slot"
    assert there.calls_of("put") == 1, "the lease"
    assert here.calls_of("info") == there.calls_of("info") == 0


def test_what_is_new(site: Site, mirror: MemoryStorage, expected: dict[str, Content]) -> None:
    copied(site, mirror)
    with site.open() as repository:
        files = random_files()
        site.write(files)
        expected[site.backup(repository).backup_id] = files
        repository.pin(next(iter(expected)), "kept")
    report = copied(site, mirror)
    assert report.objects_copied == 6, "two packs, index, snapshot, manifest, pin"
    assert mirror.objects == site.storage.objects
    assert len(assert_whole(site, mirror, expected)) == 4


def test_chosen_backups(site: Site, mirror: MemoryStorage, expected: dict[str, Content]) -> None:
    ids = list(expected)
    report = copied(site, mirror, ids[1])
    assert report.ok
    assert assert_whole(site, mirror, expected) == [ids[1]]
    assert len([key for key in mirror.objects if key.startswith("packs/")]) == 3, "both contents and one listing"
    again = copied(site, mirror, ids[1])
    assert again.objects_copied == 0
    count = len(mirror.objects)
    assert copied(site, mirror, ids[0]).ok
    assert set(assert_whole(site, mirror, expected)) == set(ids[:2])
    assert len(mirror.objects) == count + 4, "a listing pack, an index object, snapshot, manifest"
    assert copied(site, mirror).ok
    assert len(assert_whole(site, mirror, expected)) == 3
    with pytest.raises(BackupMissing):
        copied(site, mirror, "full_20200101_000000")


def test_on_disks(site: Site, tmp_path: Path, expected: dict[str, Content]) -> None:
    storage = LocalStorage(tmp_path / "mirror")
    with site.open() as repository:
        assert replicate(repository, storage).ok
    assert len(assert_whole(site, storage, expected)) == 3


def test_a_plain_repository(site: Site, mirror: MemoryStorage) -> None:
    site.algorithm = "none"
    with site.create() as repository:
        site.write(random_files())
        site.backup(repository)
    assert copied(site, mirror).ok
    assert mirror.objects == site.storage.objects


def test_another_repository_is_left_alone(site: Site, mirror: MemoryStorage, expected: dict[str, Content]) -> None:
    Repository.create(mirror, algorithm="none", operator_key=None, clock=FrozenClock()).close()
    before = dict(mirror.objects)
    with pytest.raises(RepositoryError, match="another repository"):
        copied(site, mirror)
    del mirror.objects["repository"]
    mirror.objects["manifests/full_20200101_000000"] = b"somebody's"
    before = dict(mirror.objects)
    for header in (None, b"?"):
        if header:
            before["repository"] = mirror.objects["repository"] = header
        with pytest.raises(RepositoryError, match="holds objects"):
            copied(site, mirror)
        assert mirror.objects == before


def test_a_lost_or_damaged_header_of_a_replica_is_put_back(
    site: Site, mirror: MemoryStorage, expected: dict[str, Content]
) -> None:
    copied(site, mirror)
    for header in (None, b"?"):
        del mirror.objects["repository"]
        if header:
            mirror.objects["repository"] = header
        assert copied(site, mirror).ok
        assert mirror.objects == site.storage.objects


def test_the_slot_of_an_interrupted_init_does_not_lock_the_replica(
    site: Site, mirror: MemoryStorage, expected: dict[str, Content]
) -> None:
    other = Site(site.root, mirror, site.clock)
    other.create().close()
    del mirror.objects["repository"]
    assert copied(site, mirror).ok
    assert len(assert_whole(site, mirror, expected)) == 3


def test_key_rotation(site: Site, mirror: MemoryStorage, expected: dict[str, Content]) -> None:
    copied(site, mirror)
    fresh = bytes(31) + b"x"
    with site.open() as repository:
        old = repository.keyring.current
        repository.keyring.add(fresh, "rotated")
    with Repository.open(site.storage, operator_key=fresh, clock=site.clock) as repository:
        repository.keyring.remove(str(old))
        report = replicate(repository, mirror)
        (finding,) = report.findings
        assert (finding.code, finding.subject, finding.severity) == ("key-lingers", f"keys/{old}", "warning")
        assert finding.hint
        assert report.ok
    with Repository.open(mirror, operator_key=fresh, clock=site.clock) as replica:
        assert verify(replica, full=True).ok


@pytest.mark.parametrize("part", ["packs", "index", "snapshots", "manifests"])
@pytest.mark.parametrize("damage", ["flip", "cut", "drop"])
def test_what_is_damaged_is_never_copied(
    site: Site, mirror: MemoryStorage, expected: dict[str, Content], part: str, damage: str
) -> None:
    whole = dict(site.storage.objects)
    for key in [key for key in whole if key.startswith(part)]:
        content = bytearray(whole[key])
        content[len(content) // 2] ^= 1
        if damage == "drop":
            del site.storage.objects[key]
        else:
            site.storage.objects[key] = bytes(content) if damage == "flip" else whole[key][:-1]
        report = copied(site, mirror)
        with site.open(mirror) as replica:
            assert verify(replica, full=True).ok
            there = {one.backup_id for one in replica.backups()}
        if damage != "drop":
            assert key in {one.subject for one in report.findings}
            assert not report.ok
            assert mirror.objects.get(key) in {None, whole[key]}
        if part in {"packs", "index", "snapshots"}:
            assert set(report.withheld) == set(expected) - there
            assert report.withheld
            assert not report.ok
        assert_whole(site, mirror, expected)

        site.storage.objects.update(whole)
        assert copied(site, mirror).ok
        assert len(assert_whole(site, mirror, expected)) == 3
        mirror.objects.clear()


def test_a_chosen_backup_that_is_damaged_is_withheld(
    site: Site, mirror: MemoryStorage, expected: dict[str, Content]
) -> None:
    first, *others = expected
    with site.open() as repository:
        assert replicate(repository, mirror, backup_ids=[first]).ok
    new = next(
        key
        for key in site.storage.objects
        if key.startswith("packs/") and key not in mirror.objects and len(site.storage.objects[key]) > 100_000
    )
    site.storage.objects[new] = site.storage.objects[new][:-1]
    report = copied(site, mirror, *others)
    assert report.withheld
    assert set(assert_whole(site, mirror, expected)) == set(expected) - set(report.withheld)


def test_what_is_visibly_damaged_in_the_replica_is_replaced(
    site: Site, mirror: MemoryStorage, expected: dict[str, Content]
) -> None:
    copied(site, mirror)
    whole = dict(mirror.objects)
    for key, content in whole.items():
        if key == "repository":
            continue
        for changed in (None, content[:-1], content + b"x"):
            if changed is None:
                del mirror.objects[key]
            else:
                mirror.objects[key] = changed
            report = copied(site, mirror)
            assert report.ok
            assert mirror.objects == whole, key
            if changed is not None:
                assert [(one.code, one.subject) for one in report.findings] == [("replaced", key)]


def test_what_is_damaged_in_the_replica_and_locked_is_named(site: Site, expected: dict[str, Content]) -> None:
    mirror = MemoryStorage("mirror", lock_days=30, clock=site.clock)
    copied(site, mirror)
    key = next(key for key in mirror.objects if key.startswith("packs/"))
    mirror.objects[key] = mirror.objects[key][:-1]
    report = copied(site, mirror)
    assert not report.ok
    assert [(one.code, one.subject) for one in report.findings if "locked" in one.message] == [
        ("damaged-in-replica", key)
    ]


def test_a_sound_object_of_the_same_name_is_not_replaced(
    site: Site, mirror: MemoryStorage, expected: dict[str, Content]
) -> None:
    """A backup was taken into the replica itself in the very same second."""
    copied(site, mirror)
    moment = site.clock.now()
    with site.open() as repository:
        site.write(random_files())
        manifest = site.backup(repository)
    clock = FrozenClock(moment)
    other = Site(site.root, mirror, clock)
    with other.open() as replica:
        site.write({f"{'long' * 20}{number}": b"%d" % number for number in range(9)})
        other.clock.advance(manifest.started_at - clock.now() - timedelta(seconds=1))
        assert other.backup(replica).backup_id == manifest.backup_id
    before = mirror.objects[f"manifests/{manifest.backup_id}"]
    assert len(before) != len(site.storage.objects[f"manifests/{manifest.backup_id}"])
    report = copied(site, mirror)
    assert "conflict" in {one.code for one in report.findings}
    assert mirror.objects[f"manifests/{manifest.backup_id}"] == before
    with site.open(mirror) as replica:
        assert verify(replica, full=True).ok


def test_tombstones_are_copied_and_the_replica_is_pruned_by_itself(
    site: Site, mirror: MemoryStorage, expected: dict[str, Content]
) -> None:
    copied(site, mirror)
    first = next(iter(expected))
    with site.open() as repository:
        repository.forget(first, "test")
    copied(site, mirror)
    with site.open(mirror) as replica:
        assert first not in {one.backup_id for one in replica.backups()}
        for _ in range(2):
            prune(replica, plan_prune(replica, grace=GRACE, now=site.clock.now()))
            site.clock.advance(GRACE)
        assert first not in replica.names("manifest")
    assert len(assert_whole(site, mirror, expected)) == 2
    report = copied(site, mirror)
    assert report.ok
    assert first not in {key.removeprefix("manifests/") for key in mirror.objects}


def test_a_backup_that_the_replica_forgot_is_not_brought_back(
    site: Site, mirror: MemoryStorage, expected: dict[str, Content]
) -> None:
    first = next(iter(expected))
    copied(site, mirror)
    with site.open(mirror) as replica:
        replica.forget(first, "test")
        del mirror.objects[f"manifests/{first}"]
    assert copied(site, mirror).ok
    assert f"manifests/{first}" not in mirror.objects


def test_no_backup_chosen_is_none_copied(site: Site, mirror: MemoryStorage, expected: dict[str, Content]) -> None:
    with site.open() as repository:
        replicate(repository, mirror, backup_ids=[])
    assert assert_whole(site, mirror, expected) == []


def test_after_a_prune_at_the_source_the_index_is_known_there_too(
    site: Site, mirror: MemoryStorage, expected: dict[str, Content]
) -> None:
    copied(site, mirror)
    first = next(iter(expected))
    with site.open() as repository:
        repository.forget(first, "test")
        for _ in range(2):
            prune(repository, plan_prune(repository, grace=GRACE, now=site.clock.now()))
            site.clock.advance(GRACE)
        files = random_files()
        site.write(files)
        expected[site.backup(repository).backup_id] = files
    assert copied(site, mirror).ok
    assert len(assert_whole(site, mirror, expected)) == 4, "the replica was not pruned"


def test_a_backup_that_goes_on_is_left_to_the_next_time(
    site: Site, mirror: MemoryStorage, expected: dict[str, Content]
) -> None:
    with site.open() as repository:
        plan_backup(repository, "full", ["files"])
    assert copied(site, mirror).ok
    assert not [key for key in mirror.objects if key.startswith("leases/")]
    assert len(assert_whole(site, mirror, expected)) == 3


def test_a_full_destination_is_an_error_and_leaves_it_whole(
    site: Site, mirror: MemoryStorage, expected: dict[str, Content]
) -> None:
    with site.open() as repository:
        full = FaultyStorage(mirror, Fail(4, "put", error=StorageFull))
        with pytest.raises(StorageFull):
            replicate(repository, full)
    assert assert_whole(site, mirror, expected) == []
    assert copied(site, mirror).ok


def test_a_damaged_manifest_does_not_stop_the_rest(
    site: Site, mirror: MemoryStorage, expected: dict[str, Content]
) -> None:
    first = next(iter(expected))
    site.storage.objects[f"manifests/{first}"] = b"?" * 100
    report = copied(site, mirror)
    assert report.withheld == (first,)
    assert len(assert_whole(site, mirror, expected)) == 2
    with pytest.raises(Damaged):
        copied(site, mirror, first)


def test_progress(site: Site, mirror: MemoryStorage, expected: dict[str, Content]) -> None:
    events: list[Progress | Finding] = []
    with site.open() as repository:
        replicate(repository, mirror, listener=events.append)
    last = events[-1]
    assert isinstance(last, Progress)
    assert last.done_items == last.total_items == 6
    assert last.done_bytes == last.total_bytes
