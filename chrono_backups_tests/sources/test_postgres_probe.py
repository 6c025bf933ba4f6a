"""What ``validate`` says of real servers and crippled roles: a code, the words, and the SQL that mends it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.events import Finding
from chrono_backups.sources.postgres.connection import ReplicationConnection
from chrono_backups.sources.postgres.probe import probe
from chrono_backups.sources.postgres.wal import create_slot
from chrono_backups_tests.servers.ports import free_port
from chrono_backups_tests.servers.postgres import PASSWORD, PostgresServer, postgres_server
from chrono_backups_tests.servers.postgres_settings import needed, reach

ALL = ("pg_read_all_data", "pg_read_all_settings")
BARRED = ["host replication barred 127.0.0.1/32 reject", "host all outsider 127.0.0.1/32 reject"]
BENIGN = {"postgres-ready", "postgres-no-slot"}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server(needed(18), hba=BARRED) as running:
        running.add_role("backup", grants=ALL)
        running.add_role("plain", "LOGIN")
        running.add_role("bare")
        running.add_role("barred")
        running.add_role("outsider")
        running.add_role("locked", "NOLOGIN REPLICATION")
        running.add_role('odd ""one""', "LOGIN", grants=ALL)  # as SQL has it
        running.execute("CREATE DATABASE closed")
        running.execute("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
        yield running


def found(server: PostgresServer, user: str = "backup", **changes: Any) -> dict[str, Finding]:
    """By code; no finding ever shows the password, and every one that is wrong has a remedy."""
    every = probe(reach(server, user, **changes))
    assert len({one.code for one in every}) == len(every), every
    for one in every:
        assert PASSWORD not in str(one)
        assert one.subject == "postgres"
        assert one.hint or one.severity == "info", one
    return {one.code: one for one in every}


def test_a_server_with_all_rights_is_ready(server: PostgresServer) -> None:
    seen = found(server)
    assert set(seen) == BENIGN
    assert seen["postgres-ready"].message.startswith("PostgreSQL 18.")


def test_the_role_lacks_rights(server: PostgresServer) -> None:
    seen = found(server, "plain")
    assert set(seen) == BENIGN - {"postgres-ready"} | {
        "postgres-no-replication-right", "postgres-no-read-all-settings", "postgres-no-read-all-data",
    }  # fmt: skip
    assert seen["postgres-no-replication-right"].severity == "error"
    for finding in seen.values():
        statement = finding.hint.partition("Run on the server: ")[2]
        if statement:
            server.execute(statement)
    assert set(found(server, "plain")) == BENIGN
    server.execute("ALTER ROLE plain NOREPLICATION")


def test_names_are_quoted_in_the_remedy(server: PostgresServer) -> None:
    finding = found(server, 'odd "one"')["postgres-no-replication-right"]
    server.execute(finding.hint.partition("Run on the server: ")[2])
    assert set(found(server, 'odd "one"')) == BENIGN


def test_the_door_is_closed(server: PostgresServer) -> None:
    assert "host replication" in found(server, "barred")["postgres-no-hba-replication"].hint
    assert "host all" in found(server, "outsider")["postgres-no-hba-entry"].hint
    hba = server.data / "pg_hba.conf"
    whole = hba.read_text()
    try:
        hba.write_text("\n".join(line for line in whole.splitlines() if not line.startswith("host replication")) + "\n")
        server.reload()
        assert "host replication" in found(server)["postgres-no-hba-replication"].hint
    finally:
        hba.write_text(whole)
        server.reload()
    assert set(found(server, password="wrong")) == {"postgres-wrong-password"}
    assert set(found(server, password=None)) == {"postgres-wrong-password"}
    assert set(found(server, "nobody at all")) == {"postgres-wrong-password"}  # the server does not tell which
    assert "LOGIN" in found(server, "locked")["postgres-no-login-right"].hint
    assert "BACKUP_POSTGRES_DB" in found(server, db="none")["postgres-no-database"].hint
    assert "GRANT CONNECT" in found(server, db="closed")["postgres-no-connect-right"].hint


def test_nobody_is_at_home() -> None:
    from chrono_backups.sources.settings import PostgresSettings

    nobody = PostgresSettings(host="127.0.0.1", port=free_port(), user="backup")
    (finding,) = probe(nobody)
    assert (finding.code, finding.severity) == ("source-unavailable", "error")


def test_slots(server: PostgresServer) -> None:
    with ReplicationConnection.open(reach(server)) as connection:
        create_slot(connection, "mine")
    try:
        seen = found(server, slot="mine")
        assert set(seen) == {"postgres-ready", "postgres-slot-idle", "postgres-slot-unlimited"}
        assert seen["postgres-slot-idle"].severity == "warning"
        assert "(wal_status reserved, " in seen["postgres-slot-idle"].message
        assert "bytes of WAL kept for it)" in seen["postgres-slot-idle"].message
        server.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        server.reload()
        assert "postgres-slot-unlimited" not in found(server, slot="mine")
        for _ in range(12):
            server.execute("SELECT pg_switch_wal(), txid_current()")
            server.execute("CHECKPOINT")
        lost = found(server, slot="mine")["postgres-slot-lost"]
        assert lost.severity == "error"
        assert "pg_drop_replication_slot('mine')" in lost.hint
        # Whoever looks for another slot hears of it too.
        forgotten = found(server)["postgres-slots-forgotten"]
        assert "mine: wal_status lost, 0 bytes of WAL kept for it" in forgotten.message
        assert "pg_drop_replication_slot('mine')" in forgotten.hint
    finally:
        server.execute("SELECT pg_drop_replication_slot('mine')")
        server.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        server.reload()


def test_wal_senders_are_all_taken(server: PostgresServer) -> None:
    held = []
    try:
        held = [ReplicationConnection.open(reach(server)) for _ in range(10)]
        finding = found(server)["postgres-no-wal-sender"]
        assert finding.severity == "error"
        assert "max_wal_senders" in finding.hint
    finally:
        for one in held:
            one.close()


def test_settings_that_are_bad_for_backups() -> None:
    settings = {
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "summarize_wal": "off",
        "max_replication_slots": "0",
        "synchronous_standby_names": "ANY 1 (*)",
    }
    with postgres_server(needed(18), settings=settings, options=["--no-data-checksums"]) as server:
        elsewhere = server.home / "etc"
        elsewhere.mkdir()
        (server.data / "pg_hba.conf").rename(elsewhere / "pg_hba.conf")
        server.give(elsewhere)
        server.configure(hba_file=str(elsewhere / "pg_hba.conf"))
        server.restart()
        server.add_role("backup", grants=ALL)
        seen = found(server)
        assert set(seen) == {
            "postgres-wal-level", "postgres-no-wal-sender", "postgres-no-free-slot", "postgres-no-wal-summaries",
            "postgres-synchronous", "postgres-no-checksums", "postgres-configuration-outside", "postgres-no-slot",
        }  # fmt: skip
        assert str(elsewhere / "pg_hba.conf") in seen["postgres-configuration-outside"].message
        # The remedies that are SQL take effect.
        for code in ("postgres-wal-level", "postgres-no-wal-sender", "postgres-no-free-slot"):
            server.execute("ALTER SYSTEM" + seen[code].hint.partition("ALTER SYSTEM")[2])
        alter, reload_ = seen["postgres-no-wal-summaries"].hint.partition("Run on the server: ")[2].split("; ")
        server.execute(alter)
        server.execute(reload_)
        server.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
        server.restart()
        left = {"postgres-no-checksums", "postgres-configuration-outside"}
        assert set(found(server)) == left | BENIGN


@pytest.mark.parametrize("version", [16, 15])
def test_older_servers(version: int) -> None:
    with postgres_server(needed(version)) as server:
        server.add_role("backup", grants=ALL)
        assert set(found(server)) == BENIGN | {"postgres-no-incrementals"}


def test_a_standby_and_its_promotion(server: PostgresServer) -> None:
    standby = PostgresServer(18, server.home.parent / "b")
    server.run(
        "pg_basebackup",
        "-D",
        standby.data,
        "-R",
        "-h",
        server.sockets,
        "-p",
        str(server.port),
        "-U",
        "postgres",
        "-c",
        "fast",
    )
    standby.start()
    try:
        assert set(found(standby)) == BENIGN | {"postgres-standby"}
        standby.promote()
        standby.execute("CHECKPOINT")
        assert set(found(standby)) == BENIGN | {"postgres-was-promoted"}
    finally:
        standby.stop()


def test_dumps_need_programs(server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "postgres-ready" in found(server, method="both")
    monkeypatch.setattr("chrono_backups.sources.postgres.programs._PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = found(server, method="logical", bin_dir=())["postgres-no-programs"]
    assert "postgresql-client-18" in finding.hint
    for name in ("pg_dump", "pg_dumpall"):
        fake = tmp_path / name
        fake.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 19.2'\n")
        fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert subprocess.run([tmp_path / "pg_dump"], capture_output=True, check=True).stdout
    seen = found(server, method="logical", bin_dir=())
    assert set(seen) == {"postgres-ready", "postgres-later-programs"}
