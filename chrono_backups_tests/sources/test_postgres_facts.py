"""What is recorded of a cluster's databases and tables, and what a restored one is compared by."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import psycopg
import pytest

from chrono_backups.sources.postgres import facts
from chrono_backups.sources.postgres.connection import sql
from chrono_backups.sources.postgres.facts import Sampler, check_databases, check_sample
from chrono_backups.sources.postgres.source import PostgresSource
from chrono_backups_tests.backup.receiving import wait
from chrono_backups_tests.backup.taking import Heard, new_repository, take
from chrono_backups_tests.servers.postgres import PostgresServer, postgres_server
from chrono_backups_tests.servers.postgres_settings import needed, reach

STRANGE = 'sch"ema . a'


@pytest.fixture(scope="module", params=[18, 15])
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with postgres_server(needed(request.param), settings={"autovacuum": "off"}) as running:
        running.add_role("backup", grants=["pg_read_all_data"])
        running.add_role("plain", "LOGIN")
        running.execute("CREATE DATABASE shop")
        for statement in (
            "CREATE TABLE customers AS SELECT g AS id, now() AS at, g / 7.0 AS x FROM generate_series(1, 5000) g",
            "CREATE UNIQUE INDEX ON customers (id)",
            "CREATE TABLE large AS SELECT g AS id, repeat('y', 900) AS filler FROM generate_series(1, 20000) g",
            "CREATE UNLOGGED TABLE passing AS SELECT 1 AS a",
            "CREATE TABLE empty (a int)",
            f'CREATE SCHEMA "{STRANGE.replace(chr(34), chr(34) * 2)}"',
            f'CREATE TABLE "{STRANGE.replace(chr(34), chr(34) * 2)}"."chrono_row" AS SELECT NULL::int AS chrono_row',
            "CREATE VIEW v AS SELECT * FROM customers",
            "VACUUM (FREEZE, ANALYZE)",
        ):
            running.execute(statement, "shop")
        yield running


def sampled(server: PostgresServer, user: str = "backup") -> Sampler:
    sampler = Sampler(reach(server, user), Heard())
    sampler.before()
    return sampler


def tables(recorded: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["table"]: one for one in recorded["sample"]["tables"]}


def connected(server: PostgresServer) -> facts.Connect:
    def connect(database: str) -> AbstractContextManager[psycopg.Connection[Any]]:
        return sql(reach(server, "postgres", host=str(server.sockets)), database)

    return connect


def test_what_did_not_change_is_recorded_and_found_again(server: PostgresServer) -> None:
    recorded = sampled(server).after()
    seen = tables(recorded)
    assert set(seen) == {"customers", "large", "chrono_row"}
    assert {one["state"] for one in seen.values()} == {"same"}
    assert (seen["customers"]["rows"], seen["customers"]["pages"]) == (5000, None)
    assert len(seen["large"]["pages"]) == 4
    assert 0 < seen["large"]["rows"] < 20000
    assert seen["large"]["pages"][-1][1] == server.value("SELECT pg_relation_size('large') / 8192", "shop")
    shop = next(one for one in recorded["databases"] if one["name"] == "shop")
    assert shop["settled"]
    assert shop["relations"]["views"] == server.value("SELECT count(*) FROM pg_class WHERE relkind = 'v'", "shop")
    assert {one["name"] for one in recorded["databases"]} == {"postgres", "shop", "template1"}
    assert check_sample(connected(server), recorded["sample"]) == []
    assert check_databases(connected(server), recorded["databases"]) == []


def test_a_table_that_changes_meanwhile_is_busy(server: PostgresServer) -> None:
    sampler = sampled(server)
    server.execute("UPDATE customers SET x = x WHERE id = 7", "shop")
    server.execute("UPDATE customers SET x = x + 1 WHERE id = 8", "shop")
    recorded = sampler.after()
    busy = tables(recorded)["customers"]
    assert (busy["state"], busy["rows"], busy["digest"]) == ("busy", None, None)
    assert tables(recorded)["chrono_row"]["state"] == "same"
    server.execute("DELETE FROM customers WHERE id = 9", "shop")
    assert check_sample(connected(server), recorded["sample"]) == []
    server.execute("INSERT INTO customers VALUES (9, now(), 0)", "shop")


@pytest.mark.parametrize(
    ("change", "undo", "code", "words"),
    [
        ("DELETE FROM customers WHERE id = 1", "INSERT INTO customers VALUES (1, now(), 0)", "postgres-sample-differs",
         "has 4999 rows, and had 5000"),
        ("UPDATE customers SET x = 99 WHERE id = 2", "", "postgres-sample-differs", "not the content"),
        ("ALTER TABLE customers RENAME TO gone", "ALTER TABLE gone RENAME TO customers", "postgres-sample-differs",
         "can't be read"),
    ],
)  # fmt: skip
def test_a_difference_is_found(server: PostgresServer, change: str, undo: str, code: str, words: str) -> None:
    sample = sampled(server).after()["sample"]
    server.execute(change, "shop")
    found = check_sample(connected(server), sample)
    if undo:
        server.execute(undo, "shop")
    assert [one.code for one in found if words in one.message] == [code], found
    assert all("customers of shop" in one.message for one in found)


def test_a_visibility_map_that_lies_is_found(server: PostgresServer) -> None:
    server.execute("CREATE TABLE mapped AS SELECT g AS id FROM generate_series(1, 9000) g", "shop")
    server.execute("CREATE INDEX ON mapped (id)", "shop")
    server.execute("VACUUM (FREEZE, ANALYZE) mapped", "shop")
    place = server.data / server.value("SELECT pg_relation_filepath('mapped')", "shop")
    server.execute("CHECKPOINT")
    lying = place.with_name(place.name + "_vm").read_bytes()
    server.execute("DELETE FROM mapped WHERE id % 2 = 0", "shop")
    sample = sampled(server).after()["sample"]
    server.stop()
    place.with_name(place.name + "_vm").write_bytes(lying)
    server.start()
    found = check_sample(connected(server), sample)
    server.execute("DROP TABLE mapped", "shop")
    assert [one.code for one in found] == ["postgres-index-differs"]
    assert "4500 rows by its pages and 9000 by an index" in found[0].message


def test_missing_databases_and_relations_are_found(server: PostgresServer) -> None:
    server.execute("CREATE DATABASE soon_gone")
    recorded = sampled(server).after()
    server.execute("DROP DATABASE soon_gone")
    server.execute("CREATE TABLE one_more (a int)", "shop")
    found = check_databases(connected(server), recorded["databases"])
    server.execute("DROP TABLE one_more", "shop")
    assert [one.code for one in found] == ["postgres-relations-differ", "postgres-database-missing"]


def test_a_role_without_rights_samples_what_it_may(server: PostgresServer) -> None:
    recorded = sampled(server, "plain").after()
    assert recorded["sample"]["tables"] == []
    assert check_sample(connected(server), None)[0].code == "sample-missing"


def test_time_is_bounded(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "_SECONDS", -1.0)
    recorded = sampled(server).after()
    assert recorded["sample"]["tables"] == []
    assert recorded["sample"]["left_out"] == 3
    monkeypatch.undo()
    with server.connect("shop") as locker:
        locker.execute("BEGIN")
        locker.execute("LOCK TABLE customers")
        recorded = sampled(server).after()
        assert set(tables(recorded)) == {"large", "chrono_row"}
        locker.execute("COMMIT")
        sampler = sampled(server)
        locker.execute("BEGIN")
        locker.execute("LOCK TABLE customers")
        assert tables(sampler.after())["customers"]["state"] == "busy"


def test_a_base_backup_records_it_under_load(server: PostgresServer) -> None:
    server.execute("CREATE TABLE ticks (n int)", "shop")
    stop = threading.Event()

    def tick() -> None:
        with server.connect("shop") as connection:
            while not stop.wait(0.01):
                connection.execute("INSERT INTO ticks VALUES (1)")

    server.execute("INSERT INTO ticks VALUES (1)", "shop")
    load = threading.Thread(target=tick)
    load.start()
    try:
        wait(lambda: server.value("SELECT count(*) FROM ticks", "shop") > 3)
        manifest = take(new_repository(), "full", PostgresSource(reach(server)))
    finally:
        stop.set()
        load.join()
        server.execute("DROP TABLE ticks", "shop")
    recorded = manifest.snapshots[0].facts
    states = {one["table"]: one["state"] for one in recorded["sample"]["tables"]}
    assert states == {"customers": "same", "large": "same", "chrono_row": "same", "ticks": "busy"}
    assert recorded["sample"]["before"] < recorded["start_time"] < recorded["stop_time"] < recorded["sample"]["after"]
