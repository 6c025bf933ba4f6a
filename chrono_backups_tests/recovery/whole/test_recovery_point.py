"""A recovery point of a running application, restored whole: its stores agree as the plan promises."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from chrono_backups import settings
from chrono_backups.orchestration.location import build_definitions
from chrono_backups.repository.records import Manifest
from chrono_backups_tests.recovery.postgres.operated import wait_gone
from chrono_backups_tests.recovery.whole.application import Application, application, running

__all__ = ["application", "running"]


@pytest.fixture(scope="module")
def taken(application: Application) -> Manifest:
    """A backup that was taken while the application wrote, with its WAL archived."""
    postgres = application.postgres
    with postgres.receiving() as receiver, application.writing():
        postgres.json("backup", "--type", "full")
        with postgres.open() as repository:
            (manifest,) = repository.backups()
        met = manifest.meeting
        assert met is not None
        receiver.wait_stored(met[1].lsn)
    postgres.share()
    return manifest


def counter_of(started: dict[str, Any]) -> int:
    """What the restored server holds; it is ended."""
    try:
        with psycopg.connect(
            host=started["socket_directory"], port=5432, user=started["superuser"], dbname="postgres"
        ) as connection:
            row = connection.execute("SELECT value FROM counter").fetchone()
        assert row is not None
        return int(row[0])
    finally:
        os.kill(started["pid"], signal.SIGINT)
        wait_gone(started["pid"])


@pytest.fixture
def directory(application: Application) -> Iterator[Path]:
    place = application.postgres.home / "restored"
    yield place


def test_every_boundary_is_recorded_and_the_skew_between_them(application: Application, taken: Manifest) -> None:
    assert [one.source for one in taken.snapshots] == ["postgres", "meilisearch", "redis", "configuration", "files"]
    held = taken.boundaries
    assert held["postgres"].last <= held["meilisearch"].first <= held["redis"].last <= held["configuration"].first
    assert set(held["redis"].position) >= {"replication_id", "replication_offset"}
    assert "task_uid" in held["meilisearch"].position
    assert held["files"].position["listing_digest"]
    met = taken.meeting
    assert met is not None and met[0] == "redis" and met[1].archived
    assert 0 < taken.skew_with_wal_seconds <= taken.skew_seconds
    (shown,) = application.postgres.json("list")
    assert shown["skew_seconds"] == taken.skew_seconds


def test_a_whole_restore_brings_postgres_to_the_moment_of_the_others(
    application: Application, taken: Manifest, directory: Path
) -> None:
    postgres = application.postgres
    application.write(1_000_000)
    (postgres.home / "media" / "picture").write_bytes(b"scribbled over")
    plan = postgres.json("restore", taken.backup_id, "--in-place", "--to", directory, "--start", "--dry-run")
    assert plan["point"]["note"].startswith("PostgreSQL meets redis at ")
    assert application.held() == {"redis": 1_000_000, "meilisearch": 1_000_000}, "nothing was changed"

    done = postgres.json("restore", taken.backup_id, "--in-place", "--to", directory, "--start")
    counter = counter_of(done["parts"][0]["details"]["started"])
    assert [(one["source"], one["stage"]) for one in done["parts"]] == [
        (source, "restored") for source in ("postgres", "configuration", "files", "meilisearch", "redis")
    ]
    held = application.held()
    met = taken.meeting
    assert met is not None
    assert held["meilisearch"] <= held["redis"] <= counter, "nothing is newer than the database that it was made from"
    at = met[1].server_time.timestamp()
    # The server reads where its log is, and then its clock; a busy machine may do something else in between.
    assert application.value_at(at - 0.25) <= counter <= application.value_at(at + 0.25) + 2, "exactly there"
    first = application.value_at(taken.boundaries["redis"].first.timestamp())
    assert first <= held["redis"] <= application.value_at(at + 0.25) + 1
    assert held["meilisearch"] >= application.value_at(taken.boundaries["meilisearch"].first.timestamp()) > 0
    base_end = application.value_at(taken.boundaries["postgres"].last.timestamp())
    assert base_end < held["redis"], "without WAL the database would have been the oldest"
    assert (postgres.home / "media" / "picture").read_bytes() == b"as it was"

    safety = done["safety_backup_id"]
    with postgres.open() as repository:
        kept = repository.backup(safety)
    assert {one.source for one in kept.snapshots} == {"configuration", "files", "meilisearch", "redis"}
    postgres.json("restore", safety, "--in-place", "--source", "redis", "--source", "meilisearch", "--no-safety-backup")
    assert application.held() == {"redis": 1_000_000, "meilisearch": 1_000_000}, "undone by the safety backup"


def test_where_wal_does_not_lead_there_the_plan_says_how_far_apart_they_are(
    application: Application, taken: Manifest
) -> None:
    postgres = application.postgres
    wal, away = postgres.place / "wal", postgres.home / "wal-elsewhere"
    wal.rename(away)
    try:
        plan = postgres.json("restore", taken.backup_id, "--in-place", "--to", postgres.home / "x", "--dry-run")
    finally:
        away.rename(wal)
    note = plan["point"]["note"]
    assert "s before redis, where its base backup does: " in note and "no WAL is stored" in note
    assert plan["point"]["skew_seconds"] == pytest.approx(taken.skew_seconds)


def test_to_a_time_each_store_is_at_its_newest_capture_before_it(application: Application, taken: Manifest) -> None:
    postgres = application.postgres
    moment = taken.boundaries["files"].last.isoformat()
    words = ("restore", "latest", "--in-place", "--to", postgres.home / "x", "--target-time", moment, "--dry-run")
    with postgres.receiving() as receiver:
        postgres.server.execute("CREATE TABLE later (n int)")
        receiver.wait_stored(postgres.server.value("SELECT pg_current_wal_flush_lsn()::text"))
    postgres.share()
    point = postgres.json(*words)["point"]
    assert {one["backup_id"] for one in point["parts"]} == {taken.backup_id}
    distances = {one["source"]: one["seconds_before"] for one in point["parts"]}
    assert distances["postgres"] == 0
    assert 0 < distances["redis"] < distances["meilisearch"]


def test_dagsters_job_restores_it_as_well(
    application: Application, taken: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(application.postgres.home)
    for name in [name for name in os.environ if name.startswith("BACKUP_")]:
        monkeypatch.delenv(name)
    application.write(2_000_000)
    config = {"backup_id": taken.backup_id, "in_place": True, "sources": ["redis", "meilisearch"], "dry_run": True}
    job = build_definitions(settings.load()).resolve_job_def("restore_backup")
    with dg.DagsterInstance.ephemeral() as instance:
        shown = job.execute_in_process(instance=instance, run_config=config)
        assert application.held() == {"redis": 2_000_000, "meilisearch": 2_000_000}
        done = job.execute_in_process(instance=instance, run_config={**config, "dry_run": False})
    assert shown.success and done.success
    plan = next(
        event.step_output_data.metadata
        for event in shown.all_node_events
        if event.is_successful_output and event.step_key == "plan_restore"
    )
    assert str(plan["plan"].value).startswith("1. **meilisearch** of full_")
    assert "| redis |" in str(plan["recovery_point"].value)
    held = application.held()
    assert held["meilisearch"] <= held["redis"] < 1_000_000
