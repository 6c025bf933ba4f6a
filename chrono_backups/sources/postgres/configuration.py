"""What a PostgreSQL server says of its configuration, as files for the source ``configuration``.

====================== ======================================================================================
``server.json``        version, system identifier, where it keeps its data and configuration
``settings.json``      every setting that is not the built-in one: value, unit, and where it was set
``hba.json``           the rules of pg_hba.conf as the server understood them
``roles.json``         roles, their rights and memberships, settings of roles and databases; passwords as
                       hashes where the backup role may read them
``databases.json``     databases and tablespaces: owner, encoding, locale
``postgresql.conf``,   the files themselves, wherever they lie, where the role may read the server's files;
``pg_hba.conf``, …     named by what they are to the server, not by their paths
====================== ======================================================================================

What the role may not see is left out; ``info`` findings say what would let it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chrono_backups.errors import SourceRefused
from chrono_backups.events import Finding, Listener
from chrono_backups.sources.postgres.connection import sql, translated
from chrono_backups.sources.postgres.names import role
from chrono_backups.sources.settings import PostgresSettings

if TYPE_CHECKING:
    import psycopg

_SERVER = """
SELECT current_setting('server_version') AS server_version, system_identifier::text,
       pg_is_in_recovery() AS standby, timeline_id AS timeline
FROM pg_control_system(), pg_control_checkpoint()
"""
_SETTINGS = """
SELECT name, setting AS value, unit, source, sourcefile AS file, sourceline AS line, pending_restart
FROM pg_settings WHERE source NOT IN ('default', 'client', 'session') ORDER BY name
"""
_HBA = "SELECT * FROM pg_hba_file_rules"
_ROLES = """
SELECT r.rolname AS name, r.rolsuper AS superuser, r.rolinherit AS inherit, r.rolcreaterole AS createrole,
       r.rolcreatedb AS createdb, r.rolcanlogin AS login, r.rolreplication AS replication, r.rolbypassrls AS bypassrls,
       r.rolconnlimit AS connection_limit, r.rolvaliduntil::text AS valid_until, {password} AS password_hash,
       ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
             WHERE m.member = r.oid ORDER BY 1) AS member_of
FROM pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY r.rolname
"""
_ROLE_SETTINGS = """
SELECT d.datname AS database, r.rolname AS role, s.setconfig AS settings
FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole
ORDER BY 1 NULLS FIRST, 2 NULLS FIRST
"""
_DATABASES = """
SELECT datname AS name, pg_get_userbyid(datdba) AS owner, pg_encoding_to_char(encoding) AS encoding,
       datcollate AS collate, datctype AS ctype, datistemplate AS template, datallowconn AS connections,
       datconnlimit AS connection_limit, datacl::text AS rights
FROM pg_database ORDER BY datname
"""
_TABLESPACES = """
SELECT spcname AS name, pg_get_userbyid(spcowner) AS owner, pg_tablespace_location(oid) AS place,
       spcoptions AS options, spcacl::text AS rights
FROM pg_tablespace ORDER BY spcname
"""
_FILES: Mapping[str, str] = {
    "postgresql.conf": "current_setting('config_file')",
    "pg_hba.conf": "current_setting('hba_file')",
    "pg_ident.conf": "current_setting('ident_file')",
    "postgresql.auto.conf": "current_setting('data_directory') || '/postgresql.auto.conf'",
}


def server_settings(settings: PostgresSettings, listener: Listener) -> Mapping[str, bytes]:
    """Name of a file, as above → its content. Raises ``SourceError`` where the server does not answer."""
    unseen, grants = [], []
    with sql(settings) as connection:
        may_read = _may(connection, "has_table_privilege('pg_catalog.pg_authid', 'SELECT')")
        password = "(SELECT rolpassword FROM pg_authid a WHERE a.oid = r.oid)" if may_read else "NULL"
        found = {
            "server.json": _json(_rows(connection, _SERVER)[0]),
            "settings.json": _json(_rows(connection, _SETTINGS)),
            "roles.json": _json(
                {
                    "roles": _rows(connection, _ROLES.format(password=password)),
                    "settings": _rows(connection, _ROLE_SETTINGS),
                }
            ),
            "databases.json": _json(
                {"databases": _rows(connection, _DATABASES), "tablespaces": _rows(connection, _TABLESPACES)}
            ),
        }
        # A refusal leaves the connection as it was: every statement is a transaction of its own.
        try:
            with translated(settings):
                found["hba.json"] = _json(_rows(connection, _HBA))
        except SourceRefused:
            unseen.append("the rules of pg_hba.conf")
            grants += ["SELECT ON pg_hba_file_rules", "EXECUTE ON FUNCTION pg_hba_file_rules"]
        try:
            with translated(settings):
                for name, place in _FILES.items():
                    row = connection.execute(f"SELECT pg_read_binary_file({place})").fetchone()
                    found[name] = bytes(row[0]) if row is not None else b""
        except SourceRefused:
            unseen.append("the files themselves")
            grants += ["pg_read_server_files, pg_read_all_settings", "EXECUTE ON FUNCTION pg_read_binary_file(text)"]
    if unseen:
        message = f"of the server's configuration the backup role may not read {' and '.join(unseen)}"
        statements = " ".join(f"GRANT {grant} TO {role(settings)};" for grant in grants)
        hint = f"Run on the server, in the database that is connected to: {statements}"
        listener(Finding("postgres-configuration-unseen", "info", "postgres", message, hint))
    return found


def _may(connection: psycopg.Connection[Any], what: str) -> bool:
    row = connection.execute(f"SELECT {what}").fetchone()
    return row is not None and bool(row[0])


def _rows(connection: psycopg.Connection[Any], statement: str) -> list[dict[str, Any]]:
    cursor = connection.execute(statement)
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _json(content: Mapping[str, Any] | Sequence[Any]) -> bytes:
    return json.dumps(content, indent=1, ensure_ascii=False, default=str).encode() + b"\n"
