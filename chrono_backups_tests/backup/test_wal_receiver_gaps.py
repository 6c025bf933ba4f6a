"""The receiver where WAL is gone, the network is, or the server is another one than before."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from chrono_backups.backup import wal_receiver, wal_storing
from chrono_backups.clock import SystemClock
from chrono_backups.errors import SlotLost, SourceError
from chrono_backups.identifiers import lsn_number
from chrono_backups.repository.wal_archive import WalArchive
from chrono_backups.sources.postgres import wal
from chrono_backups_tests.backup.receiving import (
    SEGMENT,
    SMALL_SEGMENTS,
    Receiving,
    Valve,
    assert_archived,
    empty_repository,
    slot_is_free,
    slot_position,
    wait,
    write_wal,
)
from chrono_backups_tests.backup.taking import opened
from chrono_backups_tests.servers.black_hole import BlackHole
from chrono_backups_tests.servers.postgres import PostgresServer, postgres_home, postgres_server
from chrono_backups_tests.servers.postgres_settings import needed, reach
from chrono_backups_tests.undisturbed import once_undisturbed


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


def lose_slot(server: PostgresServer) -> None:
    """Have the server give up the slot, and remove the WAL that was kept for it."""
    wait(lambda: slot_is_free(server))
    server.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    server.reload()

    def lost() -> bool:
        write_wal(server, 3)
        server.execute("CHECKPOINT")
        return bool(server.value("SELECT wal_status FROM pg_replication_slots") == "lost")

    wait(lost)
    # From now on all of the log stays, so that the archive can be compared with it.
    server.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '-1'")
    server.execute("ALTER SYSTEM SET wal_keep_size = '1GB'")
    server.restart()  # a reload is not through in every process when it returns, and a checkpoint may be under way


def confirmations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The positions that servers are told to be stored, from now on."""
    told: list[int] = []
    reply = wal.reply

    def telling(written: int, stored: int, now: datetime, *, asked: bool = False) -> bytes:
        told.append(stored)
        return reply(written, stored, now, asked=asked)

    monkeypatch.setattr(wal, "reply", telling)
    return told


