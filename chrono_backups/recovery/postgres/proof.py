"""What is asked of a restored cluster while its server runs: is it whole, and is it what was captured?

==================== ============================================================================================
`databases`          every database that was there at capture can be entered
`sample`             tables that stood still while they were captured have the same rows
`visibility maps`    counts that read an index alone and counts that read the table agree
`pg_amcheck`         tables and indexes are sound, by the server's own tool
`pg_checksums`       every page has the sum that was written with it
==================== ============================================================================================
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chrono_backups.errors import SourceError
from chrono_backups.events import Finding, Listener, Progress
from chrono_backups.recovery.postgres.server import PORT, Server, User
from chrono_backups.sources.postgres.facts import check_databases as recorded_databases
from chrono_backups.sources.postgres.facts import check_sample as recorded_sample

if TYPE_CHECKING:
    import psycopg

_COUNTED_TABLES = 20
_COUNTED_BYTES = 2 << 30
"""Of the tables of one database whose counts are compared."""
_COUNT_TIMEOUT = "10min"
_CORRUPT = 2
_FINDINGS_MOST = 50
_INDEX_ONLY = {"enable_seqscan": "off", "enable_bitmapscan": "off"}
"""Without ``enable_indexscan`` there is no scan of an index alone either, from PostgreSQL 18 on."""
_SEQUENTIAL = {"enable_indexscan": "off", "enable_indexonlyscan": "off", "enable_bitmapscan": "off"}
_COUNTABLE = """
SELECT format('%I.%I', n.nspname, c.relname), pg_relation_size(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND NOT c.relrowsecurity
  AND EXISTS (SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am a ON a.oid = x.relam
              WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND a.amname = 'btree'
                AND i.indkey[0] > 0)
ORDER BY c.relallvisible DESC, c.oid
"""


@dataclass
class Proof:
    """One question and its answer."""

    name: str
    seconds: float = 0.0
    done: str = ""
    """What was looked at, in words; empty where the question could not be asked."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not any(finding.severity == "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "seconds": round(self.seconds, 3),
            "done": self.done,
            "good": self.good,
            "findings": [finding.to_json() for finding in self.findings],
        }


def proved(name: str, ask: Callable[[Proof], None], listener: Listener) -> Proof:
    """Ask, timed. What the server answers with an error is a finding."""
    proof = Proof(name)
    began = time.monotonic()
    listener(Progress("drill", name, 0, 0))
    try:
        ask(proof)
    except SourceError as error:
        proof.findings.append(Finding("drill-not-answered", "error", name, error.message, error.hint))
    proof.seconds = time.monotonic() - began
    del proof.findings[_FINDINGS_MOST:]
    for finding in proof.findings:
        listener(finding)
    return proof


def databases(server: Server) -> list[str]:
    """All that can be entered."""
    with server.sql() as connection:
        rows = connection.execute("SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname").fetchall()
    return [row[0] for row in rows]


def check_databases(server: Server, facts: Mapping[str, Any]) -> Callable[[Proof], None]:
    """Whether the databases of the capture are there, with as many relations."""

    def ask(proof: Proof) -> None:
        recorded = facts.get("databases") or []
        proof.findings += recorded_databases(server.sql, recorded)
        proof.done = f"{len(databases(server))} databases, {len(recorded)} of them compared"

    return ask


def check_sample(server: Server, facts: Mapping[str, Any]) -> Callable[[Proof], None]:
    """Whether tables that stood still during the capture have the rows that they had."""

    def ask(proof: Proof) -> None:
        sample = facts.get("sample")
        proof.findings += recorded_sample(server.sql, sample)
        if sample is not None:
            tables = [one for one in sample["tables"] if one["state"] == "same"]
            rows = sum(one["rows"] for one in tables)
            proof.done = f"{len(tables)} tables with {rows:,} rows compared"
            if not sample["tables"]:
                hint = "Let the backup role read tables: GRANT pg_read_all_data TO it, and take another backup."
                message = "no table was recorded with the backup, so no rows were compared"
                proof.findings.append(Finding("drill-no-sample", "info", "sample", message, hint))

    return ask


def check_counts(server: Server) -> Callable[[Proof], None]:
    """Whether visibility maps are true: where one says too much, an index alone shows rows that are gone."""

    def ask(proof: Proof) -> None:
        tables = skipped = 0
        for database in databases(server):
            for table, agreed in _counts(server, database):
                tables += 1
                if agreed is None:
                    skipped += 1
                elif agreed[0] != agreed[1]:
                    message = f"{agreed[0]:,} rows by reading it, {agreed[1]:,} by an index alone"
                    hint = "Its visibility map is wrong: VACUUM (DISABLE_PAGE_SKIPPING) makes it anew."
                    proof.findings.append(
                        Finding("drill-counts-differ", "error", f"{database}: {table}", message, hint)
                    )
        proof.done = f"{tables - skipped} tables counted twice" + (f", {skipped} could not be" if skipped else "")

    return ask


