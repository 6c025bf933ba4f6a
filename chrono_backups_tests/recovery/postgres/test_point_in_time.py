"""Any second back, as an operator asks for it: what is reached, and what is refused before a byte is written."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from chrono_backups.clock import to_text
from chrono_backups.identifiers import lsn_number, lsn_text
from chrono_backups.repository.wal_names import Segment
from chrono_backups_tests.backup.receiving import SEGMENT, slot_position, wait, write_wal
from chrono_backups_tests.cli.conftest import Ran
from chrono_backups_tests.recovery.postgres.operated import Operated, by_hand, let_server_run_us, operated, wait_gone
from chrono_backups_tests.servers.postgres import SUPERUSER, postgres_home


@dataclass(frozen=True)
class History:
    """What happened to a cluster of which all is archived."""

    site: Operated
    full: str
    before: datetime
    before_lsn: str
    """A thousand rows are committed; the table is dropped later."""
    after: datetime
    end: str
    at_end: datetime


@pytest.fixture(scope="module")
def history() -> Iterator[History]:
    with operated(settings={"autovacuum": "off"}) as site:
        server = site.server
        server.execute("CREATE TABLE precious AS SELECT generate_series(1, 10) AS n")
        with site.receiving() as receiving:
            wait(lambda: slot_position(server) is not None)
            full = site.json("backup", "--type", "full")["id"]
            server.execute("INSERT INTO precious SELECT generate_series(11, 1000)")
            lsn = server.value("SELECT pg_current_wal_insert_lsn()::text")
            before = server.value("SELECT clock_timestamp()")
            server.execute("SELECT pg_create_restore_point('before the mistake')")
            write_wal(server, 2.3)
            server.execute("DROP TABLE precious")
            after = server.value("SELECT clock_timestamp()")
            write_wal(server, 5.3)
            at_end = server.value("SELECT clock_timestamp()")
            end = write_wal(server, 0.01)
            receiving.wait_stored(end)
        server.stop()  # nothing of what follows needs it
        site.share()
        yield History(site, full, before, lsn, after, end, at_end)


@pytest.fixture
def home() -> Iterator[Path]:
    with postgres_home() as found:
        yield found


@pytest.fixture
def copied(history: History, home: Path) -> Operated:
    """The same with a repository of its own, to be damaged."""
    site = replace(history.site, home=home)
    shutil.copytree(history.site.place, site.place)
    site.write_settings()
    return site


def segments(site: Operated) -> list[Path]:
    return sorted(path for path in (site.place / "wal").rglob("*") if path.is_file())


def segment_after(history: History, position: str, more: int = 1) -> str:
    return Segment.at(1, lsn_number(position) + more * SEGMENT, SEGMENT).name(SEGMENT).lower()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


def restored_rows(socket: str) -> int:
    with psycopg.connect(host=socket, port=5432, user=SUPERUSER, dbname="postgres") as connection:
        row = connection.execute("SELECT count(*) FROM precious").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("by", ["time", "lsn", "name"])
def test_back_to_before_the_mistake(history: History, home: Path, by: str) -> None:
    words = {
        "time": ("--target-time", history.before.isoformat()),
        "lsn": ("--target-lsn", history.before_lsn),
        "name": ("--target-name", "before the mistake"),
    }[by]
    done = history.site.json("restore", "latest", "--source", "postgres", *words, "--to", home / "out", "--start")
    started = done["started"]
    try:
        assert restored_rows(started["socket_directory"]) == 1000
        assert started["state"] == "running"
        assert started["timeline"] == 2
        assert lsn_number(started["lsn"]) >= lsn_number(history.before_lsn)
        assert not (home / "out" / "postgres-wal").exists()
    finally:
        os.kill(started["pid"], signal.SIGINT)
    wait_gone(started["pid"])


def test_a_paused_server_can_be_looked_into_and_let_go(history: History, home: Path) -> None:
    ran = history.site.run(
        "restore", "latest", "--source", "postgres", "--target-lsn", history.before_lsn, "--target-action", "pause",
        "--to", home / "out", "--start",
    )  # fmt: skip
    assert "paused" in ran.text
    pid = int(ran.text.split("pid ")[1].split()[0])
    try:
        socket = ran.text.split("psql -h ")[1].split()[0]
        assert restored_rows(socket) == 1000
    finally:
        os.kill(pid, signal.SIGINT)
    wait_gone(pid)


def test_without_start_the_server_fetches_for_itself_up_to_the_end(history: History, home: Path) -> None:
    ran = history.site.run("restore", "latest", "--source", "postgres", "--target-time", "latest", "--to", home / "out")
    assert "Start PostgreSQL 18" in ran.err
    data = home / "out" / "postgres"
    let_server_run_us(data)
    with by_hand(data, home / "server") as server:
        assert server.value("SELECT to_regclass('precious')") is None
        log = server.log.read_text()
    taken = log.count("restored log file")
    assert taken >= 7
    fork = (data / "pg_wal" / "00000002.history").read_text().split()[1]
    assert lsn_number(fork) >= lsn_number(history.end)


def test_the_recoverable_range_is_told(history: History) -> None:
    found = history.site.json("recovery-points")
    (only,) = found["ranges"]
    assert found["gaps"] == []
    assert only["backups"] == [history.full]
    assert lsn_number(only["end_lsn"]) >= lsn_number(history.end)
    assert datetime.fromisoformat(only["start_time"]) < history.before < datetime.fromisoformat(only["end_time"])
    text = history.site.run("recovery-points").text
    assert only["end_lsn"] in text


class TestRefused:
    """Exit code 5, the range named, and no directory made."""

    def refused(self, site: Operated, home: Path, *words: str, code: int = 5) -> Ran:
        ran = site.run("restore", "latest", "--source", "postgres", *words, "--to", home / "out", code=code)
        assert not (home / "out").exists()
        assert "hint: " in ran.err
        return ran

    def test_a_time_in_the_future(self, history: History, home: Path) -> None:
        late = to_text(history.at_end + timedelta(hours=1))
        ran = self.refused(history.site, home, "--target-time", late, "--start")
        assert "can't be reached: what can is from" in ran.err
        assert "recovery-points" in ran.err

    def test_a_position_behind_the_end(self, history: History, home: Path) -> None:
        beyond = lsn_text(lsn_number(history.end) + SEGMENT)
        ran = self.refused(history.site, home, "--target-lsn", beyond)
        assert "can't be reached: what can is from" in ran.err

    def test_a_time_before_the_oldest_backup(self, history: History, home: Path) -> None:
        ran = self.refused(history.site, home, "--target-time", "2020-01-01")
        assert f"the oldest backup, {history.full}, ends at" in ran.err

    def test_a_timeline_that_is_none(self, history: History, home: Path) -> None:
        ran = self.refused(history.site, home, "--target-time", "latest", "--target-timeline", "7")
        assert "timeline 7 does not lead on" in ran.err

    def test_a_directory_that_is_not_empty(self, history: History, home: Path) -> None:
        (home / "out" / "postgres").mkdir(parents=True)
        (home / "out" / "postgres" / "PG_VERSION").write_text("18")
        ran = history.site.run(
            "restore", "latest", "--source", "postgres", "--target-time", "latest", "--to", home / "out", code=5
        )
        assert "not empty" in ran.err
        assert [path.name for path in (home / "out").rglob("*")] == ["postgres", "PG_VERSION"]

    def test_what_lies_behind_a_gap(self, history: History, copied: Operated, home: Path) -> None:
        missing = segment_after(history, history.before_lsn, 3)
        next(path for path in segments(copied) if path.name == missing).unlink()
        for words in (("--target-time", "latest"), ("--target-time", to_text(history.at_end)),
                      ("--target-lsn", history.end)):  # fmt: skip
            ran = self.refused(copied, home, *words)
            assert "where WAL is missing" in ran.err
        found = copied.json("recovery-points")
        (gap,) = found["gaps"]
        assert gap["first_segment"].lower() == missing
        (only,) = found["ranges"]
        assert gap["start_lsn"] == only["end_lsn"]
        # What lies before it is there.
        done = copied.json(
            "restore", "latest", "--source", "postgres", "--target-name", "before the mistake", "--to", home / "fine",
            "--start",
        )  # fmt: skip
        os.kill(done["started"]["pid"], signal.SIGINT)
        wait_gone(done["started"]["pid"])

    def test_damaged_wal(self, history: History, copied: Operated, home: Path) -> None:
        damaged = segment_after(history, history.before_lsn, 2)
        flip(next(path for path in segments(copied) if path.name == damaged))
        words = ("restore", "latest", "--source", "postgres", "--target-time", "latest")
        ran = copied.run(*words, "--to", home / "a", "--start", code=3)
        assert damaged in ran.err
        assert not (home / "a" / "postgres-server.log").exists()
        ran = copied.run(*words, "--to", home / "b", code=3)
        assert damaged in ran.err


def test_wal_fetch_says_by_its_exit_code_what_the_server_has_to_know(
    history: History, copied: Operated, home: Path
) -> None:
    first, second = (segment_after(history, history.before_lsn, more) for more in (1, 2))
    beyond = segment_after(history, history.end, 9)
    target = home / "fetched"
    site = copied
    site.run("wal-fetch", first.upper(), target)
    assert target.stat().st_size == SEGMENT
    target.unlink()
    assert "is not archived" in site.run("wal-fetch", beyond, target, code=1).err
    site.run("wal-fetch", "--not-archived", "10", "00000002.history", target, code=10)
    path = next(path for path in segments(site) if path.name == first)
    content = path.read_bytes()
    path.unlink()
    assert "is missing from the archive" in site.run("wal-fetch", first, target, code=126).err
    path.write_bytes(content[:-1])
    assert first in site.run("wal-fetch", first, target, code=126).err
    site.write_settings(BACKUP_LOCAL_PATH=str(home / "nowhere"))
    site.run("wal-fetch", second, target, code=126)
    site.write_settings(BACKUP_WAL_MAX_LAG_SECONDS="soon")
    site.run("wal-fetch", second, target, code=126)
    assert not target.exists()
