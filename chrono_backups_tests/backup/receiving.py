"""Receivers of WAL on threads of the tests, and the proof that what they archived is what the server wrote."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from chrono_backups.backup.wal_receiver import ReceiverStatus, WalReceiver
from chrono_backups.clock import SystemClock
from chrono_backups.errors import StorageError
from chrono_backups.identifiers import lsn_number, lsn_text
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.wal_archive import WalArchive
from chrono_backups.repository.wal_names import Lineage, parse_history
from chrono_backups.sources.settings import PostgresSettings
from chrono_backups.storage.base import Storage
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.backup.taking import Heard, new_repository, opened
from chrono_backups_tests.servers.postgres import PostgresServer
from chrono_backups_tests.servers.postgres_settings import reach

PATIENCE = 120.0
SEGMENT = 1 << 20
"""Bytes of a segment of the tests' servers: the smallest, so that many of them are soon full."""
SMALL_SEGMENTS = ("--wal-segsize=1",)


def wait(true: Callable[[], Any], patience: float = PATIENCE) -> None:
    """Until it is."""
    until = time.monotonic() + patience
    while not true():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.02)


class Valve(MemoryStorage):
    """A storage that can be told to refuse what is to be stored."""

    def __init__(self) -> None:
        super().__init__()
        self.refusing: StorageError | None = None
        self.refused = 0

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        if self.refusing is not None:
            self.refused += 1
            raise self.refusing
        super().put(key, data)


def empty_repository(storage: Storage) -> Storage:
    """The storage, with a repository in it."""
    new_repository(storage, clock=SystemClock()).close()
    return storage


class Receiving:
    """``WalReceiver`` on a thread. ``end`` lets it store what it has; leaving the context ends it anyhow."""

    def __init__(
        self, server: PostgresServer | PostgresSettings, storage: Storage, *, lag: float = 0.3, **options: Any
    ) -> None:
        settings = server if isinstance(server, PostgresSettings) else reach(server)
        self.settings = settings.model_copy(update={"wal_max_lag_seconds": lag})
        self.storage = storage
        self.heard = Heard()
        self.status: ReceiverStatus | None = None
        self.error: BaseException | None = None
        self._asked = threading.Event()
        self._options = {"slot": self.settings.slot, **options}
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            receiver = WalReceiver(
                self.settings,
                opened(self.storage, SystemClock()),
                stopping=self._asked.is_set,
                listener=self.heard,
                on_status=self._told,
                **self._options,
            )
            self.status = receiver.run()
        except BaseException as error:
            self.error = error

    def _told(self, status: ReceiverStatus) -> None:
        self.status = status

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def __enter__(self) -> Receiving:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._asked.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if kind is None and self.error is not None:
            raise self.error

    def end(self) -> ReceiverStatus:
        """Ask it to end, and wait."""
        self.__exit__(None)
        assert self.status is not None
        return self.status

    def wait_ended(self, *, ask: bool = False) -> BaseException | None:
        """Until it has ended by itself, or as it is asked to; what it raised."""
        if ask:
            self._asked.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        error, self.error = self.error, None
        return error

    def wait_for(self, code: str, patience: float = PATIENCE) -> None:
        """Until a finding of that code was told."""
        wait(lambda: code in self.heard.codes or not self.running, patience)
        if self.error is not None:
            raise self.error
        assert code in self.heard.codes

    def wait_stored(self, lsn: str, *, killed: type[BaseException] | tuple[()] = ()) -> None:
        """Until everything before ``lsn`` is archived, as the server was told; or until it was ``killed``."""
        wait(lambda: not self.running or (self.status is not None and self.status.stored >= lsn_number(lsn)))
        if self.error is not None and not isinstance(self.error, killed):
            raise self.error


def write_wal(server: PostgresServer, segments: float = 0.2) -> str:
    """Have about so many segments of log written; its end."""
    with server.connect() as connection:
        left = int(segments * SEGMENT)
        while left > 0:
            size = min(left, 256 * 1024)
            connection.execute("SELECT pg_logical_emit_message(true, 'written', repeat('x', %s))", [size])
            left -= size
        row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
    assert row is not None
    return str(row[0])


def slot_position(server: PostgresServer, slot: str = "chrono_backups") -> int | None:
    """Where the server keeps WAL from for the slot."""
    rows = server.execute(f"SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = '{slot}'")
    return lsn_number(rows[0][0]) if rows and rows[0][0] else None


def archived_end(repository: Repository, server: PostgresServer, start: int, *, timeline: int = 1) -> int:
    """How far the archive has what the server wrote from ``start`` on, byte for byte; its files are still there."""
    archive = WalArchive(repository, str(server.value("SELECT system_identifier FROM pg_control_system()")))
    ancestors = parse_history(archive.read_history(timeline)) if timeline > 1 else ()
    lineage = Lineage(timeline, ancestors, SEGMENT)
    contents = archive.contents()
    number = start // SEGMENT
    end = start
    while True:
        name = lineage.segment(number).name(SEGMENT)
        if name.lower() not in contents.segments and not contents.reach(name.lower()):
            return end
        stored = archive.read_segment(name)
        assert len(stored.content) == SEGMENT
        with (server.data / "pg_wal" / name).open("rb") as file:
            assert file.read(stored.end) == stored.content[: stored.end], name
        end = number * SEGMENT + stored.end
        if stored.end < SEGMENT:
            return end
        number += 1


def assert_archived(storage: Storage, server: PostgresServer, start: int, lsn: str, *, timeline: int = 1) -> None:
    """All of the log from ``start`` up to ``lsn`` is archived as the server wrote it."""
    with opened(storage, SystemClock()) as repository:
        end = archived_end(repository, server, start, timeline=timeline)
        assert end >= lsn_number(lsn), f"archived up to {lsn_text(end)}, and not to {lsn}"


@contextmanager
def loaded(server: PostgresServer) -> Iterator[None]:
    """While it lasts, WAL is written without a pause."""
    asked = threading.Event()
    errors: list[BaseException] = []

    def write() -> None:
        while not asked.is_set():
            try:
                write_wal(server, 0.4)
            except BaseException as error:
                errors.append(error)
                return

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    finally:
        asked.set()
        thread.join(PATIENCE)
    for error in errors:
        raise error


def slot_is_free(server: PostgresServer, slot: str = "chrono_backups") -> bool:
    """Whether the server knows that nobody receives from it."""
    return not server.execute(f"SELECT FROM pg_replication_slots WHERE slot_name = '{slot}' AND active")


def drop_slot(server: PostgresServer, slot: str = "chrono_backups") -> None:
    """Leave the server as it was."""
    wait(lambda: slot_is_free(server, slot))
    with suppress(Exception):
        server.execute(f"SELECT pg_drop_replication_slot('{slot}')")