def _counts(server: Server, database: str) -> Iterator[tuple[str, tuple[int, int] | None]]:
    """Tables with their counts, read and by index; None where that took too long or no index serves."""
    with server.sql(database) as connection:
        read = 0
        chosen = list[str]()
        for table, size in connection.execute(_COUNTABLE).fetchall():
            if len(chosen) < _COUNTED_TABLES and read + size <= _COUNTED_BYTES:
                chosen.append(table)
                read += size
    for table in chosen:
        counts: list[int] = []
        for ways in (_SEQUENTIAL, _INDEX_ONLY):
            with suppress(SourceError), server.sql(database) as connection:
                connection.execute(f"SET statement_timeout = '{_COUNT_TIMEOUT}'")
                for name, value in ways.items():
                    connection.execute(f"SET {name} = {value}")
                count = f"SELECT count(*) FROM ONLY {table}"  # noqa: S608 - quoted by the server
                if ways is _INDEX_ONLY and not _by_index_alone(connection, count):
                    break
                row = connection.execute(count).fetchone()
                counts.append(int(row[0]) if row else 0)
        yield table, (counts[0], counts[1]) if len(counts) == len((_SEQUENTIAL, _INDEX_ONLY)) else None


def _by_index_alone(connection: psycopg.Connection[Any], count: str) -> bool:
    plan = connection.execute(f"EXPLAIN {count}").fetchall()
    return any("Index Only Scan" in row[0] for row in plan)


def check_structure(server: Server) -> Callable[[Proof], None]:
    """``pg_amcheck`` over all databases, where the extension can be had. Makes the extension in them."""

    def ask(proof: Proof) -> None:
        program = server.programs / "pg_amcheck"
        with server.sql() as connection:
            row = connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'amcheck'").fetchone()
        if row is None or not os.access(program, os.X_OK):
            hint = "Install PostgreSQL's contrib modules on the machine that drills."
            proof.findings.append(Finding("drill-no-amcheck", "info", "pg_amcheck", "it is not installed", hint))
            return
        place = ["--host", str(server.sockets), "--port", str(PORT), "--username", server.superuser]
        ran = _run([program, *place, "--no-password", "--all", "--install-missing"], server.user)
        proof.done = "all databases"
        if ran.returncode == 0:
            return
        lines = [line for line in (*ran.stdout.splitlines(), *ran.stderr.splitlines()) if line.strip()]
        code = "drill-corrupt" if ran.returncode == _CORRUPT else "drill-amcheck-failed"
        proof.findings += [Finding(code, "error", "pg_amcheck", line.strip()) for line in lines]
        if not lines:
            proof.findings.append(Finding(code, "error", "pg_amcheck", f"it ended with {ran.returncode}"))

    return ask


def check_pages(programs: Path, data: Path, user: User | None, facts: Mapping[str, Any]) -> Callable[[Proof], None]:
    """``pg_checksums`` over a data directory whose server was shut down."""

    def ask(proof: Proof) -> None:
        program = programs / "pg_checksums"
        if not facts.get("data_checksums") or not os.access(program, os.X_OK):
            what = "it is not installed" if facts.get("data_checksums") else "the cluster has no checksums"
            proof.findings.append(Finding("drill-no-checksums", "info", "pg_checksums", what))
            return
        ran = _run([program, "--check", "--pgdata", data], user)
        proof.done = next((line.strip() for line in ran.stdout.splitlines() if "scanned" in line.lower()), "all pages")
        if ran.returncode:
            lines = [line for line in ran.stderr.splitlines() if line.strip()] or [f"it ended with {ran.returncode}"]
            proof.findings += [Finding("drill-bad-pages", "error", "pg_checksums", line) for line in lines]

    return ask


def _run(command: list[str | Path], user: User | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BACKUP_", "PG"))}
    options: dict[str, Any] = {"user": user.uid, "group": user.gid, "extra_groups": []} if user is not None else {}
    return subprocess.run(  # noqa: S603 - the operator's own programs
        [str(word) for word in command],
        capture_output=True, text=True, check=False, cwd="/", env={**environment, "LC_ALL": "C"}, **options,
    )  # fmt: skip
