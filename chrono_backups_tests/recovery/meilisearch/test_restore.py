"""Restores into servers that run: whole, in part, over what is there; and the old data intact whatever fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from chrono_backups.clock import SystemClock
from chrono_backups.errors import EntryMissing, RestoreError, SourceError, UsageError
from chrono_backups.recovery.in_place import StoreReport, Stores, Wanted, plan_store
from chrono_backups.recovery.meilisearch import carrying, indexes
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.meilisearch.names import IN_BUILD
from chrono_backups.sources.meilisearch.source import MeilisearchSource
from chrono_backups.sources.settings import MeilisearchSettings, RedisSettings
from chrono_backups_tests.backup.taking import Heard, new_repository, take
from chrono_backups_tests.servers import meilisearch_routes
from chrono_backups_tests.servers.fault_proxy import FaultProxy
from chrono_backups_tests.servers.faults import Answer, LoseAnswer, Reset
from chrono_backups_tests.servers.meilisearch import MeilisearchServer, TaskFault
from chrono_backups_tests.servers.meilisearch_contract import SETTINGS
from chrono_backups_tests.servers.meilisearch_engine import Task
from chrono_backups_tests.servers.meilisearch_generated import document
from chrono_backups_tests.sources.meilisearch_settings import MASTER_KEY, reach

ALL = Wanted()


class ShortClock(SystemClock):
    """Waits are a hundredth as long."""

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds / 100)


def stores(settings: MeilisearchSettings) -> Stores:
    return Stores(RedisSettings(), settings, ShortClock())


def generated(count: int, edition: int = 0) -> list[dict[str, Any]]:
    return [json.loads(document(number, edition)) for number in range(count)]


@pytest.fixture(scope="module")
def taken() -> Iterator[tuple[Repository, Manifest, dict[str, Any], MeilisearchServer]]:
    """A backup of three indexes, and what they held; the server goes on."""
    with MeilisearchServer(master_key=MASTER_KEY) as source:
        source.fill("movies", generated(3000))
        source.fill("people", [{"ref": f"p-{n}", "_vectors": {"d": [n, 0.5]}} for n in range(50)], primary_key="ref")
        source.fill("empty", [])
        engine = source.engine
        engine.update_settings("movies", {"stopWords": ["the"], "rankingRules": ["words", "typo"]})
        engine.update_settings("people", {"embedders": {"d": {"source": "userProvided", "dimensions": 2}}})
        engine.features["network"] = engine.features["chatCompletions"] = True
        engine.network["remotes"]["b"] = {"url": "http://b", "searchApiKey": "plain"}
        engine.chats["desk"] = {"source": "openAi", "apiKey": "sk-98765432109876"}
        engine.add_key({"name": "app", "actions": ["search"], "indexes": ["movies"]})
        repository = new_repository()
        manifest = take(repository, "full", MeilisearchSource(reach(source.url)))
        yield repository, manifest, source.contents(), source


Taken = tuple[Repository, Manifest, dict[str, Any], MeilisearchServer]


@pytest.fixture
def target() -> Iterator[MeilisearchServer]:
    with MeilisearchServer(master_key=MASTER_KEY) as running:
        yield running


def restored(taken: Taken, settings: MeilisearchSettings, wanted: Wanted = ALL) -> StoreReport:
    plan = plan_store(taken[0], taken[1], "meilisearch", stores(settings), wanted)
    plan.check()
    return plan.execute(Heard())


def old_data(target: MeilisearchServer) -> dict[str, Any]:
    """Indexes of the same names and another one."""
    target.fill("movies", generated(100, 9))
    target.fill("other", [{"id": 1}])
    target.engine.update_settings("movies", {"stopWords": ["old"]})
    return target.contents()


class TestWhole:
    def test_into_an_empty_server(self, taken: Taken, target: MeilisearchServer) -> None:
        report = restored(taken, reach(target.url))
        assert target.contents() == taken[2]
        engine, source = target.engine, taken[3].engine
        assert engine.indexes["people"].primary_key == "ref"
        for uid, index in source.indexes.items():
            assert {**SETTINGS, **engine.indexes[uid].settings} == {**SETTINGS, **index.settings}
        assert engine.features == source.features and engine.network == source.network
        assert engine.chats["desk"]["source"] == "openAi" and "apiKey" not in engine.chats["desk"]
        for uid in source.keys:
            assert engine.key_value(uid) == source.key_value(uid) and uid in engine.keys
        assert [one.code for one in report.findings] == ["meilisearch-chat-without-key"]
        assert report.items == 3050

    def test_over_what_is_there_and_nobody_sees_half_of_it(self, taken: Taken, target: MeilisearchServer) -> None:
        before = old_data(target)
        seen: list[int] = []
        target.engine.on_task = lambda _task: seen.append(target.engine.indexes["movies"].count())
        plan = plan_store(taken[0], taken[1], "meilisearch", stores(reach(target.url)), ALL)
        assert dict(plan.facts())["replaced"] == "movies (100 documents)"
        assert dict(plan.facts())["untouched"] == "other"
        assert target.contents() == before
        plan.execute(Heard())
        assert target.contents() == {**taken[2], "other": before["other"]}
        assert set(seen) == {100, 3000}
        assert target.engine.indexes["movies"].settings["stopWords"] == ["the"]

    def test_chosen_indexes_and_nothing_beside(self, taken: Taken, target: MeilisearchServer) -> None:
        before = old_data(target)
        restored(taken, reach(target.url), Wanted(patterns=["peo*"]))
        assert target.contents() == {**before, "people": taken[2]["people"]}
        assert len(target.engine.keys) == 2 and not target.engine.features["network"]
        with pytest.raises(EntryMissing, match="no index"):
            restored(taken, reach(target.url), Wanted(patterns=["none"]))
        with pytest.raises(UsageError):
            restored(taken, reach(target.url), Wanted(databases=[1]))

    def test_what_a_killed_restore_left_is_cleared(self, taken: Taken, target: MeilisearchServer) -> None:
        target.fill(indexes.built_beside("movies"), generated(7))
        target.fill(indexes.built_beside("gone"), generated(7))
        restored(taken, reach(target.url))
        assert target.contents() == taken[2]

    def test_a_second_backup_in_many_stretches_comes_back(self, target: MeilisearchServer) -> None:
        with MeilisearchServer(master_key=MASTER_KEY) as source:
            repository = new_repository()
            for edition in range(4):
                source.fill("movies", generated(3000) if not edition else [])
                changed = range(edition, 3000, 150) if edition else ()
                source.fill("movies", [json.loads(document(number, edition)) for number in changed])
                manifest = take(repository, "full", MeilisearchSource(reach(source.url)))
            restored((repository, manifest, {}, source), reach(target.url))
            assert target.contents() == source.contents()


class TestOtherServers:
    def test_an_older_one_lacks_settings_and_says_so(self, taken: Taken) -> None:
        known = {name: one for name, one in SETTINGS.items() if name != "prefixSearch"}
        with MeilisearchServer(master_key=MASTER_KEY, version="1.12.0") as older, pytest.MonkeyPatch.context() as patch:
            patch.setattr(meilisearch_routes, "SETTINGS", known)
            plan = plan_store(taken[0], taken[1], "meilisearch", stores(reach(older.url)), ALL)
            assert [one.code for one in plan.findings] == ["meilisearch-older-server"]
            report = plan.execute(Heard())
            assert older.contents() == taken[2]
        codes = {one.code for one in report.findings}
        assert {"meilisearch-setting-unknown", "meilisearch-features-unknown", "meilisearch-not-brought-back"} <= codes

    def test_another_master_key_is_warned_of_and_told(self, taken: Taken) -> None:
        with MeilisearchServer(master_key="another one") as other:
            plan = plan_store(taken[0], taken[1], "meilisearch", stores(reach(other.url, key="another one")), ALL)
            assert [one.code for one in plan.findings] == ["meilisearch-master-key"]
            report = plan.execute(Heard())
            assert "meilisearch-master-key" in [one.code for one in report.findings]
            assert other.contents() == taken[2]

    def test_one_without_keys(self, taken: Taken) -> None:
        with MeilisearchServer() as bare:
            report = restored(taken, reach(bare.url, key=None))
            assert bare.contents() == taken[2]
        assert "meilisearch-keys" in [one.code for one in report.findings]

    def test_a_key_that_may_not_write_changes_nothing(self, taken: Taken, target: MeilisearchServer) -> None:
        before = old_data(target)
        key = target.engine.add_key({"actions": ["*.get", "version"], "indexes": ["*"]})["key"]
        with pytest.raises(SourceError, match="invalid_api_key"):
            restored(taken, reach(target.url, key=key))
        target.engine.settle()
        assert target.contents() == before

    def test_embedders_without_their_keys(self, target: MeilisearchServer) -> None:
        with MeilisearchServer(master_key=MASTER_KEY) as source:
            source.fill("movies", generated(5))
            source.engine.update_settings(
                "movies", {"embedders": {"d": {"source": "openAi", "apiKey": "sk-1234567890"}}}
            )
            repository = new_repository()
            manifest = take(repository, "full", MeilisearchSource(reach(source.url)))
        plan = plan_store(repository, manifest, "meilisearch", stores(reach(target.url)), ALL)
        assert [one.code for one in plan.findings] == ["meilisearch-embedders-without-keys"]
        target.engine.task_faults.append(TaskFault("settingsUpdate", "vector_embedding_error", "could not embed"))
        report = plan.execute(Heard())
        codes = [one.code for one in report.findings]
        assert codes[:2] == ["meilisearch-embedder-without-key", "meilisearch-embedder-left-out"]
        assert report.findings[1].severity == "error"
        assert target.engine.indexes["movies"].count() == 5


class TestLimits:
    def test_batches_shrink_to_what_the_server_takes(self, taken: Taken) -> None:
        with MeilisearchServer(master_key=MASTER_KEY, payload_limit=300_000) as small:
            restored(taken, reach(small.url))
            assert small.contents() == taken[2]

    def test_a_document_that_is_too_large_is_an_error(self, taken: Taken) -> None:
        with MeilisearchServer(master_key=MASTER_KEY, payload_limit=900) as tiny:
            old = tiny.fill("movies", [{"id": 1}])
            with pytest.raises(RestoreError, match="takes no document") as failed:
                restored(taken, reach(tiny.url), Wanted(patterns=["movies"]))
            assert "PAYLOAD_SIZE" in failed.value.hint
            assert tiny.engine.indexes["movies"] is old

    def test_a_full_queue_is_waited_for(
        self, taken: Taken, target: MeilisearchServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(indexes, "BATCH", 100_000)
        target.engine.queue_limit = 2
        target.engine.task_seconds = 0.01
        restored(taken, reach(target.url))
        assert target.contents() == taken[2]

    def test_and_one_that_stays_full_is_an_error(
        self, taken: Taken, target: MeilisearchServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = old_data(target)
        monkeypatch.setattr(carrying, "_QUEUE_PATIENCE", 2.0)
        target.engine.queue_limit = 0
        with pytest.raises(RestoreError, match="taken no further task"):
            restored(taken, reach(target.url))
        assert target.contents() == before

    def test_a_full_index_leaves_the_old_one(self, taken: Taken, target: MeilisearchServer) -> None:
        before = old_data(target)
        target.engine.document_limit = 1000
        with pytest.raises(RestoreError, match="database_size_limit_reached"):
            restored(taken, reach(target.url))
        target.engine.settle()
        assert target.contents() == before


class TestFailures:
    @pytest.mark.parametrize("kind", ["indexCreation", "settingsUpdate", "documentAdditionOrUpdate", "indexSwap"])
    @pytest.mark.parametrize("skip", [0, 1])
    def test_a_failed_task_leaves_everything_as_it_was(
        self, taken: Taken, target: MeilisearchServer, kind: str, skip: int
    ) -> None:
        if kind == "indexSwap" and skip:
            return
        before = old_data(target)
        target.engine.task_faults.append(TaskFault(kind, "internal", "disk on fire", skip=skip))
        with pytest.raises(RestoreError, match="disk on fire"):
            restored(taken, reach(target.url))
        target.engine.settle()
        assert target.contents() == before
        assert not target.engine.features["network"]
        restored(taken, reach(target.url))
        assert target.contents() == {**taken[2], "other": before["other"]}

    def test_a_server_that_loses_a_document_is_found_out(self, taken: Taken, target: MeilisearchServer) -> None:
        before = old_data(target)
        real = target.engine.add_documents

        def lossy(uid: str, body: bytes, primary_key: str | None, *, lines: bool) -> Any:
            return real(uid, body[: body.rfind(b"\n", 0, -1) + 1], primary_key, lines=lines)

        target.engine.add_documents = lossy  # type: ignore[method-assign]
        with pytest.raises(RestoreError, match="has 2999 documents, and the backup 3000"):
            restored(taken, reach(target.url), Wanted(patterns=["movies"]))
        target.engine.settle()
        assert target.contents() == before

    def test_a_lost_answer_to_the_swap_does_not_swap_back(self, taken: Taken, target: MeilisearchServer) -> None:
        before = old_data(target)
        with FaultProxy(target.port) as proxy:
            proxy.script(LoseAnswer(path="/swap-indexes"))
            restored(taken, reach(f"http://127.0.0.1:{proxy.port}"))
        assert target.contents() == {**taken[2], "other": before["other"]}
        assert sum(task.type == "indexSwap" for task in target.engine.tasks) == 1

    def test_a_cancelled_task_is_an_error(self, taken: Taken, target: MeilisearchServer) -> None:
        before = old_data(target)

        def cancel(task: Task) -> None:
            if task.type == "settingsUpdate":
                task.work, task.status = lambda: None, "canceled"

        real = target.engine._finish

        def finish(task: Task) -> None:
            if task.status != "canceled":
                real(task)

        target.engine.on_task, target.engine._finish = cancel, finish  # type: ignore[method-assign]
        with pytest.raises(RestoreError, match="canceled"):
            restored(taken, reach(target.url))
        target.engine.settle()
        assert target.contents() == before

    @pytest.mark.soak
    @pytest.mark.parametrize("fault", [Answer, Reset, LoseAnswer])
    def test_the_server_may_go_away_at_any_request(self, taken: Taken, fault: Any) -> None:
        self.goes_away(taken, fault, every=1)

    def test_the_server_may_go_away_at_some_requests(self, taken: Taken) -> None:
        self.goes_away(taken, LoseAnswer, every=6)

    def goes_away(self, taken: Taken, fault: Any, *, every: int) -> None:
        """At the n-th request, for every such n until the restore comes through."""
        wanted = Wanted(patterns=["movies", "people"])
        failed = True
        skip = 0
        outcomes = set()
        while failed:
            with MeilisearchServer(master_key=MASTER_KEY) as target, FaultProxy(target.port) as proxy:
                before = old_data(target)
                after = {**before, "movies": taken[2]["movies"], "people": taken[2]["people"]}
                proxy.script(fault(skip=skip, times=10**6))
                try:
                    restored(taken, reach(f"http://127.0.0.1:{proxy.port}"), wanted)
                    failed = False
                except SourceError:
                    pass
                proxy.clear()
                target.engine.settle()
                found = {uid: one for uid, one in target.contents().items() if not uid.endswith(IN_BUILD)}
                assert found in (before, {**before, "people": []}, after)
                outcomes.add(found == after)
                restored(taken, reach(target.url), wanted)
                assert target.contents() == after
            skip += every
        assert found == after and skip > 15 and outcomes == {False, True}
