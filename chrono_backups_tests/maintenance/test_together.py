"""Backups, prunes and replications at once, on threads that share a storage."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chrono_backups.backup.plan import plan_backup
from chrono_backups.backup.service import capture, commit
from chrono_backups.clock import SystemClock
from chrono_backups.errors import RepositoryError
from chrono_backups.maintenance.forget import forget_ids
from chrono_backups.maintenance.prune import plan_prune, prune
from chrono_backups.maintenance.replicate import replicate
from chrono_backups.maintenance.verify import verify
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.files import FilesSource
from chrono_backups.storage.local import LocalStorage
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.maintenance.site import KEY, OPTIONS, contents, random_files

ROUNDS = 12
MOST = 100
"""Rounds after which a prune must have come to something, however seldom its thread gets its turn."""


class FastClock(SystemClock):
    """Five minutes a second, so that every backup has a second of its own and leases and margins matter."""

    def __init__(self) -> None:
        self._start = datetime.now(UTC)

    def now(self) -> datetime:
        return self._start + (datetime.now(UTC) - self._start) * 300


class Crowd:
    """Threads that all must succeed."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self.stopping = threading.Event()

    def start(self, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                self._errors.append(error)
                self.stopping.set()

        thread = threading.Thread(target=run)
        thread.start()
        self._threads.append(thread)
        return thread

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]


def rounds(deleted: list[int]) -> Iterator[int]:
    """So many, and more until a prune has deleted something."""
    for number in range(MOST):
        if number >= ROUNDS and any(deleted):
            return
        yield number


def test_two_writers_two_prunes_and_a_replication(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers forget their older backups as they go; prunes without a grace period run all the while."""
    for room in ("exclusion", "survey", "prune"):
        monkeypatch.setattr(f"chrono_backups.maintenance.{room}.CLOCKS_DIFFER", timedelta(seconds=10))
    storage = LocalStorage(tmp_path / "repository")
    clock = FastClock()
    deleted: list[int] = []
    Repository.create(storage, algorithm="AES-256-GCM", operator_key=KEY, clock=clock)
    expected: dict[str, dict[str, bytes]] = {}
    mirror = MemoryStorage()
    crowd = Crowd()

    def opened() -> Repository:
        return Repository.open(storage, operator_key=KEY, clock=clock)

    def write(root: Path) -> None:
        shared = {f"shared{number}": b"%d" % number * 3000 for number in range(5)}
        mine: list[str] = []
        for number in rounds(deleted):
            files = {**shared, **random_files(3, 5000)} if number % 3 else shared
            for path in root.rglob("*"):
                if path.is_file():
                    path.unlink()
            for name, content in files.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(content)
            repository = opened()
            plan = plan_backup(repository, "incremental" if number % 2 else "full", ["files"])
            outcome = capture(repository, plan, FilesSource("files", [root]), options=OPTIONS)
            expected[plan.backup_id] = files
            mine.append(commit(repository, plan, [outcome], trigger="test").backup_id)
            if number % 2:
                forget_ids(repository, [mine.pop(0)], force=True)

    def prune_on() -> None:
        while not crowd.stopping.is_set():
            repository = opened()
            try:
                report = prune(repository, plan_prune(repository, grace=timedelta(0), now=clock.now()))
                deleted.append(report.packs_deleted)
            except RepositoryError as error:
                assert "prune" in str(error)

    def replicate_on() -> None:
        while not crowd.stopping.is_set():
            replicate(opened(), mirror)

    writers = []
    for name in ("one", "two"):
        root = tmp_path / name
        root.mkdir()
        writers.append(crowd.start(lambda root=root: write(root)))  # type: ignore[misc]
    for work in (prune_on, prune_on, replicate_on):
        crowd.start(work)
    for writer in writers:
        writer.join()
    crowd.stopping.set()
    crowd.join()

    assert sum(deleted) > 0
    assert replicate(opened(), mirror).ok
    for place in (storage, mirror):
        repository = Repository.open(place, operator_key=KEY, clock=clock)
        report = verify(repository, full=True)
        assert report.ok, report.findings
        visible = [one.backup_id for one in repository.backups()]
        assert len(visible) >= ROUNDS
        for backup_id in visible:
            root = next(tmp_path / name for name in ("one", "two"))
            found = contents(repository, backup_id, root) or contents(repository, backup_id, tmp_path / "two")
            assert found == expected[backup_id]
