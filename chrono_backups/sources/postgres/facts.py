"""What is recorded of a cluster beside its files, so that a restored one can be compared with it.

``databases``: every database that can be connected to.

=============== ==========================================================================================
``name``
``bytes``       ``pg_database_size`` at the end of the capture
``relations``   how many ``tables``, ``indexes``, ``sequences``, ``views`` and ``others``
``settled``     the relations were the same before and after, so that a restored one has as many
=============== ==========================================================================================

``sample``: some tables, read before a base backup begins and again after its end. What was equal both times is in the
restored cluster too, if that is recovered to the backup's end.

=============== ==========================================================================================
``before``      when it was read first, by the server's clock, ISO 8601 in UTC
``after``       when it was read again
``left_out``    tables that were chosen and could not be read in time, or not at all
``tables``      each ``{"database", "schema", "table", "pages", "state", "rows", "digest"}``
=============== ==========================================================================================

``pages`` is null where the whole table was read, else stretches ``[first, behind the last]`` of its pages. ``state``
is ``same``, or ``busy`` where it changed meanwhile: ``rows`` and ``digest`` are null then. ``digest`` does not depend
on the order of the rows: the sum, modulo 2**64, of the first 64 bits of each row's MD5 as text, in hexadecimal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from chrono_backups.clock import to_text
from chrono_backups.errors import SourceError
from chrono_backups.events import Finding, Listener
from chrono_backups.sources.postgres.connection import sql
from chrono_backups.sources.postgres.names import quoted
from chrono_backups.sources.settings import PostgresSettings

if TYPE_CHECKING:
    import psycopg

Connect = Callable[[str], "AbstractContextManager[psycopg.Connection[Any]]"]
"""A connection to the database of that name, in autocommit; its errors are raised as ``SourceError``."""

_SECONDS = 15.0
"""All that one reading of the sample may take: a backup waits for it."""
_STATEMENT = "5s"
_LARGEST, _OTHERS = 8, 8
"""Tables of each database: the largest ones, and others picked by their oid."""
_TABLES_MOST = 64
_WHOLE_PAGES = 512
"""A table of so many pages is read whole; of a larger one, ``_STRETCHES`` of ``_STRETCH_PAGES``."""
_STRETCHES, _STRETCH_PAGES = 4, 64

# What a row's text depends on. A role that may see a part of the rows only is refused rather than shown that part.
_SESSION = (
    "SET datestyle = 'ISO, MDY'; SET intervalstyle = 'postgres'; SET timezone = 'UTC'; SET extra_float_digits = 1;"
    " SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET search_path = pg_catalog; SET row_security = off;"
    " SET default_transaction_read_only = on; SET max_parallel_workers_per_gather = 0; SET lock_timeout = '1s';"
)
_RELATIONS = """
SELECT count(*) FILTER (WHERE relkind IN ('r', 'p', 'm')), count(*) FILTER (WHERE relkind IN ('i', 'I')),
       count(*) FILTER (WHERE relkind = 'S'), count(*) FILTER (WHERE relkind = 'v'),
       count(*) FILTER (WHERE relkind NOT IN ('r', 'p', 'm', 'i', 'I', 'S', 'v')),
       pg_database_size(current_database()), clock_timestamp()
FROM pg_class WHERE relpersistence <> 't'
"""
_KINDS = ("tables", "indexes", "sequences", "views", "others")
# Unlogged tables are empty after a restore; a view's or a foreign table's rows are not this cluster's own.
# To ask for the size of a table waits for who has it for himself.
_CHOSEN = """
WITH free AS MATERIALIZED (
    SELECT c.oid, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
      AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.relation = c.oid AND l.mode = 'AccessExclusiveLock')
), fit AS MATERIALIZED (SELECT *, pg_relation_size(oid) AS size FROM free)
SELECT nspname, relname, size / current_setting('block_size')::bigint FROM (
    (SELECT * FROM fit ORDER BY size DESC, oid LIMIT %s)
    UNION
    (SELECT * FROM fit ORDER BY md5(oid::text) LIMIT %s)) AS chosen
