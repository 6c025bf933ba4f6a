"""Drills into a server of their own; one altered document, setting or search is told."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.errors import RestoreError
from chrono_backups.recovery.drill import drill
from chrono_backups.recovery.drill_report import DrillOptions, DrillReport
from chrono_backups.recovery.meilisearch import proofs, throwaway
from chrono_backups.recovery.meilisearch.content import BackedUp
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.meilisearch.client import Meilisearch, Server
from chrono_backups.sources.meilisearch.source import MeilisearchSource
from chrono_backups_tests.backup.taking import Heard, new_repository, take
from chrono_backups_tests.servers.meilisearch import MeilisearchServer, program
from chrono_backups_tests.servers.meilisearch_generated import document
from chrono_backups_tests.sources.meilisearch_settings import MASTER_KEY, reach

Taken = tuple[Repository, Manifest]


@pytest.fixture(scope="module")
def taken() -> Iterator[Taken]:
    with MeilisearchServer(master_key=MASTER_KEY) as source:
        source.fill("movies", [json.loads(document(number)) for number in range(500)])
        source.fill("people", [{"ref": f"p-{n}", "_vectors": {"d": [n, 0.5]}} for n in range(50)], primary_key="ref")
        source.fill("empty", [])
        engine = source.engine
        engine.update_settings("people", {"embedders": {"d": {"source": "openAi", "apiKey": "sk-0123456789"}}})
        engine.update_settings("movies", {"stopWords": ["the"]})
        engine.add_key({"name": "app", "actions": ["search"], "indexes": ["movies"]})
        repository = new_repository()
        yield repository, take(repository, "full", MeilisearchSource(reach(source.url)))


@pytest.fixture(autouse=True)
def nothing_in_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real server of this machine is left alone, so that the tests are the same everywhere."""
    monkeypatch.setattr(throwaway, "PROGRAM", "no-such-program")


def drilled(taken: Taken, folder: Path, *words: str, heard: Heard | None = None) -> DrillReport:
    place = folder / "drills"
    place.mkdir(exist_ok=True)
    options = DrillOptions(place=place, meilisearch_bin=program(folder, *words))
    report = drill(*taken, options, listener=heard or Heard())
    assert list(place.iterdir()) == []
    return report


def found(report: DrillReport) -> list[str]:
    return [str(one) for proof in report.sources[0].proofs for one in proof.findings if one.severity == "error"]


def test_a_good_backup_is_proven(taken: Taken, tmp_path: Path) -> None:
    report = drilled(taken, tmp_path)
    assert report.proven, json.dumps(report.to_json(), indent=1)
    (source,) = report.sources
    told = {proof.name: proof.done for proof in source.proofs}
    assert told == {
        "documents": "3 indexes, 550 documents compared",
        "settings": "3 indexes, 60 settings compared",
        "samples": "114 documents held against what was recorded at the capture",
        "searches": "1 searches compared",
        "keys": "3 keys compared",
    }
    assert source.files == 550 and source.findings == []


@pytest.mark.parametrize(("key", "named"), [("499", "movies"), ('"p-7"', "people")])
def test_one_altered_document_is_told(taken: Taken, tmp_path: Path, key: str, named: str) -> None:
    report = drilled(taken, tmp_path, "--spoil", key)
    assert not report.good
    assert any(f"meilisearch: {named}: documents differ, among them {json.loads(key)}" in one for one in found(report))


def test_a_server_of_another_version_is_drilled_too(taken: Taken, tmp_path: Path) -> None:
    assert drilled(taken, tmp_path, "--version", "1.22.0").good


def test_documents_in_another_order_are_the_same(taken: Taken) -> None:
    repository, manifest = taken
    rows = [json.loads(document(number)) for number in range(500)]
    with MeilisearchServer(master_key=MASTER_KEY) as other:
        other.fill("movies", reversed(rows))
        content = BackedUp(repository, manifest)
        with Meilisearch(Server(other.url, MASTER_KEY), repository.clock) as server:
            compared = proofs._compare(server, content, content.indexes["movies"])
            assert compared.findings(content.indexes["movies"]) == []
            other.engine.delete_documents("movies", [3])
            compared = proofs._compare(server, content, content.indexes["movies"])
            messages = [one.message for one in compared.findings(content.indexes["movies"])]
            assert messages == ["it has 499 documents, and the backup 500", "documents differ, among them 3"]


def test_without_a_server_what_is_stored_is_read_through(taken: Taken, tmp_path: Path) -> None:
    heard = Heard()
    report = drill(*taken, DrillOptions(place=tmp_path), listener=heard)
    assert report.good
    assert [proof.done for proof in report.sources[0].proofs] == ["3 indexes, 550 documents read"]
    assert heard.codes == ["drill-without-server"]


def test_a_program_that_is_none(taken: Taken, tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="can't be run"):
        drill(*taken, DrillOptions(place=tmp_path, meilisearch_bin=tmp_path / "absent"))
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho it has no memory >&2; exit 3\n")
    broken.chmod(0o700)
    report = drill(*taken, DrillOptions(place=tmp_path, meilisearch_bin=broken))
    assert not report.good and "it has no memory" in report.sources[0].findings[0].message


def test_the_server_is_gone_afterwards(taken: Taken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = throwaway._start

    def start(*words: Any) -> subprocess.Popen[bytes]:
        started.append(real(*words))
        return started[-1]

    monkeypatch.setattr(throwaway, "_start", start)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("chrono_backups.recovery.meilisearch.drill.prove", interrupted)
    with pytest.raises(KeyboardInterrupt):
        drilled(taken, tmp_path)
    assert [process.poll() is not None for process in started] == [True]
