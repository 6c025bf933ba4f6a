"""When a schedule was due last."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from chrono_backups.backup.due import last_due


@pytest.mark.parametrize(
    ("cron", "now", "timezone", "due"),
    [
        ("0 2 * * 0", "2026-06-10T12:00", "UTC", "2026-06-07T02:00"),
        ("0 3 * * 1-6", "2026-06-10T02:59", "UTC", "2026-06-09T03:00"),
        ("0 3 * * 1-6", "2026-06-10T03:00", "UTC", "2026-06-10T03:00"),
        ("0 */6 * * *", "2026-06-10T13:00", "UTC", "2026-06-10T12:00"),
        ("0 4 * * *", "2026-06-10T12:00", "Europe/Berlin", "2026-06-10T02:00"),
        ("0 4 * * *", "2026-01-10T02:30", "Europe/Berlin", "2026-01-09T03:00"),
        ("30 2 * * *", "2026-03-29T12:00", "Europe/Berlin", "2026-03-29T01:30"),
        ("30 2 * * *", "2026-10-25T12:00", "Europe/Berlin", "2026-10-25T00:30"),
        ("0 0 29 2 *", "2026-06-10T12:00", "UTC", "2024-02-29T00:00"),
        ("0 0 1 * 1", "2026-06-10T12:00", "UTC", "2026-06-08T00:00"),
        ("0 0 * * 7", "2026-06-10T12:00", "UTC", "2026-06-07T00:00"),
        ("@monthly", "2026-06-10T12:00", "UTC", "2026-06-01T00:00"),
        ("*/15 8-18/2 * JAN,FEB MON", "2026-06-10T12:00", "UTC", "2026-02-23T18:45"),
    ],
)
def test_last_due(cron: str, now: str, timezone: str, due: str) -> None:
    moment = last_due(cron, datetime.fromisoformat(now).replace(tzinfo=UTC), timezone)
    assert moment == datetime.fromisoformat(due).replace(tzinfo=UTC)
