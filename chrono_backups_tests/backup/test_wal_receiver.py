"""The receiver against real servers: what it confirms is stored, whatever fails."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from chrono_backups.backup import wal_receiver, wal_storing
from chrono_backups.clock import SystemClock
from chrono_backups.errors import SlotBusy, SourceError, StorageError, StorageFull, StorageUnavailable
from chrono_backups.identifiers import lsn_number
from chrono_backups.repository.wal_archive import MOMENT_SIZE, WalArchive
from chrono_backups.repository.wal_names import Segment
from chrono_backups.storage.faulty import FailFrom, FaultyStorage
from chrono_backups_tests.backup.receiving import (
    SEGMENT,
    SMALL_SEGMENTS,
    Receiving,
    Valve,
    archived_end,
    assert_archived,
    drop_slot,
    empty_repository,
    loaded,
    slot_is_free,
    slot_position,
    wait,
    write_wal,
)
from chrono_backups_tests.backup.taking import opened
from chrono_backups_tests.servers.postgres import PostgresServer, postgres_server
from chrono_backups_tests.servers.postgres_settings import needed, reach


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresServer]:
    needed(18)
    # All of the log stays, so that the archive can be compared with it.
    with postgres_server(18, options=SMALL_SEGMENTS, settings={"wal_keep_size": "2GB", "autovacuum": "off"}) as server:
        server.add_role("backup", grants=["pg_read_all_settings"])
        write_wal(server)
        yield server


@pytest.fixture
def server(cluster: PostgresServer) -> Iterator[PostgresServer]:
    yield cluster
    drop_slot(cluster)


@pytest.fixture
def storage() -> Valve:
    found = Valve()
    empty_repository(found)
    return found


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries again soon."""
    monkeypatch.setattr(wal_storing, "_LONGEST_WAIT", 0.5)
    monkeypatch.setattr(wal_receiver, "_LONGEST_WAIT", 0.5)


def started(server: PostgresServer) -> int:
    """Where the slot, once it is there, keeps WAL from."""
    wait(lambda: slot_position(server) is not None)
    found = slot_position(server)
    assert found is not None
    return found


def test_what_the_server_writes_is_archived(server: PostgresServer, storage: Valve) -> None:
    with Receiving(server, storage) as receiving:
        start = started(server)
        end = write_wal(server, 3.5)
        receiving.wait_stored(end)
        assert_archived(storage, server, start, end)
        # The newest bytes are there within seconds, though their segment is not full.
        end = write_wal(server, 0.01)
        receiving.wait_stored(end)
        assert_archived(storage, server, start, end)
        wait(lambda: (slot_position(server) or 0) >= lsn_number(end))
        status = receiving.end()
    assert receiving.heard.codes == ["wal-slot-created"]
    assert status.counts.segments >= 3
    assert status.counts.pieces >= 1
    wait(lambda: slot_is_free(server))
    # Whole segments have made their pieces needless.
    with opened(storage, SystemClock()) as repository:
        (contents,) = WalArchive.systems(repository).values()
    assert set(contents.pieces) <= {max((*contents.segments, *contents.pieces))}


