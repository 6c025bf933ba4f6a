"""Captures of a Meilisearch: all of it, changed while it is read, and what did not change stored once.

The server is one of the tests' own (``servers/meilisearch_contract.py`` says what it takes for true).
"""

from __future__ import annotations

import json
import random
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.clock import SystemClock
from chrono_backups.errors import BackupFailed
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.meilisearch.configuration import server_settings
from chrono_backups.sources.meilisearch.source import MeilisearchSource
from chrono_backups_tests.backup.taking import Heard, in_repository, new_repository, snapshot_of, take
from chrono_backups_tests.servers.fault_proxy import FaultProxy
from chrono_backups_tests.servers.faults import Answer, LoseAnswer, Reset
from chrono_backups_tests.servers.meilisearch import MeilisearchServer
from chrono_backups_tests.servers.meilisearch_engine import Task
from chrono_backups_tests.servers.meilisearch_generated import document
from chrono_backups_tests.sources.meilisearch_settings import MASTER_KEY, reach

KEY_UID = "6062abda-a5aa-4414-ac91-ecd7944c0f8d"


@pytest.fixture
def server() -> Iterator[MeilisearchServer]:
    with MeilisearchServer(master_key=MASTER_KEY) as running:
        yield running


def generated(count: int, edition: int = 0) -> list[dict[str, Any]]:
    return [json.loads(document(number, edition)) for number in range(count)]


class ShortClock(SystemClock):
    """Waits are a hundredth as long."""

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds / 100)


def void(_value: object) -> None:
    """For a function that has to give nothing."""


def files(repository: Repository, manifest: Manifest) -> dict[str, bytes]:
    things = in_repository(repository, snapshot_of(repository, manifest, "meilisearch"))
    return {path.decode(): thing.content for path, thing in things.items() if stat.S_ISREG(thing.mode)}


def lines(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.splitlines()]


