"""Forgetting: backups drop out of sight. Nothing is deleted; ``prune`` frees their space later.

A forgotten backup has a **tombstone**. Each is one object, so forgetting may be interrupted behind any of
them and repeated at will.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any

from chrono_backups.errors import BackupMissing, Damaged, ObjectMissing, RepositoryError, UsageError
from chrono_backups.events import silent
from chrono_backups.maintenance.retention import Verdict, judge
from chrono_backups.maintenance.settings import RetentionPolicy
from chrono_backups.maintenance.wal_retention import WalVerdict, judge_wal
from chrono_backups.maintenance.wal_survey import archived_wal
from chrono_backups.repository.evidence import proven
from chrono_backups.repository.recovery_points import bases
from chrono_backups.repository.repository import Repository

_DAMAGED = "its manifest is damaged, so no rule can judge it: see `chrono-backups verify`"


@dataclass(frozen=True)
class ForgetPlan:
    """What retention would forget, and every verdict behind it, newest backup first."""

    verdicts: tuple[Verdict, ...]
    wal: tuple[WalVerdict, ...] = ()
    """What the WAL archive will be kept for then; ``prune`` frees what is before."""

    @property
    def forget(self) -> tuple[str, ...]:
        """The ids to forget."""
        return tuple(one.backup_id for one in self.verdicts if not one.keep)

    def to_json(self) -> dict[str, Any]:
        return {
            "keep": [one.to_json() for one in self.verdicts if one.keep],
            "forget": [one.to_json() for one in self.verdicts if not one.keep],
            "wal": [one.to_json() for one in self.wal],
        }


def plan_forget(
    repository: Repository, policy: RetentionPolicy, now: datetime, *, timezone: tzinfo = UTC
) -> ForgetPlan:
    """Judge every backup. Changes nothing. A backup that can't be read is left alone, and stands for none."""
    pins = _pins(repository)  # before the backups: one that is pinned from now on is none of these
    backups, damaged = repository.readable_backups()
    verdicts = judge(backups, policy, now, pinned=pins, proven=proven(repository), timezone=timezone)
    whole = (*verdicts, *(Verdict(name, True, (_DAMAGED,)) for name in sorted(damaged)))
    if damaged:  # where their base backups begin is not known, so nothing is said of the WAL, and prune touches none
        return ForgetPlan(whole)
    kept = {one.backup_id for one in verdicts if one.keep}
    left = bases(one for one in backups if one.backup_id in kept)
    wal = tuple(judge_wal(one.archived, left, (), now, one.newest) for one in archived_wal(repository, left, silent))
    return ForgetPlan(whole, wal)


def _pins(repository: Repository) -> dict[str, str]:
    """Backup id → reason. What a damaged pin is for stands in its name, and that is enough to keep it."""
    pins: dict[str, str] = {}
    for name in repository.names("pin"):
        try:
            pins[name] = repository.record("pin", name)["reason"]
        except ObjectMissing:  # unpinned meanwhile
            continue
        except Damaged:
            pins[name] = "the reason can't be read"
    return pins


def forget(repository: Repository, plan: ForgetPlan) -> None:
    """Carry a plan out. What was pinned since is kept.

    Raises ``RepositoryError`` where a backup that the plan keeps was forgotten since: others may have been judged
    by it.
    """
    visible = set(repository.names("manifest")) - set(repository.forgotten())
    missing = [one.backup_id for one in plan.verdicts if one.keep and one.backup_id not in visible]
    if missing:
        raise RepositoryError(
            f"{missing[0]} is to be kept by this plan, and was forgotten since", hint="Plan again: nothing was done."
        )
    pinned = set(repository.names("pin"))
    for verdict in plan.verdicts:
        if not verdict.keep and verdict.backup_id not in pinned:
            repository.forget(verdict.backup_id, "; ".join(verdict.reasons))


def forget_ids(
    repository: Repository, ids: Iterable[str], *, reason: str = "named by the operator", force: bool = False
) -> None:
    """Forget exactly these. One that is forgotten already is no error, so an interrupted call is repeated as it was.

    Before anything is forgotten it raises ``BackupMissing`` for an unknown id and, unless ``force``, ``UsageError``
    where no complete backup would be left.
    """
    wanted = list(dict.fromkeys(ids))
    forgotten = set(repository.forgotten())
    known = {*repository.names("manifest"), *forgotten}
    for backup_id in wanted:
        if backup_id not in known:
            raise BackupMissing(f"there is no backup {backup_id}", hint="See `chrono-backups list`.")
    doomed = [backup_id for backup_id in wanted if backup_id not in forgotten]
    if not force and doomed:
        complete = [one.backup_id for one in repository.readable_backups()[0] if one.status == "complete"]
        if complete and not set(complete) - set(doomed):
            raise UsageError(
                f"{complete[0]} is the last complete backup: nothing complete would be left",
                hint="Take a new backup first; then this one can be forgotten.",
            )
    for backup_id in doomed:
        repository.forget(backup_id, reason)
