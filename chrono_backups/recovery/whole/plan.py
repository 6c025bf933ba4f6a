"""Computing a whole restore: a part for each source of a recovery point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from chrono_backups.errors import UsageError
from chrono_backups.events import Listener, silent
from chrono_backups.identifiers import SourceName
from chrono_backups.recovery.in_place import Stores, Wanted, plan_store
from chrono_backups.recovery.plan import plan_restore
from chrono_backups.recovery.point import RecoveryPoint, plan_point
from chrono_backups.recovery.postgres.restore import SOURCE, ClusterOptions, holds_cluster, plan_cluster
from chrono_backups.recovery.postgres.target import Target
from chrono_backups.recovery.whole.parts import DirectoryPart, Part, StorePart, TreePart
from chrono_backups.recovery.whole.restore import WholeRestore
from chrono_backups.repository.repository import Repository

_TREES = frozenset({"files", "configuration"})


@dataclass(frozen=True)
class WholeOptions:
    """What is asked of a whole restore."""

    backup_id: str
    target: Target
    sources: Sequence[SourceName] = ()
    """Only these; none: all that the recovery point has."""
    directory: Path | None = None
    """Where the cluster goes; needed where PostgreSQL is among them. All of it where nothing is ``in_place``."""
    in_place: bool = True
    patterns: Sequence[str] = ()
    """Only paths of files and configuration, or of one store, that match one of these."""
    databases: Sequence[int] = ()
    """Of Redis: these alone."""


@dataclass(frozen=True)
class WholePlan:
    """A whole restore, computed and not yet carried out."""

    point: RecoveryPoint
    restore: WholeRestore


def plan_whole(
    repository: Repository,
    options: WholeOptions,
    stores: Stores,
    cluster: Callable[[Target], ClusterOptions],
    *,
    listener: Listener = silent,
) -> WholePlan:
    """Compute it. Asks the stores, reads the repository, changes nothing.

    ``cluster`` makes of PostgreSQL's target what is asked of its restore. Raises ``UsageError``, ``BackupMissing``,
    ``EntryMissing``, ``RestoreError``, ``SourceError``, ``Damaged``.
    """
    point = plan_point(repository, options.backup_id, options.target, options.sources, listener=listener)
    if not options.in_place:
        names = [part.source for part in point.parts]
        return WholePlan(point, WholeRestore([_directory(repository, options, stores, cluster, point, names)]))
    parts = [_part(repository, options, stores, cluster, point, part.source) for part in point.parts]
    return WholePlan(point, WholeRestore(parts))


def _part(
    repository: Repository,
    options: WholeOptions,
    stores: Stores,
    cluster: Callable[[Target], ClusterOptions],
    point: RecoveryPoint,
    source: SourceName,
) -> Part:
    found = point.part(source)
    assert found is not None
    manifest = found.manifest
    if source in _TREES:
        plan = plan_restore(
            repository, manifest.backup_id, None, sources=[source], patterns=options.patterns, in_place=True
        )
        return TreePart(repository, source, plan)
    if source != SOURCE:
        wanted = Wanted(tuple(options.patterns), tuple(options.databases))
        return StorePart(plan_store(repository, manifest, source, stores, wanted))
    return _directory(repository, options, stores, cluster, point, [SOURCE])


def _directory(
    repository: Repository,
    options: WholeOptions,
    stores: Stores,
    cluster: Callable[[Target], ClusterOptions],
    point: RecoveryPoint,
    sources: Sequence[SourceName],
) -> DirectoryPart:
    if options.directory is None:
        raise UsageError(
            "a cluster is not restored in place: it would be over a server that runs",
            hint="Name a directory for it, too (--to DIR): it takes the old one's place when you have looked at it.",
        )
    captures = {name: one for name, one in point.captures.items() if name in sources}
    main = captures.get(SOURCE) or next(iter(captures.values()))
    planned = None
    if SOURCE in captures and holds_cluster(main) and not options.patterns:
        planned = plan_cluster(repository, main, options.directory, cluster(point.target))
    into = plan_restore(
        repository,
        main.backup_id,
        options.directory,
        patterns=options.patterns,
        placed=planned.placed if planned is not None else None,
        captures=captures,
    )
    return DirectoryPart(repository, into, planned, stores.clock)
