"""Backups, tombstones, pins, condemnations; records of other versions; the index when objects come and go."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from chrono_backups.boundary import Boundary
from chrono_backups.clock import FrozenClock, from_text, to_text
from chrono_backups.errors import BackupMissing, Damaged, ObjectExists
from chrono_backups.events import Finding
from chrono_backups.repository.records import ListingChunk, Manifest, Snapshot, SnapshotSummary, Statistics
from chrono_backups.repository.repository import Repository
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.backup.taking import KEY

START = datetime(2026, 1, 1, 12, 0, 0, 123_456, UTC)


def snapshot_at(number: int) -> Snapshot:
    return Snapshot(
        snapshot_id=f"full_20260101_1200{number:02}-files-00000000",
        backup_id=f"full_20260101_1200{number:02}",
        source="files",
        effective="full",
        reason="",
        parent=None,
        started_at=START + timedelta(seconds=number),
        finished_at=START + timedelta(seconds=number, microseconds=7),
        statistics=Statistics(*range(9)),
        facts={"paths": ["/a", "/b\udce9"], "number": 5},
        findings=(Finding("code", "warning", "subject\n", "message", "hint"),),
        listing=(ListingChunk(b"", bytes(32)), ListingChunk(b"a/\xff\n", bytes(range(32)))),
        wasteful=(bytes(range(32)),),
    )


def manifest_at(number: int, status: str = "complete") -> Manifest:
    snapshot = snapshot_at(number)
    return Manifest(
        backup_id=snapshot.backup_id,
        type="full",
        status=status,  # type: ignore[arg-type]
        started_at=snapshot.started_at,
        finished_at=snapshot.finished_at,
        snapshots=(SnapshotSummary.of(snapshot),),
        failures={} if status == "complete" else {"configuration": "gone"},
        host="host",
        program="program",
        trigger="test",
    )


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def repository(storage: MemoryStorage) -> Repository:
    return Repository.create(storage, algorithm="AES-256-GCM", operator_key=KEY, clock=FrozenClock(START))


# Records.


def test_times_round_trip_in_utc() -> None:
    assert to_text(START) == "2026-01-01T12:00:00.123456Z"
    assert from_text(to_text(START)) == START
    assert to_text(START.replace(microsecond=0)) == "2026-01-01T12:00:00.000000Z"


def test_records_round_trip(repository: Repository) -> None:
    repository.put_snapshot(snapshot_at(1))
    repository.put_manifest(manifest_at(1, "partial"))
    assert repository.snapshot(snapshot_at(1).snapshot_id) == snapshot_at(1)
    assert repository.manifest(manifest_at(1).backup_id) == manifest_at(1, "partial")
    with pytest.raises(ObjectExists):
        repository.put_manifest(manifest_at(1))


def test_fields_that_a_later_program_adds_are_ignored(repository: Repository) -> None:
    manifest, snapshot = manifest_at(1).to_json(), snapshot_at(1).to_json()
    for record in (manifest, snapshot, manifest["snapshots"][0], snapshot["findings"][0]):
        record["added later"] = {"by": "a newer version"}
    manifest["snapshots"][0]["statistics"]["added"] = 1
    snapshot["statistics"]["added"] = 1
    repository.put_record("manifest", manifest["backup_id"], manifest)
    repository.put_record("snapshot", snapshot["snapshot_id"], snapshot)
    assert repository.backups() == [manifest_at(1)]
    assert repository.snapshot(snapshot["snapshot_id"]) == snapshot_at(1)


LATER_FIELDS = {"skew_seconds", "skew_with_wal_seconds", "findings"}
"""Computed, or of programs that are newer than the format."""


@pytest.mark.parametrize("field", sorted(manifest_at(1).to_json().keys() - LATER_FIELDS))
def test_a_manifest_that_lacks_a_field_is_damaged(repository: Repository, field: str) -> None:
    record = manifest_at(1).to_json()
    del record[field]
    repository.put_record("manifest", "full_20260101_120001", record)
    with pytest.raises(Damaged, match="manifests/full_20260101_120001"):
        repository.backups()


@pytest.mark.parametrize("field", sorted(snapshot_at(1).to_json().keys() - {"boundary"}))
def test_a_snapshot_that_lacks_a_field_is_damaged(repository: Repository, field: str) -> None:
    record = snapshot_at(1).to_json()
    del record[field]
    repository.put_record("snapshot", "s", record)
    with pytest.raises(Damaged, match="snapshots/s"):
        repository.snapshot("s")


def test_a_record_of_another_name_inside_is_damaged(repository: Repository) -> None:
    repository.put_record("manifest", "full_20260101_120002", manifest_at(1).to_json())
    with pytest.raises(Damaged, match="is the manifest of full_20260101_120001"):
        repository.backups()
    repository.put_record("snapshot", "s", snapshot_at(1).to_json())
    with pytest.raises(Damaged, match="is the snapshot"):
        repository.snapshot("s")


def test_a_snapshot_that_is_missing_is_damage(repository: Repository) -> None:
    with pytest.raises(Damaged, match="snapshots/nothing is missing"):
        repository.snapshot("nothing")


def test_the_sum_and_the_skew_of_a_manifest() -> None:
    first, second = snapshot_at(1), replace(snapshot_at(3), source="configuration")
    manifest = replace(manifest_at(1), snapshots=(SnapshotSummary.of(first), SnapshotSummary.of(second)))
    assert manifest.statistics == Statistics(*(2 * n for n in range(9)))
    assert manifest.skew_seconds == 2.0
    assert manifest.snapshot("configuration") == SnapshotSummary.of(second)
    assert manifest.snapshot("redis") is None
    walked = Boundary(first.started_at - timedelta(seconds=5), second.finished_at)
    recorded = replace(manifest, snapshots=(SnapshotSummary.of(replace(first, boundary=walked)), manifest.snapshots[1]))
    assert recorded.skew_seconds == 7.000007
    assert replace(manifest, snapshots=()).skew_seconds == 0


# Backups.


def test_backups_come_newest_first_without_the_forgotten(repository: Repository) -> None:
    assert repository.backups() == []
    for number in (2, 1, 3):
        repository.put_manifest(manifest_at(number))
    ids = [manifest.backup_id[-2:] for manifest in repository.backups()]
    assert ids == ["03", "02", "01"]
    repository.forget("full_20260101_120002", "a reason")
    repository.forget("full_20260101_120002", "another time")
    assert [manifest.backup_id[-2:] for manifest in repository.backups()] == ["03", "01"]
    assert repository.forgotten() == ["full_20260101_120002"]
    assert repository.record("forgotten", "full_20260101_120002")["reason"] == "a reason"


def test_which_backup_is_the_latest(repository: Repository) -> None:
    with pytest.raises(BackupMissing, match="no backup yet") as raised:
        repository.backup("latest")
    assert raised.value.hint
    repository.put_manifest(manifest_at(1, "partial"))
    assert repository.backup("latest").backup_id.endswith("01")
    repository.put_manifest(manifest_at(2))
    repository.put_manifest(manifest_at(3, "partial"))
    assert repository.backup("latest").backup_id.endswith("02")


def test_a_backup_that_is_not_there_is_said_how(repository: Repository) -> None:
    repository.put_manifest(manifest_at(1))
    assert repository.backup("full_20260101_120001") == manifest_at(1)
    with pytest.raises(BackupMissing) as raised:
        repository.backup("full_20260101_120011")
    assert "full_20260101_120001" in raised.value.hint
    repository.forget("full_20260101_120001", "r")
    with pytest.raises(BackupMissing, match="was forgotten"):
        repository.backup("full_20260101_120001")


def test_pins(repository: Repository) -> None:
    repository.put_manifest(manifest_at(1))
    with pytest.raises(BackupMissing):
        repository.pin("full_20260101_120002", "r")
    repository.pin("full_20260101_120001", "r")
    repository.pin("full_20260101_120001", "again")
    assert repository.pins() == {"full_20260101_120001": "r"}
    repository.unpin("full_20260101_120001")
    repository.unpin("full_20260101_120001")
    assert repository.pins() == {}


def test_condemnations(repository: Repository) -> None:
    name = repository.condemn([b"\x02" * 32, b"\x01" * 32])
    (found,) = repository.condemned()
    assert (found.name, found.packs) == (name, (b"\x01" * 32, b"\x02" * 32))
    assert found.condemned_at == START


# The index.


class _Phantom(MemoryStorage):
    """Lists an index object that can't be had, for a while or for ever."""

    times = 0

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | bytearray:
        if key.startswith("index/") and self.times:
            self.times -= 1
            self.objects["index/other"] = b"put there by a prune meanwhile"
            return super().get("index/gone")
        return super().get(key, offset, length)


def test_an_index_object_that_is_replaced_meanwhile_is_read_anew() -> None:
    storage = _Phantom()
    repository = Repository.create(storage, algorithm="none", operator_key=None, clock=FrozenClock())
    repository.put_index([])
    storage.times = 3
    storage.objects.pop("index/other", None)
    with pytest.raises(Damaged, match="index/other"):  # it was looked at: the listing was made anew
        repository.index_tables()


def test_an_index_object_that_is_listed_and_never_there_is_damage_not_a_hang() -> None:
    storage = _Phantom()
    repository = Repository.create(storage, algorithm="none", operator_key=None, clock=FrozenClock())
    repository.put_index([])
    storage.times = 10**9
    with pytest.raises(Damaged, match="is listed and missing"):
        repository.index_tables()


def test_closing_twice_is_no_error(repository: Repository) -> None:
    with repository:
        assert repository.reader is repository.reader
    repository.close()
