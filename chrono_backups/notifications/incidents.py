"""What is wrong, and since when. Pure: what is open and what is seen, in; what is to be told, out.

One incident is one thing wrong with one subject (``code`` and ``subject``), however often and by whomever it is seen.
It is told when it opens, when it becomes worse, at an interval while it lasts, and once when it is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from chrono_backups.clock import from_text, to_text
from chrono_backups.events import Finding
from chrono_backups.notifications.catalogue import event_of

State = Literal["opened", "worse", "reminder", "resolved", "news"]

_RANK = {"info": 0, "warning": 1, "error": 2}


@dataclass(frozen=True)
class Sighting:
    """A finding, and what is known of where it was made."""

    finding: Finding
    event: str = ""
    """Empty: the one that the finding's code says."""
    operation: str = ""
    """What was going on: a job's or a verb's name, with the backup type. Its next success ends the incident."""
    backup_id: str = ""
    backup_type: str = ""
    link: str = ""

    @property
    def key(self) -> str:
        """Names the incident."""
        return f"{self.finding.code}:{self.finding.subject}"

    def named(self) -> Sighting:
        """With its event."""
        return self if self.event else replace(self, event=event_of(self.finding.code))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Sighting:
        facts = dict(data)
        return cls(Finding.from_json(facts.pop("finding")), **facts)


@dataclass(frozen=True)
class Incident:
    """Something that is wrong now."""

    last: Sighting
    """As it was seen last."""
    opened_at: datetime
    seen_at: datetime
    told_at: datetime
    count: int = 1
    """How often it was seen."""
    told: int = 1
    """How many messages there are of it."""

    @property
    def key(self) -> str:
        return self.last.key

    def to_json(self) -> dict[str, Any]:
        times = {name: to_text(getattr(self, name)) for name in ("opened_at", "seen_at", "told_at")}
        return {"last": self.last.to_json(), **times, "count": self.count, "told": self.told}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Incident:
        times = {name: from_text(data[name]) for name in ("opened_at", "seen_at", "told_at")}
        return cls(Sighting.from_json(data["last"]), **times, count=data["count"], told=data["told"])


@dataclass(frozen=True)
class Changes:
    """``told`` are the messages to send; the incidents in it are as they are from now on."""

    kept: tuple[Incident, ...] = ()
    """New or changed."""
    ended: tuple[Incident, ...] = ()
    told: tuple[tuple[State, Incident], ...] = field(default=())


Covers = Callable[[Incident], bool]
"""Whether an observer would have seen this incident, were it still there."""


def nothing_ends(_incident: Incident) -> bool:
    """Of an observer that sees failures only."""
    return False


def observe(open_ones: Iterable[Incident], seen: Sequence[Sighting], covers: Covers, now: datetime) -> Changes:
    """What ``seen`` means: incidents that open, go on or become worse, and those that ``covers`` and are not seen any
    more, which are over.
    """
    known = {incident.key: incident for incident in open_ones}
    sightings = {sighting.key: sighting.named() for sighting in seen}
    kept: list[Incident] = []
    told: list[tuple[State, Incident]] = []
    for key, sighting in sightings.items():
        before = known.get(key)
        if before is None:
            incident = Incident(sighting, opened_at=now, seen_at=now, told_at=now)
            told.append(("opened", incident))
        elif _RANK[sighting.finding.severity] > _RANK[before.last.finding.severity]:
            incident = replace(before, last=sighting, seen_at=now, count=before.count + 1)
            incident = _told(incident, now)
            told.append(("worse", incident))
        else:
            incident = replace(before, last=_as_bad(sighting, before), seen_at=now, count=before.count + 1)
        kept.append(incident)
    ended = [incident for key, incident in known.items() if key not in sightings and covers(incident)]
    ended = [_told(incident, now) for incident in ended]
    told += [("resolved", incident) for incident in ended]
    return Changes(tuple(kept), tuple(ended), tuple(told))


def reminders(open_ones: Iterable[Incident], now: datetime, every: timedelta | None) -> Changes:
    """The incidents that were told of so long ago that it is time to say that they last."""
    if every is None:
        return Changes()
    due = [_told(incident, now) for incident in open_ones if now - incident.told_at >= every]
    return Changes(kept=tuple(due), told=tuple(("reminder", incident) for incident in due))


def _told(incident: Incident, now: datetime) -> Incident:
    return replace(incident, told_at=now, told=incident.told + 1)


def _as_bad(sighting: Sighting, before: Incident) -> Sighting:
    """As bad as it ever was: a finding that goes to and fro between two severities is told once."""
    return replace(sighting, finding=replace(sighting.finding, severity=before.last.finding.severity))
