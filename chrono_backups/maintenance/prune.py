"""Pruning: freeing the space of what no backup needs, while backups go on, in two phases with a grace period between.

**Mark and condemn.** What backups in sight need is followed from their manifests down to the chunks, and every chunk
gets one chosen place. A pack without chosen chunks is *condemned*: an object says so, and nothing else happens. Of a
pack of which less than half is chosen, the chosen chunks are copied into a new pack first, which is in the index
before the old one is condemned.

**Sweep.** A condemnation is carried out by a later prune, once the grace period is over, no backup goes on that
began before it, and after marking anew. A condemned pack in which a chunk was chosen now is spared.

Why no backup ever loses a chunk:

1. A backup takes its lease, then reads the condemnations, then the index. (``plan_backup``, ``Repository.writer``)
2. If it reads a condemnation, it stores anew what it needs of those packs, so it relies on none of them. No index
   object will name them again: a writer does not adopt a condemned pack.
3. If it read before a pack was condemned, its lease is older than the condemnation, give or take what clocks differ
   (``CLOCKS_DIFFER``). While that lease is there and has not run out, the condemnation is not carried out.
4. When the lease is gone the backup is committed or never will be: a commit puts the manifest first and lets the lease
   go then, and refuses once the lease has run out. A prune reads leases **before** manifests, so where it does not
   see the lease it sees the manifest, whose chunks are marked.
5. Manifests are read **before** the index, and the index before the list of packs: what a manifest in sight needs was
   in the index and in the storage before it, so a needed chunk that has no place in a whole pack is damage, and a
   damaged repository is not pruned at all.
6. A pack is deleted only if no chosen place lies in it. Chosen places are in packs that are stored in full size, and
   one prune at a time deletes (``exclusion``), so a chunk's last copy never goes.
7. What is removed goes from the top down, what is added comes from the bottom up: manifest, then its snapshots, then
   its tombstone; new index objects before old ones go, old ones before the packs that they name, condemnations last.
   Interrupted anywhere the repository is whole, and the next prune goes on.
8. A reader holds no lease. It finds what it began with as long as it takes no longer than the grace period, which
   has to pass between the copying of a chunk and the end of its old pack.

Archived WAL goes as the base backups do that need it (``wal_retention`` says why none loses any).

What a storage keeps locked is left out of the plan, which says until when, and comes into that of a later prune; what
it refuses to delete without having said so (write-once storage, a writer's rights) is left and reported. A pack stays
as long as an index object that names it does. Locks of what is still needed are extended at the end (``locks``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from chrono_backups.clock import to_text
from chrono_backups.events import Finding, Listener, silent
from chrono_backups.maintenance.exclusion import CLOCKS_DIFFER, claim
from chrono_backups.maintenance.locks import KeptByLocks, LockedObject, Locks, extend_under, locks_to_json
from chrono_backups.maintenance.repack import Repacker
from chrono_backups.maintenance.survey import Survey, old_packs, started_long_ago, survey
from chrono_backups.maintenance.sweep import Sweep
from chrono_backups.maintenance.wal_retention import WalVerdict, judge_wal
from chrono_backups.repository.repository import Condemned, Repository

REPACK_BELOW = 0.5
"""A pack of which backups need a smaller part than this is copied, to free the rest."""


@dataclass(frozen=True)
class PackUse:
    """A pack, its size and how many bytes of it backups need."""

    digest: bytes
    size: int
    live: int


@dataclass(frozen=True)
class PrunePlan:
    """What a prune would do now. Packs by what would become of them."""

    planned_at: datetime
    grace: timedelta
    condemn: tuple[PackUse, ...] = field(repr=False)
    """Nothing needs them."""
    repack: tuple[PackUse, ...] = field(repr=False)
    """Copied in part, then condemned."""
    sweep: tuple[PackUse, ...] = field(repr=False)
    """Condemned long enough ago, and deleted now."""
    spare: tuple[PackUse, ...] = field(repr=False)
    """Condemned long enough ago, and needed again."""
    waiting: tuple[PackUse, ...] = field(repr=False)
    """Condemned, and not deleted yet."""
    backups: tuple[str, ...]
    """Forgotten ones whose records are removed."""
    snapshots: tuple[str, ...]
    """Of runs that were killed."""
    leases: tuple[str, ...]
    """That have run out."""
    blocked_by: tuple[str, ...]
    """Backups that go on, and that what is condemned has to wait for."""
    next_sweep: datetime | None
    """When the grace period of the oldest waiting condemnation is over."""
    locked: tuple[LockedObject, ...] = field(default=(), repr=False)
    """What would be deleted now, and is locked by the storage."""
    wal: tuple[WalVerdict, ...] = field(default=(), repr=False)
    """A verdict for each cluster whose WAL is archived."""

    @property
    def bytes_freed(self) -> int:
        """Bytes that carrying it out frees at once."""
        return _bytes(self.sweep) + sum(one.bytes_to_remove for one in self.wal)

    def to_json(self) -> dict[str, Any]:
        return {
            "planned_at": to_text(self.planned_at),
            "grace_seconds": self.grace.total_seconds(),
            "packs_to_condemn": len(self.condemn),
            "bytes_to_condemn": _bytes(self.condemn),
            "packs_to_repack": len(self.repack),
            "bytes_to_repack": sum(one.live for one in self.repack),
            "packs_to_delete": len(self.sweep),
            "bytes_to_free": self.bytes_freed,
            "packs_to_spare": len(self.spare),
            "packs_waiting": len(self.waiting),
            "bytes_waiting": _bytes(self.waiting),
            "waiting_for_backups": list(self.blocked_by),
            "next_sweep": to_text(self.next_sweep) if self.next_sweep else None,
            **locks_to_json(self.locked),
            "backups_to_remove": list(self.backups),
            "snapshots_to_remove": list(self.snapshots),
            "leases_to_remove": list(self.leases),
            "wal_objects_to_delete": sum(len(one.remove) for one in self.wal),
            "wal_bytes_to_delete": sum(one.bytes_to_remove for one in self.wal),
            "wal": [one.to_json() for one in self.wal],
        }


@dataclass(frozen=True)
class PruneReport:
    """What a prune did."""

    backups_removed: int
    snapshots_removed: int
    leases_removed: int
    packs_deleted: int
    bytes_freed: int
    wal_objects_deleted: int
    packs_spared: int
    packs_repacked: int
    bytes_repacked: int
    packs_condemned: int
    bytes_condemned: int
    index_objects_written: int
    index_objects_deleted: int
    locked: tuple[str, ...]
    """Objects that the storage refused to delete."""
    still_locked: tuple[LockedObject, ...]
    """Objects that were not tried, as the storage keeps them until a time."""
    locks_extended: int
    """Objects that backups rely on, and that are locked for longer now."""
    findings: tuple[Finding, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        apart = {"locked", "still_locked", "findings"}
        record = {name: value for name, value in vars(self).items() if name not in apart}
        findings = [finding.to_json() for finding in self.findings]
        return {**record, **locks_to_json(self.still_locked), "locked": list(self.locked), "findings": findings}


def _bytes(packs: Iterable[PackUse]) -> int:
    return sum(one.size for one in packs)


def plan_prune(repository: Repository, *, grace: timedelta, now: datetime, listener: Listener = silent) -> PrunePlan:
    """What a prune would do at ``now``. Changes nothing.

    Raises ``Damaged`` where the repository is not whole; ``listener`` has heard of all that is wrong then.
    """
    return _plan(survey(repository, now, listener), grace, Locks(repository.storage))


def _plan(found: Survey, grace: timedelta, locks: Locks) -> PrunePlan:
    due = [one for one in found.condemned if is_due(found, one, grace)]
    later = [one for one in found.condemned if one not in due]
    due_packs = {pack for one in due for pack in one.packs}
    condemned = due_packs | {pack for one in later for pack in one.packs}
    uses = {digest: PackUse(digest, size, found.live[digest]) for digest, size in found.stored.items()}
    indexed = found.index.packs()
    is_old = old_packs(found)
    free = [
        one
        for digest, one in uses.items()
        if digest not in condemned and (is_old(digest) if digest in indexed else not found.writers)
    ]
    ripe = [one for one in later if one.condemned_at + grace <= found.now]
    kept = KeptByLocks(found, locks)
    removed = kept.backups(name for name, at in found.forgotten.items() if at is None or at + grace <= found.now)
    doomed = kept.packs(pack for pack in sorted(due_packs & uses.keys()) if not found.live[pack])
    return PrunePlan(
        planned_at=found.now,
        grace=grace,
        condemn=tuple(one for one in free if not one.live),
        repack=tuple(one for one in free if 0 < one.live < REPACK_BELOW * found.filled[one.digest]),
        sweep=tuple(uses[pack] for pack in doomed),
        spare=tuple(uses[pack] for pack in sorted(due_packs & uses.keys()) if found.live[pack]),
        waiting=tuple(uses[pack] for pack in sorted((condemned - due_packs) & uses.keys())),
        backups=removed,
        snapshots=kept.snapshots(orphans(found, grace, removed)),
        leases=tuple(found.expired),
        blocked_by=tuple(sorted({lease.holder for one in ripe for lease in blockers(found, one)})),
        next_sweep=min((one.condemned_at + grace for one in later), default=None),
        wal=tuple(map(kept.wal, judged_wal(found, removed))),
        locked=tuple(kept.locked.values()),
    )


def judged_wal(found: Survey, removed: Iterable[str]) -> list[WalVerdict]:
    """What becomes of the WAL, once the backups ``removed`` are."""
    gone = set(removed)
    bases = [base for base in found.bases if base.backup_id not in gone]
    return [judge_wal(one.archived, bases, found.writers, found.now, one.newest) for one in found.wal]


def blockers(found: Survey, condemned: Condemned) -> list[Any]:
    """The backups that may have begun before the condemnation."""
    return [lease for lease in found.writers if lease.started_at < condemned.condemned_at + CLOCKS_DIFFER]


def is_due(found: Survey, condemned: Condemned, grace: timedelta) -> bool:
    """Whether a condemnation may be carried out."""
    return condemned.condemned_at + grace <= found.now and not blockers(found, condemned)


def orphans(found: Survey, grace: timedelta, removed: Iterable[str]) -> list[str]:
    """Snapshots that no manifest will ever name: of killed runs, or of a removed backup by an interrupted prune."""
    hidden = (set(found.manifests) & found.forgotten.keys()) - set(removed)
    held = {lease.holder for lease in found.writers}
    orphaned = []
    for name in found.snapshots:
        backup_id = name.rsplit("-", 2)[0]
        if name in found.claimed or backup_id in hidden or backup_id in held:
            continue
        if backup_id in removed or started_long_ago(found, backup_id, grace):
            orphaned.append(name)
    return orphaned


def prune(repository: Repository, plan: PrunePlan, listener: Listener = silent) -> PruneReport:
    """Carry a plan out: what it shows and is still so, and nothing else.

    Interrupted anywhere it leaves the repository whole, and the next prune goes on. Raises ``RepositoryError`` where
    another prune or a replication into this storage goes on, and ``Damaged`` where the repository is not whole.
    """
    started = repository.clock.monotonic()
    with claim(repository, "prune") as held:
        found = survey(repository, repository.clock.now(), listener)
        locks = Locks(repository.storage)
        fresh = _plan(found, plan.grace, locks)
        held.keep()
        sweep = Sweep(repository, found, held, listener, locks)
        doomed = _both(fresh.sweep, plan.sweep)
        due = [one for one in found.condemned if is_due(found, one, plan.grace)]
        sweep.records(_names(fresh.backups, plan.backups), _names(fresh.snapshots, plan.snapshots))
        sweep.leases(_names(fresh.leases, plan.leases))
        sweep.packs({one.digest: one.size for one in doomed}, due)
        for verdict in fresh.wal:
            sweep.wal(verdict, _names(verdict.remove, _wal_names(plan, verdict.system_identifier)))
        repacker = Repacker(repository, found, held, listener)
        repacked = repacker.run([one.digest for one in _both(fresh.repack, plan.repack)])
        condemned = [*_both(fresh.condemn, plan.condemn), *(one for one in fresh.repack if one.digest in repacked)]
        if condemned:
            held.keep()
            repository.condemn(one.digest for one in condemned)
        extended = extend_under(repository, held, listener)
    refused = sweep.findings()
    for finding in refused:
        listener(finding)
    return PruneReport(
        backups_removed=sweep.backups_removed,
        snapshots_removed=sweep.snapshots_removed,
        leases_removed=sweep.leases_removed,
        packs_deleted=sweep.packs_deleted,
        bytes_freed=sweep.bytes_freed,
        wal_objects_deleted=sweep.wal_deleted,
        packs_spared=len(fresh.spare),
        packs_repacked=len(repacked),
        bytes_repacked=repacker.bytes,
        packs_condemned=len(condemned),
        bytes_condemned=_bytes(condemned),
        index_objects_written=sweep.index_written + repacker.index_written,
        index_objects_deleted=sweep.index_deleted,
        locked=tuple(sweep.locked),
        still_locked=fresh.locked,
        locks_extended=extended.extended,
        findings=(*repacker.findings.found, *refused),
        seconds=repository.clock.monotonic() - started,
    )


def _both(now: Iterable[PackUse], planned: Iterable[PackUse]) -> list[PackUse]:
    shown = {one.digest for one in planned}
    return [one for one in now if one.digest in shown]


def _wal_names(plan: PrunePlan, system: str) -> tuple[str, ...]:
    return next((one.remove for one in plan.wal if one.system_identifier == system), ())


def _names(now: Iterable[str], planned: Iterable[str]) -> list[str]:
    shown = set(planned)
    return [name for name in now if name in shown]
