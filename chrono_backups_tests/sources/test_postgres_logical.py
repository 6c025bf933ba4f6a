"""Dumps of real servers: whole, at one moment, without a secret in sight; and nothing of one that failed."""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chrono_backups.errors import BackupFailed, SourceError
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.postgres import logical
from chrono_backups.sources.postgres.dump_program import DumpProgram, connection_words
from chrono_backups.sources.postgres.logical import dumps, file_name
from chrono_backups.sources.postgres.programs import client_programs, installed
from chrono_backups.sources.postgres.source import PostgresSource
from chrono_backups_tests.backup.taking import Heard, in_repository, new_repository, snapshot_of, take
from chrono_backups_tests.servers.postgres import PASSWORD, PostgresServer, postgres_server
from chrono_backups_tests.servers.postgres_settings import needed, reach

ODD = "odd/na'me = 50%"


@pytest.fixture(scope="module", params=[18, 15])
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with postgres_server(needed(request.param)) as running:
        running.add_role("backup", grants=["pg_read_all_data"])
        running.add_role("plain", "LOGIN REPLICATION")
        running.load(scale=1)
        running.execute(f'CREATE DATABASE "{ODD}"')
        running.execute("CREATE TABLE here AS SELECT g AS id FROM generate_series(1, 100) g", ODD)
        running.execute("ALTER TABLE here ADD PRIMARY KEY (id)", ODD)
        yield running


def dumped(repository: Repository, manifest: Manifest) -> dict[bytes, bytes]:
    """The files below ``dump``."""
    things = in_repository(repository, snapshot_of(repository, manifest, "postgres"))
    return {
        path.removeprefix(b"dump/"): thing.content
        for path, thing in things.items()
        if stat.S_ISREG(thing.mode) and path.startswith(b"dump/")
    }


def restored(server: PostgresServer, dump: bytes, database: str, *words: str) -> None:
    """Put a dump into a new database, by PostgreSQL's own program."""
    place = server.home / "restored.dump"
    place.write_bytes(dump)
    server.give(place)
    server.execute(f"CREATE DATABASE {database}")
    reached: list[str | Path] = ["-h", server.sockets, "-p", str(server.port), "-U", "postgres"]
    server.run("pg_restore", *reached, "-d", database, "--exit-on-error", *words, place)


def test_dumps_come_back(server: PostgresServer) -> None:
    repository = new_repository()
    manifest = take(repository, "full", PostgresSource(reach(server, method="logical")))
    found = dumped(repository, manifest)
    odd = b"odd%2Fna'me = 50%25.dump"
    assert set(found) == {b"globals.sql", b"postgres.dump", odd}
    assert b'CREATE ROLE "backup"' in found[b"globals.sql"] or b"CREATE ROLE backup" in found[b"globals.sql"]
    facts = manifest.snapshots[0].facts
    assert facts["method"] == "logical"
    assert facts["system_identifier"] in server.run("pg_controldata", "-D", server.data).stdout
    assert [one["name"] for one in facts["dump"]["databases"]] == [ODD, "postgres"]
    assert facts["dump"]["databases"][0]["bytes"] == len(found[odd])
    assert 0 <= facts["dump"]["skew_seconds"] < 60
    assert "start_lsn" not in facts
    try:
        restored(server, found[b"postgres.dump"], "again")
        restored(server, found[odd], "one_table", "--table=here")
        assert server.value("SELECT count(*) FROM pgbench_accounts", "again") == 100_000
        assert server.value("SELECT sum(id) FROM here", "one_table") == 5050
    finally:
        server.execute("DROP DATABASE IF EXISTS again")
        server.execute("DROP DATABASE IF EXISTS one_table")


def test_a_second_dump_stores_little_anew(server: PostgresServer) -> None:
    repository, source = new_repository(), PostgresSource(reach(server, method="logical"))
    server.execute(
        "CREATE TABLE texts AS SELECT g AS id, md5(g::text) || md5((g * 7)::text) || md5((g * 11)::text) AS content"
        " FROM generate_series(1, 100000) g"
    )
    first = take(repository, "full", source)
    server.execute("UPDATE texts SET content = 'short' WHERE id = 50000")
    second = take(repository, "incremental", source)
    assert second.snapshots[0].effective == "full"
    assert "dumps are always whole" in second.snapshots[0].reason
    server.execute("DROP TABLE texts")
    assert first.statistics.bytes_added > 20_000_000
    assert second.statistics.bytes_added < 0.3 * first.statistics.bytes_added


