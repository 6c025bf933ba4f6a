"""A cluster's files by base backup: all of them, or where the server can tell what changed, only that.

An incremental capture builds on an earlier snapshot: the server is handed the manifest that it wrote for that one,
and sends the blocks changed since. It becomes a full one, and says why, where the earlier snapshot is of another
cluster or timeline, the server is older than 17, or no longer knows what changed. A timeline that changed always
makes it full: servers have sent too little across a promotion.

Visibility maps are left out of an incremental capture: the server does not log every change of theirs as a change
of a block, so it would send too few. They are made anew by the restored server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Literal, NamedTuple

from chrono_backups.clock import Clock, to_text
from chrono_backups.errors import Damaged, EntryMissing, SourceError, SourceRefused
from chrono_backups.events import Finding, Listener
from chrono_backups.sources.base import Earlier, StreamedEntry
from chrono_backups.sources.postgres.base_backup import BaseBackup
from chrono_backups.sources.postgres.connection import ReplicationConnection, sql
from chrono_backups.sources.settings import PostgresSettings

Effective = Literal["full", "incremental", "differential"]

OLDEST_VERSION = 150000
FIRST_INCREMENTAL = 170000
MANIFEST = b"data/backup_manifest"
_UNITS = {"B": 1, "kB": 1024, "MB": 1024**2, "GB": 1024**3}


class Cluster:
    """What a server says of itself over a replication connection."""

    def __init__(self, connection: ReplicationConnection) -> None:
        """Raises ``SourceRefused``; for a server that is too old ``SourceError``."""
        system, timeline, _, _ = connection.rows("IDENTIFY_SYSTEM")[0]
        self.system_identifier = system or ""
        self.timeline = int(timeline or 0)
        self.version_num = connection.server_version
        if self.version_num < OLDEST_VERSION:
            raise SourceError(
                f"the server is PostgreSQL {self.version_num // 10000}; base backups need 15 or later",
                source="postgres",
                hint="Set BACKUP_POSTGRES_METHOD=logical, or upgrade the server.",
            )
        self.version = _shown(connection, "server_version").split()[0]
        self.block_size = int(_shown(connection, "block_size"))
        self.wal_block_size = int(_shown(connection, "wal_block_size"))
        self.wal_segment_size = _bytes(_shown(connection, "wal_segment_size"))
        self.data_checksums = _shown(connection, "data_checksums") == "on"
        self.summarizes_wal = self.version_num >= FIRST_INCREMENTAL and _shown(connection, "summarize_wal") == "on"


def _shown(connection: ReplicationConnection, name: str) -> str:
    return connection.rows(f"SHOW {name}")[0][0] or ""


def _bytes(text: str) -> int:
    number = text.rstrip("kMGTB")
    return int(number) * _UNITS[text[len(number) :] or "B"]


class PhysicalCapture:
    """A base backup that has begun."""

    def __init__(
        self,
        cluster: Cluster,
        backup: BaseBackup,
        effective: Effective,
        reason: str,
        server_time: Callable[[], _ServerTime],
    ) -> None:
        self.effective: Effective = effective
        self.reason = reason
        self._cluster = cluster
        self._backup = backup
        self._server_time = server_time
        self._started = self._stopped = server_time()

    @property
    def expected_bytes(self) -> int | None:
        return self._backup.expected_bytes

    def entries(self) -> Iterator[StreamedEntry]:
        """As ``StreamedCapture.entries``."""
        yield from self._backup.entries()
        self._stopped = self._server_time()

    def checksum_finding(self) -> Finding | None:
        """What the server said of damaged pages."""
        if not self._backup.checksum_failure:
            return None
        return Finding(
            "postgres-checksum-failure",
            "error",
            "postgres",
            f"the server's own files are damaged: {self._backup.checksum_failure}",
            "The backup holds them as they are. Find the relation, restore it from an older backup, check the disk.",
        )

    def facts(self) -> Mapping[str, Any]:
        """As ``StreamedCapture.facts``: the cluster, where the backup begins and ends, and when."""
        cluster, backup = self._cluster, self._backup
        return {
            "system_identifier": cluster.system_identifier,
            "server_version": cluster.version,
            "server_version_num": cluster.version_num,
            "timeline": backup.end_timeline,
            "start_lsn": backup.start_lsn,
            "end_lsn": backup.end_lsn,
            "start_time": self._started.text,
            "stop_time": self._stopped.text,
            "wal_segment_size": cluster.wal_segment_size,
            "block_size": cluster.block_size,
            "data_checksums": cluster.data_checksums,
            "from_standby": self._started.standby,
            "boundary": {"first": to_text(self._stopped.here), "last": to_text(self._stopped.here)},
            "tablespaces": [{"oid": one.oid, "path": one.path} for one in backup.tablespaces],
            "incremental": self.effective != "full",
            "changed_bytes": backup.changed_bytes if self.effective != "full" else None,
        }


class _ServerTime(NamedTuple):
    """A moment by the server's clock, ISO 8601 in UTC, and whether it is a standby; and by this machine's clock."""

    text: str
    standby: bool
    here: datetime


class _ServerClock:
    """Asks the server; where it can't be asked, this machine's clock, and a finding."""

    def __init__(self, settings: PostgresSettings, clock: Clock, listener: Listener) -> None:
        self._settings = settings
        self._clock = clock
        self._listener: Listener | None = listener

    def __call__(self) -> _ServerTime:
        here = self._clock.now()
        moment, standby = here, False
        try:
            with sql(self._settings) as connection:
                row = connection.execute("SELECT clock_timestamp(), pg_is_in_recovery()").fetchone()
            if row is not None:
                moment, standby = row
        except SourceError as error:
            if self._listener is not None:
                hint = f"{error.hint} Times in this backup are by this machine's clock.".strip()
                self._listener(Finding("postgres-no-sql", "warning", "postgres", error.message, hint))
                self._listener = None
        return _ServerTime(to_text(moment), standby, here)


@contextmanager
def base_backup(
    settings: PostgresSettings, earlier: Earlier | None, asked: Effective, listener: Listener, clock: Clock
) -> Iterator[PhysicalCapture]:
    """Begin a base backup, incremental where ``earlier`` can be built on. Raises ``SourceError``.

    Nothing is left on the server however it ends: what a session holds there goes with the session.
    """
    reason = ""
    server_time = _ServerClock(settings, clock, listener)
    with ReplicationConnection.open(settings) as connection:
        cluster = Cluster(connection)
        _guard(connection, listener, clock)
        backup = None
        if asked != "full":
            reason = _unusable(cluster, earlier)
            if not reason and earlier is not None:
                try:
                    backup = _begin(connection, cluster, settings, earlier.read(MANIFEST))
                except (SourceRefused, Damaged, EntryMissing) as error:
                    reason = f"the server can't tell what changed since {earlier.snapshot_id}: {error.message}"
        effective = asked if backup is not None else "full"
        if backup is None:
            backup = _begin(connection, cluster, settings, None)
        yield PhysicalCapture(cluster, backup, effective, reason, server_time)


def _unusable(cluster: Cluster, earlier: Earlier | None) -> str:
    """Why no incremental can be asked of the server; empty where it can."""
    if earlier is None:
        return "there is no earlier base backup"
    facts, name = earlier.facts, earlier.snapshot_id
    if "start_lsn" not in facts:
        return f"{name} holds no base backup"
    system, timeline = facts["system_identifier"], facts["timeline"]
    checks = (
        (system == cluster.system_identifier,
         f"{name} is of the cluster {system}, and the server is {cluster.system_identifier}"),
        (timeline == cluster.timeline, f"{name} is on timeline {timeline}, and the server on {cluster.timeline}"),
        (facts["block_size"] == cluster.block_size, f"{name} has blocks of another size"),
        (cluster.version_num >= FIRST_INCREMENTAL,
         f"PostgreSQL {cluster.version_num // 10000} knows no incremental base backups; 17 does"),
        (cluster.summarizes_wal, "the server keeps no WAL summaries: set summarize_wal = on and reload it"),
    )  # fmt: skip
    return next((why for holds, why in checks if not holds), "")


def _guard(connection: ReplicationConnection, listener: Listener, clock: Clock) -> None:
    """Keep the WAL that the backup needs from being recycled while it runs, by a slot that ends with the session."""
    name = f"chrono_backups_{clock.random_bytes(6).hex()}"
    try:
        connection.rows(f"CREATE_REPLICATION_SLOT {name} TEMPORARY PHYSICAL (RESERVE_WAL true)")
    except SourceError as error:
        message = f"no replication slot guards the WAL while the base backup runs: {error.message}"
        hint = "Raise max_replication_slots, else a long base backup under load may fail at its end."
        listener(Finding("postgres-no-guard-slot", "warning", "postgres", message, hint))


def _begin(
    connection: ReplicationConnection, cluster: Cluster, settings: PostgresSettings, manifest: bytes | None
) -> BaseBackup:
    """Start a base backup, upon ``manifest`` where that is given. Raises ``SourceRefused``."""
    options = [
        "LABEL 'chrono_backups'",
        "PROGRESS",
        f"CHECKPOINT '{settings.checkpoint}'",
        "WAL true",
        "MANIFEST 'yes'",
        "MANIFEST_CHECKSUMS 'CRC32C'",
        "TABLESPACE_MAP true",
    ]
    if manifest is not None:
        connection.upload("UPLOAD_MANIFEST", manifest)
        options.append("INCREMENTAL")
    backup = BaseBackup(
        connection,
        block_size=cluster.block_size,
        wal_block_size=cluster.wal_block_size,
        skip_maps=manifest is not None,
    )
    backup.begin(", ".join(options))
    return backup