WHERE size > 0 ORDER BY size DESC, nspname, relname
"""
_INDEXED = """
SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
WHERE i.indrelid = %s::regclass AND a.amname = 'btree' AND i.indpred IS NULL AND i.indisvalid
"""
_BY_HEAP = "SET enable_seqscan = on; SET enable_indexscan = off; SET enable_indexonlyscan = off;"
_BY_INDEX = "SET enable_seqscan = off; SET enable_indexscan = on; SET enable_indexonlyscan = on;"


@dataclass(frozen=True)
class _Table:
    database: str
    schema: str
    name: str
    pages: tuple[tuple[int, int], ...] | None

    @property
    def quoted(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def shown(self) -> str:
        return f"{self.schema}.{self.name} of {self.database}"


_Read = tuple[int, str]
"""How many rows, and their digest."""


class Sampler:
    """Reads a cluster before and after a capture. Never fails it: what can't be read is left out, and told."""

    def __init__(self, settings: PostgresSettings, listener: Listener) -> None:
        self._connect: Connect = lambda database: sql(settings, database)
        self._settings = settings
        self._listener = listener
        self._chosen: list[_Table] = []
        self._before: dict[_Table, _Read] = {}
        self._left_out = 0
        self._databases: dict[str, dict[str, Any]] = {}
        self._began: datetime | None = None

    def before(self) -> None:
        """Choose the tables, and read them."""
        until = time.monotonic() + _SECONDS
        configured = self._settings.db or "postgres"
        names: list[str] = []
        try:
            with sql(self._settings) as connection:
                names = _database_names(connection)
                if configured in names:
                    self._look(connection, configured)
        except SourceError as error:
            self._tell(error)
        for name in names:
            if name != configured:
                try:
                    with self._connect(name) as connection:
                        self._look(connection, name)
                except SourceError as error:
                    self._tell(error)
        for table, read in _readings(self._connect, self._chosen, until):
            if read is None:
                self._left_out += 1
            else:
                self._before[table] = read

    def _look(self, connection: psycopg.Connection[Any], name: str) -> None:
        """Count one database's relations, and choose tables."""
        counted, moment = _counted(connection, name)
        tables = _choose(connection, name) if len(self._chosen) < _TABLES_MOST else []
        self._databases[name] = counted
        self._began = self._began or moment
        self._chosen += tables

    def after(self) -> dict[str, Any]:
        """Read again. ``databases`` and ``sample``, as above; ``sample`` is null where nothing could be read."""
        until = time.monotonic() + _SECONDS
        databases, ended = [], None
        for name, earlier in self._databases.items():
            try:
                with self._connect(name) as connection:
                    counted, ended = _counted(connection, name)
            except SourceError:  # dropped meanwhile
                continue
            databases.append({**counted, "settled": counted["relations"] == earlier["relations"]})
        tables: list[dict[str, Any]] = []
        for table, read in _readings(self._connect, list(self._before), until):
            same = read is not None and read == self._before[table]
            tables.append(
                {
                    "database": table.database,
                    "schema": table.schema,
                    "table": table.name,
                    "pages": None if table.pages is None else [list(stretch) for stretch in table.pages],
                    "state": "same" if same else "busy",
                    "rows": read[0] if same and read else None,
                    "digest": read[1] if same and read else None,
                }
            )
        sample = None
        if self._began is not None and ended is not None:
            sample = {
                "before": to_text(self._began),
                "after": to_text(ended),
                "left_out": self._left_out,
                "tables": tables,
            }
        return {"databases": databases, "sample": sample}

    def _tell(self, error: SourceError) -> None:
        message = f"nothing is recorded that a drill could compare a restored cluster with: {error.message}"
        self._listener(Finding("postgres-no-sample", "warning", "postgres", message, error.hint))


def check_sample(connect: Connect, sample: Mapping[str, Any] | None) -> list[Finding]:
    """Compare a restored cluster, recovered to the end of the backup, with what was recorded.

    Each table must have the rows it had. Its count by an index must be its count by its pages: a damaged visibility
    map shows itself there. What can't be read is a finding too.
    """
    if sample is None:
        message = "no sample was recorded with the backup, so no rows were compared"
        return [Finding("sample-missing", "warning", "postgres", message)]
    tables = {
        _Table(
            one["database"],
            one["schema"],
            one["table"],
            None if one["pages"] is None else tuple((first, end) for first, end in one["pages"]),
        ): one
        for one in sample["tables"]
    }
    found: list[Finding] = []
    expected = {table: one for table, one in tables.items() if one["state"] == "same"}
    for table, read in _readings(connect, list(expected), None):
        wanted = (expected[table]["rows"], expected[table]["digest"])
        if read is None:
            found.append(_differs(table, "can't be read"))
        elif read[0] != wanted[0]:
            found.append(_differs(table, f"has {read[0]} rows, and had {wanted[0]}"))
        elif read[1] != wanted[1]:
            found.append(_differs(table, f"has {read[0]} rows, and not the content that they had"))
    for table in tables:
        difference = _index_difference(connect, table)
        if difference:
            found.append(_differs(table, difference, "postgres-index-differs"))
    return found


