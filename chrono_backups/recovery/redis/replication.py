"""A running server takes what a backup holds as its data, by being our replica for as long as that takes.

The server keeps its old data until all of the new has arrived. However it ends, it is its own master again
afterwards, unless it can't be reached any more: then the error says so, and how to mend it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from chrono_backups.clock import Clock
from chrono_backups.errors import RestoreError, SourceError, SourceRefused, SourceUnavailable
from chrono_backups.events import Finding, Listener, Progress
from chrono_backups.recovery.redis.dumps import Dump
from chrono_backups.recovery.redis.master import Master
from chrono_backups.sources.redis.connection import Address, RedisConnection, info
from chrono_backups.sources.settings import RedisSettings

_POLL_SECONDS = 0.02
_KEEP_ALIVE_SECONDS = 5.0
_LET_GO_SECONDS = 120.0


def replicate(
    settings: RedisSettings, address: Address, dump: Dump, listener: Listener, clock: Clock, *, tls: bool
) -> list[Finding]:
    """Have the server at ``address`` hold what ``dump`` does, which is proven whole; findings on the way.

    Raises ``RestoreError``, ``SourceError``, ``Damaged``, ``StorageError``.
    """
    with RedisConnection.open(settings, address) as connection:
        replica_id = info(connection, "replication")["master_replid"]
        local = str(connection.raw.getsockname()[0])
        with Master(settings, local, replica_id, clock, tls=tls) as master:
            try:
                connection.ask("REPLICAOF", master.host, master.port)
                _feed(connection, master, dump, listener, clock)
            except BaseException as error:
                _let_go(settings, address, because=error)
                raise
            _let_go(settings, address, because=None)
            return master.findings


def _feed(connection: RedisConnection, master: Master, dump: Dump, listener: Listener, clock: Clock) -> None:
    def still_ours() -> None:
        seen = info(connection, "replication")
        if seen.get("role") != "slave" or int(seen.get("master_port", 0)) != master.port:
            raise RestoreError(
                "the server was told to follow another master meanwhile",
                hint="Something watches it, a Sentinel or an operator's tool: stop that while it is restored.",
            )

    master.wait(still_ours)
    master.send(dump.size, _reported(dump, listener))
    alive = time.monotonic()
    while True:
        seen = info(connection, "replication", "persistence")
        if seen.get("master_link_status") == "up" and seen.get("master_sync_in_progress") == "0":
            return
        if seen.get("loading") != "1" and not master.is_connected():
            raise RestoreError(
                "the server took all of the data and then let go of it",
                hint="Its log says why. Look at what it holds before it is used.",
            )
        if time.monotonic() - alive > _KEEP_ALIVE_SECONDS:
            alive = time.monotonic()
            listener(Progress("load", dump.path, dump.size, 0, dump.size, dump.keys))
        clock.sleep(_POLL_SECONDS)


def _reported(dump: Dump, listener: Listener) -> Iterator[bytes]:
    done = 0
    for piece in dump.pieces():
        yield piece
        done += len(piece)
        listener(Progress("restore", dump.path, done, 0, dump.size, dump.keys))


def _let_go(settings: RedisSettings, address: Address, *, because: BaseException | None) -> None:
    """Make the server its own master again; a loading one when it has finished. A raised error is kept as it is."""
    until = time.monotonic() + _LET_GO_SECONDS
    while True:
        try:
            with RedisConnection.open(settings, address) as connection:
                connection.ask("REPLICAOF", "NO", "ONE")
                return
        except SourceUnavailable as error:
            if time.monotonic() < until and "LOADING" in error.message:
                time.sleep(0.2)
                continue
            failed: SourceError = error
        except SourceRefused as error:
            failed = error
        if because is None or not isinstance(because, SourceError):
            raise RestoreError(
                f"Redis at {address} could not be told to follow nobody: {failed.message}",
                hint=f"It refuses writes until that is done: redis-cli -h {address.host} -p {address.port} "
                "REPLICAOF NO ONE",
            ) from because
        return


def settled(
    settings: RedisSettings, address: Address, listener: Listener, clock: Clock, *, save: bool
) -> list[Finding]:
    """Wait until what is on the server's disk is what it holds: its AOF rewritten, or with ``save`` its RDB saved."""
    with RedisConnection.open(settings, address) as connection:
        if save:
            try:
                connection.ask("BGSAVE")
            except SourceRefused as error:
                message = f"its data is in memory, and could not be saved: {error.message}"
                return [Finding("redis-not-saved", "warning", str(address), message, "Run BGSAVE on it.")]
        while True:
            seen = info(connection, "persistence")
            busy = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")
            if not any(seen.get(name, "0") == "1" for name in busy):
                break
            listener(Progress("settle", "its files", 0, 0))
            clock.sleep(_POLL_SECONDS)
    return list(_on_disk(seen, str(address), save=save))


def _on_disk(seen: dict[str, str], address: str, *, save: bool) -> Iterator[Finding]:
    checks: tuple[tuple[str, Callable[[], bool], str], ...] = (
        ("aof_last_bgrewrite_status", lambda: seen.get("aof_enabled") == "1", "rewrite its AOF: BGREWRITEAOF"),
        ("aof_last_write_status", lambda: seen.get("aof_enabled") == "1", "write its AOF"),
        ("rdb_last_bgsave_status", lambda: save, "save its data: BGSAVE"),
    )
    for name, matters, what in checks:
        if matters() and seen.get(name, "ok") != "ok":
            message = f"it holds the restored data and failed to {what}"
            hint = "Mend that before it is restarted: what is on its disk is the old data."
            yield Finding("redis-not-on-disk", "error", address, message, hint)
