"""What a backup records of its boundaries, and what it says where they lie too far apart."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from chrono_backups.backup.service import capture, commit, plan_backup
from chrono_backups.boundary import PostgresPosition
from chrono_backups.clock import FrozenClock, to_text
from chrono_backups.events import Finding, Listener
from chrono_backups.identifiers import SourceName
from chrono_backups.repository.records import Manifest
from chrono_backups.sources.base import Earlier, StreamedEntry
from chrono_backups.sources.files import FilesSource
from chrono_backups.sources.postgres.position import positions
from chrono_backups.sources.settings import PostgresSettings
from chrono_backups_tests.backup.taking import OPTIONS, Heard, new_repository, write_all
from chrono_backups_tests.backup.test_streamed import FILE, Effective, Pages
from chrono_backups_tests.servers.postgres import PASSWORD, postgres_server, programs


@dataclass
class Store:
    """A store whose capture lasts: seconds before its first content comes, and until the last has."""

    name: SourceName
    clock: FrozenClock
    before: float
    reading: float
    told: Callable[[FrozenClock], Mapping[str, Any]] = lambda _clock: {}
    effective: Effective = "full"
    reason: str = ""
    expected_bytes: int | None = None
    _facts: dict[str, Any] = field(default_factory=dict)

    def probe(self) -> list[Finding]:
        return []

    @contextmanager
    def stream(self, earlier: Earlier | None, asked: Effective, listener: Listener) -> Iterator[Store]:
        self.clock.sleep(self.before)
        self._facts = dict(self.told(self.clock))
        yield self

    def entries(self) -> Iterator[StreamedEntry]:
        yield StreamedEntry(b"content", FILE, 3, read_into=Pages(b"abc", random.Random(1)).read_into)
        self.clock.sleep(self.reading)

    def facts(self) -> Mapping[str, Any]:
        return self._facts


class Log:
    """PostgreSQL's, which moves on with the clock: a byte a second."""

    def __init__(self, clock: FrozenClock) -> None:
        self.clock = clock
        self.began = clock.now()

    @contextmanager
    def __call__(self, _listener: Listener) -> Iterator[Callable[[], PostgresPosition]]:
        yield self.position

    def position(self) -> PostgresPosition:
        seconds = int((self.clock.now() - self.began).total_seconds())
        return PostgresPosition(f"0/{seconds:X}", 1, self.clock.now(), self.archived)

    archived = True


def at_one_moment(clock: FrozenClock) -> Mapping[str, Any]:
    moment = to_text(clock.now())
    return {"boundary": {"first": moment, "last": moment, "offset": 7}}


def take(clock: FrozenClock, *stores: Any, max_skew: float | None = None, archived: bool = True) -> Manifest:
    repository = new_repository(clock=clock)
    log = Log(clock)
    log.archived = archived
    plan = plan_backup(repository, "full", [store.name for store in stores])
    outcomes = [
        capture(
            repository, plan, store, options=OPTIONS, positions=log if store.name in {"redis", "meilisearch"} else None
        )
        for store in stores
    ]
    commit(repository, plan, outcomes, trigger="test", max_skew=max_skew)
    return repository.backup(plan.backup_id)


def site(clock: FrozenClock) -> list[Store]:
    return [
        Store("postgres", clock, 1, 99, lambda _: {"end_lsn": "0/64", "timeline": 3}),
        Store("meilisearch", clock, 2, 8, lambda _: {"task_uid": 12}),
        Store("redis", clock, 5, 30, at_one_moment),
    ]


