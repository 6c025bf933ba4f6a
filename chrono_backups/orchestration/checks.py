"""Integrity checks on each backup asset. They read the repository, never the asset: steps hand over no data.

| check | blocking | proves |
|---|---|---|
| `complete` | yes | no source is missing |
| `structure_verified` | yes | the manifest, its snapshots, listings and all objects they need are there, authentic |
| `bytes_verified` | yes | every byte that this backup stored can be read, decrypted and is what was written |
| `size_plausible` | no | each source is about as large as in earlier backups of the type |
| `no_findings` | no | every file could be read, and the boundaries lie as close together as they may |
| `restores` | no | the newest restore drill of a backup of the type found it true; `drill` evaluates it, too |
| `application_checks` | no | the operator's own checks across the stores held in that drill; so too |

A blocking check that fails fails its run, and holds replication back until the asset passes again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from chrono_backups.errors import Damaged
from chrono_backups.events import Finding
from chrono_backups.identifiers import BACKUP_TYPES, BackupType
from chrono_backups.maintenance.verify import verify
from chrono_backups.monitoring import plausible
from chrono_backups.orchestration.failures import explained
from chrono_backups.orchestration.metadata import (
    Metadata,
    checks_table,
    findings_table,
    in_words,
    plain_metadata,
    table,
)
from chrono_backups.orchestration.names import (
    APPLICATION_CHECK,
    BYTES_CHECK,
    COMPLETE_CHECK,
    FINDINGS_CHECK,
    RESTORES_CHECK,
    SIZE_CHECK,
    STRUCTURE_CHECK,
    backup_asset_key,
)
from chrono_backups.orchestration.progress import RunLog
from chrono_backups.orchestration.resources import PRIMARY, BackupsResource
from chrono_backups.orchestration.runs import POOL
from chrono_backups.orchestration.steps import missing_in_words
from chrono_backups.repository.evidence import newest_evidence
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository


@dataclass(frozen=True)
class Subject:
    """The backup that a check looks at, where it lies, and whether its bytes are to be read."""

    manifest: Manifest
    storage: str
    read_bytes: bool
    size_factor: float
    """How many times smaller or larger than its kin a source is suspicious."""


@dataclass(frozen=True)
class Judgement:
    """What a check found."""

    passed: bool
    severity: dg.AssetCheckSeverity
    metadata: Metadata
    description: str = ""


Judge = Callable[[dg.AssetCheckExecutionContext, Repository, Subject], Judgement | None]
"""None: there is nothing to judge by, and the check stays as it is."""


def _complete(_context: dg.AssetCheckExecutionContext, _repository: Repository, subject: Subject) -> Judgement:
    manifest = subject.manifest
    held = ", ".join(snapshot.source for snapshot in manifest.snapshots)
    if manifest.status == "complete":
        return Judgement(True, dg.AssetCheckSeverity.ERROR, {}, f"Holds {held}.")
    missing = dg.MetadataValue.md(table(("missing source", "why"), manifest.failures.items()))
    return Judgement(False, dg.AssetCheckSeverity.ERROR, {"missing": missing}, missing_in_words(manifest))


def _structure(context: dg.AssetCheckExecutionContext, repository: Repository, subject: Subject) -> Judgement:
    return _verified(context, repository, subject, full=False)


def _bytes(context: dg.AssetCheckExecutionContext, repository: Repository, subject: Subject) -> Judgement:
    if not subject.read_bytes:
        return Judgement(
            False, dg.AssetCheckSeverity.WARN, {}, "Not read back, as the launch or BACKUP_VERIFY_INTEGRITY said."
        )
    return _verified(context, repository, subject, full=True)


def _verified(
    context: dg.AssetCheckExecutionContext, repository: Repository, subject: Subject, *, full: bool
) -> Judgement:
    report = verify(repository, backup_id=subject.manifest.backup_id, full=full, listener=RunLog(context.log))
    metadata = plain_metadata(report.to_json())
    if report.findings:
        metadata["findings"] = dg.MetadataValue.md(findings_table(report.findings))
    words = verified_in_words(report.findings, whole=report.ok)
    return Judgement(report.ok, dg.AssetCheckSeverity.ERROR, metadata, words)


def verified_in_words(findings: Sequence[Finding], *, whole: bool) -> str:
    """One line for a verification's result; names the first damaged thing."""
    if whole:
        return "Everything is what was written."
    errors = [finding for finding in findings if finding.severity == "error"]
    return f"{len(errors)} damaged or missing, the first: {errors[0].subject}: {errors[0].message}"


