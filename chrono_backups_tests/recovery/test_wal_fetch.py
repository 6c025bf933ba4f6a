"""What a recovering server is given, and what it is never told. Without a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from chrono_backups.errors import Damaged, RestoreError, UsageError
from chrono_backups.recovery import wal_fetch
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.wal_archive import StoredWal, WalArchive, moment_bytes
from chrono_backups.repository.wal_names import PieceName, Segment
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.backup.taking import new_repository, opened
from chrono_backups_tests.repository.test_wal_archive import SIZE, SYSTEM, segment_content


def name(number: int, timeline: int = 1) -> str:
    return Segment(timeline, number).name(SIZE)


@pytest.fixture
def storage() -> MemoryStorage:
    found = MemoryStorage()
    new_repository(found).close()
    return found


@pytest.fixture
def repository(storage: MemoryStorage) -> Repository:
    return opened(storage)


@pytest.fixture
def archive(repository: Repository) -> WalArchive:
    return WalArchive(repository, SYSTEM)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory, as far as it matters here."""
    for folder in ("global", "pg_wal"):
        (tmp_path / folder).mkdir()
    (tmp_path / "global" / "pg_control").write_bytes(int(SYSTEM).to_bytes(8, "little") + bytes(100))
    return tmp_path


@pytest.fixture
def target(data: Path) -> Path:
    """Where the server wants its file."""
    return data / "pg_wal" / "RECOVERYXLOG"


def put(archive: WalArchive, *numbers: int, timeline: int = 1) -> None:
    for number in numbers:
        archive.put_segment(name(number, timeline), moment_bytes(None) + segment_content(number, timeline))


def put_part(archive: WalArchive, number: int, end: int, timeline: int = 1) -> None:
    content = segment_content(number, timeline)[:end]
    archive.put_piece(PieceName(name(number, timeline).lower(), 0, end), moment_bytes(None) + content)


def fork(archive: WalArchive, timeline: int, at: int) -> None:
    """That timeline begins in the middle of that segment of the first."""
    archive.put_history(timeline, b"1\t0/%X\tx\n" % (at * SIZE + SIZE // 2))


class TestFound:
    def test_whole_segments_histories_and_the_newest_as_far_as_it_goes(self, archive: WalArchive, target: Path) -> None:
        put(archive, 5, 6)
        put_part(archive, 7, 9000)
        fork(archive, 2, 7)
        found = wal_fetch.find(archive, name(5), target)
        assert isinstance(found, StoredWal)
        assert found.content == segment_content(5)
        found = wal_fetch.find(archive, name(7), target)
        assert isinstance(found, StoredWal)
        assert (found.end, found.whole) == (9000, False)
        assert wal_fetch.find(archive, "00000002.history", target) == archive.read_history(2)
        wal_fetch.write(found, target)
        assert target.read_bytes() == segment_content(7)[:9000] + bytes(SIZE - 9000)
        assert list(target.parent.iterdir()) == [target]

    def test_the_end_of_what_is_archived_is_the_end(self, archive: WalArchive, target: Path) -> None:
        put(archive, 5, 6)
        for asked in (name(7), "00000002.history", name(7, 2), "00000001000000000000002A.00000028.backup"):
            assert wal_fetch.find(archive, asked, target) is None

    def test_the_cluster_is_the_one_whose_directory_it_is(
        self, repository: Repository, archive: WalArchive, data: Path, tmp_path: Path
    ) -> None:
        put(archive, 5)
        assert wal_fetch.archive_for(repository, None, data).system_identifier == SYSTEM
        assert wal_fetch.archive_for(repository, "17", data).system_identifier == "17"
        elsewhere = tmp_path / "elsewhere"
        assert wal_fetch.archive_for(repository, None, elsewhere).system_identifier == SYSTEM
        put(WalArchive(repository, "17"), 5)
        with pytest.raises(UsageError, match=f"which cluster\\? WAL is archived of 17, {SYSTEM}") as raised:
            wal_fetch.archive_for(repository, None, elsewhere)
        assert "--system-identifier" in raised.value.hint


class TestGaps:
    """To a server that recovers without a target, a file that is not there is the end: it opens for writing."""

    def test_a_missing_segment(self, archive: WalArchive, target: Path) -> None:
        put(archive, 5, 8)
        for asked in (6, 7):
            with pytest.raises(RestoreError, match=f"{name(asked)} is missing .*{name(8)} and what follows is") as told:
                wal_fetch.find(archive, name(asked), target)
            assert "recovery-points" in told.value.hint

    def test_a_missing_end_of_a_segment(self, archive: WalArchive, target: Path, data: Path) -> None:
        put_part(archive, 5, 9000)
        put(archive, 7)
        with pytest.raises(RestoreError, match=f"the end of {name(5)} is missing .*{name(7)} and what follows is"):
            wal_fetch.find(archive, name(5), target)
        # With a target the server itself fails where it is not reached: what lies before the gap can be had.
        (data / "postgresql.auto.conf").write_text("recovery_target_lsn = '0/500100'\n")
        found = wal_fetch.find(archive, name(5), target)
        assert isinstance(found, StoredWal)
        assert found.end == 9000

    def test_before_a_timeline_was_left(self, archive: WalArchive, target: Path) -> None:
        put(archive, 5)
        fork(archive, 2, 8)
        put(archive, 8, timeline=2)
        with pytest.raises(RestoreError, match=f"{name(6)} is missing .*{name(8, 2)} and what follows is"):
            wal_fetch.find(archive, name(6), target)
        # Behind the fork the first timeline has an end of its own.
        for number in (8, 9):
            assert wal_fetch.find(archive, name(number), target) is None

    def test_a_fork_of_which_nothing_is_stored_is_none(self, archive: WalArchive, target: Path) -> None:
        put(archive, 5)
        fork(archive, 2, 8)
        assert wal_fetch.find(archive, name(6), target) is None

    def test_what_the_server_has_itself_is_no_gap(self, archive: WalArchive, target: Path) -> None:
        put(archive, 5, 8)
        (target.parent / name(6)).write_bytes(segment_content(6))
        assert wal_fetch.find(archive, name(6), target) is None
        # A file that was used for another segment before is not it.
        (target.parent / name(7)).write_bytes(segment_content(3))
        with pytest.raises(RestoreError):
            wal_fetch.find(archive, name(7), target)

    def test_a_standby_waits_for_it(self, archive: WalArchive, target: Path, data: Path) -> None:
        put(archive, 5, 8)
        put_part(archive, 6, 9000)
        (data / "standby.signal").touch()
        assert wal_fetch.find(archive, name(7), target) is None
        found = wal_fetch.find(archive, name(6), target)
        assert isinstance(found, StoredWal)

    def test_damage_is_no_end(self, archive: WalArchive, storage: MemoryStorage, target: Path) -> None:
        put(archive, 5)
        key = next(key for key in storage.objects if key.endswith(name(5).lower()))
        storage.objects[key] = storage.objects[key][:-1]
        with pytest.raises(Damaged):
            wal_fetch.find(archive, name(5), target)
