"""Retention: which backups are kept, and why. Pure: values and a ``now`` in, verdicts out.

A backup is kept if **any** rule keeps it:

* **age**: it is younger than ``retention_days``, whatever its status;
* **day, week, month, year**: it is complete, within the rule's reach, and no newer complete backup of the same
  type and period holds all its sources;
* **minimum**: it is complete, and fewer than ``min_backups_to_keep`` newer complete ones hold all its sources; or
  it is partial, and of one of its sources it is among the ``min_backups_to_keep`` newest backups that hold it;
* **needed**: a kept one is restored with its help (a snapshot's fact ``needs`` lists backup ids);
* **pinned**, with the reason given then;
* **proven**: it is the newest one whose restore a drill has proven.

Decisions behind that:

* A backup stands for another only where it holds at least the other's sources. So a ``configuration`` backup
  never lets a ``full`` one of its day go, and the last backups of a source that is no longer captured stay.
* Day, week, month and year are judged by type: a full backup read every byte, an incremental relied on time
  stamps, so the newest of one does not stand for the newest of the other. Deduplicated, the surplus costs little.
* A partial backup never stands for a complete one, and satisfies no period. It is kept by its age, and while it is
  among the newest copies of one of its sources: where every backup is partial the last ones must not go.
* Periods are those of ``timezone`` (UTC unless told); weeks are ISO weeks, from Monday. A rule reaches back exactly
  as many days, weeks, calendar months or years from ``now`` as it says.
"""

from __future__ import annotations

import calendar
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal

from chrono_backups.maintenance.settings import RetentionPolicy
from chrono_backups.repository.records import Manifest

Period = Literal["day", "week", "month", "year"]


@dataclass(frozen=True)
class Verdict:
    """Keep or forget a backup, with every reason."""

    backup_id: str
    keep: bool
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"backup_id": self.backup_id, "keep": self.keep, "reasons": list(self.reasons)}


def judge(
    backups: Sequence[Manifest],
    policy: RetentionPolicy,
    now: datetime,
    *,
    pinned: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    proven: Collection[str] = (),
    timezone: tzinfo = UTC,
) -> list[Verdict]:
    """A verdict for each of ``backups``, in their order.

    ``pinned`` maps backup ids to why they must be kept; ``proven`` has the ids whose restore a drill has proven.
    """
    judged = _Judgement(backups, policy, now, timezone)
    pins = dict(pinned)
    newest_proven = max((one for one in backups if one.backup_id in proven), key=_age, default=None)
    reasons: dict[str, list[str]] = {}
    for backup in backups:
        found = judged.reasons_to_keep(backup)
        if backup.backup_id in pins:
            found.append(f"pinned: {pins[backup.backup_id]}")
        if backup is newest_proven:
            found.append("newest backup whose restore was proven by a drill")
        reasons[backup.backup_id] = found
    _add_needed(backups, reasons)
    return [
        Verdict(one.backup_id, True, tuple(reasons[one.backup_id]))
        if reasons[one.backup_id]
        else Verdict(one.backup_id, False, judged.reasons_to_forget(one))
        for one in backups
    ]


def _age(backup: Manifest) -> tuple[datetime, str]:
    """Sorts backups from old to new."""
    return backup.started_at, backup.backup_id


def _sources(backup: Manifest) -> frozenset[str]:
    return frozenset(snapshot.source for snapshot in backup.snapshots)


def _add_needed(backups: Sequence[Manifest], reasons: dict[str, list[str]]) -> None:
    """Give what kept backups need, however far down, its reason."""
    by_id = {one.backup_id: one for one in backups}
    waiting = [one for one in backups if reasons[one.backup_id]]
    while waiting:
        backup = waiting.pop()
        for snapshot in backup.snapshots:
            for name in snapshot.facts.get("needs", ()):
                if name not in by_id or name == backup.backup_id:
                    continue
                if not reasons[name]:
                    waiting.append(by_id[name])
                reason = f"needed by {backup.backup_id}"
                if reason not in reasons[name]:
                    reasons[name].append(reason)


@dataclass(frozen=True)
class _Rule:
    """One of the rules by period: how far it reaches, in words and as a moment."""

    period: Period
    reach: str
    since: datetime | None
    """Older backups are out of reach; None where the rule is off."""


