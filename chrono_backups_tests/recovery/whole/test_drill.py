"""Drills of a whole application: all stores stand at once, and the operator's checks see what does not fit together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from chrono_backups import settings
from chrono_backups.assembly import Application as Built
from chrono_backups.identifiers import SourceName
from chrono_backups.recovery.checks.syntax import parse_checks
from chrono_backups.recovery.drill import drill
from chrono_backups.recovery.drill_report import DrillOptions
from chrono_backups_tests.recovery.whole.application import Application, application, running

__all__ = ["application", "running"]

CHECKS = """
pages:   sql "select count(*) from pages" == meilisearch "documents pages"
keys:    redis "DBSIZE" == sql "select count(*) + 1 from pages"
hits:    redis "GET hits:2" == sql "select hits from pages where id = 2"
title:   meilisearch "document pages 2 title" == sql "select title from pages where id = 2"
german:  meilisearch "documents pages where lang = de" == sql "select count(*) from pages where lang = 'de'"
found:   meilisearch "search pages second" == 1
media:   files "/**/media/*" == 1
"""
ALL = ["pages", "keys", "hits", "title", "german", "found", "media"]


@pytest.fixture(scope="module")
def filled(application: Application) -> Application:
    """Three pages in each store."""
    pages = [(1, "first", "en", 10), (2, "second", "de", 20), (3, "third", "de", 30)]
    execute = application.postgres.server.execute
    execute("CREATE TABLE pages (id int PRIMARY KEY, title text, lang text, hits int)")
    for number, title, lang, hits in pages:
        execute(f"INSERT INTO pages VALUES ({number}, '{title}', '{lang}', {hits})")
        application.redis.client().set(f"hits:{number}", hits)
    rows = [dict(zip(("id", "title", "lang", "hits"), page, strict=True)) for page in pages]
    index = application.meilisearch.fill("pages", rows)
    index.settings["filterableAttributes"] = ["lang"]
    file = application.postgres.home / "drill-checks.txt"
    file.write_text(CHECKS)
    with (application.postgres.home / ".env").open("a") as settings:
        settings.write(f'BACKUP_DRILL_CHECKS="{file}"\n')
    return application


def test_a_sound_application_is_proven(filled: Application) -> None:
    validated = filled.postgres.json("validate", code=None)
    assert [one["message"] for one in validated["findings"] if one["code"] == "drill-checks"] == [
        f"7 drill checks: {', '.join(ALL)}"
    ]
    postgres = filled.postgres
    report = postgres.json("drill", postgres.json("backup")["id"])
    checks = {one["name"]: one for one in report["checks"]}
    assert report["proven"]
    assert [name for name, one in checks.items() if one["good"]] == ALL
    assert (checks["pages"]["left"], checks["title"]["right"]) == ("3", "second")
    assert [one["source"] for one in report["sources"]] == [
        "postgres",
        "meilisearch",
        "redis",
        "configuration",
        "files",
    ]
    assert all(one["good"] and one["ready_seconds"] > 0 for one in report["sources"])
    assert 0 < report["recovery_seconds"] < report["seconds"]
    assert list(Path(filled.postgres.home).glob("chrono-drill-*")) == [], "nothing is left behind"
    kept = filled.postgres.json("drill", "--list")[0]
    assert kept["details"]["checks"] == report["checks"], "it is evidence"


def row(application: Application) -> Callable[[], object]:
    application.postgres.server.execute("UPDATE pages SET hits = 21 WHERE id = 2")
    return lambda: application.postgres.server.execute("UPDATE pages SET hits = 20 WHERE id = 2")


def key(application: Application) -> Callable[[], object]:
    client = application.redis.client()
    client.set("hits:2", 19)
    return lambda: client.set("hits:2", 20)


def document(application: Application) -> Callable[[], object]:
    page = {"id": 2, "title": "second", "lang": "de", "hits": 20}
    application.meilisearch.fill("pages", [{**page, "title": "another"}])
    return lambda: application.meilisearch.fill("pages", [page])


@pytest.mark.parametrize(
    ("alter", "stores", "seen"),
    [
        (row, ["postgres", "redis"], ["hits"]),
        (key, ["postgres", "redis"], ["hits"]),
        (document, ["postgres", "meilisearch"], ["title", "found"]),
    ],
    ids=["a row", "a key", "a document"],
)
def test_it_fails_when_one_thing_was_altered(
    filled: Application,
    alter: Callable[[Application], Callable[[], object]],
    stores: Sequence[SourceName],
    seen: Sequence[str],
) -> None:
    home = filled.postgres.home
    asked = {{"postgres": "sql"}.get(store, store) for store in stores}
    checks = [one for one in parse_checks(CHECKS) if {query.store for query in one.queries} <= asked]
    built = Built(settings.load({}, home / ".env"))
    mend = alter(filled)
    try:
        manifest = built.take_backup("full", trigger="test", only=stores)
    finally:
        mend()
    options = DrillOptions(
        place=home,
        programs=built.settings.postgres.bin_dir,
        meilisearch_bin=built.settings.meilisearch.bin,
        structure=False,
        checks=checks,
    )
    with built.open_repository() as repository:
        report = drill(repository, manifest, options)
    assert not report.good and not report.proven
    assert [one.name for one in report.checks if not one.good] == seen
    assert len(report.checks) > len(seen)
    assert all(one.good for one in report.sources), "each store restores as it was captured"
