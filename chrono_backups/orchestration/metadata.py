"""What the UI shows of a backup, pure: manifests and findings in, metadata out.

Plain numbers plot per partition (Overview → Metadata → Plots), so everything countable is one; tables are
markdown; times are timestamps, which the UI shows in the reader's own zone.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from chrono_backups.clock import to_text
from chrono_backups.events import Finding
from chrono_backups.identifiers import SourceName
from chrono_backups.repository.records import Manifest, Snapshot, SnapshotSummary

ROWS_SHOWN = 50

Metadata = dict[str, dg.MetadataValue[Any]]


def in_words(count: float) -> str:
    """A number of bytes for a reader: ``1.2 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A markdown table; heads that end in ``#`` are numbers and stand to the right. Cells are made safe."""
    names = [name.removesuffix("#") for name in head]
    rules = ["---:" if name.endswith("#") else "---" for name in head]
    lines = [names, rules, *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    text = value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else str(value)
    return " ".join(text.replace("|", "\\|").split())


def backup_metadata(manifest: Manifest) -> Metadata:
    """Everything of a backup worth seeing, on its materialization."""
    whole = manifest.statistics
    shown: Metadata = {
        "backup_id": dg.MetadataValue.text(manifest.backup_id),
        "status": dg.MetadataValue.text(manifest.status),
        "synthetic": dg.MetadataValue.bool(False),
        "started_at": dg.MetadataValue.timestamp(manifest.started_at),
        "finished_at": dg.MetadataValue.timestamp(manifest.finished_at),
        "duration_seconds": dg.MetadataValue.float(
            round((manifest.finished_at - manifest.started_at).total_seconds(), 3)
        ),
        "skew_seconds": dg.MetadataValue.float(round(manifest.skew_seconds, 3)),
        "skew_with_wal_seconds": dg.MetadataValue.float(round(manifest.skew_with_wal_seconds, 3)),
        "files": dg.MetadataValue.int(whole.files),
        "files_read": dg.MetadataValue.int(whole.files_read),
        "bytes_total": dg.MetadataValue.int(whole.bytes_total),
        "bytes_read": dg.MetadataValue.int(whole.bytes_read),
        "bytes_added": dg.MetadataValue.int(whole.bytes_added),
        "bytes_stored": dg.MetadataValue.int(whole.bytes_stored),
        "findings": dg.MetadataValue.int(manifest.findings_count),
        "sources": dg.MetadataValue.md(sources_table(manifest)),
        "boundaries": dg.MetadataValue.md(boundaries_table(manifest)),
        "trigger": dg.MetadataValue.text(manifest.trigger),
        "host": dg.MetadataValue.text(manifest.host),
        "program": dg.MetadataValue.text(manifest.program),
    }
    for snapshot in manifest.snapshots:
        if snapshot.source in STORES:
            shown |= {f"{snapshot.source}_{name}": value for name, value in snapshot_metadata(snapshot).items()}
    if whole.bytes_added:
        shown["ratio"] = dg.MetadataValue.float(round(whole.bytes_stored / whole.bytes_added, 4))
    if manifest.failures:
        shown["missing"] = dg.MetadataValue.md(table(("missing source", "why"), manifest.failures.items()))
    return shown


STORES: frozenset[SourceName] = frozenset({"postgres", "redis", "meilisearch"})
"""Sources whose numbers are shown on the backup by themselves, so that they are plotted."""


def _postgres_boundary(facts: Mapping[str, Any]) -> Metadata:
    """Where a base backup begins and ends; nothing of dumps."""
    if "end_lsn" not in facts:
        return {}
    return {
        "lsn": dg.MetadataValue.text(str(facts["end_lsn"])),
        "start_lsn": dg.MetadataValue.text(str(facts["start_lsn"])),
        "timeline": dg.MetadataValue.int(int(facts["timeline"])),
        "server_version": dg.MetadataValue.text(str(facts.get("server_version", ""))),
        "system_identifier": dg.MetadataValue.text(str(facts.get("system_identifier", ""))),
    }


def _redis_boundary(facts: Mapping[str, Any]) -> Metadata:
    """Where replication was at the moment of the picture, and how many keys it holds. No names of keys."""
    if "files" not in facts:
        return {}
    shown: Metadata = {
        "keys": dg.MetadataValue.int(int(facts["keys"])),
        "keys_that_expire": dg.MetadataValue.int(
            sum(int(one["expires"]) for file in facts["files"] for one in file["databases"].values())
        ),
        "mode": dg.MetadataValue.text(str(facts["mode"])),
        "rdb_version": dg.MetadataValue.int(int(facts["rdb_version"])),
        "server_version": dg.MetadataValue.text(str(facts["server_version"])),
        "types": dg.MetadataValue.md(
            table(("type", "keys#"), [(kind, f"{n:,}") for kind, n in facts["types"].items()])
        ),
    }
    if facts["replication_id"] is not None:
        shown["replication_id"] = dg.MetadataValue.text(str(facts["replication_id"]))
        shown["replication_offset"] = dg.MetadataValue.int(int(facts["replication_offset"]))
    return shown


def _meilisearch_boundary(facts: Mapping[str, Any]) -> Metadata:
    """The newest finished task, and how many documents were captured."""
    indexes = facts.get("indexes", {})
    return {
        "task_uid": dg.MetadataValue.int(int(facts.get("boundary", {}).get("task_uid", -1))),
        "server_version": dg.MetadataValue.text(str(facts.get("version", ""))),
        "indexes": dg.MetadataValue.int(len(indexes)),
        "documents": dg.MetadataValue.int(sum(int(one["documents"]) for one in indexes.values())),
        "documents_unchanged": dg.MetadataValue.int(sum(int(one["kept"]) for one in indexes.values())),
    }


BOUNDARIES: Mapping[str, Callable[[Mapping[str, Any]], Metadata]] = {
    "postgres": _postgres_boundary,
    "redis": _redis_boundary,
    "meilisearch": _meilisearch_boundary,
}
"""What is shown of a store's facts."""


def snapshot_metadata(snapshot: SnapshotSummary | Snapshot) -> Metadata:
    """One source of a backup: how it was captured, its boundary, how much, what it cost."""
    counted = snapshot.statistics
    shown: Metadata = {
        "effective": dg.MetadataValue.text(snapshot.effective),
        **(BOUNDARIES[snapshot.source](snapshot.facts) if snapshot.source in BOUNDARIES else {}),
        "bytes_total": dg.MetadataValue.int(counted.bytes_total),
        "bytes_read": dg.MetadataValue.int(counted.bytes_read),
        "bytes_added": dg.MetadataValue.int(counted.bytes_added),
        "bytes_stored": dg.MetadataValue.int(counted.bytes_stored),
        "seconds": dg.MetadataValue.float(round((snapshot.finished_at - snapshot.started_at).total_seconds(), 3)),
    }
    if snapshot.reason:
        shown["reason"] = dg.MetadataValue.text(snapshot.reason)
    if counted.bytes_added:
        shown["ratio"] = dg.MetadataValue.float(round(counted.bytes_stored / counted.bytes_added, 4))
    return shown


def sources_table(manifest: Manifest) -> str:
    """One row a source: how it was captured, how much, and what it cost."""
    heads = ("source", "captured", "files#", "content#", "read#", "new#", "stored#", "seconds#", "findings#")
    rows = [_source_row(snapshot) for snapshot in manifest.snapshots]
    rows += [(source, "**missing**", *[""] * 7) for source in manifest.failures]
    return table(heads, rows)


def boundaries_table(manifest: Manifest) -> str:
    """One row a source: which moment its snapshot holds, and what the store calls it."""
    heads = ("source", "from", "to", "seconds#", "boundary", "PostgreSQL's log then")
    rows = [
        (
            source,
            to_text(held.first),
            to_text(held.last),
            f"{held.seconds:.3f}",
            ", ".join(f"{name} {value}" for name, value in held.position.items()),
            held.postgres.lsn if held.postgres is not None else "",
        )
        for source, held in sorted(manifest.boundaries.items(), key=lambda one: one[1].first)
    ]
    return table(heads, rows)


def _source_row(snapshot: SnapshotSummary) -> tuple[object, ...]:
    counted = snapshot.statistics
    return (
        snapshot.source,
        f"{snapshot.effective}: {snapshot.reason}" if snapshot.reason else snapshot.effective,
        f"{counted.files:,}",
        in_words(counted.bytes_total),
        in_words(counted.bytes_read),
        in_words(counted.bytes_added),
        in_words(counted.bytes_stored),
        f"{(snapshot.finished_at - snapshot.started_at).total_seconds():.1f}",
        snapshot.findings,
    )


def findings_table(findings: Sequence[Finding]) -> str:
    """The worst first, at most ``ROWS_SHOWN``; says how many more there are."""
    order = {"error": 0, "warning": 1, "info": 2}
    worst = sorted(findings, key=lambda finding: order[finding.severity])
    rows = [(one.severity, one.subject, one.message, one.hint) for one in worst[:ROWS_SHOWN]]
    text = table(("severity", "what", "found", "what to do"), rows)
    left = len(findings) - ROWS_SHOWN
    return f"{text}\n\n… and {left:,} more." if left > 0 else text


def checks_table(checks: Sequence[Mapping[str, Any]]) -> str:
    """Each of the operator's checks of a drill, with what the stores said."""
    heads = ("check", "result", "left#", "right#", "why", "as written")
    rows = [
        (one["name"], "good" if one["good"] else "**BAD**", one["left"] or "", one["right"] or "", one["problem"],
         one["check"])
        for one in checks
    ]  # fmt: skip
    return table(heads, rows)


def plain_metadata(report: Mapping[str, Any]) -> Metadata:
    """The plain values of a report's JSON form: numbers (they plot), flags and texts; lists are left out."""
    shown: Metadata = {}
    for name, value in report.items():
        match value:
            case bool():
                shown[name] = dg.MetadataValue.bool(value)
            case int():
                shown[name] = dg.MetadataValue.int(value)
            case float():
                shown[name] = dg.MetadataValue.float(round(value, 4))
            case str():
                shown[name] = dg.MetadataValue.text(value)
            case _:
                pass
    return shown
