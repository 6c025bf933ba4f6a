"""Health: is everything there that a restore tomorrow will need, told within a few seconds whatever hangs.

Every storage and every source is looked at on a thread of its own until the deadline; what they told is judged then by
pure rules (``recency``, ``keeping``, ``plausible``, ``wal``). A look that did not come back is a finding itself, and
what depends on it is ``unknown``, which is not said twice. Nothing is changed.

==================== ================================================================================
``healthy``          nothing is wrong
``warning``          something will be, or is not as it should be; backups are taken and restore
``critical``         a backup is missing, can't be stored, or can't be restored
``unknown``          what would tell did not answer
``disabled``         by a setting
==================== ================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from chrono_backups.clock import Clock
from chrono_backups.errors import ChronoBackupsError, RepositoryMissing, SourceUnavailable, StorageUnavailable
from chrono_backups.events import Finding
from chrono_backups.identifiers import BackupType
from chrono_backups.monitoring import keeping, plausible, recency, wal
from chrono_backups.monitoring.bounded import Answer, Bounded
from chrono_backups.monitoring.settings import HealthSettings
from chrono_backups.monitoring.stored import Room, Stored
from chrono_backups.monitoring.wal import WalState

Status = Literal["healthy", "warning", "critical", "unknown", "disabled"]

CHECKS = (
    "storage_backends", "database_connectivity", "disk_space", "recent_backups",
    "replicas", "drills", "wal", "retention", "sizes", "permissions", "clock", "settings",
)  # fmt: skip
"""The guide's four first."""
_PART_FOR_RECORDS = 0.6
"""Of the time that there is, a storage's records may take so much; then what was read is told."""


@dataclass(frozen=True)
class Subjects:
    """What is looked at: callables that may take long or hang, and values that don't. The primary storage first."""

    storages: Sequence[str]
    stored: Mapping[str, Callable[[Callable[[], bool]], Stored]]
    """By storage: what its repository tells. The argument says when enough was read."""
    rooms: Mapping[str, Callable[[], Room]]
    sources: Mapping[str, Callable[[], Sequence[Finding]]]
    wal: Callable[[], WalState] | None
    permissions: Callable[[], Sequence[Finding]]
    due: Mapping[BackupType, datetime]
    prune_grace: timedelta
    findings: Sequence[Finding] = ()
    """Of the settings."""


@dataclass(frozen=True)
class HealthReport:
    """What was found, and a few figures."""

    at: datetime
    checks: Mapping[str, Status]
    by_check: Mapping[str, Sequence[Finding]]
    stored: Sequence[Stored] = field(repr=False)
    """Of the storages that answered, in order."""
    rooms: Mapping[str, Room]
    wal: WalState | None
    hanging: Sequence[str]
    """What had not answered at the deadline."""
    seconds: float

    def masked(self, redact: Callable[[str], str]) -> HealthReport:
        """Without secrets in what was found."""
        found = {name: tuple(one.masked(redact) for one in each) for name, each in self.by_check.items()}
        return replace(self, by_check=found)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All of them, the worst first."""
        order = {"error": 0, "warning": 1, "info": 2}
        return tuple(
            sorted((one for each in self.by_check.values() for one in each), key=lambda one: order[one.severity])
        )

    @property
    def status(self) -> Status:
        """The worst of the checks. Where even backups are unknown, all is not well."""
        found = {*self.checks.values()} | ({"warning"} if self.checks["recent_backups"] == "unknown" else set())
        return next((one for one in ("critical", "warning") if one in found), "healthy")

    @property
    def best(self) -> Stored | None:
        """The primary storage's repository, or the first that answered."""
        return self.stored[0] if self.stored else None

    def to_json(self) -> dict[str, Any]:
        """The guide's document, and what goes beyond it behind."""
        return {
            "status": self.status,
            "checks": dict(self.checks),
            "metrics": self._metrics(),
            "findings": [one.to_json() for one in self.findings],
            "checked_at": _seconds(self.at),
            "seconds": round(self.seconds, 3),
        }

    def _metrics(self) -> dict[str, Any]:
        newest = self.best.newest if self.best else ()
        complete = next((one for one in newest if one.status == "complete"), None)
        took = [(one.finished_at - one.started_at).total_seconds() for one in newest]
        used = self.rooms.get(self.best.storage) if self.best else None
        return {
            "last_backup": _seconds(complete.started_at) if complete else None,
            "total_backups": len(self.best.backups) if self.best else None,
            "storage_used_gb": round(used.used / 1e9, 3) if used else None,
            "average_backup_duration": _clock_time(sum(took) / len(took)) if took else None,
        }