def test_it_goes_on_where_it_was_and_fetches_what_there_is(server: PostgresServer, storage: Valve) -> None:
    with Receiving(server, storage, until_idle=True) as receiving:
        start = started(server)
        wait(lambda: not receiving.running)
    end = write_wal(server, 2.2)
    with Receiving(server, storage, until_idle=True) as receiving:
        wait(lambda: not receiving.running)
    assert receiving.heard.codes == []
    assert_archived(storage, server, start, end)


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_killed_at_any_call_of_the_storage_nothing_confirmed_is_lost(
    server: PostgresServer, storage: Valve, late: bool
) -> None:
    start = None
    for call in range(200):
        faulty = FaultyStorage(storage, FailFrom(call, error=Killed, after_effect=late))
        with Receiving(server, faulty, lag=0.05) as receiving:
            end = write_wal(server, 1.2)
            receiving.wait_stored(end, killed=Killed)
            assert isinstance(receiving.wait_ended(ask=True), Killed | None)
        confirmed = slot_position(server)
        if confirmed is not None:
            start = start or confirmed
            with opened(storage, SystemClock()) as repository:
                assert archived_end(repository, server, start // SEGMENT * SEGMENT) >= confirmed or confirmed == start
        if faulty.unreached:
            break
    else:
        pytest.fail("there was always another call")
    assert call > 5
    assert start is not None
    assert_archived(storage, server, start // SEGMENT * SEGMENT, end)


@pytest.mark.parametrize(
    ("refusal", "seconds"),
    [
        (StorageFull("no room"), 1.0),
        pytest.param(StorageUnavailable("no answer"), 60.0, marks=pytest.mark.soak),
    ],
    ids=["full", "a minute away"],
)
def test_a_storage_that_fails_under_load_loses_nothing(
    server: PostgresServer, storage: Valve, refusal: StorageError, seconds: float
) -> None:
    with Receiving(server, storage) as receiving:
        start = started(server)
        receiving.wait_stored(write_wal(server, 1.2))
        walsender = server.value("SELECT active_pid FROM pg_replication_slots")
        storage.refusing = refusal
        with loaded(server):
            receiving.wait_for("wal-not-stored")
            confirmed = slot_position(server)
            wait(lambda: storage.refused > 5)
            time.sleep(seconds)
            wait(lambda: receiving.status is not None and receiving.status.lag_seconds > 1)
        # Nothing was confirmed meanwhile, and the server did not lose patience.
        assert slot_position(server) == confirmed
        assert server.value("SELECT active_pid FROM pg_replication_slots") == walsender
        storage.refusing = None
        end = write_wal(server, 0.1)
        receiving.wait_stored(end)
        receiving.wait_for("wal-stored-again")
    assert receiving.heard.codes.count("wal-not-stored") == 1
    assert "watch its disk" in next(one.hint for one in receiving.heard.findings if one.code == "wal-not-stored")
    assert_archived(storage, server, start, end)


def test_a_connection_lost_while_the_storage_fails_confirms_nothing(server: PostgresServer, storage: Valve) -> None:
    with Receiving(server, storage) as receiving:
        start = started(server)
        receiving.wait_stored(write_wal(server, 1.2))
        storage.refusing = StorageUnavailable("no answer")
        write_wal(server, 2.5)  # whole segments wait in memory
        receiving.wait_for("wal-not-stored")
        confirmed = slot_position(server)
        for _ in range(2):
            walsender = server.value("SELECT active_pid FROM pg_replication_slots")
            server.execute(f"SELECT pg_terminate_backend({walsender})")
            another = f"SELECT count(*) FROM pg_replication_slots WHERE active_pid <> {walsender}"
            wait(lambda: server.value(another))  # noqa: B023 - it is called at once
            write_wal(server, 0.2)
            time.sleep(0.5)
            assert slot_position(server) == confirmed
        storage.refusing = None
        end = write_wal(server, 0.1)
        receiving.wait_stored(end)
    assert_archived(storage, server, start, end)


def test_a_server_that_restarts_is_received_from_again(server: PostgresServer, storage: Valve) -> None:
    with Receiving(server, storage) as receiving:
        start = started(server)
        receiving.wait_stored(write_wal(server, 0.5))
        for stop in (server.stop, server.crash):
            stop()
            wait(lambda: "wal-disconnected" in receiving.heard.codes)
            server.start()
            end = write_wal(server, 0.5)
            receiving.wait_stored(end)
            receiving.heard.findings.clear()
    assert_archived(storage, server, start, end)


def test_a_server_can_shut_down_though_its_wal_is_not_stored(
    server: PostgresServer, storage: Valve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal_receiver, "_LET_GO", 1.0)
    with Receiving(server, storage) as receiving:
        start = started(server)
        receiving.wait_stored(write_wal(server, 0.5))
        storage.refusing = StorageUnavailable("no answer")
        write_wal(server, 0.5)
        receiving.wait_for("wal-not-stored")
        began = time.monotonic()
        server.stop()
        took = time.monotonic() - began
        storage.refusing = None
        server.start()
        assert took < 100, "it was killed in the end"
        end = write_wal(server, 0.1)
        receiving.wait_stored(end)
    assert_archived(storage, server, start, end)


def test_another_receiver_is_told_that_the_slot_is_in_use(
    server: PostgresServer, storage: Valve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal_receiver, "_BUSY_PATIENCE", 0.5)
    with Receiving(server, storage) as first:
        started(server)
        first.wait_stored(write_wal(server))
        with Receiving(server, storage) as second:
            error = second.wait_ended()
        assert isinstance(error, SlotBusy)
        assert "--slot" in error.hint
        # With a slot of its own it may help: the archive takes the same WAL twice.
        with Receiving(server, storage, slot="another", until_idle=True) as third:
            wait(lambda: not third.running)
        end = write_wal(server, 1.5)
        first.wait_stored(end)
    drop_slot(server, "another")


def test_an_archive_ahead_of_the_server_is_not_written_to(server: PostgresServer, storage: Valve) -> None:
    end = lsn_number(write_wal(server))
    name = Segment.at(1, end + 5 * SEGMENT, SEGMENT).name(SEGMENT)
    system = str(server.value("SELECT system_identifier FROM pg_control_system()"))
    with opened(storage, SystemClock()) as repository:
        WalArchive(repository, system).put_segment(name, bytes(MOMENT_SIZE + SEGMENT))
    before = dict(storage.objects)
    with Receiving(server, storage) as receiving:
        error = receiving.wait_ended()
    assert isinstance(error, SourceError)
    assert "the archive holds WAL up to" in error.message
    assert "new repository" in error.hint
    assert storage.objects == before


def test_bad_settings_end_it_with_a_remedy(server: PostgresServer, storage: Valve) -> None:
    for changes, words, remedy in (
        ({"password": "wrong"}, "password authentication failed", "BACKUP_POSTGRES_PASSWORD"),
        ({"user": "nobody_knows"}, "password authentication failed", "BACKUP_POSTGRES_USER"),
    ):
        with Receiving(reach(server, **changes), storage) as receiving:
            error = receiving.wait_ended()
        assert isinstance(error, SourceError)
        assert words in error.message
        assert remedy in error.hint
    server.add_role("plain", "LOGIN")
    with Receiving(reach(server, user="plain"), storage) as receiving:
        error = receiving.wait_ended()
    assert isinstance(error, SourceError)
    assert 'ALTER ROLE "plain" REPLICATION;' in error.hint