def test_all_databases_are_of_one_moment(server: PostgresServer) -> None:
    """Each transaction writes the same number to both, the one right behind the other."""
    stop = threading.Event()
    for database in ("postgres", ODD):
        server.execute("CREATE TABLE numbers (n int)", database)

    def write() -> None:
        with server.connect() as one, server.connect(ODD) as other:
            number = 0
            while not stop.is_set():
                number += 1
                one.execute("INSERT INTO numbers VALUES (%s)", [number])
                other.execute("INSERT INTO numbers VALUES (%s)", [number])
                time.sleep(0.002)

    load = threading.Thread(target=write)
    load.start()
    try:
        repository = new_repository()
        manifest = take(repository, "full", PostgresSource(reach(server, method="logical")))
        found = dumped(repository, manifest)
    finally:
        stop.set()
        load.join()
    restored(server, found[b"postgres.dump"], "first", "--table=numbers")
    restored(server, found[file_name(ODD) + b".dump"], "second", "--table=numbers")
    highest = [server.value("SELECT coalesce(max(n), 0) FROM numbers", one) for one in ("first", "second")]
    server.execute("DROP DATABASE first")
    server.execute("DROP DATABASE second")
    for database in ("postgres", ODD):
        server.execute("DROP TABLE numbers", database)
    skew = manifest.snapshots[0].facts["dump"]["skew_seconds"]
    assert abs(highest[0] - highest[1]) <= 2 + skew / 0.002


def test_a_dump_and_a_base_backup_in_one(server: PostgresServer) -> None:
    repository = new_repository()
    manifest = take(repository, "full", PostgresSource(reach(server, method="both")))
    facts = manifest.snapshots[0].facts
    things = in_repository(repository, snapshot_of(repository, manifest, "postgres"))
    assert {b"data/PG_VERSION", b"data/backup_manifest", b"dump/globals.sql", b"dump/postgres.dump"} <= set(things)
    assert facts["method"] == "both"
    assert facts["start_lsn"] and facts["dump"]["databases"] and facts["sample"]["tables"]


def test_a_missing_right_fails_and_says_the_remedy(server: PostgresServer) -> None:
    with pytest.raises(BackupFailed, match="permission denied for table"):
        take(new_repository(), "full", PostgresSource(reach(server, "plain", method="logical")))
    source = PostgresSource(reach(server, "plain", method="logical"))
    with pytest.raises(SourceError) as caught, source.stream(None, "full", Heard()) as capture:
        for entry in capture.entries():
            while entry.size and entry.read_into(memoryview(bytearray(100_000))):
                pass
    assert caught.value.hint == 'Run on the server: GRANT pg_read_all_data TO "plain";'
    server.execute(f'REVOKE CONNECT ON DATABASE "{ODD}" FROM PUBLIC')
    try:
        with pytest.raises(BackupFailed, match="may not connect to odd"):
            take(new_repository(), "full", PostgresSource(reach(server, "plain", method="logical")))
    finally:
        server.execute(f'GRANT CONNECT ON DATABASE "{ODD}" TO PUBLIC')


def test_a_dump_that_ends_early_is_no_backup(server: PostgresServer) -> None:
    settings = reach(server, method="logical")
    with pytest.raises(SourceError, match="SIGKILL"), dumps(settings, Heard()) as capture:
        for entry in capture.entries():
            if entry.path == b"dump/postgres.dump":
                entry.read_into(memoryview(bytearray(4096)))
                kill_child("pg_dump")
            view = memoryview(bytearray(100_000))
            while entry.size and entry.read_into(view):
                pass
    deadline = time.monotonic() + 120
    statement = "SELECT count(*) FROM pg_stat_activity WHERE application_name IN ('pg_dump', 'chrono_backups')"
    while server.value(statement):  # nothing stays behind on the server
        assert time.monotonic() < deadline
        time.sleep(0.05)


