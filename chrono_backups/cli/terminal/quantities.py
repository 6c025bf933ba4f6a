"""Sizes, durations, counts and moments as people read them: ``1.2 GB``, ``3 m 20 s``."""

from __future__ import annotations

from datetime import UTC, datetime

_SIZE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def size(count: float) -> str:
    """Bytes in decimal units, with one decimal below 100 of a unit: ``512 B``, ``1.2 GB``, ``549 MB``."""
    value = float(count)
    for unit in _SIZE_UNITS:
        digits = 1 if unit != "B" and abs(value) < 99.95 else 0
        if abs(value) < 999.5 or unit == _SIZE_UNITS[-1]:
            return f"{value:.{digits}f} {unit}"
        value /= 1000
    raise AssertionError("the loop returns at its last unit")


def duration(seconds: float) -> str:
    """``0.4 s``, ``45 s``, ``3 m 20 s``, ``2 h 05 m``, ``3 d 4 h``."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} m"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def rate(byte_count: float, seconds: float) -> str:
    """Bytes per second, or ``-`` where no time has passed."""
    return f"{size(byte_count / seconds)}/s" if seconds > 0 else "-"


def count(number: int, singular: str, plural: str = "") -> str:
    """``1 file``, ``12,345 files``."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def moment(when: datetime) -> str:
    """``2026-01-31 02:00:05``, UTC, whole seconds."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
