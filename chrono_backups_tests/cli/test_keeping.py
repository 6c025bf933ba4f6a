"""What keeps a repository in order: keys, retention, pruning, verification, validation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from chrono_backups_tests.cli.conftest import (
    KEY,
    OTHER_KEY,
    Site,
    restored,
)


class TestKeys:
    def test_a_wrong_key_and_none(self, ready: Site) -> None:
        before = sorted(path for path in ready.repository.rglob("*"))
        wrong = ready.json("backup", code=2, BACKUP_ENCRYPTION_KEY=OTHER_KEY)["error"]
        assert wrong["kind"] == "WrongKey"
        assert wrong["known"] == [ready.json("key", "list")["keys"][0]["key_id"]]
        assert ready.json("list", code=2, BACKUP_ENCRYPTION_KEY="")["error"]["kind"] == "KeyMissing"
        assert sorted(path for path in ready.repository.rglob("*")) == before

    def test_rotation(self, ready: Site) -> None:
        ready.backup()
        old = ready.json("key", "list")["keys"]
        assert [key["current"] for key in old] == [True]
        added = ready.json("key", "add", "--generate", "new.key", "--label", "in 2027")
        assert added["label"] == "in 2027"
        key_file = ready.root / "new.key"
        assert key_file.stat().st_mode & 0o777 == 0o600
        new: dict[str, Any] = {"BACKUP_ENCRYPTION_KEY": "", "BACKUP_ENCRYPTION_KEY_FILE": str(key_file)}
        assert {key["key_id"]: key["current"] for key in ready.json("key", "list", **new)["keys"]} == {
            old[0]["key_id"]: False,
            added["key_id"]: True,
        }
        assert ready.run("key", "remove", added["key_id"], code=2, **new).err
        ready.run("key", "remove", old[0]["key_id"], **new)
        assert ready.json("verify", "--full", **new)["ok"] is True
        assert ready.json("list", code=2)["error"]["kind"] == "WrongKey"

    def test_where_the_new_key_comes_from(self, ready: Site) -> None:
        assert "no new key is given" in ready.run("key", "add", code=2).err
        (ready.root / "bad.key").write_text("nonsense")
        ran = ready.run("key", "add", "--new-key-file", "bad.key", code=2)
        assert "holds no key" in ran.err
        assert "nonsense" not in ran.err
        ready.run("key", "add", BACKUP_NEW_ENCRYPTION_KEY=OTHER_KEY)
        assert "already" in ready.run("key", "add", code=2, BACKUP_NEW_ENCRYPTION_KEY=OTHER_KEY).err
        assert ready.json("list", BACKUP_ENCRYPTION_KEY=OTHER_KEY) == []

    def test_a_key_that_can_not_be_added_leaves_no_file(self, ready: Site) -> None:
        (ready.root / "taken").write_text("x")
        ready.run("key", "add", "--generate", "taken", code=2)
        assert (ready.root / "taken").read_text() == "x"
        assert len(ready.json("key", "list")["keys"]) == 1

    def test_a_plain_repository_has_no_keys(self, site: Site) -> None:
        site.settings |= {"BACKUP_ENCRYPTION_KEY": "", "BACKUP_ENCRYPTION_ENABLED": "false"}
        assert site.json("init")["encrypted"] is False
        assert "not encrypted" in site.run("key", "list", code=2).err

    def test_init_without_a_key_is_refused(self, site: Site) -> None:
        assert site.json("init", code=2, BACKUP_ENCRYPTION_KEY="")["error"]["kind"] == "SettingsError"
        assert not site.repository.exists() or os.listdir(site.repository) == []

    def test_init_twice_is_refused(self, ready: Site) -> None:
        assert ready.json("init", code=2)["error"]["kind"] == "RepositoryExists"


class TestMakingRoom:
    def test_the_policy_is_shown_before_it_is_carried_out(self, ready: Site) -> None:
        ids = [ready.backup() for _ in range(3)]
        policy: dict[str, Any] = {
            "BACKUP_RETENTION_DAYS": "0",
            "BACKUP_KEEP_DAILY_FOR_DAYS": "0",
            "BACKUP_KEEP_WEEKLY_FOR_WEEKS": "0",
            "BACKUP_KEEP_MONTHLY_FOR_MONTHS": "0",
            "BACKUP_KEEP_YEARLY_FOR_YEARS": "0",
            "BACKUP_MIN_BACKUPS_TO_KEEP": "1",
        }
        plan = ready.json("forget", "--dry-run", **policy)
        assert plan["dry_run"] is True
        assert [one["id"] for one in plan["keep"]] == ids[-1:]
        assert {one["id"] for one in plan["forget"]} == set(ids[:-1])
        assert all(one["reasons"] for one in plan["keep"] + plan["forget"])
        assert len(ready.json("list")) == 3
        shown = ready.run("forget", **policy).text
        assert all(identifier in shown for identifier in ids)
        assert [one["id"] for one in ready.json("list")] == ids[-1:]

    def test_only_whole_ids_are_forgotten(self, ready: Site) -> None:
        identifier = ready.backup()
        for name in ("latest", identifier[:-1], "*"):
            assert "is not a backup's id" in ready.run("forget", name, code=2).err
        ready.run("forget", identifier, "full_20200101_000000", code=3)
        assert len(ready.json("list")) == 1
        ready.run("forget", identifier, "--dry-run")
        assert len(ready.json("list")) == 1

    def test_prune_frees_space_once_the_grace_is_over(self, ready: Site) -> None:
        first = ready.backup()
        (ready.data / "media" / "large.bin").unlink()
        ready.backup()
        ready.run("forget", first)
        before = sum(path.stat().st_size for path in ready.repository.rglob("*") if path.is_file())
        ready.run("prune", "--dry-run", BACKUP_PRUNE_GRACE_HOURS="0")
        for _ in range(2):
            ready.run("prune", BACKUP_PRUNE_GRACE_HOURS="0")
        after = sum(path.stat().st_size for path in ready.repository.rglob("*") if path.is_file())
        assert after < before - 2_500_000
        assert ready.json("verify", "--full")["ok"] is True


class TestDamage:
    def flip(self, site: Site) -> Path:
        """One bit in the middle of the largest pack, which is in the large file."""
        pack = max((site.repository / "packs").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.chmod(0o600)
        pack.write_bytes(data)
        return pack

    def test_it_is_named_and_has_its_exit_code(self, ready: Site) -> None:
        ready.backup()
        pack = self.flip(ready)
        report = ready.json("verify", "--full", code=3)
        assert report["ok"] is False
        assert any(pack.name in finding["subject"] + finding["message"] for finding in report["findings"])
        assert "DAMAGED" in ready.run("verify", "--full", "--quiet", code=3).text
        error = ready.json("get", "latest", str(ready.data / "media" / "large.bin"), code=3)["error"]
        assert error["kind"] == "Damaged"
        assert pack.name in error["key"]

    def test_a_missing_object(self, ready: Site) -> None:
        ready.backup()
        for pack in (ready.repository / "packs").rglob("*"):
            if pack.is_file():
                pack.unlink()
        assert ready.json("verify", code=3)["ok"] is False

    def test_a_damaged_manifest_hides_no_other_backup(self, ready: Site) -> None:
        whole, damaged = ready.backup(), ready.backup("incremental")
        path = next(path for path in (ready.repository / "manifests").rglob("*") if path.name == damaged)
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-1])
        ran = ready.run("list", "--json", code=3)
        assert [one["id"] for one in ran.json] == [whole]
        assert damaged in ran.err
        assert ready.json("show", "latest")["id"] == whole
        report = ready.json("verify", damaged, code=3)
        assert any(damaged in finding["subject"] for finding in report["findings"])

    def test_a_restore_leaves_out_what_is_damaged_and_says_so(self, ready: Site) -> None:
        ready.backup()
        self.flip(ready)
        report = ready.json("restore", "latest", "--to", str(ready.root / "restored"), code=3)
        assert report["damaged"] == 1
        files = {path.name for path in restored(ready.root / "restored", ready.data).rglob("*") if path.is_file()}
        assert "notes.txt" in files
        assert "large.bin" not in files


class TestValidate:
    def test_all_is_well(self, ready: Site) -> None:
        report = ready.json("validate")
        assert report["ok"] is True
        assert KEY not in json.dumps(report)
        assert "files" in ready.run("validate").text

    def test_before_init_it_says_what_to_do(self, site: Site) -> None:
        ran = site.run("validate", code=None)
        assert "init" in ran.text

    def test_a_path_that_is_not_there(self, ready: Site) -> None:
        report = ready.json("validate", code=None, BACKUP_FILES_PATHS=str(ready.root / "nowhere"))
        assert any("nowhere" in finding["subject"] + finding["message"] for finding in report["findings"])

    def test_a_wrong_key(self, ready: Site) -> None:
        report = ready.json("validate", code=2, BACKUP_ENCRYPTION_KEY=OTHER_KEY)
        assert report["ok"] is False

    def test_wrong_settings(self, site: Site) -> None:
        assert site.json("validate", code=2, BACKUP_RETENTION_DAYS="soon")["error"]["kind"] == "SettingsError"
