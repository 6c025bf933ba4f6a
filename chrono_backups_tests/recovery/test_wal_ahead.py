"""Reading ahead for a recovering server: the helper's work, on a thread. Without a server."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chrono_backups.clock import SystemClock
from chrono_backups.recovery import wal_ahead, wal_fetch, wal_question, wal_spool
from chrono_backups.recovery.wal_ahead import Answer, ReadAhead, Spool
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.wal_archive import WalArchive
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.backup.taking import new_repository, opened
from chrono_backups_tests.recovery.test_wal_fetch import name, put, put_part
from chrono_backups_tests.repository.test_wal_archive import SYSTEM, segment_content


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
def target(tmp_path: Path) -> Path:
    (tmp_path / "pg_wal").mkdir()
    return tmp_path / "pg_wal" / "RECOVERYXLOG"


@pytest.fixture
def spool(target: Path) -> Path:
    found = Path(wal_spool.spool_for(str(target)) or "")
    assert found.parent == target.parent / wal_spool.FOLDER
    return found


def until(true: Callable[[], object]) -> None:
    limit = time.monotonic() + 120
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.01)


def removed(folder: Path) -> bool:
    """Try to remove what somebody may be writing to; whether it is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


class Helper:
    """One on a thread, and who asks it."""

    def __init__(self, archive: WalArchive, spool: Path) -> None:
        self.archive = archive
        self.path = spool
        self.system = SYSTEM
        spool.mkdir(parents=True)
        self.lock = os.open(spool / wal_spool.LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.work = ReadAhead(archive, Spool(spool, self.lock), self.answer, SystemClock())
        self.thread = threading.Thread(target=self.work.run, daemon=True)

    def answer(self, asked: str, target: Path) -> Answer:
        return Answer(wal_fetch.find(self.archive, asked, target), self.system)

    def put_question(self, asked: str, target: Path) -> None:
        (self.path / ".new").write_bytes(asked.encode() + b"\0" + os.fsencode(target))
        (self.path / ".new").rename(self.path / f"{wal_question.QUESTION}7")

    def ask(self, asked: str, target: Path) -> str:
        """How it answers."""
        self.put_question(asked, target)
        kinds = (wal_question.FOUND, wal_question.NONE, wal_question.UNSURE)
        until(lambda: any((self.path / f"{kind}7").exists() for kind in kinds))
        kind = next(kind for kind in kinds if (self.path / f"{kind}7").exists())
        (self.path / f"{kind}7").rename(target)
        return kind


def end(monkeypatch: pytest.MonkeyPatch, helper: Helper) -> None:
    """Have it end, as when nobody has asked for long."""
    monkeypatch.setattr(wal_ahead, "_IDLE_SECONDS", 0.0)
    ended(helper)


def ended(helper: Helper) -> None:
    helper.thread.join(120)
    assert not helper.thread.is_alive()


@pytest.fixture
def helper(archive: WalArchive, spool: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Helper]:
    made = Helper(archive, spool)
    made.thread.start()
    yield made
    end(monkeypatch, made)
    os.close(made.lock)


class TestReadAhead:
    def test_what_follows_is_there_before_it_is_asked_for(
        self, archive: WalArchive, target: Path, spool: Path, helper: Helper, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(archive, *range(5, 30))
        put_part(archive, 30, 9000)
        assert helper.ask(name(5), target) == wal_question.FOUND
        assert target.read_bytes() == segment_content(5)
        for number in range(6, 30):
            until((spool / name(number)).exists)
            assert wal_spool.take(name(number), str(target))
            assert target.read_bytes() == segment_content(number)
            # No more than a few are ever there.
            assert sum(len(one) == 24 for one in os.listdir(spool)) <= 16
        # What is not whole yet may still change: it is asked for, and found as it is then.
        assert not wal_spool.take(name(30), str(target))
        assert helper.ask(name(30), target) == wal_question.FOUND
        assert target.read_bytes() == segment_content(30, filled=9000)
        put_part(archive, 30, 12000)
        assert helper.ask(name(30), target) == wal_question.FOUND
        assert target.read_bytes() == segment_content(30, filled=12000)
        assert helper.ask(name(31), target) == wal_question.NONE
        put(archive, 31)
        assert helper.ask(name(31), target) == wal_question.FOUND
        end(monkeypatch, helper)
        assert not spool.parent.exists()

    def test_a_wrong_guess_is_dropped(self, archive: WalArchive, target: Path, spool: Path, helper: Helper) -> None:
        put(archive, *range(5, 12))
        put(archive, *range(8, 12), timeline=2)
        helper.ask(name(5), target)
        until(lambda: (spool / name(11)).exists())
        helper.ask(name(8, 2), target)
        until(lambda: (spool / name(11, 2)).exists())
        until(lambda: not (spool / name(11)).exists())
        assert wal_spool.take(name(9, 2), str(target))
        assert target.read_bytes() == segment_content(9, 2)

    def test_damage_is_left_to_the_one_who_asks(
        self, archive: WalArchive, storage: MemoryStorage, target: Path, spool: Path, helper: Helper
    ) -> None:
        put(archive, *range(5, 9))
        key = next(key for key in storage.objects if key.endswith(name(7).lower()))
        storage.objects[key] = storage.objects[key][:-1]
        helper.ask(name(5), target)
        until(lambda: (spool / name(6)).exists())
        assert wal_spool.take(name(6), str(target))
        assert not wal_spool.take(name(7), str(target))
        assert helper.ask(name(7), target) == wal_question.UNSURE
        del storage.objects[key]  # a gap is no end either
        assert helper.ask(name(7), target) == wal_question.UNSURE

    def test_another_cluster_is_not_served(self, archive: WalArchive, target: Path, helper: Helper) -> None:
        put(archive, 5)
        helper.system = "17"
        helper.put_question(name(5), target)
        ended(helper)
        assert not target.exists() and not helper.path.exists()

    def test_a_folder_that_took_the_place_of_its_own_is_let_alone(
        self, archive: WalArchive, target: Path, spool: Path, helper: Helper
    ) -> None:
        put(archive, *range(5, 30))
        helper.ask(name(5), target)
        until(lambda: (spool / name(21)).exists())
        moved = spool.with_name("moved")
        spool.rename(moved)
        spool.mkdir()
        (spool / wal_spool.LOCK).touch()
        (moved / name(6)).unlink()
        with pytest.raises(FileNotFoundError):
            Spool(spool, helper.lock)
        until(lambda: (moved / name(22)).exists())
        assert os.listdir(spool) == [wal_spool.LOCK]
        until(lambda: removed(moved))
        ended(helper)
        assert os.listdir(spool) == [wal_spool.LOCK]

    def test_leftovers_of_a_helper_that_was_killed_are_removed(
        self, archive: WalArchive, target: Path, spool: Path, helper: Helper, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        left = [wal_spool.COMING + name(9), wal_question.FOUND + "3", wal_question.NONE + "3"]
        for one in left:
            (spool / one).touch()
        (spool / name(8)).touch()
        older = spool.with_name("an-earlier-boot")
        older.mkdir()
        made = Spool(spool, helper.lock)
        assert not set(left) & set(made.names())
        end(monkeypatch, helper)
        assert not older.exists()


class TestTaking:
    def test_only_a_server_in_recovery_is_served_from_it(self, target: Path, spool: Path) -> None:
        spool.mkdir(parents=True)
        (spool / name(6)).write_bytes(b"x")
        served = wal_question.served
        assert not wal_spool.take(name(6), str(target.with_name("elsewhere")))
        assert served(["wal-fetch", name(6)]) is None
        assert served(["wal-fetch", "00000002.history", str(target.with_name("elsewhere"))]) is None
        assert served(["--quiet", "wal-fetch", name(6), str(target)]) == 0
        assert target.read_bytes() == b"x"

    def test_a_helper_that_was_killed_is_not_waited_for(self, target: Path, spool: Path) -> None:
        spool.mkdir(parents=True)
        (spool / wal_spool.LOCK).touch()
        (spool / (wal_spool.COMING + name(6))).touch()
        began = time.monotonic()
        assert not wal_spool.take(name(6), str(target))
        assert time.monotonic() - began < 60

    def test_what_was_there_before_the_machine_started_is_not(
        self, target: Path, spool: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        spool.mkdir(parents=True)
        (spool / name(6)).write_bytes(b"x")
        told = tmp_path / "boot_id"
        monkeypatch.setattr(wal_spool, "BOOT_FILE", str(told))
        assert wal_spool.spool_for(str(target)) is None
        assert not wal_spool.take(name(6), str(target))
        told.write_text("another-boot\n")
        assert not wal_spool.take(name(6), str(target))