class TestWhatIsCaptured:
    def test_documents_with_their_vectors_settings_and_what_is_set_on_the_server(
        self, server: MeilisearchServer
    ) -> None:
        nested = {"id": "two", "nested": {"a": [1, 2.5, None]}}
        server.fill("movies", [{"id": 1, "title": "Unicöde strings 🎬"}, {**nested, "_vectors": {"d": [0.5, 1]}}])
        server.fill("empty", [])
        engine = server.engine
        embedders = {"d": {"apiKey": "sk-0123456789", "source": "rest"}}
        engine.update_settings("movies", {"stopWords": ["the"], "embedders": embedders})
        engine.features["network"] = engine.features["chatCompletions"] = True
        engine.network["remotes"]["b"] = {"url": "http://b", "searchApiKey": "plain"}
        engine.chats["desk"] = {"source": "openAi", "apiKey": "sk-9876543210"}
        key = engine.add_key({"name": "app", "actions": ["search"], "indexes": ["movies"], "uid": KEY_UID})
        heard = Heard()
        repository = new_repository()
        manifest = take(repository, "full", MeilisearchSource(reach(server.url)), listener=heard)
        found = files(repository, manifest)
        assert lines(found["indexes/movies/documents.ndjson"]) == [
            {"id": 1, "title": "Unicöde strings 🎬"},
            {**nested, "_vectors": {"d": {"embeddings": [[0.5, 1]], "regenerate": False}}},
        ]
        assert found["indexes/empty/documents.ndjson"] == b""
        assert json.loads(found["indexes/movies/index.json"])["primaryKey"] == "id"
        assert json.loads(found["indexes/movies/settings.json"])["stopWords"] == ["the"]
        assert json.loads(found["network.json"])["remotes"]["b"]["searchApiKey"] == "plain"
        assert json.loads(found["experimental-features.json"])["network"] is True
        assert json.loads(found["chats/desk.json"])["source"] == "openAi"
        assert json.loads(found["server.json"]) == {"version": "1.16.0"}
        kept = {one["uid"]: one for one in json.loads(found["keys.json"])}
        assert kept[key["uid"]]["actions"] == ["search"]
        assert key["key"] not in found["keys.json"].decode()
        assert heard.codes == ["meilisearch-secrets-hidden", "meilisearch-secrets-hidden"]
        assert "embedder d of movies" in heard.findings[1].message
        facts = snapshot_of(repository, manifest, "meilisearch").facts
        assert facts["indexes"]["movies"]["documents"] == 2
        assert facts["version"] == "1.16.0" and facts["boundary"]["task_uid"] == -1
        sampled = json.loads(found["samples.json"])["movies"]
        assert [one["key"] for one in sampled["samples"]] == [1, "two"]
        assert sampled["search"]["hits"] == 1

    @pytest.mark.parametrize("version", ["1.12.0", "1.14.0", "1.22.0"])
    def test_older_and_newer_servers(self, version: str) -> None:
        with MeilisearchServer(master_key=MASTER_KEY, version=version) as server:
            server.fill("movies", generated(10))
            repository = new_repository()
            heard = Heard()
            found = files(repository, take(repository, "full", MeilisearchSource(reach(server.url)), listener=heard))
            assert len(lines(found["indexes/movies/documents.ndjson"])) == 10
            assert json.loads(found["server.json"]) == {"version": version}
            assert "network.json" not in found and heard.findings == []

    def test_a_key_that_may_read_but_not_see_the_keys(self, server: MeilisearchServer) -> None:
        server.fill("movies", generated(3))
        key = server.engine.add_key({"actions": ["*.get", "version"], "indexes": ["*"]})["key"]
        heard = Heard()
        repository = new_repository()
        manifest = take(repository, "full", MeilisearchSource(reach(server.url, key=key)), listener=heard)
        assert manifest.status == "complete" and heard.codes == ["meilisearch-not-seen"]
        assert "keys.json" not in files(repository, manifest)

    def test_a_server_without_a_master_key(self) -> None:
        with MeilisearchServer() as server:
            server.fill("movies", generated(3))
            repository = new_repository()
            manifest = take(repository, "full", MeilisearchSource(reach(server.url, key=None)))
            assert "indexes/movies/documents.ndjson" in files(repository, manifest)

    def test_dumps_that_are_mounted(self, server: MeilisearchServer, tmp_path: Path) -> None:
        (tmp_path / "20260101.dump").write_bytes(b"a dump" * 100_000)
        (tmp_path / "data.ms.snapshot").write_bytes(b"a snapshot")
        (tmp_path / "other").write_bytes(b"not ours")
        repository = new_repository()
        manifest = take(repository, "full", MeilisearchSource(reach(server.url, dump_dir=tmp_path)))
        found = files(repository, manifest)
        assert found["dumps/20260101.dump"] == b"a dump" * 100_000
        assert found["dumps/data.ms.snapshot"] == b"a snapshot"
        assert not [name for name in found if "other" in name]

    def test_the_configuration_has_settings_and_no_documents(self, server: MeilisearchServer) -> None:
        server.fill("movies", generated(3))
        server.engine.update_settings("movies", {"stopWords": ["the"]})
        found = server_settings(reach(server.url), SystemClock(), Heard())
        assert set(found) == {"server.json", "keys.json", "experimental-features.json", "indexes.json"}
        assert json.loads(found["indexes.json"])["movies"]["settings"]["stopWords"] == ["the"]
        assert b"example.org" not in b"".join(found.values())


class TestWhatDidNotChange:
    def test_a_second_backup_stores_little_though_every_hundredth_document_changed(
        self, server: MeilisearchServer
    ) -> None:
        server.fill("movies", generated(5000))
        repository = new_repository()
        source = MeilisearchSource(reach(server.url))
        first = take(repository, "full", source).statistics
        server.fill("movies", [json.loads(document(number, 1)) for number in range(7, 5000, 100)])
        manifest = take(repository, "full", source)
        second = manifest.statistics
        assert second.bytes_stored < first.bytes_stored * 0.03
        assert second.bytes_read > 4_000_000
        expected = [json.loads(document(number, int(number % 100 == 7))) for number in range(5000)]
        assert lines(files(repository, manifest)["indexes/movies/documents.ndjson"]) == expected

    @pytest.mark.parametrize("seed", range(3))
    def test_every_backup_of_a_row_has_what_was_there(self, server: MeilisearchServer, seed: int) -> None:
        chance = random.Random(seed)
        index = server.fill("movies", generated(2500))
        repository = new_repository()
        source = MeilisearchSource(reach(server.url))
        taken = []
        for edition in range(1, 7):
            kind: Any = chance.choice(["full", "incremental", "differential"])
            taken.append((take(repository, kind, source), server.contents()["movies"]))
            for _ in range(chance.randrange(60)):
                number = chance.randrange(3000)
                server.fill("movies", [json.loads(document(number, edition))])
            first = chance.randrange(2500)
            for number in range(first, first + chance.choice([0, 1, 40, 600])):
                index.delete(number)
        for manifest, documents in taken:
            found = lines(files(repository, manifest)["indexes/movies/documents.ndjson"])
            for one in documents:
                one.pop("_vectors")
            assert sorted(found, key=str) == documents

    def test_all_comes_again_once_it_lies_in_too_many_stretches(self, server: MeilisearchServer) -> None:
        server.fill("movies", generated(3000))
        repository = new_repository()
        source = MeilisearchSource(reach(server.url))
        kept = []
        for edition in range(1, 6):
            manifest = take(repository, "full", source)
            kept.append(snapshot_of(repository, manifest, "meilisearch").facts["indexes"]["movies"]["kept"])
            server.fill("movies", [json.loads(document(number, edition)) for number in range(edition, 3000, 5)])
        assert kept[0] == 0 and kept[1] == kept[2] == 2400 and 0 in kept[2:]
        expected = server.contents()["movies"]
        server.fill("movies", [])
        found = lines(files(repository, take(repository, "full", source))["indexes/movies/documents.ndjson"])
        assert sorted(found, key=str) == [{k: v for k, v in one.items() if k != "_vectors"} for one in expected]


