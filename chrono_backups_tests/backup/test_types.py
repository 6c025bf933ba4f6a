"""What each backup type reads, and from what it goes on."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chrono_backups.backup.plan import BackupPlan, Outcome, plan_backup
from chrono_backups.backup.service import abandon, capture, commit
from chrono_backups.clock import FrozenClock
from chrono_backups.errors import BackupFailed, LeaseLost
from chrono_backups.identifiers import BackupType
from chrono_backups.pipeline.encryption import Kind
from chrono_backups.repository.leases import TERM
from chrono_backups.sources.files import FilesSource
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.backup.taking import (
    LEADING,
    AheadClock,
    Heard,
    in_repository,
    mixed_site,
    new_repository,
    noise,
    on_disk,
    opened,
    snapshot_of,
    take,
    total,
    write_all,
)
from chrono_backups_tests.damaging import last_byte_changed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return mixed_site(tmp_path / "site")


def test_a_full_backup_reads_everything_and_stores_it_once(root: Path) -> None:
    repository = new_repository()
    first = take(repository, "full", root)
    assert first.status == "complete"
    assert first.statistics.bytes_read == first.statistics.bytes_total == total(root)
    assert first.statistics.files == first.statistics.files_read == 33
    assert first.snapshots[0].effective == "full"
    assert first.snapshots[0].reason == ""
    again = take(repository, "full", root)
    assert again.statistics.bytes_read == total(root)
    assert again.statistics.bytes_added <= LEADING
    assert snapshot_of(repository, again).parent is None


def test_an_incremental_of_nothing_new_reads_and_stores_nothing(root: Path) -> None:
    repository = new_repository()
    full = take(repository, "full", root)
    for _ in range(2):
        manifest = take(repository, "incremental", root)
        statistics = manifest.statistics
        assert (statistics.bytes_read, statistics.files_read) == (0, 0)
        assert statistics.bytes_added <= LEADING
        assert (statistics.bytes_total, statistics.files) == (full.statistics.bytes_total, full.statistics.files)
        assert statistics.directories == full.statistics.directories
        snapshot = snapshot_of(repository, manifest)
        assert snapshot.effective == "incremental"
        assert in_repository(repository, snapshot, root) == on_disk(root)


def test_an_incremental_reads_what_changed_and_no_more(root: Path) -> None:
    repository = new_repository()
    take(repository, "full", root)
    (root / "small/7").write_bytes(b"changed")
    (root / "new").write_bytes(b"new")
    (root / "small/8").unlink()
    manifest = take(repository, "incremental", root)
    assert manifest.statistics.files_read == 2
    assert manifest.statistics.bytes_read == 10
    snapshot = snapshot_of(repository, manifest)
    assert in_repository(repository, snapshot, root) == on_disk(root)
    assert snapshot.parent is not None
    assert take(repository, "incremental", root).statistics.bytes_read == 0


def test_an_incremental_goes_on_from_the_newest_and_a_differential_from_the_newest_full(root: Path) -> None:
    repository = new_repository()
    full = snapshot_of(repository, take(repository, "full", root))
    (root / "first").write_bytes(b"1")
    first = snapshot_of(repository, take(repository, "incremental", root))
    (root / "second").write_bytes(b"22")
    second = take(repository, "incremental", root)
    assert snapshot_of(repository, second).parent == first.snapshot_id
    assert second.statistics.bytes_read == 2
    differential = take(repository, "differential", root)
    assert snapshot_of(repository, differential).parent == full.snapshot_id
    assert snapshot_of(repository, differential).effective == "differential"
    assert differential.statistics.bytes_read == 3
    newer = snapshot_of(repository, take(repository, "files_only", root))
    assert newer.effective == "full"
    assert snapshot_of(repository, take(repository, "differential", root)).parent == newer.snapshot_id
    for manifest in repository.backups():
        assert repository.snapshot(manifest.snapshots[0].snapshot_id)
    assert in_repository(repository, snapshot_of(repository, differential), root) == on_disk(root)


@pytest.mark.parametrize(
    ("backup_type", "reason"),
    [
        ("incremental", "there is no earlier snapshot of files"),
        ("differential", "there is no earlier full snapshot of files"),
    ],
)
def test_without_a_parent_it_is_a_full_one_and_says_so(root: Path, backup_type: BackupType, reason: str) -> None:
    repository = new_repository()
    manifest = take(repository, backup_type, root)
    assert manifest.type == backup_type
    assert manifest.snapshots[0].effective == "full"
    assert manifest.snapshots[0].reason == snapshot_of(repository, manifest).reason == reason
    assert in_repository(repository, snapshot_of(repository, manifest), root) == on_disk(root)


def test_a_parent_that_was_forgotten_is_no_parent(root: Path) -> None:
    repository = new_repository()
    repository.forget(take(repository, "full", root).backup_id, "test")
    assert take(repository, "incremental", root).snapshots[0].reason == "there is no earlier snapshot of files"


@pytest.mark.parametrize("object_kind", ["manifests/", "snapshots/"])
def test_a_parent_that_is_damaged_makes_it_full_and_says_which(root: Path, object_kind: str) -> None:
    storage = MemoryStorage()
    repository = new_repository(storage)
    take(repository, "full", root)
    (key,) = [key for key in storage.objects if key.startswith(object_kind)]
    storage.objects[key] = last_byte_changed(storage.objects[key])
    manifest = take(repository, "incremental", root)
    assert manifest.snapshots[0].effective == "full"
    assert key in manifest.snapshots[0].reason
    assert manifest.statistics.bytes_read == total(root)


def test_a_parent_whose_listing_is_damaged_is_read_anew_from_there_with_a_finding(root: Path) -> None:
    storage = MemoryStorage()
    repository = new_repository(storage)
    manifest = take(repository, "full", root)
    chunk = snapshot_of(repository, manifest).listing[0]
    place = repository.index.find(chunk.chunk_id)
    assert place is not None
    key = f"packs/{place.pack.name}"
    data = bytearray(storage.objects[key])
    data[place.offset + 20] ^= 1
    storage.objects[key] = bytes(data)
    heard = Heard()
    again = take(repository, "incremental", root, listener=heard)
    assert "parent-damaged" in heard.codes
    assert again.statistics.bytes_read == total(root)


def replaced_in_place(path: Path, content: bytes) -> None:
    """An edit that hides: same size, same inode, the times put back."""
    before = path.stat()
    assert len(content) == before.st_size
    time.sleep(0.02)
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_an_edit_that_restores_size_and_mtime_is_noticed(root: Path) -> None:
    repository = new_repository()
    take(repository, "full", root)
    replaced_in_place(root / "small/3", noise(999, 1003))
    replaced_in_place(root / "large", noise(998, 2_000_000))
    manifest = take(repository, "incremental", root)
    assert manifest.statistics.files_read == 2
    assert in_repository(repository, snapshot_of(repository, manifest), root) == on_disk(root)


def test_a_file_changed_just_before_a_backup_is_read_again_by_the_next(tmp_path: Path) -> None:
    """What a file system's clock can't tell apart: a change in the same tick as the one that was captured."""
    write_all(tmp_path / "site", {"racy": b"1"})
    clock = AheadClock(timedelta(0))
    repository = new_repository(clock=clock)
    take(repository, "full", tmp_path / "site")
    clock.ahead = timedelta(hours=1)
    assert take(repository, "incremental", tmp_path / "site").statistics.files_read == 1
    assert take(repository, "incremental", tmp_path / "site").statistics.files_read == 0


@pytest.mark.parametrize(("seconds", "read"), [(-1, 1), (0.5, 1), (1.9, 1), (2.5, 0), (60, 0)])
def test_how_fresh_is_too_fresh(tmp_path: Path, seconds: float, read: int) -> None:
    write_all(tmp_path / "site", {"f": b"1"})
    changed = (tmp_path / "site/f").stat().st_ctime_ns / 1e9
    for path in (tmp_path / "site", tmp_path):
        changed = max(changed, path.stat().st_ctime_ns / 1e9)
    clock = FrozenClock(datetime.fromtimestamp(changed + seconds, UTC))
    repository = new_repository(clock=clock)
    take(repository, "full", tmp_path / "site")
    clock.advance(timedelta(hours=1))
    assert take(repository, "incremental", tmp_path / "site").statistics.files_read == read


def test_a_renamed_large_file_is_read_but_not_stored_again(root: Path) -> None:
    repository = new_repository()
    take(repository, "full", root)
    (root / "large").rename(root / "renamed")
    (root / "small").rename(root / "little")
    manifest = take(repository, "incremental", root)
    assert in_repository(repository, snapshot_of(repository, manifest), root) == on_disk(root)
    assert manifest.statistics.bytes_added < 100_000


def test_attributes_alone_change(root: Path) -> None:
    repository = new_repository()
    take(repository, "full", root)
    (root / "small/1").chmod(0o600)
    os.utime(root / "small/2", (5, 5))
    os.setxattr(root / "small/3", "user.note", b"x")
    (root / "empty").unlink()
    (root / "empty").symlink_to("x")
    manifest = take(repository, "incremental", root)
    snapshot = snapshot_of(repository, manifest)
    assert in_repository(repository, snapshot, root) == on_disk(root)
    assert take(repository, "incremental", root).statistics.files_read == 0


def test_changes_back_and_forth_are_stored_once(root: Path) -> None:
    repository = new_repository()
    take(repository, "full", root)
    one, two = noise(1, 1_500_000), noise(2, 1_500_000)
    for turn, content in enumerate((one, two, one, two)):
        (root / "large").write_bytes(content)
        manifest = take(repository, "incremental", root)
        # Beside the content only the root's own segment is new each time.
        assert manifest.statistics.bytes_added < 20_000 or turn < 2
        assert in_repository(repository, snapshot_of(repository, manifest), root) == on_disk(root)


def test_two_backups_in_one_second_get_two_ids(root: Path) -> None:
    clock = FrozenClock(datetime(2026, 1, 1, 12, 0, 0, 400_000, UTC))
    repository = new_repository(clock=clock)
    first, second = take(repository, "full", root), take(repository, "full", root)
    planned = plan_backup(repository, "full", ["files"])
    other = plan_backup(repository, "incremental", ["files"])
    assert first.backup_id == "full_20260101_120000"
    assert second.backup_id == "full_20260101_120001"
    assert planned.backup_id == "full_20260101_120002"
    assert other.backup_id == "incremental_20260101_120000"
    repository.forget(second.backup_id, "test")
    abandon(repository, planned)
    assert plan_backup(repository, "full", ["files"]).backup_id == "full_20260101_120002"


def test_an_id_that_was_committed_a_moment_ago_is_not_taken_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process commits and lets its lease go between this one's look at the manifests and its lease."""
    repository = new_repository(clock=FrozenClock())
    names = repository.names
    plans: list[BackupPlan] = []

    def late(kind: Kind) -> list[str]:
        found = names(kind)
        if kind == "manifest" and not plans:
            plans.append(BackupPlan("full_20260101_000000", "full", ("files",), repository.clock.now()))
            repository.leases.take(plans[0].backup_id)
            outcome = capture(repository, plans[0], FilesSource("files", [root]))
            commit(repository, plans[0], [outcome], trigger="the other")
        return found

    monkeypatch.setattr(repository, "names", late)
    assert plan_backup(repository, "full", ["files"]).backup_id == "full_20260101_000001"


