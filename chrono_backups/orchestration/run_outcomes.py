"""How a run ended, read from its own events: what it did, why it failed, which checks passed, which backup it made."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import dagster as dg
from dagster import AssetCheckEvaluation, DagsterEventType

from chrono_backups.events import Finding, Severity
from chrono_backups.identifiers import BACKUP_TYPES, parse_backup_id
from chrono_backups.notifications.heartbeat import Made
from chrono_backups.notifications.outcome import (
    DRILL,
    REPLICATION,
    RESTORE,
    RETENTION,
    VERIFICATION,
    Ended,
    backup_operation,
)
from chrono_backups.notifications.rendering import age, amount
from chrono_backups.orchestration.names import BACKUP_ID_TAG, BYTES_CHECK, COMPLETE_CHECK, REPLICA
from chrono_backups.orchestration.names import VERIFICATION as VERIFICATION_ASSET
from chrono_backups.orchestration.resources import PRIMARY

_OVER_TIME = "maximum runtime"
"""In what Dagster's monitoring says of a run that it ends for lasting too long."""
_KINDS = {
    VERIFICATION_ASSET.to_user_string(): (VERIFICATION, "verify-failed"),
    REPLICA.to_user_string(): (REPLICATION, "replication-failed"),
    "retention": (RETENTION, "retention-failed"),
    "restore_backup": (RESTORE, "restore-failed"),
}


@dataclass(frozen=True)
class RunOutcome:
    """What there is to tell of a run."""

    ended: Ended
    checked: frozenset[str]
    """The checks that were evaluated, as findings call them."""
    checks_only: bool
    """It evaluated checks of what other runs made."""
    made: Made | None
    """The complete backup that it made."""
    proven: str
    """A backup of which it read every byte, and found it true."""


def outcome(instance: dg.DagsterInstance, run: dg.DagsterRun, said: str, link: str, primary: str) -> RunOutcome:
    """Of a run that ended. ``said``: Dagster's word about it; ``link``: its page; ``primary``: the first storage."""
    operation, event, backup_type = operation_of(run)
    evaluations = list(_evaluations(instance, run.run_id))
    made, partial = _made(instance, run.run_id)
    findings = tuple(_finding(one) for one in evaluations if not one.passed and not _left_out(one))
    if not any(one.check_name == COMPLETE_CHECK for one in evaluations):
        findings += tuple(partial)  # a launch without checks
    ended = Ended(
        operation,
        event,
        findings=findings,
        storage=next((primary if one.storage == PRIMARY else one.storage for one in made), ""),
        backup_id=run.tags.get(BACKUP_ID_TAG, ""),
        backup_type=backup_type,
        link=link,
    )
    # A backup that was made, and whose blocking check failed, failed its run: what is wrong is the check's to say.
    judged = bool(partial) or (bool(made) and any(one.blocking and not one.passed for one in evaluations))
    if run.status is not dg.DagsterRunStatus.SUCCESS and not judged:
        ended = _failed(instance, run, ended, said)
    proofs = [_text(one, "backup_id") for one in evaluations if one.passed and one.check_name == BYTES_CHECK]
    good = ended.how == "done" and not any(finding.severity == "error" for finding in findings)
    return RunOutcome(
        ended,
        frozenset(check_in_words(one) for one in evaluations),
        bool(run.asset_check_selection) and not run.asset_selection,
        next((replace(one, link=link) for one in made if good), None),
        proofs[-1] if proofs else "",
    )


def operation_of(run: dg.DagsterRun) -> tuple[str, str, str]:
    """What people call it, what its failure is, and the backup type. The command line calls the same work the same."""
    names = [key.to_user_string() for key in run.asset_selection or ()]
    names += [key.asset_key.to_user_string() for key in run.asset_check_selection or ()]
    names.append(run.job_name.removesuffix("_job"))
    for name in names:
        if name in _KINDS:
            return (*_KINDS[name], "")
        for backup_type in BACKUP_TYPES:
            if name == f"{backup_type}_backup":
                return backup_operation(backup_type), "backup-failed", backup_type
        if "drill" in name:
            return DRILL, "drill-failed", ""
    return names[0], "run-failed", ""


