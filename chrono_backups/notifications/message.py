"""What is sent: one typed record, the same for every channel."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any

from chrono_backups.clock import from_text, to_text
from chrono_backups.events import Severity
from chrono_backups.notifications.catalogue import EVENTS
from chrono_backups.notifications.incidents import Incident, State
from chrono_backups.notifications.standing import Standing


@dataclass(frozen=True)
class Site:
    """Whose backups they are."""

    name: str
    host: str
    ui_url: str = ""
    """Where people reach the Dagster UI, without a slash at the end."""

    def run_link(self, run_id: str) -> str:
        """The run's page; empty where nobody said where the UI is."""
        return f"{self.ui_url}/runs/{run_id}" if self.ui_url and run_id else ""


@dataclass(frozen=True)
class Message:
    """One message. Times are UTC; texts are plain, whatever a channel makes of them."""

    name: str
    """Unique: the incident and a number. Sent again, it is the same message."""
    incident: str
    """The same for all messages of one thing wrong with one subject; empty for news."""
    event: str
    state: State
    severity: Severity
    code: str
    subject: str
    what: str
    to_do: str
    at: datetime
    since: datetime
    count: int
    site: Site
    operation: str = ""
    backup_id: str = ""
    backup_type: str = ""
    link: str = ""
    standing: Standing | None = None
    """What is safe, whatever else; None where nobody looked yet."""
    rows: tuple[tuple[str, str, str], ...] = ()
    """A digest's: what, how it went, details."""

    @property
    def headline(self) -> str:
        """One line, without the site's name: ``Backup failed: full``."""
        event = EVENTS.get(self.event, EVENTS["health"])
        subject = self.subject if self.subject else self.backup_type
        match self.state:
            case "resolved":
                return f"Resolved: {subject}: {event.well}" if subject else f"Resolved: {event.well}"
            case "reminder":
                return f"Still: {event.headline.lower()}: {subject}"
            case _:
                return f"{event.headline}: {subject}" if subject else event.headline

    @property
    def dedup_key(self) -> str:
        """Names the incident to receivers that join messages by a key. At most 255 characters."""
        key = f"{self.site.name}/{self.incident or self.name}"
        return key if len(key) <= 200 else f"{key[:150]}-{hashlib.sha256(key.encode()).hexdigest()[:32]}"

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "at": to_text(self.at),
            "since": to_text(self.since),
            "rows": [list(row) for row in self.rows],
            "standing": None if self.standing is None else self.standing.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Message:
        known = {one.name: data[one.name] for one in fields(cls) if one.name in data}
        return cls(
            **known
            | {
                "at": from_text(data["at"]),
                "since": from_text(data["since"]),
                "site": Site(**data["site"]),
                "rows": tuple((str(what), str(how), str(more)) for what, how, more in data["rows"]),
                "standing": None if data["standing"] is None else Standing.from_json(data["standing"]),
            }
        )


def message_of(state: State, incident: Incident, site: Site, standing: Standing | None, now: datetime) -> Message:
    """What to tell of an incident."""
    seen, finding = incident.last, incident.last.finding
    return Message(
        name=f"{incident.key}@{to_text(incident.opened_at)}#{incident.told}",
        incident=incident.key,
        event=seen.event,
        state=state,
        severity=finding.severity,
        code=finding.code,
        subject=finding.subject,
        what=f"It was: {finding.message}" if state == "resolved" else finding.message,
        to_do=finding.hint,
        at=now,
        since=incident.opened_at,
        count=incident.count,
        site=site,
        operation=seen.operation,
        backup_id=seen.backup_id,
        backup_type=seen.backup_type,
        link=seen.link,
        standing=standing,
    )


def news(event: str, site: Site, now: datetime, *, name: str, what: str, **more: Any) -> Message:
    """A message of something that is no incident."""
    blank = Message(
        name=name, incident="", event=event, state="news", severity="info", code=event, subject="", what=what,
        to_do="", at=now, since=now, count=1, site=site,
    )  # fmt: skip
    return replace(blank, **more)
