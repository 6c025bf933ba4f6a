"""Looking into backups and restoring them."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Any

import pytest

from chrono_backups_tests.cli.conftest import (
    BYTES_NAME,
    NEWLINE_NAME,
    Site,
)


class TestLooking:
    @pytest.fixture
    def backed_up(self, ready: Site) -> Site:
        ready.backup()
        return ready

    def entries(self, site: Site, *words: str) -> dict[str, Any]:
        listed = site.json("ls", "latest", str(site.data), *words)["entries"]
        return {os.path.basename(one["path"]): one for one in listed}

    def test_names_are_escaped_and_come_back(self, backed_up: Site) -> None:
        ran = backed_up.run("ls", "latest", str(backed_up.data))
        assert rb"two\nlines \033[31m.txt" in ran.out
        assert rb"caf\351.txt" in ran.out
        assert b"\x1b" not in ran.out
        found = self.entries(backed_up)
        assert NEWLINE_NAME.decode() in found
        odd = found[r"caf\351.txt"]
        raw = base64.b64decode(odd["path_base64"])
        assert raw.endswith(b"/" + BYTES_NAME)
        assert backed_up.run("get", "latest", b"/" + raw.lstrip(b"/")).out == b"content of " + BYTES_NAME
        assert "path_base64" not in found["notes.txt"]

    def test_entries_have_their_attributes(self, backed_up: Site) -> None:
        found = self.entries(backed_up)
        notes = found["notes.txt"]
        assert notes["kind"] == "file"
        assert (notes["size"], notes["mode"]) == (23, "0640")
        assert notes["mtime_ns"] == 1_700_000_000_123_456_789
        assert (found["link"]["kind"], found["link"]["link_target"]) == ("symlink", "notes.txt")
        assert found["empty"]["kind"] == "directory"
        assert "large.bin" not in found
        assert "large.bin" in self.entries(backed_up, "--recursive")
        listed = backed_up.run("ls", "latest", str(backed_up.data)).text.splitlines()
        line = next(line for line in listed if line.endswith("/notes.txt"))
        assert re.match(r"-rw-r----- +\d+ +\d+ +23 2023-11-14 22:13:20 ", line)

    def test_get(self, backed_up: Site) -> None:
        path = str(backed_up.data / "media" / "large.bin")
        original = Path(path).read_bytes()
        assert backed_up.run("get", "latest", path).out == original
        assert base64.b64decode(backed_up.json("get", "latest", path)["content_base64"]) == original
        target = backed_up.root / "large.bin"
        assert backed_up.json("get", "latest", path, "--to", str(target))["bytes"] == 3_000_000
        assert target.read_bytes() == original
        assert backed_up.json("get", "latest", path, "--to", str(target), code=5)["error"]["kind"] == "TargetNotEmpty"
        assert sorted(os.listdir(backed_up.root)) == ["data", "large.bin", "repository"]

    def test_what_is_not_there(self, backed_up: Site) -> None:
        missing = str(backed_up.data / "never")
        for verb in ("get", "ls"):
            error = backed_up.json(verb, "latest", missing, code=3)["error"]
            assert error["kind"] == "EntryMissing"
            assert "never" in error["message"]
        words: tuple[str, ...]
        for words in (("show", "full_20200101_000000"), ("ls", "x"), ("diff", "x", "latest"), ("verify", "x")):
            assert backed_up.json(*words, code=3)["error"]["kind"] == "BackupMissing"

    def test_a_directory_can_not_be_got(self, backed_up: Site) -> None:
        error = backed_up.json("get", "latest", str(backed_up.data), code=None)["error"]
        assert "Error" not in error["message"]


class TestRestore:
    @pytest.fixture
    def backed_up(self, ready: Site) -> Site:
        ready.backup()
        return ready

    def test_a_dry_run_writes_nothing(self, backed_up: Site) -> None:
        target = backed_up.root / "restored"
        plan = backed_up.json("restore", "latest", "--to", str(target), "--dry-run")
        assert plan["dry_run"] is True
        assert not target.exists()
        said = backed_up.run("restore", "latest", "--to", str(target), "--dry-run").text
        assert "files" in said
        assert not target.exists()

    @pytest.mark.parametrize("words", [(), ("--dry-run",)])
    def test_a_directory_that_is_not_empty(self, words: tuple[str, ...], backed_up: Site) -> None:
        target = backed_up.root / "restored"
        target.mkdir()
        (target / "mine").write_text("keep")
        ran = backed_up.run("restore", "latest", "--to", str(target), "--json", *words, code=5)
        assert ran.json["error"]["kind"] == "TargetNotEmpty"
        assert os.listdir(target) == ["mine"]

    def test_by_path_and_source(self, backed_up: Site) -> None:
        target = backed_up.root / "restored"
        backed_up.run(
            "restore", "latest", "--to", str(target), "--source", "files", "--path", str(backed_up.data / "notes.txt")
        )
        files = [path.name for path in target.rglob("*") if path.is_file()]
        assert files == ["notes.txt"]

    def test_in_place_takes_a_safety_backup(self, backed_up: Site) -> None:
        (backed_up.data / "notes.txt").write_text("overwritten")
        report = backed_up.json("restore", "latest", "--in-place", "--source", "files")
        assert (backed_up.data / "notes.txt").read_text() == "first line\nsecond line\n"
        safety = report["safety_backup_id"]
        assert backed_up.run("get", safety, str(backed_up.data / "notes.txt")).out == b"overwritten"

    def test_or_none_and_says_so(self, backed_up: Site) -> None:
        (backed_up.data / "notes.txt").write_text("overwritten")
        ran = backed_up.run("restore", "latest", "--in-place", "--source", "files", "--no-safety-backup", "--json")
        assert ran.json["safety_backup_id"] is None
        assert "no safety backup" in ran.err
        assert len(backed_up.json("list")) == 1
        assert (backed_up.data / "notes.txt").read_text() == "first line\nsecond line\n"

    def test_in_place_dry_run_changes_nothing(self, backed_up: Site) -> None:
        (backed_up.data / "notes.txt").write_text("overwritten")
        backed_up.run("restore", "latest", "--in-place", "--source", "files", "--dry-run")
        assert (backed_up.data / "notes.txt").read_text() == "overwritten"
        assert len(backed_up.json("list")) == 1
