"""Restoring the source ``postgres``: a data directory that a server can be started on, and starting it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chrono_backups.clock import Clock
from chrono_backups.errors import BackupMissing, RestoreError, UsageError
from chrono_backups.events import Listener, silent
from chrono_backups.recovery.browse import entries
from chrono_backups.recovery.postgres.arrangement import DATA, TABLESPACES, ClusterArrangement
from chrono_backups.recovery.postgres.configure import Recovery
from chrono_backups.recovery.postgres.programs import server_programs
from chrono_backups.recovery.postgres.replay import Reached, follow
from chrono_backups.recovery.postgres.server import Server, User, user_for
from chrono_backups.recovery.postgres.server_log import BEFORE_TARGET
from chrono_backups.recovery.postgres.target import TARGETS, TO_THE_END, Target
from chrono_backups.recovery.postgres.wal_path import WalPath, wal_path
from chrono_backups.recovery.postgres.wal_supply import WalSupply, check_wal
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository

SOURCE = "postgres"
_VERSION_FILE = b"data/PG_VERSION"


@dataclass(frozen=True)
class ClusterOptions:
    """What is asked of a restore of the source ``postgres``."""

    target: Target = TO_THE_END
    tablespaces: Mapping[str, Path] | None = None
    """Old place or oid → new place."""
    owner: tuple[int, int] | None = None
    """In place of the captured one; only root can give files away."""
    start: bool = False
    programs: Sequence[Path] = ()
    """Folders to look for server programs in before the usual places."""
    restore_command: str = ""
    """What fetches a WAL file from the repository, once the restored server runs by itself."""


@dataclass(frozen=True)
class ClusterPlan:
    """A cluster's restore, computed and not yet carried out."""

    backup_id: str
    facts: Mapping[str, Any]
    directory: Path
    """The target of the whole restore; the data directory goes below it."""
    options: ClusterOptions
    path: WalPath
    owner: tuple[int, int]
    tablespaces: Mapping[int, Path]
    """Where each tablespace's content will be."""
    mapped: Mapping[int, Path]
    """Those that do not go below ``directory``."""
    programs: Path | None
    """The server's, where it is to be started."""

    @property
    def data(self) -> Path:
        return ClusterArrangement.destination(self.directory, DATA)

    @property
    def major(self) -> int:
        return int(self.facts["server_version_num"]) // 10000

    @property
    def placed(self) -> dict[bytes, Path]:
        """For ``plan_restore``: directories of the snapshot that go elsewhere."""
        return {f"{TABLESPACES}/{oid}".encode(): place for oid, place in self.mapped.items()}

    def arrangement(self) -> ClusterArrangement:
        """How the restored tree becomes the data directory."""
        target = self.options.target
        recovery = Recovery(self.options.restore_command, target.settings(), self.path.timeline_setting, target.action)
        return ClusterArrangement(
            self.directory,
            owner=self.owner,
            tablespaces=self.tablespaces,
            mapped=self.mapped,
            recovery=recovery,
            written_by=f"Written by chrono-backups restore of {self.backup_id}, to recover to {target}.",
            true_manifest=not self.facts.get("incremental"),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "data_directory": str(self.data),
            "server_version": self.facts["server_version"],
            "target": str(self.options.target),
            "timeline": self.path.timeline,
            "wal_files": len(self.path.files),
            "owner": list(self.owner),
            "tablespaces": {str(oid): str(place) for oid, place in self.tablespaces.items()},
            "programs": str(self.programs) if self.programs else None,
        }


def holds_cluster(manifest: Manifest) -> bool:
    """Whether a backup holds a data directory, and not dumps alone."""
    summary = manifest.snapshot(SOURCE)
    return summary is not None and "start_lsn" in summary.facts


def choose_base(repository: Repository, target: Target, sources: Sequence[str]) -> Manifest:
    """The newest backup of all ``sources`` whose cluster can be recovered to ``target``: it ends before.

    Raises ``RestoreError`` where there is none, naming the oldest.
    """
    bases = [
        one
        for one in repository.readable_backups()[0]
        if holds_cluster(one) and set(sources) <= {snapshot.source for snapshot in one.snapshots}
    ]
    if not bases:
        raise BackupMissing(
            f"no backup holds a cluster and {' and '.join(sources)}" if sources else "no backup holds a cluster",
            hint="`chrono-backups list` shows what each one holds.",
        )
    for one in bases:
        if target.reachable_from(_facts(one)):
            return one
    oldest = _facts(bases[-1])
    raise RestoreError(
        f"{target} is before what can be recovered: the oldest backup, {bases[-1].backup_id}, ends at "
        f"{oldest['end_lsn']}, {oldest['stop_time']}",
        hint="`chrono-backups recovery-points` shows what can be reached.",
    )


def _facts(manifest: Manifest) -> Mapping[str, Any]:
    summary = manifest.snapshot(SOURCE)
    assert summary is not None
    return summary.facts


