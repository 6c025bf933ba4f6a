"""Messages that the tests send."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from chrono_backups.events import Finding
from chrono_backups.notifications.catalogue import EVENTS, NEWS_EVENTS
from chrono_backups.notifications.incidents import Incident, Sighting, State
from chrono_backups.notifications.message import Message, Site, message_of, news
from chrono_backups.notifications.standing import Standing

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SITE = Site("Chrono, production", "backup-1", "https://dagster.example.com")
STANDING = Standing(
    NOW, "full_20260301_020000", NOW - timedelta(hours=10), "full_20260222_020000", NOW - timedelta(days=6), "drill"
)


def sighting(code: str = "backup-failed", subject: str = "full backup", **more: Any) -> Sighting:
    severity = more.pop("severity", "error")
    what = more.pop("what", "The full backup failed: local is full")
    finding = Finding(code, severity, subject, what, more.pop("hint", "Make room."))
    return Sighting(finding, **more)


def message(state: State = "opened", *, standing: Standing | None = STANDING, **more: Any) -> Message:
    """Of an incident that began two hours ago."""
    seen = sighting(**more).named()
    incident = Incident(seen, NOW - timedelta(hours=2), NOW, NOW, count=3)
    return message_of(state, incident, SITE, standing, NOW)


def every_message() -> Iterator[Message]:
    """One of each event, in each state that it has."""
    for event in EVENTS:
        given: dict[str, Any] = {"link": SITE.run_link("1234"), "backup_id": "full_20260301_110000"}
        if event in NEWS_EVENTS:
            rows = (("full_20260301_020000", "complete", "1.2 GiB in 3 min"),)
            yield news(event, SITE, NOW, name=f"{event} 1", what="Something good.", rows=rows, **given)
        else:
            for state in ("opened", "worse", "reminder", "resolved"):
                for severity in ("info", "warning", "error"):
                    yield message(
                        state, code=event, event=event, severity=severity, backup_type="full",
                        operation="full backup", **given,
                    )  # fmt: skip


NASTY = "<!channel> @everyone </p><script>alert(1)</script> `*_~| & \\ {{ 7*7 }} " + "é" * 5000
"""What a file's name may hold."""


def nasty_message() -> Message:
    """All texts are long and full of marks."""
    return message(what=NASTY, subject=NASTY, hint=NASTY, backup_id="full_20260301_110000", link=SITE.run_link("1"))
