"""What each source tells at a glance: numbers to plot, and what is wrong with it. Cheap, whatever its size."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg

from chrono_backups.assembly import Application
from chrono_backups.errors import SourceError
from chrono_backups.identifiers import SourceName, lsn_text
from chrono_backups.orchestration.metadata import ROWS_SHOWN, Metadata, table


@dataclass(frozen=True)
class Seen:
    """One look at one source."""

    metadata: Metadata
    problems: Sequence[str] = field(default=())


@dataclass(frozen=True)
class Root:
    """One protected path, and why it can't be reached; empty if it can."""

    path: str
    problem: str

    @classmethod
    def of(cls, path: Path) -> "Root":
        """Looks at the path itself only: cheap, whatever lies below it."""
        try:
            if path.is_dir():
                with os.scandir(path) as entries:
                    next(entries, None)
            else:
                path.open("rb").close()
        except OSError as error:
            return cls(str(path), error.strerror or str(error))
        return cls(str(path), "")


def _paths(paths: Sequence[Path]) -> Seen:
    roots = [Root.of(path) for path in paths]
    rows = [(one.path, one.problem or "reachable") for one in roots]
    shown: Metadata = {
        "roots": dg.MetadataValue.int(len(roots)),
        "reachable": dg.MetadataValue.int(sum(not root.problem for root in roots)),
        "paths": dg.MetadataValue.md(table(("path", "state"), rows)),
    }
    return Seen(shown, [f"{root.path}: {root.problem}" for root in roots if root.problem])


def _postgres(application: Application) -> Seen:
    from chrono_backups.sources.postgres.seen import see  # noqa: PLC0415 - its driver is large

    try:
        server = see(application.settings.postgres)
    except SourceError as error:
        shown: Metadata = {"reachable": dg.MetadataValue.bool(False), "problem": dg.MetadataValue.text(str(error))}
        return Seen(shown, [f"{error} {error.hint}".strip()])
    wal = server.wal
    shown = {
        "reachable": dg.MetadataValue.bool(True),
        "server_version": dg.MetadataValue.text(server.version),
        "standby": dg.MetadataValue.bool(server.standby),
        "system_identifier": dg.MetadataValue.text(wal.system_identifier),
        "databases": dg.MetadataValue.int(server.databases),
        "lsn": dg.MetadataValue.text(lsn_text(wal.position)),
        "wal_position": dg.MetadataValue.int(wal.position),
        "timeline": dg.MetadataValue.int(wal.timeline),
        "server_time": dg.MetadataValue.timestamp(wal.now),
        "slot": dg.MetadataValue.text(application.settings.postgres.slot if wal.slot else "none"),
    }
    if server.size is not None:
        shown["size_bytes"] = dg.MetadataValue.int(server.size)
    if wal.slot is not None:
        shown["slot_wal_status"] = dg.MetadataValue.text(wal.slot.wal_status or "keeps nothing")
        shown["slot_active"] = dg.MetadataValue.bool(wal.slot.active_pid is not None)
        shown["slot_retained_bytes"] = dg.MetadataValue.int(wal.slot.retained_bytes)
        if wal.slot.safe_bytes is not None:
            shown["slot_safe_bytes"] = dg.MetadataValue.int(wal.slot.safe_bytes)
    return Seen(shown)


def _redis(application: Application) -> Seen:
    from chrono_backups.sources.redis.seen import see  # noqa: PLC0415 - its driver is large

    try:
        server = see(application.settings.redis)
    except SourceError as error:
        shown: Metadata = {"reachable": dg.MetadataValue.bool(False), "problem": dg.MetadataValue.text(str(error))}
        return Seen(shown, [f"{error} {error.hint}".strip()])
    shown = {
        "reachable": dg.MetadataValue.bool(True),
        "server_version": dg.MetadataValue.text(server.version),
        "mode": dg.MetadataValue.text(f"cluster of {server.masters}" if server.mode == "cluster" else server.role),
        "keys": dg.MetadataValue.int(server.keys),
        "keys_that_expire": dg.MetadataValue.int(server.expires),
        "size_bytes": dg.MetadataValue.int(server.used_memory),
        "replication_id": dg.MetadataValue.text(server.replication_id),
        "replication_offset": dg.MetadataValue.int(server.replication_offset),
        "replicas": dg.MetadataValue.int(server.replicas),
        "appendonly": dg.MetadataValue.bool(server.keeps_aof),
    }
    return Seen(shown)


def _meilisearch(application: Application) -> Seen:
    from chrono_backups.sources.meilisearch.seen import see  # noqa: PLC0415 - its driver is large

    try:
        server = see(application.settings.meilisearch, application.clock)
    except SourceError as error:
        shown: Metadata = {"reachable": dg.MetadataValue.bool(False), "problem": dg.MetadataValue.text(str(error))}
        return Seen(shown, [f"{error} {error.hint}".strip()])
    rows = [(one.uid, f"{one.documents:,}", "yes" if one.indexing else "") for one in server.indexes]
    shown = {
        "reachable": dg.MetadataValue.bool(True),
        "server_version": dg.MetadataValue.text(server.version),
        "indexes": dg.MetadataValue.int(len(server.indexes)),
        "documents": dg.MetadataValue.int(sum(one.documents for one in server.indexes)),
        "size_bytes": dg.MetadataValue.int(server.size),
        "last_task": dg.MetadataValue.int(server.last_task),
        "tasks_under_way": dg.MetadataValue.int(server.unfinished),
        "by_index": dg.MetadataValue.md(table(("index", "documents#", "indexing"), rows[:ROWS_SHOWN])),
    }
    return Seen(shown)


LOOKS: Mapping[SourceName, Callable[[Application], Seen]] = {
    "postgres": _postgres,
    "redis": _redis,
    "meilisearch": _meilisearch,
    "files": lambda application: _paths(application.settings.files.paths),
    "configuration": lambda application: _paths(application.settings.configuration.paths),
}
"""How each source is looked at."""