def test_each_snapshot_has_its_boundary_and_the_backup_the_skew_between_them() -> None:
    clock = FrozenClock()
    manifest = take(clock, *site(clock))
    start = manifest.started_at

    def seconds(source: str) -> tuple[float, float]:
        held = manifest.boundaries[source]
        return (held.first - start).total_seconds(), (held.last - start).total_seconds()

    assert seconds("postgres") == (0, 100), "without a word from the source, its whole capture"
    assert seconds("meilisearch") == (100, 110)
    assert seconds("redis") == (115, 115), "the moment that the source names"
    assert manifest.boundaries["postgres"].position == {"end_lsn": "0/64", "timeline": 3}
    assert manifest.boundaries["meilisearch"].position == {"task_uid": 12}
    assert manifest.boundaries["redis"].position == {"offset": 7}
    assert manifest.skew_seconds == 115
    assert manifest.skew_with_wal_seconds == 15
    met = manifest.meeting
    assert met is not None
    assert met[0] == "redis"
    assert met[1].lsn == f"0/{115:X}", "PostgreSQL's at the moment of the store, not when its content had come"


def test_a_tree_has_the_whole_of_its_walk_and_its_digest(tmp_path: Path) -> None:
    write_all(tmp_path / "site", {"a": b"a"})
    clock = FrozenClock()
    manifest = take(clock, FilesSource("files", [tmp_path / "site"]))
    held = manifest.boundaries["files"]
    assert held.first == held.last == clock.now()
    assert held.position == {"listing_digest": manifest.snapshots[0].facts["listing_digest"]}
    assert manifest.meeting is None


@pytest.mark.parametrize(
    ("most", "archived", "code"),
    [(None, True, []), (15.0, True, []), (14.9, True, ["skew-too-large"]), (15.0, False, ["skew-too-large"])],
    ids=["no limit", "met by WAL", "too far apart", "without WAL"],
)
def test_a_skew_that_is_too_large_is_a_finding(most: float | None, archived: bool, code: list[str]) -> None:
    clock = FrozenClock()
    manifest = take(clock, *site(clock), max_skew=most, archived=archived)
    assert [one.code for one in manifest.findings] == code
    if code and not archived:
        assert "115.0 s" in manifest.findings[0].message
        assert "15.0 s" in manifest.findings[0].hint, "what WAL would make of it"


class TestPosition:
    def test_it_is_where_everything_committed_lies_before(self) -> None:
        if programs(18) is None:
            pytest.skip("needs PostgreSQL 18")
        with postgres_server(18) as server:
            server.add_role("backup")
            secret = SecretStr(PASSWORD)
            known = PostgresSettings(host="127.0.0.1", port=server.port, user="backup", password=secret, db="postgres")
            heard = Heard()
            with positions(known, "redis", heard) as position:
                first = position()
                server.execute("CREATE TABLE t AS SELECT 1 AS n")
                second = position()
            assert first is not None
            assert second is not None
            assert not heard.findings
            flushed = server.value("SELECT pg_current_wal_flush_lsn()::text")
            assert first.lsn != second.lsn
            assert server.value(f"SELECT '{second.lsn}'::pg_lsn <= '{flushed}'::pg_lsn + 8192") is True
            assert server.value(f"SELECT '{second.lsn}'::pg_lsn > '{first.lsn}'::pg_lsn") is True
            assert (second.timeline, second.archived) == (1, False)
            assert first.server_time < second.server_time

    def test_where_the_server_cannot_be_asked_the_capture_goes_on(self) -> None:
        clock = FrozenClock()
        repository = new_repository(clock=clock)
        store = site(clock)[2]
        plan = plan_backup(repository, "full", ["redis"])
        nowhere = PostgresSettings(host="127.0.0.1", port=1, user="x", db="x")

        @contextmanager
        def refused(listener: Listener) -> Iterator[Callable[[], PostgresPosition | None]]:
            with positions(nowhere, "redis", listener) as position:
                yield position

        outcome = capture(repository, plan, store, options=OPTIONS, positions=refused)
        assert outcome.snapshot_id is not None
        snapshot = repository.snapshot(outcome.snapshot_id)
        assert [one.code for one in snapshot.findings] == ["no-postgres-position"]
        assert snapshot.boundary is not None
        assert snapshot.boundary.postgres is None