def test_a_partial_backup_keeps_what_was_captured(root: Path, tmp_path: Path) -> None:
    repository = new_repository()
    gone = FilesSource("configuration", [tmp_path / "gone"], single_files=True)
    manifest = take(repository, "full", root, gone)
    assert manifest.status == "partial"
    assert list(manifest.failures) == ["configuration"]
    assert str(tmp_path / "gone") in manifest.failures["configuration"]
    assert [snapshot.source for snapshot in manifest.snapshots] == ["files"]
    assert in_repository(repository, snapshot_of(repository, manifest), root) == on_disk(root)
    assert repository.backup("latest").backup_id == manifest.backup_id
    complete = take(repository, "full", root)
    take(repository, "full", root, gone)
    assert repository.backup("latest").backup_id == complete.backup_id


def test_a_backup_of_nothing_is_no_backup(tmp_path: Path) -> None:
    storage = MemoryStorage()
    repository = new_repository(storage)
    with pytest.raises(BackupFailed, match="gone") as raised:
        take(repository, "full", FilesSource("files", [tmp_path / "gone"]))
    assert list(raised.value.failures) == ["files"]
    assert repository.backups() == []
    assert repository.leases.names() == []


def test_a_source_that_was_planned_and_never_captured_makes_it_partial(root: Path) -> None:
    repository = new_repository()
    plan = plan_backup(repository, "full", ["files", "configuration"])
    outcome = capture(repository, plan, FilesSource("files", [root]))
    manifest = commit(repository, plan, [outcome], trigger="test")
    assert manifest.status == "partial"
    assert manifest.failures == {"configuration": "it was not captured"}


