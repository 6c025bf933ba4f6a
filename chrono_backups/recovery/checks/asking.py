"""Who asks a drilled database and drilled files."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from chrono_backups.errors import RestoreError
from chrono_backups.recovery.checks.judge import Ask
from chrono_backups.recovery.checks.syntax import Query
from chrono_backups.recovery.postgres.server import Server
from chrono_backups.sources.patterns import Selection
from chrono_backups.sources.settings import RedisSettings

_LONGEST = "10min"
"""A statement that takes longer is given up: a drill is to end."""


def ask_sql(server: Server, database: str) -> Ask:
    """One row with one column of a running server, in the database that a query names, else in ``database``."""

    def ask(query: Query) -> object:
        with server.sql(query.within or database) as connection:
            connection.execute(f"SET statement_timeout = '{_LONGEST}'")
            cursor = connection.execute(query.text)
            rows = cursor.fetchmany(2) if cursor.description is not None else []
        if len(rows) != 1 or len(rows[0]) != 1:
            columns = len(rows[0]) if rows else 0
            found = f"{'more than one' if len(rows) > 1 else len(rows)} rows of {columns} columns"
            raise RestoreError(f"{query} gave {found}, and not one value")
        return rows[0][0]

    return ask


def ask_redis(settings: RedisSettings) -> Ask:
    """What a running server answers to a command, in the database that a query names, else in 0."""

    def ask(query: Query) -> object:
        # Within: a drill without Redis does without its driver.
        from chrono_backups.sources.redis.connection import RedisConnection, find_server  # noqa: PLC0415

        with RedisConnection.open(settings, find_server(settings)) as connection:
            if int(query.within or 0):
                connection.ask("SELECT", int(query.within))
            found: object = connection.ask(*shlex.split(query.text))
            return found

    return ask


def ask_files(root: Path) -> Ask:
    """How many regular files below ``root``, where each has its original path, a pattern selects."""

    def ask(query: Query) -> object:
        selection = Selection([query.text])
        top, found = os.fsencode(root), 0
        for folder, _, names in os.walk(top):
            for name in names:
                path = os.path.join(folder, name)
                if selection.takes(path[len(top) :]) and os.path.isfile(path) and not os.path.islink(path):
                    found += 1
        return found

    return ask