def plan_cluster(repository: Repository, manifest: Manifest, directory: Path, options: ClusterOptions) -> ClusterPlan:
    """Compute the restore of a backup's cluster below ``directory``. Reads what is stored and changes nothing.

    Raises ``RestoreError`` where the target can't be reached or no server program is there, ``Damaged`` where WAL on
    the way is damaged, ``UsageError``.
    """
    summary = manifest.snapshot(SOURCE)
    if summary is None or not holds_cluster(manifest):
        raise RestoreError(
            f"{manifest.backup_id} holds no data directory of PostgreSQL",
            hint="`chrono-backups list` shows what each backup holds; dumps are restored by pg_restore.",
        )
    facts = summary.facts
    owner = options.owner or _captured_owner(repository, manifest.backup_id)
    if os.geteuid() != 0:
        owner = (os.geteuid(), os.getegid())
    elif (user := user_for(owner)) is not None:
        owner = (user.uid, user.gid)
    tablespaces, mapped = _tablespaces(facts, directory, options.tablespaces or {})
    if not options.target.reachable_from(facts):
        raise RestoreError(
            f"{options.target} is before the end of {manifest.backup_id}: {facts['end_lsn']}, {facts['stop_time']}",
            hint="Let `latest` choose the backup, or name an older one.",
        )
    major = int(facts["server_version_num"]) // 10000
    programs = server_programs(major, options.programs) if options.start else None
    path = wal_path(repository, facts, options.target)
    plan = ClusterPlan(manifest.backup_id, facts, directory, options, path, owner, tablespaces, mapped, programs)
    if programs is not None:
        _check_reach(user_for(owner), [programs / "postgres"], [directory, *mapped.values()])
    return plan


def _captured_owner(repository: Repository, backup_id: str) -> tuple[int, int]:
    for entry in entries(repository, backup_id, _VERSION_FILE, source=SOURCE):
        return entry.uid, entry.gid
    raise AssertionError("a path that is not there raises")


def _tablespaces(
    facts: Mapping[str, Any], directory: Path, asked: Mapping[str, Path]
) -> tuple[dict[int, Path], dict[int, Path]]:
    root = ClusterArrangement.destination(directory, TABLESPACES)
    every: dict[int, Path] = {}
    mapped: dict[int, Path] = {}
    unknown = dict(asked)
    for one in facts.get("tablespaces", ()):
        oid = int(one["oid"])
        place = next((unknown.pop(name) for name in (one["path"], str(oid)) if name in unknown), None)
        if place is not None:
            mapped[oid] = place
        every[oid] = place or root / str(oid)
    if unknown:
        known = ", ".join(f"{one['path']} ({one['oid']})" for one in facts.get("tablespaces", ())) or "none"
        raise UsageError(f"there is no tablespace {next(iter(unknown))} in the backup", hint=f"It has {known}.")
    if len(set(mapped.values())) < len(mapped):
        raise UsageError("two tablespaces can't go to one place")
    return every, mapped


def _check_reach(user: User | None, files: Sequence[Path], places: Sequence[Path]) -> None:
    """The server's user must be able to run the programs, and to enter the directories above the data."""
    if user is None:
        return
    parents = []
    for place in places:
        near = place
        while not near.exists():
            near = near.parent
        parents.append(near)
    for path in (*files, *parents):
        if not user.may("x", path):
            raise RestoreError(
                f"the server would run as {user.name}, who can't enter {path}",
                hint="Restore to a place that this user may enter, or name another user: --owner USER.",
            )


def start_cluster(
    repository: Repository,
    plan: ClusterPlan,
    *,
    clock: Clock,
    settings: Mapping[str, str] | None = None,
    listener: Listener = silent,
) -> tuple[Server, WalSupply, Reached]:
    """Start the restored server and follow it to its target; it goes on running where that is its action.

    WAL is fetched, and found to be true, before the server starts. Raises ``RestoreError`` where it ends before its
    target, ``Damaged``; nothing runs then. The supply is the caller's to remove.
    """
    supply = fetch_supply(repository, plan, listener=listener)
    try:
        server, reached = run_to_target(plan, supply, clock=clock, settings=settings or {}, listener=listener)
    except BaseException:
        supply.remove()
        raise
    return server, supply, reached


def check_way(repository: Repository, plan: ClusterPlan, *, listener: Listener) -> None:
    """Find out whether all WAL on the way is true, for a server that will fetch it by itself. Raises ``Damaged``."""
    check_wal(repository, plan.path, listener)


def fetch_supply(repository: Repository, plan: ClusterPlan, *, listener: Listener) -> WalSupply:
    """Fetch the WAL that is needed beside the data directory. Raises ``Damaged``, ``InsufficientSpace``."""
    supply = WalSupply(plan.directory / "postgres-wal", plan.path)
    try:
        supply.fill(repository, owner=plan.owner, listener=listener)
    except BaseException:
        supply.remove()
        raise
    return supply


def run_to_target(
    plan: ClusterPlan, supply: WalSupply, *, clock: Clock, settings: Mapping[str, str], listener: Listener
) -> tuple[Server, Reached]:
    """Start the server, and follow it to its target. Raises ``RestoreError``; nothing runs then."""
    assert plan.programs is not None
    server = Server(
        plan.programs,
        plan.data,
        user=user_for(plan.owner),
        log=plan.directory / "postgres-server.log",
        settings={"restore_command": supply.restore_command, **settings},
        major=plan.major,
    )
    target = plan.options.target
    until = plan.facts["end_lsn"] if target.kind == "end" else target.value if target.kind == "lsn" else None
    try:
        server.start()
        try:
            reached = follow(server, clock=clock, listener=listener, facts=plan.facts, until=until)
        except RestoreError as error:
            # There is WAL up to the target, and no record behind it at which the server could tell that it is reached.
            if BEFORE_TARGET not in error.message or target.kind not in {"time", "lsn"}:
                raise
            server.stop()
            server.settings |= dict.fromkeys(TARGETS, "")
            server.start()
            reached = follow(server, clock=clock, listener=listener, facts=plan.facts)
    except BaseException:
        server.stop(fast=False)
        raise
    return server, reached