def _seconds(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _clock_time(seconds: float) -> str:
    """``00:15:30``."""
    whole = round(seconds)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def check(
    subjects: Subjects,
    settings: HealthSettings,
    clock: Clock,
    bounded: Bounded | None = None,
    began: float | None = None,
) -> HealthReport:
    """Look at everything at once and judge it, within ``settings.timeout`` seconds.

    They count from ``began``, a time of ``clock.monotonic``, where the process has been at work since then; at least
    half of them are for the looks.
    """
    bounded, now = bounded or Bounded(), clock.monotonic()
    began = now if began is None else began
    seconds = max(settings.timeout / 2, began + settings.timeout - now)
    enough_at = now + seconds * _PART_FOR_RECORDS
    looks = _looks(subjects, settings, lambda: clock.monotonic() > enough_at)
    answers = bounded.run(looks, seconds)
    judged = _Judged(subjects, settings, clock.now(), answers)
    off = _disabled(subjects, settings)
    by_check = {name: tuple(found) for name, found in judged.findings().items()}
    return HealthReport(
        judged.now,
        {name: _status(name, by_check[name], judged.unknown, off) for name in CHECKS},
        by_check,
        judged.stored,
        judged.rooms,
        judged.wal,
        [name for name, answer in answers.items() if answer.hangs],
        clock.monotonic() - began,
    )


def _looks(subjects: Subjects, settings: HealthSettings, enough: Callable[[], bool]) -> dict[str, Callable[[], object]]:
    looks: dict[str, Callable[[], object]] = {"permissions": subjects.permissions}
    for name in subjects.storages:
        looks[f"storage {name}"] = _given(subjects.stored[name], enough)
    if settings.disk_space:
        looks |= {f"room {name}": look for name, look in subjects.rooms.items()}
    looks |= {f"source {name}": look for name, look in subjects.sources.items()}
    if subjects.wal is not None:
        looks["wal"] = subjects.wal
    return looks


def _given(look: Callable[[Callable[[], bool]], Stored], enough: Callable[[], bool]) -> Callable[[], Stored]:
    return lambda: look(enough)


def _disabled(subjects: Subjects, settings: HealthSettings) -> set[str]:
    """The checks that settings have no use for."""
    wanted = {
        "storage_backends": settings.storage_connectivity,
        "disk_space": settings.disk_space,
        "recent_backups": settings.recent_backups,
        "drills": settings.drill_days > 0,
        "wal": subjects.wal is not None,
    }
    return {name for name, on in wanted.items() if not on}


def _status(name: str, found: Sequence[Finding], unknown: set[str], disabled: set[str]) -> Status:
    if name in disabled:
        return "disabled"
    severities = {one.severity for one in found}
    if "error" in severities:
        return "critical"
    if "warning" in severities:
        return "warning"
    return "unknown" if name in unknown else "healthy"


class _Judged:
    """The answers, sorted out and judged."""

    def __init__(
        self, subjects: Subjects, settings: HealthSettings, now: datetime, answers: Mapping[str, Answer[object]]
    ) -> None:
        self._subjects, self._settings, self._answers = subjects, settings, answers
        self.now = now
        self.stored = [one for name in subjects.storages if (one := self._value(f"storage {name}")) is not None]
        self.rooms: dict[str, Room] = {
            name: one for name in subjects.rooms if (one := self._value(f"room {name}")) is not None
        }
        self.wal: WalState | None = self._value("wal")
        self.unknown: set[str] = set()

    def _value(self, name: str) -> Any:
        answer = self._answers.get(name)
        return answer.value if answer is not None else None

    def findings(self) -> dict[str, list[Finding]]:
        """By check; a check that is disabled has none."""
        found: dict[str, list[Finding]] = {name: [] for name in CHECKS}
        found["settings"] += [one for one in self._subjects.findings if one.severity != "info"]
        found["permissions"] += self._told("permissions", "permissions")
        if self._settings.storage_connectivity:
            for name in self._subjects.storages:
                answer = self._answers[f"storage {name}"]
                if name == self._subjects.storages[0] or not isinstance(answer.error, RepositoryMissing):
                    found["storage_backends"] += _unanswered("storage", name, answer)
                elif self._is_time_for_replicas():
                    hint = f"`chrono-backups replicate --to {name}`. Or is the disk not mounted, or the path another?"
                    one = Finding("replica-missing", "warning", name, answer.error.message, hint)
                    found["replicas"].append(one)
        for name in self._subjects.sources:
            found["database_connectivity"] += self._told(f"source {name}", name)
        self._room(found["disk_space"])
        self._records(found)
        if self._subjects.wal is not None:
            if self.wal is None:
                self.unknown.add("wal")
                found["wal"] += _unanswered("wal", "postgres", self._answers["wal"], quiet=self._no_repository())
            else:
                found["wal"] += wal.wal(self.wal, self._settings, self.now)
        return found

    def _is_time_for_replicas(self) -> bool:
        """Whether a backup is there that should have its replicas by now."""
        old = self.now - timedelta(hours=self._settings.replica_hours)
        return not self.stored or any(one.started_at < old for one in self.stored[0].newest)

    def _told(self, look: str, subject: str) -> list[Finding]:
        """The findings that a look made, or the one that it has become."""
        made: Sequence[Finding] | None = self._value(look)
        kind = look.partition(" ")[0]
        if made is None:
            return list(_unanswered(kind, subject, self._answers[look]))
        return [one for one in made if one.severity != "info"]

    def _no_repository(self) -> bool:
        """Whether no storage answered, which is said elsewhere."""
        return not self.stored

    def _room(self, found: list[Finding]) -> None:
        if not self._settings.disk_space:
            return
        largest = keeping.largest_stored(self.stored)
        answered = {one.storage for one in self.stored}
        for name in self._subjects.rooms:
            if name in self.rooms:
                found += keeping.room(name, self.rooms[name], largest, self._settings)
            else:
                self.unknown.add("disk_space")
                # Where the storage answers, its listing only takes long: that is no fault, and said as unknown.
                answer = self._answers[f"room {name}"]
                found += _unanswered("room", name, answer, quiet=answer.hangs or name not in answered)

    def _records(self, found: dict[str, list[Finding]]) -> None:
        """What the repository's records tell, of the primary storage or of the first that answered."""
        if not self.stored:
            self.unknown |= {"recent_backups", "replicas", "drills", "retention", "sizes", "clock"}
            return
        best, settings = self.stored[0], self._settings
        if settings.recent_backups:
            found["recent_backups"] += recency.recent_backups(best, self._subjects.due, settings, self.now)
        found["drills"] += keeping.drills(best, settings, self.now)
        found["sizes"] += plausible.odd_sizes(best, settings.size_factor)
        found["clock"] += plausible.clock(best, self.now)
        for one in self.stored:
            found["retention"] += keeping.retention(one, self._subjects.prune_grace, self.now)
        if best.storage != self._subjects.storages[0]:
            self.unknown.add("replicas")
            return
        for one in self.stored[1:]:
            found["replicas"] += keeping.replicas(best, one, settings, self.now)
        if len(self.stored) < len(self._subjects.storages):
            self.unknown.add("replicas")


def _unanswered(kind: str, subject: str, answer: Answer[object], *, quiet: bool = False) -> Iterator[Finding]:
    """The finding that an error, or silence, is; none where it is said elsewhere."""
    if quiet:
        return
    if answer.hangs:
        waited = math.ceil(answer.seconds)
        verb = f"storage test {subject}" if kind == "storage" else "validate"
        hint = f"Is it there? `chrono-backups {verb}` tries longer."
        yield Finding(f"{kind}-hangs", "error", subject, f"it did not answer within {waited} s", hint)
    elif isinstance(answer.error, ChronoBackupsError):
        yield Finding(_code(kind, answer.error), "error", subject, answer.error.message, answer.error.hint)
    elif answer.error is not None:
        message = f"the check itself failed: {type(answer.error).__name__}: {answer.error}"
        yield Finding(f"{kind}-check-failed", "error", subject, message, "This is a defect or a fault of the system.")


def _code(kind: str, error: ChronoBackupsError) -> str:
    if isinstance(error, RepositoryMissing):
        return "repository-missing"
    if isinstance(error, StorageUnavailable | SourceUnavailable):
        return f"{kind}-unavailable"
    name = "".join(f"-{char.lower()}" if char.isupper() else char for char in type(error).__name__).strip("-")
    return name if name.startswith(kind) else f"{kind}-{name}"
