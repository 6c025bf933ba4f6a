"""The whole walk, as an operator takes it: init, backup, look, restore, verify, forget, prune."""

from __future__ import annotations

import os
import re

from chrono_backups_tests.cli.conftest import (
    Site,
    restored,
    same_tree,
)

LIST_FIELDS = {"id", "type", "status", "started_at", "finished_at", "sources", "bytes_read", "bytes_stored"}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")


def test_the_walk(site: Site) -> None:
    made = site.json("init")
    assert made["storage"] == "local"
    assert made["encrypted"] is True
    assert site.json("list") == []

    first = site.json("backup", "--type", "full")
    assert set(first) >= LIST_FIELDS
    assert first["status"] == "complete"
    assert first["sources"] == ["files"]
    assert first["bytes_read"] >= 3_000_000
    assert first["replicas"] == []
    assert MOMENT.fullmatch(first["started_at"])
    assert MOMENT.fullmatch(first["finished_at"])

    (site.data / "new.txt").write_text("new")
    (site.data / "notes.txt").write_text("changed")
    (site.data / "media" / "large.bin").unlink()
    second = site.json("backup", "--type", "incremental")
    assert second["bytes_read"] < 1000

    listed = site.json("list")
    assert [one["id"] for one in listed] == [second["id"], first["id"]]
    assert {key: value for key, value in first.items() if key != "replicas"} == listed[1]
    table = site.run("list").text.splitlines()
    assert re.split(r"  +", table[0]) == [
        "ID", "TYPE", "STATUS", "FINISHED (UTC)", "DURATION", "SOURCES", "READ", "STORED",
    ]  # fmt: skip
    assert table[1].startswith(second["id"])

    shown = site.json("show", "latest")
    assert shown["id"] == second["id"]
    assert [snapshot["source"] for snapshot in shown["snapshots"]] == ["files"]
    assert second["id"] in site.run("show", second["id"]).text

    changes = site.json("diff", first["id"], "latest")["differences"]
    found = {(os.path.basename(one["path"]), one["change"]) for one in changes if one["change"] != "attributes"}
    assert found == {("new.txt", "added"), ("notes.txt", "content"), ("large.bin", "removed")}
    lines = site.run("diff", first["id"], second["id"]).text.splitlines()
    assert {line[0] for line in lines} == {"+", "-", "M"}

    assert site.run("get", first["id"], str(site.data / "notes.txt")).out == b"first line\nsecond line\n"
    assert site.run("cat", "latest", str(site.data / "notes.txt")).out == b"changed"

    target = site.root / "restored"
    report = site.json("restore", "latest", "--to", str(target))
    assert report["backup_id"] == second["id"]
    assert same_tree(site.data, restored(target, site.data))

    assert site.json("verify")["ok"] is True
    assert site.json("verify", "latest", "--full")["ok"] is True

    site.run("forget", first["id"])
    assert [one["id"] for one in site.json("list")] == [second["id"]]
    assert "plan" in site.json("prune")
    assert site.json("verify", "--full")["ok"] is True