def _size(_context: dg.AssetCheckExecutionContext, repository: Repository, subject: Subject) -> Judgement:
    rows, odd = [], []
    for one in plausible.sizes(subject.manifest, repository.readable_backups()[0]):
        if one.is_odd(subject.size_factor):
            odd.append(f"{one.source}: {in_words(one.size)}, usually {in_words(one.usual)}")
        rows.append((one.source, in_words(one.size), in_words(one.usual), one.kin))
    sizes = dg.MetadataValue.md(table(("source", "content#", "usual#", "earlier backups#"), rows))
    words = "; ".join(odd) or "As large as backups of this type usually are."
    return Judgement(not odd, dg.AssetCheckSeverity.WARN, {"sizes": sizes}, words)


def _findings(_context: dg.AssetCheckExecutionContext, repository: Repository, subject: Subject) -> Judgement:
    found = [*subject.manifest.findings]
    found += [
        finding
        for summary in subject.manifest.snapshots
        if summary.findings
        for finding in repository.snapshot(summary.snapshot_id).findings
    ]
    worth = [finding for finding in found if finding.severity != "info"]
    metadata: Metadata = {"findings": dg.MetadataValue.int(len(worth))}
    if found:
        metadata["table"] = dg.MetadataValue.md(findings_table(found))
    words = f"{len(worth):,} to look at." if worth else "Everything was captured as it is."
    return Judgement(not worth, dg.AssetCheckSeverity.WARN, metadata, words)


def _restores(context: dg.AssetCheckExecutionContext, repository: Repository, subject: Subject) -> Judgement | None:
    """By the evidence; a backup that was made a moment ago has none yet, and none of its type may be drilled yet."""
    found = newest_evidence(repository, subject.manifest.type)
    if found is None:
        words = f"No restore of a {subject.manifest.type} backup was drilled yet: launch `drill`."
        return None if context.has_partition_key else Judgement(False, dg.AssetCheckSeverity.WARN, {}, words)
    good = found.proven or bool(found.details.get("good"))
    verdict = ("was proven" if found.proven else "was good as far as it was drilled") if good else "was NOT right"
    words = f"The restore of {found.backup_id} {verdict} on {found.started_at:%Y-%m-%d %H:%M} UTC."
    metadata: Metadata = {
        "drilled_backup": dg.MetadataValue.text(found.backup_id),
        "drilled_at": dg.MetadataValue.timestamp(found.started_at),
        "recovery_seconds": dg.MetadataValue.float(
            float(found.details.get("recovery_seconds", (found.finished_at - found.started_at).total_seconds()))
        ),
    }
    return Judgement(good, dg.AssetCheckSeverity.ERROR, metadata, words)


def _application(context: dg.AssetCheckExecutionContext, repository: Repository, subject: Subject) -> Judgement | None:
    """By the evidence, as ``_restores``."""
    found = newest_evidence(repository, subject.manifest.type)
    checks = list(found.details.get("checks", ())) if found is not None else []
    if found is None or not checks:
        words = f"No drill of a {subject.manifest.type} backup had checks of the operator's: set BACKUP_DRILL_CHECKS."
        return None if context.has_partition_key else Judgement(False, dg.AssetCheckSeverity.WARN, {}, words)
    bad = [str(one["name"]) for one in checks if not one["good"]]
    words = f"{', '.join(bad)} did not hold" if bad else f"all {len(checks)} checks held"
    metadata: Metadata = {
        "drilled_backup": dg.MetadataValue.text(found.backup_id),
        "checks": dg.MetadataValue.md(checks_table(checks)),
    }
    told = f"In the drill of {found.backup_id} on {found.started_at:%Y-%m-%d %H:%M} UTC {words}."
    return Judgement(not bad, dg.AssetCheckSeverity.ERROR, metadata, told)


@dataclass(frozen=True)
class Check:
    """One row of the table above."""

    judge: Judge
    blocking: bool
    description: str