def check_databases(connect: Connect, databases: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Compare a restored cluster's databases, and how many relations they have, with what was recorded."""
    found: list[Finding] = []
    for one in databases:
        try:
            with connect(one["name"]) as connection:
                counted, _ = _counted(connection, one["name"])
        except SourceError as error:
            message = f"the database {one['name']} can't be reached: {error.message}"
            found.append(Finding("postgres-database-missing", "error", "postgres", message))
            continue
        if one["settled"] and counted["relations"] != one["relations"]:
            message = f"the database {one['name']} has {_worded(counted)}, and had {_worded(one)}"
            found.append(Finding("postgres-relations-differ", "error", "postgres", message))
    return found


def _worded(database: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in database["relations"].items())


def _differs(table: _Table, what: str, code: str = "postgres-sample-differs") -> Finding:
    return Finding(code, "error", "postgres", f"the table {table.shown} {what}")


def _database_names(connection: psycopg.Connection[Any]) -> list[str]:
    rows = connection.execute(
        "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND datconnlimit <> -2"
        " AND has_database_privilege(oid, 'CONNECT') ORDER BY datname"
    )
    return [name for (name,) in rows]


def _counted(connection: psycopg.Connection[Any], name: str) -> tuple[dict[str, Any], datetime]:
    """An entry of ``databases``, and the server's time."""
    row = connection.execute(_RELATIONS).fetchone()
    assert row is not None
    return {"name": name, "bytes": row[5], "relations": dict(zip(_KINDS, row[:5], strict=True))}, row[6]


def _choose(connection: psycopg.Connection[Any], database: str) -> list[_Table]:
    connection.execute("SET lock_timeout = '1s'")
    return [
        _Table(database, schema, name, _stretches(pages) if pages > _WHOLE_PAGES else None)
        for schema, name, pages in connection.execute(_CHOSEN, [_LARGEST, _OTHERS])
    ]


def _stretches(pages: int) -> tuple[tuple[int, int], ...]:
    """Spread over the table, the first at its start and the last at its end."""
    starts = [i * (pages - _STRETCH_PAGES) // (_STRETCHES - 1) for i in range(_STRETCHES)]
    return tuple((start, start + _STRETCH_PAGES) for start in starts)


def _readings(connect: Connect, tables: Sequence[_Table], until: float | None) -> Iterator[tuple[_Table, _Read | None]]:
    """Each table's rows and digest; None where it can't be read, or ``until`` has come."""
    left = list(tables)
    while left:
        database = left[0].database
        if until is not None and time.monotonic() > until:
            yield left.pop(0), None
            continue
        try:
            with connect(database) as connection:
                connection.execute(_SESSION)
                if until is not None:
                    connection.execute(f"SET statement_timeout = '{_STATEMENT}'")
                while left and left[0].database == database:
                    if until is not None and time.monotonic() > until:
                        yield left.pop(0), None
                    else:
                        read = _digest(connection, left[0])
                        yield left.pop(0), read
        except SourceError:
            yield left.pop(0), None


def _digest(connection: psycopg.Connection[Any], table: _Table) -> _Read:
    rows = f"SELECT (chrono_row.*)::text AS content FROM ONLY {table.quoted} AS chrono_row"  # noqa: S608 - quoted
    if table.pages is not None:
        rows = " UNION ALL ".join(
            f"{rows} WHERE ctid >= '({first},0)'::tid AND ctid < '({end},0)'::tid" for first, end in table.pages
        )
    sum_of_hashes = "coalesce(sum(('x' || left(md5(content), 16))::bit(64)::bigint::numeric), 0)"
    statement = f"SELECT count(*), {sum_of_hashes} FROM ({rows}) AS chrono_rows"  # noqa: S608 - as above
    row = connection.execute(statement).fetchone()
    assert row is not None
    return row[0], f"{int(row[1]) % 2**64:016x}"


def _index_difference(connect: Connect, table: _Table) -> str:
    """How the count of all rows by an index differs from that by the pages; empty where it doesn't, or has no index."""
    try:
        with connect(table.database) as connection:
            connection.execute(_SESSION)
            row = connection.execute(_INDEXED, [table.quoted]).fetchone()
            if row is None or not row[0]:
                return ""
            count = f"SELECT count(*) FROM ONLY {table.quoted}"  # noqa: S608 - quoted
            connection.execute(f"SET enable_bitmapscan = off; {_BY_HEAP}")
            by_heap = connection.execute(count).fetchone()
            connection.execute(_BY_INDEX)
            by_index = connection.execute(count).fetchone()
    except SourceError as error:
        return f"can't be counted: {error.message}"
    if by_heap == by_index or by_heap is None or by_index is None:
        return ""
    return f"has {by_heap[0]} rows by its pages and {by_index[0]} by an index"