def _failed(instance: dg.DagsterInstance, run: dg.DagsterRun, ended: Ended, said: str) -> Ended:
    """Why, as far as its steps and Dagster's monitoring say."""
    cancelling = [entry.message for entry in instance.all_logs(run.run_id, of_type=DagsterEventType.RUN_CANCELING)]
    if _OVER_TIME in " ".join([said, *cancelling]).lower():
        return replace(ended, how="over-time")
    if run.status is dg.DagsterRunStatus.CANCELED:
        return replace(ended, how="cancelled", findings=())
    for entry in instance.all_logs(run.run_id, of_type=DagsterEventType.STEP_FAILURE):
        data = entry.get_dagster_event().step_failure_data
        if (own := data.user_failure_data) is not None and own.description:
            facts = {name: str(value.value) for name, value in own.metadata.items()}
            message, _, hint = own.description.partition("\n")
            place = facts.get("storage") or facts.get("source", "")
            return replace(
                ended, how="failed", message=message, hint=facts.get("hint", hint),
                kind=facts.get("error", ""), place=place,
            )  # fmt: skip
        if data.error is not None:
            first = (data.error.cause or data.error).message.strip().partition("\n")[0]
            return replace(ended, how="failed", message=first)
    return replace(ended, how="failed", message=said, hint="Its page in Dagster has the log of it.")


def _evaluations(instance: dg.DagsterInstance, run_id: str) -> Iterator[AssetCheckEvaluation]:
    for entry in instance.all_logs(run_id, of_type=DagsterEventType.ASSET_CHECK_EVALUATION):
        yield entry.get_dagster_event().asset_check_evaluation_data


def check_in_words(evaluation: AssetCheckEvaluation) -> str:
    """``bytes_verified of full backup``."""
    return f"{evaluation.check_name} of {evaluation.asset_key.to_user_string().replace('_backup', ' backup')}"


def _finding(evaluation: AssetCheckEvaluation) -> Finding:
    """What a check that failed is: a partial backup has its own name, by which health knows it too."""
    what = evaluation.description or "It failed; its page in Dagster says more."
    subject = check_in_words(evaluation)
    if evaluation.check_name == COMPLETE_CHECK:
        hint = "Mend the source, and take another one."
        return Finding("backup-partial", "error", subject.removeprefix(f"{COMPLETE_CHECK} of "), what, hint)
    severity: Severity = "error" if evaluation.severity is dg.AssetCheckSeverity.ERROR else "warning"
    hint = "The check's page in Dagster has the details."
    if severity == "error":
        hint = "`chrono-backups verify --full --repair` puts back what another storage has whole. " + hint
    return Finding("check-failed", severity, subject, what, hint)


def _left_out(evaluation: AssetCheckEvaluation) -> bool:
    """Whether it warns only that it was not asked to look (BACKUP_VERIFY_INTEGRITY=false)."""
    return evaluation.check_name == BYTES_CHECK and evaluation.severity is dg.AssetCheckSeverity.WARN


def _text(evaluation: AssetCheckEvaluation, name: str) -> str:
    value = evaluation.metadata.get(name)
    return str(value.value) if value is not None else ""


def _made(instance: dg.DagsterInstance, run_id: str) -> tuple[list[Made], list[Finding]]:
    """The complete backups that the run took, and what others lack; a past day's stand-in is none."""
    found, partial = [], []
    for entry in instance.all_logs(run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION):
        made = entry.get_dagster_event().step_materialization_data.materialization
        facts = {name: value.value for name, value in made.metadata.items()}
        name = made.asset_key.to_user_string()
        backup_type = name.removesuffix("_backup")
        if backup_type not in BACKUP_TYPES or "backup_id" not in facts or facts.get("synthetic"):
            continue
        if facts.get("status") == "partial":
            what = f"{facts['backup_id']} is partial; the run says what it lacks"
            hint = "Mend the source, and take another one."
            partial.append(Finding("backup-partial", "error", backup_operation(backup_type), what, hint))
        else:
            found.append(_of_facts(backup_type, facts))
    return found, partial


def _of_facts(backup_type: str, facts: dict[str, Any]) -> Made:
    sizes = f"{amount(facts.get('bytes_total', 0))} in all, {amount(facts.get('bytes_stored', 0))} stored anew"
    took = timedelta(seconds=facts.get("duration_seconds", 0))
    what = f"{facts['backup_id']} is complete: {sizes}, in {age(took)}."
    backup_id = str(facts["backup_id"])
    parsed = parse_backup_id(backup_id)
    assert parsed is not None  # every backup has such an id
    return Made(backup_id, backup_type, parsed[1], what, storage=str(facts.get("storage", PRIMARY)))