CHECKS: Mapping[str, Check] = {
    COMPLETE_CHECK: Check(_complete, True, "No source is missing from the backup."),
    STRUCTURE_CHECK: Check(
        _structure, True, "Manifest, snapshots, listings and index are authentic, and every object they need is there."
    ),
    BYTES_CHECK: Check(_bytes, True, "Every stored byte can be read and decrypted, and is what was written."),
    SIZE_CHECK: Check(_size, False, "Each source is about as large as in earlier backups of this type."),
    FINDINGS_CHECK: Check(
        _findings, False, "Everything was captured as it is, and the boundaries lie as close together as they may."
    ),
    RESTORES_CHECK: Check(_restores, False, "The newest restore drill of a backup of this type found it true."),
    APPLICATION_CHECK: Check(_application, False, "The operator's own checks across the stores held in that drill."),
}


def check_key(backup_type: BackupType, name: str) -> dg.AssetCheckKey:
    """The check of that name on that backup type's asset."""
    return dg.AssetCheckKey(backup_asset_key(backup_type), name)


def _subject(context: dg.AssetCheckExecutionContext, backups: BackupsResource, backup_type: BackupType) -> Subject:
    """The backup that this run made; of a lone check, the newest one of its day, else of its type."""
    factor = backups.load().health.size_factor
    day = [context.partition_key] if context.has_partition_key else None
    records = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=backup_asset_key(backup_type), asset_partitions=day), limit=1
    ).records
    made = records[0].asset_materialization if records else None
    if made is None:
        with backups.opened() as (_, repository):
            newest = next((one for one in repository.readable_backups()[0] if one.type == backup_type), None)
        if newest is None:
            raise dg.Failure(f"There is no {backup_type} backup to check.", allow_retries=False)
        return Subject(newest, PRIMARY, True, factor)
    facts = {name: value.value for name, value in made.metadata.items()}
    storage = str(facts.get("storage", PRIMARY))
    with backups.opened(storage) as (_, repository):
        manifest = repository.backup(str(facts["backup_id"]))
    return Subject(manifest, storage, bool(facts.get("verify_integrity", True)), factor)


def build_checks(backup_type: BackupType) -> dg.AssetChecksDefinition:
    """All checks of one backup type, as one step."""
    asset = backup_asset_key(backup_type)

    @dg.multi_asset_check(
        name=f"{backup_type}_checks",
        specs=[
            dg.AssetCheckSpec(name, asset=asset, blocking=check.blocking, description=check.description)
            for name, check in CHECKS.items()
        ],
        can_subset=True,
        pool=POOL,
    )
    def checks(context: dg.AssetCheckExecutionContext, backups: BackupsResource) -> Iterator[dg.AssetCheckResult]:
        selected = [name for name in CHECKS if check_key(backup_type, name) in context.selected_asset_check_keys]
        with explained(context):
            try:
                subject = _subject(context, backups, backup_type)
            except Damaged as error:
                yield from (_result(backup_type, name, _unreadable(name, error)) for name in selected)
                return
            with backups.opened(subject.storage) as (_, repository):
                for name in selected:
                    judged = CHECKS[name].judge(context, repository, subject)
                    if judged is None:
                        continue
                    yield _result(backup_type, name, judged, subject.manifest.backup_id)

    return checks


def _unreadable(name: str, error: Damaged) -> Judgement:
    """The manifest itself is damaged: nothing of the backup is proven."""
    severity = dg.AssetCheckSeverity.ERROR if CHECKS[name].blocking else dg.AssetCheckSeverity.WARN
    return Judgement(False, severity, {"damaged": dg.MetadataValue.text(error.key)}, str(error))


def _result(backup_type: BackupType, name: str, judged: Judgement, backup_id: str = "") -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=backup_asset_key(backup_type),
        check_name=name,
        passed=judged.passed,
        severity=judged.severity,
        description=judged.description,
        metadata={**({"backup_id": backup_id} if backup_id else {}), **judged.metadata},
    )


def build_all_checks() -> list[dg.AssetChecksDefinition]:
    """The checks of all backup types."""
    return [build_checks(backup_type) for backup_type in BACKUP_TYPES]
