"""What is known besides messages: open incidents, what was dealt with already, what was safe when somebody looked."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime, timedelta
from typing import Any

from chrono_backups.clock import to_text
from chrono_backups.notifications.incidents import Changes, Incident

_REMEMBERED = timedelta(days=30)


class Ledger:
    """Of one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    def open_incidents(self) -> list[Incident]:
        """What is wrong now, oldest first."""
        rows = self._sql.execute("SELECT body FROM incident").fetchall()
        return sorted((Incident.from_json(json.loads(row["body"])) for row in rows), key=lambda one: one.opened_at)

    def apply(self, changes: Changes) -> None:
        """Write down how incidents are from now on."""
        self._sql.executemany(
            "INSERT OR REPLACE INTO incident (key, body) VALUES (?, ?)",
            [(incident.key, json.dumps(incident.to_json())) for incident in changes.kept],
        )
        self._sql.executemany("DELETE FROM incident WHERE key = ?", [(incident.key,) for incident in changes.ended])

    def first_time(self, token: str, now: datetime) -> bool:
        """Whether what bears this name was not dealt with yet; from now on it was."""
        self._sql.execute("DELETE FROM seen WHERE at < ?", (to_text(now - _REMEMBERED),))
        done = self._sql.execute("INSERT OR IGNORE INTO seen (token, at) VALUES (?, ?)", (token, to_text(now)))
        return done.rowcount == 1

    def fact(self, name: str) -> Any:
        """What was noted under that name, or None."""
        row = self._sql.execute("SELECT body FROM fact WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row["body"])

    def note(self, name: str, body: Any) -> None:
        """Note it, in place of what was noted before."""
        self._sql.execute("INSERT OR REPLACE INTO fact (name, body) VALUES (?, ?)", (name, json.dumps(body)))
