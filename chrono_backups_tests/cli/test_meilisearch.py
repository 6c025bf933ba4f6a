"""Meilisearch from the command line: captured, shown, restored in place after a safety backup, and drilled."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chrono_backups_tests.cli.conftest import COMMAND, Site, environment
from chrono_backups_tests.cli.in_process import SiteInProcess
from chrono_backups_tests.servers.fault_proxy import FaultProxy
from chrono_backups_tests.servers.faults import Stall
from chrono_backups_tests.servers.meilisearch import MeilisearchServer, TaskFault, program
from chrono_backups_tests.servers.meilisearch_generated import document
from chrono_backups_tests.sources.meilisearch_settings import MASTER_KEY


@pytest.fixture
def server() -> Iterator[MeilisearchServer]:
    with MeilisearchServer(master_key=MASTER_KEY) as running:
        rows = [json.loads(document(number)) for number in range(200)]
        running.fill("pages", [{**row, "lang": "de" if row["id"] % 4 else "en"} for row in rows])
        running.fill("hosts", [{"id": number, "name": f"host {number}"} for number in range(20)])
        running.engine.update_settings("pages", {"filterableAttributes": ["lang"]})
        yield running


@pytest.fixture
def backed_up(site: Site, server: MeilisearchServer, tmp_path: Path) -> Site:
    within = SiteInProcess(site.root, site.settings)
    del within.settings["BACKUP_FILES_PATHS"]
    within.settings |= {
        "MEILISEARCH_HOST": server.url,
        "MEILISEARCH_MASTER_KEY": MASTER_KEY,
        "BACKUP_MEILISEARCH_BIN": str(program(tmp_path)),
    }
    within.run("init")
    assert "2 indexes, 220 documents" in within.run("validate").text
    within.run("backup")
    return within


def test_all_of_it_a_part_and_as_files(backed_up: Site, server: MeilisearchServer, tmp_path: Path) -> None:
    before = server.contents()
    shown = backed_up.run("show", "latest")
    assert "1.16.0" in shown.text and MASTER_KEY not in shown.text
    server.engine.delete_documents("pages", [1, 2, 3])
    server.fill("hosts", [{"id": 5, "name": "altered"}])
    after = server.contents()
    dry = backed_up.json("restore", "latest", "--in-place", "--source", "meilisearch", "--dry-run")
    assert dry["plan"]["meilisearch"]["replaced"] == {"hosts": 20, "pages": 197}
    assert server.contents() == after
    ran = backed_up.run("restore", "latest", "--in-place", "--source", "meilisearch", "--path", "hosts")
    assert "untouched  pages" in ran.text and "20 items" in ran.text
    assert server.contents() == {"hosts": before["hosts"], "pages": after["pages"]}
    done = backed_up.json("restore", "latest", "--in-place", "--source", "meilisearch")
    assert server.contents() == before
    backed_up.run("restore", done["safety_backup_id"], "--in-place", "--source", "meilisearch", "--no-safety-backup")
    assert server.contents() == {"hosts": before["hosts"], "pages": after["pages"]}
    backed_up.run("restore", "latest", "--to", str(tmp_path / "r"), "--source", "meilisearch")
    lines = (tmp_path / "r/meilisearch/indexes/pages/documents.ndjson").read_text().splitlines()
    assert len(lines) == 200


def test_errors_say_what_is_wrong_and_change_nothing(backed_up: Site, server: MeilisearchServer) -> None:
    before = server.contents()
    words = ("restore", "latest", "--in-place", "--source", "meilisearch", "--no-safety-backup")
    ran = backed_up.run(*words, code=1, MEILISEARCH_MASTER_KEY="an-other")
    assert "invalid_api_key" in ran.err and "an-other" not in ran.err
    assert "does not answer" in backed_up.run(*words, code=6, MEILISEARCH_HOST="127.0.0.1:9").err
    assert "no index" in backed_up.run(*words, "--path", "none*", code=3).err
    server.engine.task_faults.append(TaskFault("documentAdditionOrUpdate", "internal", "disk on fire"))
    assert "disk on fire" in backed_up.run(*words, code=5).err
    server.engine.settle()
    assert server.contents() == before
    assert (
        "Set BACKUP_MEILISEARCH_HOST"
        in backed_up.run(*words, code=2, MEILISEARCH_HOST="", BACKUP_FILES_PATHS=str(backed_up.root)).err
    )


def test_a_drill_with_checks_across(backed_up: Site) -> None:
    checks = """
        pages: meilisearch "documents pages" == 200
        german: meilisearch "documents pages where lang = de" == 150
        found: meilisearch "search hosts host 7" >= 1
        name: meilisearch "document hosts 7 name" == "host 7"
    """
    report = backed_up.json("drill", BACKUP_DRILL_CHECKS=checks)
    assert report["good"] and [one["good"] for one in report["checks"]] == [True] * 4
    wrong = backed_up.run("drill", code=1, BACKUP_DRILL_CHECKS='one: meilisearch "document hosts 7 colour" == "red"')
    assert "no field colour" in wrong.text + wrong.err


def test_a_cancelled_backup_does_not_wait_for_a_server_that_hangs(site: Site, server: MeilisearchServer) -> None:
    with FaultProxy(server.port) as proxy:
        site.settings |= {
            "MEILISEARCH_HOST": f"http://127.0.0.1:{proxy.port}",
            "MEILISEARCH_MASTER_KEY": MASTER_KEY,
            "BACKUP_SOURCES": "meilisearch",
        }
        site.run("init")
        proxy.script(Stall(path="/documents/fetch", skip=1, seconds=100))
        with subprocess.Popen([*COMMAND, "backup"], env=environment(site.settings), stderr=subprocess.PIPE) as process:
            end = time.monotonic() + 60
            while proxy.count(path="/documents/fetch") < 2 and time.monotonic() < end:
                time.sleep(0.05)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(90) == 130
            assert time.monotonic() - began < 60
    assert site.json("list", MEILISEARCH_HOST=server.url) == []
