"""Keys put back one by one, by ``RESTORE … ABSTTL``: where replication is refused, or a part is wanted.

First all of them are laid beside the old ones, under names of ours that fall into the same slots. Until the last is
there the old data is untouched, and what was laid down is removed again where that fails. Then, where all is wanted,
what the server held before is removed, and ours take their names, one after the other: from there on the restore is
repeated if it is interrupted, and finds everything again in the backup.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from chrono_backups.errors import Damaged, RestoreError, SourceError
from chrono_backups.events import Listener, Progress
from chrono_backups.recovery.in_place import Wanted
from chrono_backups.recovery.redis.dumps import Dump
from chrono_backups.recovery.redis.pipe import Failed, Lane, Lanes, explain, hash_tag, lanes_to, raising
from chrono_backups.sources.redis.connection import Address, info
from chrono_backups.sources.redis.key_patterns import matcher
from chrono_backups.sources.redis.rdb_format import NoRdb, UnknownPart
from chrono_backups.sources.redis.records import Library, Record, payload, records
from chrono_backups.sources.settings import RedisSettings

PREFIX = b"chrono-restore:"
"""What our names for keys that wait begin with."""
_SCAN_COUNT = 2000
_HELD_MOST = 16 << 20
"""Bytes of values kept until their keys have been renamed."""


@dataclass
class Restored:
    """What was put back."""

    keys: int = 0
    expired: int = 0
    """Left out, as their time has passed since."""
    removed: int = 0
    """Of what the server held."""
    libraries: int = 0


def staged_name(key: bytes) -> bytes | None:
    """A name in the same slot that a key waits under; None: there is none."""
    tag = hash_tag(key)
    if tag is not key:
        return PREFIX + b"{" + tag + b"}" + key
    return PREFIX + b"{" + key + b"}" if key and b"}" not in key else None


def restore_keys(
    settings: RedisSettings, address: Address, dumps: Sequence[Dump], wanted: Wanted, listener: Listener
) -> Restored:
    """Put back what is wanted. Raises ``RestoreError``, ``SourceError``, ``Damaged``, ``StorageError``."""
    with lanes_to(settings, address) as lanes:
        work = _Work(lanes, dumps, wanted, listener)
        work.clear()
        try:
            work.stage()
        except BaseException as error:
            # By new connections: the first ones may be amid an answer.
            with suppress(SourceError, RestoreError, OSError), lanes_to(settings, address) as again:
                _Work(again, dumps, wanted, listener).clear()
            if isinstance(error, SourceError):
                raise explain(error, "what the server held is untouched") from error
            raise
        try:
            work.take_over()
        except SourceError as error:
            raise explain(
                error, "some keys are new and some are not: restore again, which finds all it needs"
            ) from error
        return work.done


class _Work:
    def __init__(self, lanes: Lanes, dumps: Sequence[Dump], wanted: Wanted, listener: Listener) -> None:
        self.done = Restored()
        self._lanes = lanes
        self._dumps = dumps
        self._wanted = wanted
        self._listener = listener
        self._matches = matcher(tuple(wanted.patterns))

    # What is in the backup.

    def _records(self, what: str) -> Iterator[tuple[Dump, Record]]:
        total = sum(dump.size for dump in self._dumps)
        done = count = 0

        def pieces(dump: Dump) -> Iterator[bytes]:
            nonlocal done
            for piece in dump.pieces():
                done += len(piece)
                yield piece
                self._listener(Progress(what, dump.path, done, count, total))

        for dump in self._dumps:
            try:
                for one in records(pieces(dump)):
                    if isinstance(one, Library):
                        if what == "restore" and self._wanted.everything:
                            self._load(one)
                    elif self._takes(one):
                        count += 1
                        yield dump, one
            except (NoRdb, UnknownPart) as error:
                message = f"{dump.path} of {dump.backup_id} can't be taken apart into keys: {error}"
                raise Damaged(message, key=dump.path, hint="Restore it with --to DIR, as a file.") from error

    def _takes(self, one: Record) -> bool:
        databases = self._wanted.databases
        return (not databases or one.database in databases) and self._matches(one.key)

    def _load(self, library: Library) -> None:
        for lane in self._lanes.lanes:
            lane.connection.ask("FUNCTION", "LOAD", "REPLACE", library.code)
        self.done.libraries += 1

    # The steps.

    def clear(self) -> None:
        """Remove what an earlier restore laid down."""
        for lane in self._lanes.lanes:
            for database in _databases_of(info(lane.connection, "keyspace")):
                self._remove(lane, database, lambda key: key.startswith(PREFIX))

    def stage(self) -> None:
        """Lay all wanted keys beside the old ones."""
        failed = raising("a key could not be restored; what the server held is untouched")
        now = time.time() * 1000
        for dump, one in self._records("restore"):
            name = staged_name(one.key)
            if one.expires_ms is not None and one.expires_ms <= now:
                self.done.expired += 1
            elif name is not None:
                self._restore(name, one, dump, failed)
        self._lanes.flush(failed)

    def take_over(self) -> None:
        """Remove the old data where all is wanted, and give the new its names."""
        if not self._wanted.patterns:
            self._remove_old()
        waiting: dict[int, tuple[Dump, Record]] = {}

        def directly(number: int, _words: bytes) -> None:
            again.append(waiting[number])

        again: list[tuple[Dump, Record]] = []
        now = time.time() * 1000
        held = 0
        for number, (dump, one) in enumerate(self._records("rename")):
            if one.expires_ms is not None and one.expires_ms <= now:
                continue
            name = staged_name(one.key)
            self.done.keys += 1
            if name is None:
                again.append((dump, one))
            else:
                waiting[number] = dump, one
                self._lanes.of(one.key).add((b"RENAME", name, one.key), number, one.database, directly)
            held += len(one.value)
            if len(waiting) >= _SCAN_COUNT or held > _HELD_MOST:
                self._settle(waiting, again, directly)
                held = 0
        self._settle(waiting, again, directly)

    def _settle(
        self, waiting: dict[int, tuple[Dump, Record]], again: list[tuple[Dump, Record]], directly: Failed
    ) -> None:
        """Have all renamed; what had no name to wait under, or lost it, is restored directly."""
        self._lanes.flush(directly)
        waiting.clear()
        failed = raising("a key could not be restored; run the restore again")
        for dump, one in again:
            self._restore(one.key, one, dump, failed)
        self._lanes.flush(failed)
        again.clear()

    def _restore(self, name: bytes, one: Record, dump: Dump, failed: Failed) -> None:
        expires = b"%d" % (one.expires_ms or 0)
        words = (b"RESTORE", name, expires, payload(one, dump.rdb_version), b"ABSTTL", b"REPLACE")
        self._lanes.of(one.key).add(words, 0, one.database, failed)

    def _remove_old(self) -> None:
        databases = self._wanted.databases
        for lane in self._lanes.lanes:
            for database in _databases_of(info(lane.connection, "keyspace")):
                if not databases or database in databases:
                    self.done.removed += self._remove(lane, database, lambda key: not key.startswith(PREFIX))

    def _remove(self, lane: Lane, database: int, takes: Callable[[bytes], bool]) -> int:
        """Remove the keys of a database that ``takes`` takes; how many."""
        failed = raising("a key could not be removed")
        lane.select(database)
        removed, cursor = 0, b"0"
        while True:
            cursor, keys = lane.connection.ask("SCAN", cursor, "COUNT", _SCAN_COUNT)
            for key in filter(takes, keys):
                lane.add((b"UNLINK", key), 0, database, failed)
                removed += 1
            lane.flush(failed)
            self._listener(Progress("remove", "what it held", 0, removed))
            if cursor == b"0":
                return removed


def _databases_of(seen: dict[str, str]) -> list[int]:
    return sorted(int(name[2:]) for name in seen if name.startswith("db") and name[2:].isdigit())