def kill_child(name: str) -> None:
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                status = (process / "status").read_text()
            except OSError:
                continue
            parent = re.search(r"^PPid:\s+(\d+)", status, re.MULTILINE)
            if status.startswith(f"Name:\t{name}\n") and parent and int(parent[1]) == os.getpid():
                os.kill(int(process.name), 9)


def test_a_dump_that_is_not_read_whole_is_no_dump(server: PostgresServer) -> None:
    with pytest.raises(SourceError, match="not read to its end"), dumps(reach(server), Heard()) as capture:
        list(capture.entries())


def test_no_secret_is_on_a_command_line(server: PostgresServer) -> None:
    settings = reach(server)
    words = connection_words(settings, ODD)
    assert PASSWORD not in words
    assert "dbname='odd/na\\'me = 50%'" in words
    running = DumpProgram(server.programs / "pg_dump", [f"--dbname={words}"], settings, "it")
    try:
        view = memoryview(bytearray(1_000_000))
        while running.read_into(view):
            pass
        running.check_ended()
    finally:
        running.close()


def test_other_settings_do_not_reach_the_program(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKUP_ENCRYPTION_KEY", "secret")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    script = server.home / "shown"
    script.write_text("#!/bin/sh\nenv\n")
    script.chmod(0o755)
    running = DumpProgram(script, [], reach(server), "it")
    view = memoryview(bytearray(100_000))
    shown = bytes(view[: running.read_into(view)]).decode()
    running.close()
    assert f"PGPASSWORD={PASSWORD}" in shown
    assert "secret" not in shown
    assert "PGCLIENTENCODING" not in shown


def test_what_the_program_warns_of_is_told(server: PostgresServer) -> None:
    script = server.home / "warns"
    script.write_text("#!/bin/sh\necho 'pg_dump: warning: careful' >&2\n")
    script.chmod(0o755)
    running = DumpProgram(script, [], reach(server), "it")
    assert running.read_into(memoryview(bytearray(10))) == 0
    assert [one.message for one in running.warnings()] == ["warns of it: careful"]
    running.close()


def test_a_role_that_may_not_read_passwords_dumps_without_them(server: PostgresServer) -> None:
    server.add_role("limited", "LOGIN")
    server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO limited")
    server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO limited", ODD)
    heard, repository = Heard(), new_repository()
    manifest = take(repository, "full", PostgresSource(reach(server, "limited", method="logical")), listener=heard)
    assert heard.codes == ["postgres-no-role-passwords"]
    assert b"SCRAM-SHA-256$" not in dumped(repository, manifest)[b"globals.sql"]
    manifest = take(repository, "full", PostgresSource(reach(server, method="logical")))
    assert b"SCRAM-SHA-256$" in dumped(repository, manifest)[b"globals.sql"]


def test_many_databases_are_dumped_one_after_another(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logical, "_TOGETHER_MOST", 1)
    heard = Heard()
    manifest = take(new_repository(), "full", PostgresSource(reach(server, method="logical")), listener=heard)
    assert "postgres-dumps-apart" in heard.codes
    assert manifest.snapshots[0].facts["dump"]["skew_seconds"] is None


def test_programs_of_the_versions_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = []
    for version in ("16.9", "17.5", "18beta1", "19.0"):
        folder = tmp_path / version
        folder.mkdir()
        folders.append(folder)
        for name in ("pg_dump", "pg_dumpall"):
            (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version} (Debian 1)'\n")
            (folder / name).chmod(0o755)
    (tmp_path / "19.0" / "pg_dumpall").unlink()
    monkeypatch.setattr(
        "chrono_backups.sources.postgres.programs._PLACES", (str(tmp_path / "1*"), str(tmp_path / "no"))
    )
    monkeypatch.setenv("PATH", "/bin-of-nobody")
    assert [one.shown for one in installed(("pg_dump", "pg_dumpall"), folders[:1])] == ["16.9", "18.0", "17.5"]
    assert client_programs(160004).folder == folders[0]
    assert client_programs(150001).shown == "16.9"
    assert client_programs(180001).folder == folders[2]
    with pytest.raises(SourceError) as caught:
        client_programs(190000)
    assert "16.9 in" in caught.value.message
    assert "postgresql-client-19" in caught.value.hint
