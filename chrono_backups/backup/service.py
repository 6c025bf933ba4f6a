"""Taking a backup, in three steps that may run in processes of their own: plan, capture each source, commit."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, cast

from chrono_backups import __version__
from chrono_backups.backup.account import Account
from chrono_backups.backup.boundaries import Moments, Positions, StreamWatched, TreeWatched
from chrono_backups.backup.capture import Captured, Parent, TreeCapture
from chrono_backups.backup.plan import BackupPlan, Outcome, plan_backup
from chrono_backups.backup.skew import skew_findings
from chrono_backups.backup.streamed import EarlierListing, StreamCapture, expected
from chrono_backups.errors import BackupFailed, Damaged, SourceError, StorageError
from chrono_backups.events import Finding, Listener, Progress, silent
from chrono_backups.identifiers import SourceName
from chrono_backups.repository.leases import Lease
from chrono_backups.repository.listings import ListingCursor, read_listing
from chrono_backups.repository.records import AuditHead, Effective, Manifest, Snapshot, SnapshotSummary
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.writer import ChunkWriter, PipelineOptions
from chrono_backups.sources.base import AnySource, ComparingSource, Earlier, StreamedSource

__all__ = ["BackupPlan", "Outcome", "abandon", "capture", "commit", "plan_backup"]

PROGRAM = f"chrono-backups {__version__}"
FINDINGS_KEPT = 1000
"""Of those that the source and the repository make, beside those of the entries."""


@dataclass(frozen=True)
class _Basis:
    """What a capture starts from: an earlier snapshot, or none and the reason."""

    effective: Effective
    reason: str
    snapshot: Snapshot | None


def capture(
    repository: Repository,
    plan: BackupPlan,
    source: AnySource,
    *,
    options: PipelineOptions | None = None,
    listener: Listener = silent,
    positions: Positions | None = None,
) -> Outcome:
    """Capture one source into the repository. ``positions`` tell PostgreSQL's at the capture's boundary.

    A fault of the source is its ``Outcome``; a fault of the storage or repository raises, and so does an
    interruption. Either way nothing is visible, and what was stored is used by the next backup.
    """
    lease = _lease(repository, plan)
    basis = _basis(repository, plan, source)
    started_at = repository.clock.now()
    early: list[Finding] = []

    def hear(event: Progress | Finding) -> None:
        if isinstance(event, Finding):
            _keep(early, event, source.name)
        listener(event)

    def keep_lease() -> None:
        nonlocal lease
        lease = repository.leases.keep(lease)
        repository.memory.know(plan.backup_id, "lease", lease)

    def hear_capture(event: Progress | Finding) -> None:
        keep_lease()  # also in hours in which nothing new is stored
        listener(event)

    try:
        with (
            nullcontext() if positions is None else positions(hear) as position,
            repository.writer(
                options or PipelineOptions(), listener=hear, on_pack=keep_lease, run=plan.backup_id
            ) as writer,
        ):
            take = _take_stream if isinstance(source, StreamedSource) else _take_tree
            moments = Moments(repository.clock, position)
            taken = take(repository, writer, source, basis, hear, hear_capture, moments)
            writer.flush()
            statistics = taken.captured.tally.statistics(writer)
    except SourceError as error:
        why = f"{error.message} ({error.hint})" if error.hint else error.message
        return Outcome(source.name, None, why, type(error).__name__)
    basis, captured = taken.basis, taken.captured
    facts = {**taken.facts, "listing_digest": _digest(repository, captured)}
    boundary = moments.boundary(source.name, facts)
    snapshot = Snapshot(
        snapshot_id=f"{plan.backup_id}-{source.name}-{repository.clock.random_bytes(4).hex()}",
        backup_id=plan.backup_id,
        source=source.name,
        effective=basis.effective,
        reason=basis.reason,
        parent=basis.snapshot.snapshot_id if basis.snapshot and basis.effective != "full" else None,
        started_at=started_at,
        finished_at=repository.clock.now(),
        statistics=statistics,
        facts=facts,
        findings=(*early, *captured.findings),
        listing=captured.listing,
        wasteful=captured.wasteful,
        boundary=boundary,
    )
    repository.put_snapshot(snapshot)
    return Outcome(source.name, snapshot.snapshot_id)


@dataclass(frozen=True)
class _Taken:
    captured: Captured
    basis: _Basis
    """What the capture was really built on."""
    facts: Mapping[str, Any]


def _take_tree(
    repository: Repository,
    writer: ChunkWriter,
    source: AnySource,
    basis: _Basis,
    hear: Listener,
    told: Listener,
    moments: Moments,
) -> _Taken:
    assert not isinstance(source, StreamedSource)
    with source.capture(hear) as opened:
        tree = TreeCapture(
            writer,
            repository.reader,
            repository.keys,
            basis.effective,
            _parent(repository, basis),
            subject=source.name,
            listener=told,
            expected=basis.snapshot.statistics if basis.snapshot else None,
        )
        return _Taken(tree.run(TreeWatched(opened, moments)), basis, dict(opened.facts()))


def _take_stream(
    repository: Repository,
    writer: ChunkWriter,
    source: AnySource,
    basis: _Basis,
    hear: Listener,
    told: Listener,
    moments: Moments,
) -> _Taken:
    assert isinstance(source, StreamedSource)
    builds = basis.effective != "full" or isinstance(source, ComparingSource)
    listing, basis = _earlier_listing(repository, writer, basis, builds=builds)
    earlier = None
    if listing is not None and basis.snapshot is not None and builds:
        earlier = Earlier(basis.snapshot.snapshot_id, basis.snapshot.facts, listing.read, listing.stream)
    with source.stream(earlier, basis.effective, hear) as opened:
        if opened.effective != basis.effective:
            basis = replace(basis, effective=opened.effective, reason=opened.reason)
        account = Account(source.name, told, expected(opened.expected_bytes, basis.snapshot))
        wasteful = frozenset(basis.snapshot.wasteful) if basis.snapshot else frozenset[bytes]()
        stream = StreamCapture(
            writer, repository.reader, repository.keys, basis.effective, listing, account, wasteful=wasteful
        )
        return _Taken(stream.run(StreamWatched(opened, moments)), basis, dict(opened.facts()))


def _earlier_listing(
    repository: Repository, writer: ChunkWriter, basis: _Basis, *, builds: bool
) -> tuple[EarlierListing | None, _Basis]:
    """The listing to build on; none, and a full capture, where not all that it needs is held for certain.

    Where nothing ``builds`` on it, it need only be readable.
    """
    if basis.snapshot is None:
        return None, basis
    try:
        listing = EarlierListing(repository.reader, basis.snapshot)
        missing = listing.missing(writer) if builds else None
    except Damaged as error:
        why = f"the earlier snapshot of {basis.snapshot.source} can't be read: {error}"
    else:
        if missing is None:
            return listing, basis
        why = f"the earlier snapshot of {basis.snapshot.source} lacks the chunk {missing.hex()}"
    return None, _Basis("full", why if basis.effective != "full" else "", None)


def _keep(findings: list[Finding], found: Finding, source: SourceName) -> None:
    """Keep so many, and then one that says that there were more."""
    if len(findings) < FINDINGS_KEPT:
        findings.append(found)
    elif len(findings) == FINDINGS_KEPT:
        findings.append(Finding("more-findings", "warning", source, "there were more findings than are kept"))


def _digest(repository: Repository, captured: Captured) -> str:
    """The boundary of a tree: the same listing, the same digest."""
    return repository.keys.content_hash(b"".join(chunk.chunk_id for chunk in captured.listing)).hex()


def _basis(repository: Repository, plan: BackupPlan, source_of: AnySource) -> _Basis:
    """The newest usable snapshot of the source. For a full capture too: it is read beside, not trusted."""
    source = source_of.name
    asked: Effective = "full"
    if plan.type in {"incremental", "differential"}:
        asked = cast("Effective", plan.type)
    elif plan.type == "database_only" and isinstance(source_of, StreamedSource):
        asked = "incremental"  # of a database; a store that knows no increments makes it a full one
    try:
        manifests, damaged = repository.readable_backups(plan.backup_id)
        candidates = [found for one in manifests if (found := one.snapshot(source)) is not None]
        if asked == "differential":
            candidates = [one for one in candidates if one.effective == "full"]
        if not candidates:
            reason = f"there is no earlier {'full ' if asked == 'differential' else ''}snapshot of {source}"
            if damaged:
                reason += f", and this can't be read: {next(iter(damaged.values()))}"
            return _Basis("full", "" if asked == "full" else reason, None)
        return _Basis(asked, "", repository.snapshot(candidates[0].snapshot_id))
    except Damaged as error:
        reason = f"the earlier snapshot of {source} can't be read: {error}"
        return _Basis("full", "" if asked == "full" else reason, None)


def _lease(repository: Repository, plan: BackupPlan) -> Lease:
    return repository.memory.once(plan.backup_id, "lease", lambda: repository.leases.find(plan.backup_id))


def _parent(repository: Repository, basis: _Basis) -> Parent | None:
    snapshot = basis.snapshot
    if snapshot is None:
        return None
    cursor = ListingCursor(read_listing(repository.reader, snapshot.listing))
    return Parent(cursor, int(snapshot.started_at.timestamp() * 1e9), frozenset(snapshot.wasteful))


def commit(
    repository: Repository,
    plan: BackupPlan,
    outcomes: Sequence[Outcome],
    *,
    trigger: str,
    max_skew: float | None = None,
    listener: Listener = silent,
    audit: AuditHead | None = None,
) -> Manifest:
    """Make the backup visible: ``complete`` with all sources, else ``partial``.

    A skew of more than ``max_skew`` seconds is a finding of the backup.

    Raises ``BackupFailed`` where no source was captured, and ``LeaseLost``; nothing is visible then.
    """
    lease = _lease(repository, plan)
    failures: dict[str, str] = {one.source: one.error or "" for one in outcomes if one.snapshot_id is None}
    failures |= {name: "it was not captured" for name in plan.sources if name not in {one.source for one in outcomes}}
    taken = [repository.snapshot(one.snapshot_id) for one in outcomes if one.snapshot_id is not None]
    if not taken:
        repository.leases.release(plan.backup_id)
        named = "; ".join(failures.values()) or "there was no source"
        raise BackupFailed(f"nothing could be captured: {named}", failures=failures)
    manifest = Manifest(
        backup_id=plan.backup_id,
        type=plan.type,
        status="partial" if failures else "complete",
        started_at=plan.started_at,
        finished_at=repository.clock.now(),
        snapshots=tuple(SnapshotSummary.of(snapshot) for snapshot in taken),
        failures=failures,
        host=platform.node(),
        program=PROGRAM,
        trigger=trigger,
        audit=audit,
    )
    manifest = replace(manifest, findings=tuple(skew_findings(manifest, max_skew)))
    for finding in manifest.findings:
        listener(finding)
    repository.leases.check(lease)
    repository.put_manifest(manifest)
    with suppress(StorageError):  # the backup stands, and a lease that stays runs out
        repository.leases.release(plan.backup_id)
    return manifest


def abandon(repository: Repository, plan: BackupPlan) -> None:
    """Give up a planned backup. What was stored is found and used by a later one, or pruned."""
    repository.leases.release(plan.backup_id)
