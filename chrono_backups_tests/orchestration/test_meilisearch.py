"""What Dagster shows of a Meilisearch: at a glance, and of its backups."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg

from chrono_backups.assembly import Application
from chrono_backups.orchestration.metadata import Metadata, backup_metadata
from chrono_backups.orchestration.observed import LOOKS
from chrono_backups.orchestration.sources import SOURCE_ASSETS, configured_sources
from chrono_backups.settings import load
from chrono_backups_tests.servers.meilisearch import MeilisearchServer
from chrono_backups_tests.servers.meilisearch_generated import document
from chrono_backups_tests.sources.meilisearch_settings import MASTER_KEY


def values(metadata: Metadata) -> dict[str, Any]:
    return {name: one.value for name, one in metadata.items()}


def test_a_server_is_seen_and_its_numbers_are_on_the_backup(tmp_path: Path) -> None:
    with MeilisearchServer(master_key=MASTER_KEY) as server:
        server.fill("movies", [json.loads(document(number)) for number in range(30)])
        environ = {
            "MEILISEARCH_HOST": server.url,
            "MEILISEARCH_MASTER_KEY": MASTER_KEY,
            "BACKUP_LOCAL_PATH": str(tmp_path / "repository"),
            "BACKUP_ENCRYPTION_ENABLED": "false",
        }
        application = Application(load(environ))
        assert SOURCE_ASSETS["meilisearch"].key == dg.AssetKey("meilisearch_indexes")
        assert "meilisearch" in configured_sources(application.settings)
        seen = LOOKS["meilisearch"](application)
        shown = values(seen.metadata)
        assert (shown["reachable"], shown["server_version"], shown["indexes"], shown["documents"]) == (
            True, "1.16.0", 1, 30,
        )  # fmt: skip
        assert "| movies | 30 |" in shown["by_index"] and not seen.problems
        application.create_repository().close()
        shown = values(backup_metadata(application.take_backup("full", trigger="test")))
        assert shown["meilisearch_documents"] == 30 and shown["meilisearch_task_uid"] == -1
        assert shown["meilisearch_server_version"] == "1.16.0"
    seen = LOOKS["meilisearch"](application)
    assert values(seen.metadata)["reachable"] is False and "does not answer" in seen.problems[0]