class TestChangesMeanwhile:
    def test_tasks_under_way_are_waited_for(self, server: MeilisearchServer) -> None:
        server.fill("movies", generated(3))
        server.engine.task_seconds = 0.3
        five, engine = json.dumps(generated(5)).encode(), server.engine
        engine.enqueue(
            "documentAdditionOrUpdate", "movies", lambda: engine.add_documents("movies", five, None, lines=False)
        )
        heard = Heard()
        repository = new_repository()
        source = MeilisearchSource(reach(server.url, task_wait_seconds=30))
        manifest = take(repository, "full", source, listener=heard)
        assert len(lines(files(repository, manifest)["indexes/movies/documents.ndjson"])) == 5
        assert snapshot_of(repository, manifest, "meilisearch").facts["boundary"]["task_uid"] == 0
        assert heard.findings == []

    def test_or_named_after_a_while(self, server: MeilisearchServer) -> None:
        server.fill("movies", generated(3))
        server.engine.paused.set()
        server.engine.enqueue("documentAdditionOrUpdate", "movies", lambda: None)
        heard = Heard()
        repository = new_repository()
        manifest = take(repository, "full", MeilisearchSource(reach(server.url)), listener=heard)
        assert heard.codes == ["meilisearch-tasks-under-way"]
        assert "0 (documentAdditionOrUpdate of movies)" in heard.findings[0].message
        assert snapshot_of(repository, manifest, "meilisearch").facts["boundary"]["unfinished"] == [0]

    def test_an_index_that_changes_is_read_again(self, server: MeilisearchServer) -> None:
        engine = server.engine
        server.fill("movies", generated(3000))
        done: list[int] = []

        def change(uid: str, offset: int) -> None:
            if offset > 300 and not done:
                done.append(offset)
                engine.delete_documents(uid, list(range(0, 100)))
                engine.tasks.append(Task(len(engine.tasks), "documentDeletion", uid, lambda: None, status="succeeded"))
                engine._next += 1

        engine.on_page = change
        heard = Heard()
        repository = new_repository()
        manifest = take(repository, "full", MeilisearchSource(reach(server.url)), listener=heard)
        found = lines(files(repository, manifest)["indexes/movies/documents.ndjson"])
        assert [one["id"] for one in found] == list(range(100, 3000))
        assert heard.findings == [] and done

    def test_one_that_never_rests_is_kept_with_a_finding_and_lacks_nothing_that_stayed(
        self, server: MeilisearchServer
    ) -> None:
        engine = server.engine
        server.fill("movies", generated(3000))
        chance = random.Random(5)
        touched = set()

        def change(uid: str, offset: int) -> None:
            gone = [chance.randrange(3000) for _ in range(3)]
            touched.update(gone)
            engine.delete_documents(uid, gone)
            if chance.random() < 0.5:
                number = 3000 + chance.randrange(1000)
                touched.add(number)
                engine.index(uid).add(json.loads(document(number)))
            engine.tasks.append(Task(len(engine.tasks), "documentDeletion", uid, lambda: None, status="succeeded"))
            engine._next += 1

        engine.on_page = change
        heard = Heard()
        repository = new_repository()
        manifest = take(repository, "full", MeilisearchSource(reach(server.url)), listener=heard)
        found = [one["id"] for one in lines(files(repository, manifest)["indexes/movies/documents.ndjson"])]
        assert len(set(found)) == len(found)
        assert set(range(3000)) - touched <= set(found)
        assert heard.codes == ["meilisearch-changed-meanwhile"]
        assert manifest.status == "complete"

    def test_an_index_that_is_deleted_meanwhile(self, server: MeilisearchServer) -> None:
        server.fill("a", generated(3000))
        server.fill("b", generated(5))
        server.engine.on_page = lambda _uid, _offset: void(server.engine.indexes.pop("a", None))
        heard = Heard()
        repository = new_repository()
        manifest = take(repository, "full", MeilisearchSource(reach(server.url)), listener=heard)
        assert manifest.status == "complete" and heard.codes == ["meilisearch-index-deleted"]
        assert list(snapshot_of(repository, manifest, "meilisearch").facts["indexes"]) == ["b"]


