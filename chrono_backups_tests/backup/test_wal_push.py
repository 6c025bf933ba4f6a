"""``archive_command``: what a server hands over is stored once, and nothing else is taken for it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from chrono_backups.backup.wal_push import push
from chrono_backups.clock import SystemClock
from chrono_backups.errors import RepositoryError, SourceError, UsageError
from chrono_backups.identifiers import lsn_number
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.wal_archive import WalArchive
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.backup.receiving import (
    SMALL_SEGMENTS,
    Receiving,
    Valve,
    assert_archived,
    empty_repository,
    slot_position,
    wait,
    write_wal,
)
from chrono_backups_tests.backup.taking import new_repository, opened
from chrono_backups_tests.repository.test_wal_archive import SIZE, SYSTEM, segment_content
from chrono_backups_tests.servers.postgres import PostgresServer, postgres_home, postgres_server
from chrono_backups_tests.servers.postgres_settings import needed

NAME = "00000001000000000000002A"


@pytest.fixture
def repository() -> Repository:
    storage = MemoryStorage()
    new_repository(storage).close()
    return opened(storage)


def file(folder: Path, name: str = NAME, content: bytes | None = None) -> Path:
    path = folder / name
    path.write_bytes(segment_content() if content is None else content)
    return path


def test_the_same_file_twice_is_stored_once(repository: Repository, tmp_path: Path) -> None:
    path = file(tmp_path)
    pushed = push(repository, path, SYSTEM)
    assert (pushed.outcome, pushed.system_identifier) == ("stored", SYSTEM)
    assert push(repository, path, None).outcome == "present"
    stored = WalArchive(repository, SYSTEM).read_segment(NAME)
    assert stored.content == path.read_bytes()
    assert stored.moment is not None
    assert abs(stored.moment.timestamp() - path.stat().st_mtime) < 0.001


def test_another_file_of_the_name_is_refused_and_the_first_kept(repository: Repository, tmp_path: Path) -> None:
    push(repository, file(tmp_path), None)
    other = segment_content()[:-1] + b"!"
    with pytest.raises(RepositoryError, match="holds another"):
        push(repository, file(tmp_path, content=other), None)
    assert WalArchive(repository, SYSTEM).read_segment(NAME).content == segment_content()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no WAL segment: it is too short"),
        (bytes(SIZE), "does not begin as a WAL segment does"),
        (segment_content(number=17), "position is"),
        (segment_content()[:-1], "bytes is"),
        (segment_content(system="17"), "system identifier is 17"),
        (segment_content(timeline=2), "of timeline 2, not 1"),
    ],
    ids=["empty", "zeros", "misnamed", "cut", "foreign", "later"],
)
def test_what_is_not_what_its_name_says_is_not_stored(
    repository: Repository, tmp_path: Path, content: bytes, words: str
) -> None:
    with pytest.raises(SourceError, match=words):
        push(repository, file(tmp_path, content=content), SYSTEM)
    assert WalArchive.systems(repository) == {}


def test_other_files(repository: Repository, tmp_path: Path) -> None:
    label = file(tmp_path, f"{NAME}.00000028.backup", b"START WAL LOCATION")
    assert push(repository, label, None).outcome == "not needed"
    history = file(tmp_path, "00000002.history", b"1\t0/2A00100\tx\n")
    with pytest.raises(UsageError, match="does not tell which cluster"):
        push(repository, history, None)
    assert push(repository, history, SYSTEM).outcome == "stored"
    assert push(repository, history, SYSTEM).outcome == "present"
    with pytest.raises(SourceError, match="is no timeline's history"):
        push(repository, file(tmp_path, "00000003.history", b"what?"), SYSTEM)
    with pytest.raises(UsageError, match=r"postgresql\.conf is no file of a server's log"):
        push(repository, file(tmp_path, "postgresql.conf"), SYSTEM)
    with pytest.raises(SourceError, match="can't be read"):
        push(repository, tmp_path / "00000001000000000000002B", SYSTEM)
    partial = file(tmp_path, f"{NAME}.partial", segment_content(filled=9000))
    assert push(repository, partial, SYSTEM).outcome == "stored"
    assert WalArchive(repository, SYSTEM).read_segment(NAME).end <= 9000


def push_all(storage: Valve, server: PostgresServer) -> list[str]:
    """What a server has ready to be archived, as its archiver would; the outcomes."""
    outcomes: list[str] = []
    folder = server.data / "pg_wal"
    for ready in sorted((folder / "archive_status").glob("*.ready")):
        with opened(storage, SystemClock()) as repository:
            system = str(server.value("SELECT system_identifier FROM pg_control_system()"))
            outcomes.append(push(repository, folder / ready.stem, system).outcome)
    return outcomes


def test_real_servers_files_agree_with_what_is_received() -> None:
    """Also across a promotion: the beginning of the segment in which the timeline was left comes as ``.partial``."""
    needed(18)
    storage = Valve()
    empty_repository(storage)
    # The command fails, so that everything stays ready.
    keep = {"wal_keep_size": "1GB", "autovacuum": "off", "archive_mode": "on", "archive_command": "false"}
    with postgres_server(18, options=SMALL_SEGMENTS, settings=keep) as primary, postgres_home() as home:
        primary.add_role("backup")
        with Receiving(primary, storage) as receiving:
            wait(lambda: slot_position(primary))
            start = slot_position(primary)
            assert start is not None
            end = write_wal(primary, 2.5)
            receiving.wait_stored(end)
            primary.execute("SELECT pg_switch_wal()")
            end = write_wal(primary, 0.1)
            receiving.wait_stored(end)
        outcomes = push_all(storage, primary)
        assert "present" in outcomes
        standby = PostgresServer(18, home / "b")
        place = ["-h", str(primary.sockets), "-p", str(primary.port), "-U", "postgres"]
        primary.run("pg_basebackup", *place, "-D", standby.data, "-X", "stream", "-R", "-c", "fast")
        standby.start()
        try:
            last = write_wal(primary, 0.4)
            wait(lambda: standby.value(f"SELECT pg_last_wal_replay_lsn() >= '{last}'"))
            push_all(storage, primary)
            standby.promote()
            write_wal(standby, 0.1)
            standby.execute("SELECT pg_switch_wal()")
            after = write_wal(standby, 0.1)
            names = [one.stem for one in (standby.data / "pg_wal" / "archive_status").glob("*.ready")]
            assert any(name.endswith(".partial") for name in names)
            assert "00000002.history" in names
            push_all(storage, standby)
            with Receiving(standby, storage) as receiving:
                receiving.wait_stored(after)
            assert_archived(storage, standby, lsn_number(last), after, timeline=2)
            assert_archived(storage, primary, start, last)
        finally:
            standby.stop(signal.SIGQUIT)