@pytest.mark.parametrize("version", [18, pytest.param(16, marks=pytest.mark.soak), 15])
def test_a_slot_that_the_server_gave_up_is_said_and_made_anew_when_asked(
    version: int, storage: Valve, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed(version)
    confirmed = confirmations(monkeypatch)
    small = {"min_wal_size": "2MB", "max_wal_size": "2MB", "autovacuum": "off"}
    with postgres_server(version, options=SMALL_SEGMENTS, settings=small) as server:
        server.add_role("backup")
        with Receiving(server, storage) as receiving:
            wait(lambda: slot_position(server))
            receiving.wait_stored(write_wal(server, 0.5))
        lose_slot(server)
        with Receiving(server, storage) as receiving:
            error = receiving.wait_ended()
        assert isinstance(error, SlotLost)
        assert "chrono_backups is lost" in error.message
        assert "--recreate-slot" in error.hint
        assert "base backup" in error.hint
        confirmed.clear()
        with Receiving(server, storage, recreate_slot=True) as receiving:
            receiving.wait_for("wal-slot-created")
            wait(lambda: slot_position(server))
            start = slot_position(server)
            assert start is not None
            end = write_wal(server, 1.5)
            receiving.wait_stored(end)
        gap = next(one for one in receiving.heard.findings if one.code == "wal-gap")
        assert "WAL is missing from 0000000100000000" in gap.message
        assert "base backup" in gap.hint
        assert_archived(storage, server, start // SEGMENT * SEGMENT, end)
        assert min(filter(None, confirmed)) >= start // SEGMENT * SEGMENT, (
            "the new slot is not led back to what is gone"
        )
        # Started anew it goes on, and does not ask again for what is gone for good.
        with Receiving(server, storage, until_idle=True) as receiving:
            wait(lambda: not receiving.running)
        assert "wal-slot-created" not in receiving.heard.codes


@pytest.fixture
def pair() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A server and its standby, both with all of their log."""
    needed(18)
    keep = {"wal_keep_size": "1GB", "autovacuum": "off"}
    with postgres_server(18, options=SMALL_SEGMENTS, settings=keep) as primary, postgres_home() as home:
        primary.add_role("backup")
        standby = PostgresServer(18, home / "b")
        place = ["-h", str(primary.sockets), "-p", str(primary.port), "-U", "postgres"]
        primary.run("pg_basebackup", *place, "-D", standby.data, "-X", "stream", "-R", "-c", "fast")
        standby.start()
        try:
            yield primary, standby
        finally:
            standby.stop(signal.SIGQUIT)


def replayed(standby: PostgresServer, lsn: str) -> bool:
    return bool(standby.value(f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'"))


def test_it_follows_a_standby_through_its_promotion(
    pair: tuple[PostgresServer, PostgresServer], storage: Valve
) -> None:
    primary, standby = pair
    with Receiving(standby, storage) as receiving:
        wait(lambda: slot_position(standby))
        start = slot_position(standby)
        assert start is not None
        end = write_wal(primary, 1.7)
        receiving.wait_stored(end)
        standby.promote()
        receiving.wait_for("wal-timeline")
        after = write_wal(standby, 1.7)
        receiving.wait_stored(after)
    assert "wal-disconnected" not in receiving.heard.codes
    start = start // SEGMENT * SEGMENT
    assert_archived(storage, primary, start, end)
    assert_archived(storage, standby, start, after, timeline=2)


def test_it_goes_over_to_the_server_that_was_promoted_while_it_was_away(
    pair: tuple[PostgresServer, PostgresServer], storage: Valve
) -> None:
    primary, standby = pair
    with Receiving(primary, storage) as receiving:
        wait(lambda: slot_position(primary))
        start = slot_position(primary)
        assert start is not None
        receiving.wait_stored(write_wal(primary, 1.5))
    # More than the archive has yet is on both when the old one is lost.
    end = write_wal(primary, 1.5)
    wait(lambda: replayed(standby, end))
    primary.crash()
    standby.promote()
    after = write_wal(standby, 1.5)
    with Receiving(standby, storage) as receiving:
        receiving.wait_stored(after)
    assert "wal-gap" not in receiving.heard.codes
    assert_archived(storage, standby, start // SEGMENT * SEGMENT, after, timeline=2)
    # The old one, should it come back, is another branch: its WAL does no harm to the new one's.
    primary.start()
    late = write_wal(primary, 1.5)
    with Receiving(primary, storage) as receiving:
        receiving.wait_stored(late)
    assert_archived(storage, primary, start // SEGMENT * SEGMENT, late)
    assert_archived(storage, standby, start // SEGMENT * SEGMENT, after, timeline=2)


@pytest.mark.soak
def test_a_standby_behind_the_archive_is_waited_for(
    pair: tuple[PostgresServer, PostgresServer], storage: Valve
) -> None:
    primary, standby = pair
    with Receiving(primary, storage) as receiving:
        wait(lambda: slot_position(primary))
        start = slot_position(primary)
        assert start is not None
        standby.stop()
        receiving.wait_stored(write_wal(primary, 0.8))
        # The standby comes back without its primary, and so without what the archive has.
        conninfo = standby.data / "postgresql.auto.conf"
        text = conninfo.read_text()
        conninfo.write_text(text + "\nprimary_conninfo = ''\n")
        standby.start()
        with Receiving(standby, storage) as second:
            second.wait_for("wal-disconnected")
            assert "it is waited for" in second.heard.findings[-1].hint
            conninfo.write_text(text)
            standby.execute("SELECT pg_reload_conf()")
            end = write_wal(primary, 0.8)
            second.wait_stored(end)
    assert_archived(storage, primary, start // SEGMENT * SEGMENT, end)


def test_a_network_that_swallows_everything_is_noticed(storage: Valve, monkeypatch: pytest.MonkeyPatch) -> None:
    needed(18)
    monkeypatch.setattr(wal_receiver, "_SILENCE", 2.0)
    keep = {"wal_keep_size": "1GB", "autovacuum": "off", "wal_sender_timeout": "3s"}
    with postgres_server(18, options=SMALL_SEGMENTS, settings=keep) as server, BlackHole(server.port) as network:
        server.add_role("backup")
        with Receiving(reach(server, port=network.port), storage) as receiving:
            wait(lambda: slot_position(server))
            start = slot_position(server)
            assert start is not None
            receiving.wait_stored(write_wal(server, 0.5))

            def nothing_comes_and_that_is_no_silence() -> None:
                receiving.heard.findings.clear()
                until = time.monotonic() + 2 * wal_receiver._SILENCE
                while time.monotonic() < until:
                    assert receiving.heard.codes == []
                    time.sleep(0.02)

            once_undisturbed(nothing_comes_and_that_is_no_silence)
            network.swallow()
            receiving.wait_for("wal-disconnected")
            end = write_wal(server, 0.5)
            network.pass_on()
            receiving.wait_for("wal-connected")
            receiving.wait_stored(end)
        assert_archived(storage, server, start, end)


@pytest.mark.soak
def test_another_cluster_in_the_server_s_place_is_refused(storage: Valve) -> None:
    needed(18)
    with (
        postgres_server(18, options=SMALL_SEGMENTS) as server,
        postgres_server(18, options=SMALL_SEGMENTS) as other,
        BlackHole(server.port) as network,
    ):
        for one in (server, other):
            one.add_role("backup")
        with Receiving(reach(server, port=network.port), storage) as receiving:
            receiving.wait_stored(write_wal(server, 0.5))
            network.lead_to(other.port)
            error = receiving.wait_ended()
        assert isinstance(error, SourceError)
        assert "the server is another cluster now" in error.message
        with opened(storage, SystemClock()) as repository:
            assert len(WalArchive.systems(repository)) == 1


@pytest.mark.soak
def test_segments_of_any_size(storage: Valve, tmp_path: Path) -> None:
    needed(18)
    with postgres_server(18, options=("--wal-segsize=64",), settings={"max_wal_size": "256MB"}) as server:
        server.add_role("backup")
        with Receiving(server, storage) as receiving:
            end = write_wal(server, 1)
            receiving.wait_stored(end)
        with opened(storage, SystemClock()) as repository:
            (system,) = WalArchive.systems(repository)
            archive = WalArchive(repository, system)
            contents = archive.contents()
            assert contents.newest is not None
            stored = archive.read_segment(contents.newest)
            assert archive.segment_size(contents) == len(stored.content) == 64 << 20
            assert lsn_number(end) <= stored.end + lsn_number(end) // (64 << 20) * (64 << 20)