def test_steps_may_run_in_processes_of_their_own(root: Path) -> None:
    storage = MemoryStorage()
    plan = plan_backup(new_repository(storage), "full", ["files"])
    plan = BackupPlan.from_json(plan.to_json())
    outcome = Outcome.from_json(capture(opened(storage), plan, FilesSource("files", [root])).to_json())
    manifest = commit(opened(storage), plan, [outcome], trigger="test")
    assert opened(storage).backup(manifest.backup_id) == manifest
    assert in_repository(opened(storage), snapshot_of(opened(storage), manifest), root) == on_disk(root)


def test_a_backup_whose_lease_ran_out_commits_nothing(root: Path) -> None:
    clock = FrozenClock()
    storage = MemoryStorage()
    repository = new_repository(storage, clock=clock)
    plan = plan_backup(repository, "full", ["files"])
    outcome = capture(repository, plan, FilesSource("files", [root]))
    clock.advance(TERM)
    with pytest.raises(LeaseLost, match=plan.backup_id):
        commit(repository, plan, [outcome], trigger="test")
    assert repository.names("manifest") == []


def test_hours_in_which_nothing_is_stored_keep_the_lease(root: Path) -> None:
    class Slow(FrozenClock):
        def now(self) -> datetime:
            self.advance(timedelta(minutes=2))
            return super().now()

    write_all(root, {f"{n}/x": b"x" for n in range(400)})
    clock = Slow(datetime.now(UTC) + timedelta(days=1))
    repository = new_repository(clock=clock)
    plan = plan_backup(repository, "full", ["files"])
    outcome = capture(repository, plan, FilesSource("files", [root]))
    assert clock._now > plan.started_at + TERM
    assert commit(repository, plan, [outcome], trigger="test").status == "complete"


def test_findings_are_kept_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "site"
    write_all(root, {f"{n}/x": b"x" for n in range(1500)})
    original = os.listdir

    def failing(path: bytes) -> list[bytes]:
        if path.startswith(os.fsencode(root) + b"/"):
            raise OSError(5, "Input/output error")
        return original(path)

    monkeypatch.setattr(os, "listdir", failing)
    heard = Heard()
    repository = new_repository()
    snapshot = snapshot_of(repository, take(repository, "full", root, listener=heard))
    assert len(heard.findings) == 1500
    assert len(snapshot.findings) == 1001
    assert snapshot.findings[-1].code == "more-findings"