class _Judgement:
    """The rules that look at age, type and sources."""

    def __init__(self, backups: Sequence[Manifest], policy: RetentionPolicy, now: datetime, timezone: tzinfo) -> None:
        self._policy = policy
        self._now = now
        self._timezone = timezone
        self._rules = _rules(policy, now.astimezone(timezone))
        self._sources = {one.backup_id: _sources(one) for one in backups}
        complete = sorted((one for one in backups if one.status == "complete"), key=_age, reverse=True)
        self._newer_complete = {one.backup_id: self._newer_holders(one, complete) for one in complete}
        self._newest_of_period = self._newest(complete)
        self._rank_in_source = self._ranks(backups)

    def _newer_holders(self, backup: Manifest, newest_first: Sequence[Manifest]) -> int:
        """How many newer ones hold all its sources; counted no further than the minimum asks."""
        count, wanted = 0, self._sources[backup.backup_id]
        for other in newest_first:
            if other is backup or count == self._policy.min_backups_to_keep:
                break
            count += wanted <= self._sources[other.backup_id]
        return count

    def _newest(self, newest_first: Sequence[Manifest]) -> set[tuple[str, Period]]:
        """Which backups are the newest of which of their periods."""
        newest: set[tuple[str, Period]] = set()
        standing: dict[tuple[str, Period, tuple[int, ...]], list[frozenset[str]]] = {}
        for backup in newest_first:
            sources = self._sources[backup.backup_id]
            for rule in self._rules:
                others = standing.setdefault((backup.type, rule.period, self._period(rule.period, backup)), [])
                if not any(sources <= other for other in others):
                    newest.add((backup.backup_id, rule.period))
                    others.append(sources)
        return newest

    def _ranks(self, backups: Sequence[Manifest]) -> dict[tuple[str, str], int]:
        """How many newer backups of any status hold a source that this one holds."""
        ranks: dict[tuple[str, str], int] = {}
        seen: dict[str, int] = {}
        for backup in sorted(backups, key=_age, reverse=True):
            for source in self._sources[backup.backup_id]:
                ranks[backup.backup_id, source] = seen.get(source, 0)
                seen[source] = seen.get(source, 0) + 1
        return ranks

    def _period(self, period: Period, backup: Manifest) -> tuple[int, ...]:
        moment = backup.started_at.astimezone(self._timezone)
        if period == "week":
            return tuple(moment.isocalendar()[:2])
        return (moment.year, moment.month, moment.day)[: {"year": 1, "month": 2, "day": 3}[period]]

    def _within(self, rule: _Rule, backup: Manifest) -> bool:
        return rule.since is not None and backup.started_at > rule.since

    def _young(self, backup: Manifest) -> bool:
        return self._now - backup.started_at < timedelta(days=self._policy.retention_days)

    def reasons_to_keep(self, backup: Manifest) -> list[str]:
        """All rules that keep it, in words."""
        found = []
        if self._young(backup):
            found.append(f"younger than {_count(self._policy.retention_days, 'day')}")
        least = self._policy.min_backups_to_keep
        if backup.status != "complete":
            held = [one for one in sorted(self._sources[backup.backup_id]) if self._rank(backup, one) < least]
            if held:
                found.append(f"{_among(least)} backups of {' and of '.join(held)}, complete or not")
            return found
        found += [
            f"newest {backup.type} backup of {self._name(rule.period, backup)}"
            for rule in self._rules
            if self._within(rule, backup) and (backup.backup_id, rule.period) in self._newest_of_period
        ]
        if self._newer_complete[backup.backup_id] < least:
            found.append(f"{_among(least)} complete backups of its sources")
        return found

    def _rank(self, backup: Manifest, source: str) -> int:
        return self._rank_in_source[backup.backup_id, source]

    def _name(self, period: Period, backup: Manifest) -> str:
        moment = backup.started_at.astimezone(self._timezone)
        year, week, _ = moment.isocalendar()
        names = {"day": f"{moment:%Y-%m-%d}", "month": f"{moment:%Y-%m}", "year": f"{moment:%Y}"}
        return f"week {year}-W{week:02d}" if period == "week" else names[period]

    def reasons_to_forget(self, backup: Manifest) -> tuple[str, ...]:
        """Why no rule keeps it, in words."""
        found = [f"older than {_count(self._policy.retention_days, 'day')}"]
        if backup.status != "complete":
            return (*found, "partial, and newer backups hold each of its sources")
        stood_for = [rule.period for rule in self._rules if self._within(rule, backup)]
        if stood_for:
            found.append(f"a newer {backup.type} one stands for its {_listed(stood_for)}")
        passed = [
            f"{rule.period} ({rule.reach})"
            for rule in self._rules
            if rule.since is not None and not self._within(rule, backup)
        ]
        if passed:
            found.append(f"too old to be kept as the newest of its {_listed(passed, 'or')}")
        return tuple(found)


def _rules(policy: RetentionPolicy, now: datetime) -> tuple[_Rule, ...]:
    days, weeks = policy.keep_daily_for_days, policy.keep_weekly_for_weeks
    months, years = policy.keep_monthly_for_months, policy.keep_yearly_for_years
    return (
        _Rule("day", _count(days, "day"), now - timedelta(days=days) if days else None),
        _Rule("week", _count(weeks, "week"), now - timedelta(weeks=weeks) if weeks else None),
        _Rule("month", _count(months, "month"), _months_before(now, months) if months else None),
        _Rule("year", _count(years, "year"), _months_before(now, 12 * years) if years else None),
    )


def _months_before(now: datetime, months: int) -> datetime:
    """The same time of day so many calendar months ago; the month's last day where it has no such day."""
    year, month = divmod(now.year * 12 + now.month - 1 - months, 12)
    day = min(now.day, calendar.monthrange(year, month + 1)[1])
    return now.replace(year=year, month=month + 1, day=day)


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit}" if number == 1 else f"{number:,} {unit}s"


def _among(least: int) -> str:
    return "among the newest" if least == 1 else f"among the {least:,} newest"


def _listed(words: Sequence[str], link: str = "and") -> str:
    return f" {link} ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else words[0]
