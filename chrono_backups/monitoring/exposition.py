"""Figures in the text format that Prometheus reads (exposition format 0.0.4), and the file that node_exporter does.

Names begin with ``chrono_backups_``; times are seconds since 1970, sizes bytes. What is not known has no sample.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from chrono_backups import __version__
from chrono_backups.errors import UsageError
from chrono_backups.monitoring.figures import Figures

_LEVELS = {"healthy": 0, "disabled": 0, "warning": 1, "unknown": 1, "critical": 2}
Sample = tuple[Mapping[str, str], float | None]


def exposition(figures: Figures) -> str:
    """The whole text."""
    lines: list[str] = []
    for name, about, samples in _families(figures):
        known = [(labels, value) for labels, value in samples if value is not None]
        if known:
            lines += [f"# HELP chrono_backups_{name} {about}", f"# TYPE chrono_backups_{name} gauge"]
            lines += [f"chrono_backups_{name}{_labels(labels)} {_number(value)}" for labels, value in known]
    return "\n".join([*lines, ""])


def write(path: Path, text: str) -> None:
    """Put the text in place of ``path``, whole or not at all. Raises ``UsageError`` where that fails."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o644)  # node_exporter is another user; nothing in it is secret
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        reason = (error.strerror or type(error).__name__).lower()
        raise UsageError(f"{path} can't be written: {reason}", hint="Name another file.") from error


def _families(figures: Figures) -> Iterator[tuple[str, str, list[Sample]]]:
    yield "info", "The program's version.", [({"version": __version__}, 1)]
    yield "measured_timestamp_seconds", "When these figures were measured.", [({}, figures.at.timestamp())]
    yield from _health(figures)
    yield from _runs(figures)
    yield from _types(figures)
    yield from _storages(figures)
    yield from _recovery(figures)


def _health(figures: Figures) -> Iterator[tuple[str, str, list[Sample]]]:
    health = figures.health
    yield "health_status", "0 healthy, 1 warning, 2 critical.", [({}, _LEVELS[health.status])]
    checks: list[Sample] = [({"check": name}, _LEVELS[one]) for name, one in health.checks.items()]
    yield "health_check", "0 healthy or disabled, 1 warning or unknown, 2 critical.", checks
    counts: dict[tuple[str, str, str], int] = {}
    for one in health.findings:
        if one.severity != "info":
            key = one.code, one.severity, one.subject
            counts[key] = counts.get(key, 0) + 1
    found: list[Sample] = [
        ({"code": code, "severity": severity, "subject": subject}, count)
        for (code, severity, subject), count in sorted(counts.items())
    ]
    yield "findings", "What is wrong.", found


def _runs(figures: Figures) -> Iterator[tuple[str, str, list[Sample]]]:
    yield (
        "runs_recorded",
        "1: runs are known from the audit log; 0: from stored backups alone.",
        [({}, int(figures.recorded))],
    )
    yield "success_ratio", "Complete backups among the runs of 30 days.", [({}, figures.success_rate)]
    results: list[Sample] = [({"result": name}, count) for name, count in figures.results.items()]
    yield "runs", "Backup runs of 30 days by result.", results
    yield (
        "errors",
        "Errors of all runs of 30 days by kind.",
        [({"kind": kind}, count) for kind, count in figures.errors.items()],
    )


def _types(figures: Figures) -> Iterator[tuple[str, str, list[Sample]]]:
    types = figures.types.items()
    yield "backups", "Stored backups.", [({"type": name}, one.count) for name, one in types]
    yield (
        "last_backup_timestamp_seconds",
        "When the newest backup began.",
        [({"type": name}, one.last_at.timestamp()) for name, one in types],
    )
    yield (
        "last_complete_backup_timestamp_seconds",
        "When the newest complete backup began.",
        [({"type": name}, _moment(one.last_complete_at)) for name, one in types],
    )
    yield (
        "last_duration_seconds",
        "How long the newest backup took.",
        [({"type": name}, one.last_seconds) for name, one in types],
    )
    yield (
        "average_duration_seconds",
        "How long the newest 30 took on average.",
        [({"type": name}, one.average_seconds) for name, one in types],
    )
    yield (
        "duration_trend_ratio",
        "Durations of the newer half of 30 over the older half's.",
        [({"type": name}, one.trend) for name, one in types],
    )
    yield (
        "last_content_bytes",
        "Content of the newest backup.",
        [({"type": name}, one.last_bytes_total) for name, one in types],
    )
    yield (
        "last_stored_bytes",
        "What the newest backup added to the storage.",
        [({"type": name}, one.last_bytes_stored) for name, one in types],
    )


def _storages(figures: Figures) -> Iterator[tuple[str, str, list[Sample]]]:
    storages = figures.storages.items()
    yield "storage_used_bytes", "What the repository takes.", [({"storage": name}, one.used) for name, one in storages]
    yield "storage_free_bytes", "Room for more.", [({"storage": name}, one.free) for name, one in storages]
    yield (
        "storage_capacity_bytes",
        "The file system, or the limit.",
        [({"storage": name}, one.capacity) for name, one in storages],
    )
    yield (
        "storage_growth_bytes_per_day",
        "What backups add a day, as if nothing were pruned.",
        [({"storage": name}, one.growth_per_day) for name, one in storages],
    )
    yield (
        "storage_full_timestamp_seconds",
        "When it is full at that rate.",
        [({"storage": name}, _moment(one.full_at)) for name, one in storages],
    )


def _recovery(figures: Figures) -> Iterator[tuple[str, str, list[Sample]]]:
    recovery = figures.recovery
    yield (
        "rpo_seconds",
        "Age of the newest moment that can be restored.",
        [({"source": name}, seconds) for name, seconds in figures.rpo.items()],
    )
    yield "drills", "Restore drills that left evidence.", [({}, recovery.drills)]
    yield "last_drill_timestamp_seconds", "When the newest drill ended.", [({}, _moment(recovery.last_at))]
    yield (
        "last_proven_timestamp_seconds",
        "When a drill proved a backup last.",
        [({}, _moment(recovery.last_proven_at))],
    )
    yield "recovery_seconds", "How long the newest drill took.", [({}, recovery.last_seconds)]
    yield "average_recovery_seconds", "How long drills took on average.", [({}, recovery.average_seconds)]
    wal = figures.wal if figures.wal is not None and figures.wal.archived else None
    yield "wal_lag_seconds", "How old the end of the archived WAL is.", [({}, figures.wal_lag)]
    yield "wal_behind_bytes", "What the server has and the archive has not.", [({}, wal.behind_bytes if wal else None)]
    yield "wal_gaps", "Gaps behind the newest base backup.", [({}, len(wal.gaps) if wal else None)]


def _moment(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if value != int(value) else str(int(value))
