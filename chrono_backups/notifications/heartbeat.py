"""What follows a good backup, whoever took it: a heartbeat for those who watch from outside, and news."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from chrono_backups.clock import Clock
from chrono_backups.errors import NotificationError
from chrono_backups.events import Finding
from chrono_backups.notifications.alerts import Alerts
from chrono_backups.notifications.http import get
from chrono_backups.notifications.incidents import Incident, Sighting
from chrono_backups.notifications.rendering import age, amount
from chrono_backups.notifications.settings import NotificationsSettings
from chrono_backups.notifications.standing import Standing

if TYPE_CHECKING:
    from chrono_backups.repository.records import Manifest

_SECONDS = 5.0
_TRIES = 2
_OF_EVERYTHING = ("full", "incremental", "differential")


@dataclass(frozen=True)
class Made:
    """A complete backup, as far as people are told of it."""

    backup_id: str
    backup_type: str
    started_at: datetime
    what: str
    link: str = ""
    storage: str = ""

    @classmethod
    def of(cls, manifest: Manifest) -> Made:
        whole, took = manifest.statistics, manifest.finished_at - manifest.started_at
        sources = ", ".join(one.source for one in manifest.snapshots)
        what = f"{manifest.backup_id} is complete: {sources}; {amount(whole.bytes_total)} in all, "
        what += f"{amount(whole.bytes_stored)} stored anew, in {age(took)}."
        return cls(manifest.backup_id, manifest.type, manifest.started_at, what)


def good_backup(alerts: Alerts, settings: NotificationsSettings, made: Made, clock: Clock) -> str:
    """Ping, and tell. Why the ping failed, or nothing; it is an incident then, and never the backup's failure."""
    fault = _ping(alerts, settings)
    if made.backup_type in _OF_EVERYTHING:
        alerts.note_standing(Standing(clock.now(), made.backup_id, made.started_at))
    alerts.tell(
        "backup-succeeded",
        name=f"made {made.backup_id}",
        what=made.what,
        backup_id=made.backup_id,
        backup_type=made.backup_type,
        subject=made.backup_id,
        link=made.link,
    )
    return fault


def _ping(alerts: Alerts, settings: NotificationsSettings) -> str:
    if settings.heartbeat_url is None:
        return ""
    url, fault = settings.heartbeat_url.get_secret_value(), None
    for _ in range(_TRIES):
        try:
            get("heartbeat", url, variable="BACKUP_HEARTBEAT_URL", seconds=_SECONDS)
        except NotificationError as error:
            fault = error
        else:
            fault = None
            break
    found = [] if fault is None else [Finding("heartbeat-failing", "warning", "heartbeat", fault.message, fault.hint)]
    alerts.observe([Sighting(one) for one in found], _is_heartbeats)
    return "" if fault is None else fault.message


def _is_heartbeats(incident: Incident) -> bool:
    return incident.last.finding.code == "heartbeat-failing"