class TestWhatGoesWrong:
    def test_a_wrong_key(self, server: MeilisearchServer) -> None:
        server.fill("movies", generated(3))
        source = MeilisearchSource(reach(server.url, key="an-other"))
        repository = new_repository()
        with pytest.raises(BackupFailed, match="invalid_api_key") as failed:
            take(repository, "full", source)
        assert "an-other" not in str(failed.value) and MASTER_KEY not in str(failed.value)
        assert [one.code for one in source.probe()] == ["meilisearch-invalid-api-key"]
        assert repository.readable_backups()[0] == []

    def test_nobody_there(self) -> None:
        with MeilisearchServer() as server:
            url = server.url
        assert [one.code for one in MeilisearchSource(reach(url)).probe()] == ["meilisearch-unavailable"]

    def test_a_healthy_one(self, server: MeilisearchServer) -> None:
        server.fill("movies", generated(3))
        found = MeilisearchSource(reach(server.url)).probe()
        assert [one.code for one in found] == ["meilisearch-ready"]
        assert "1 indexes, 3 documents" in found[0].message

    @pytest.mark.parametrize(
        "path", ["/version", "/keys", "/indexes", "/settings", "/documents/fetch", "/tasks", "/search"]
    )
    @pytest.mark.parametrize("fault", [Answer, Reset])
    def test_a_server_that_is_busy_or_cuts_a_connection_once_is_asked_again(
        self, server: MeilisearchServer, path: str, fault: Any
    ) -> None:
        server.fill("movies", generated(300))
        repository = new_repository()
        with FaultProxy(server.port) as proxy:
            proxy.script(Answer(503, retry_after=0, path=path) if fault is Answer else Reset(path=path, after=0))
            source = MeilisearchSource(reach(f"http://127.0.0.1:{proxy.port}"))
            manifest = take(repository, "full", source)
        assert manifest.status == "complete"
        assert len(lines(files(repository, manifest)["indexes/movies/documents.ndjson"])) == 300

    @pytest.mark.parametrize("fault", [LoseAnswer, Answer])
    def test_a_server_that_goes_away_at_any_request(self, server: MeilisearchServer, fault: Any) -> None:
        server.fill("movies", generated(300))
        server.fill("people", [{"id": 1}])
        repository = new_repository()
        for skip in range(100):
            with FaultProxy(server.port) as proxy:
                proxy.script(fault(skip=skip, times=10**6))
                source = MeilisearchSource(reach(f"http://127.0.0.1:{proxy.port}"), clock=ShortClock())
                try:
                    take(repository, "full", source)
                    break
                except BackupFailed:
                    assert repository.readable_backups()[0] == []
                finally:
                    proxy.clear()
        assert skip > 20
        assert len(repository.readable_backups()[0]) == 1

    def test_a_server_that_goes_away_in_the_middle_leaves_nothing_to_see(self, server: MeilisearchServer) -> None:
        server.fill("movies", generated(3000))
        repository = new_repository()
        with FaultProxy(server.port) as proxy:
            proxy.script(Answer(503, retry_after=0, path="/documents/fetch", skip=2, times=5))
            source = MeilisearchSource(reach(f"http://127.0.0.1:{proxy.port}"), clock=ShortClock())
            with pytest.raises(BackupFailed, match="busy"):
                take(repository, "full", source)
        assert repository.readable_backups()[0] == []
