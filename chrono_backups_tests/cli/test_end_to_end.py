"""The whole walk, as an operator takes it: init, backup, look, restore, verify, forget, prune."""

from __future__ import annotations

import base64
import filecmp
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from chrono_backups_tests.cli.conftest import BYTES_NAME, COMMAND, KEY, NEWLINE_NAME, OTHER_KEY, Site, environment

LIST_FIELDS = {"id", "type", "status", "started_at", "finished_at", "sources", "bytes_read", "bytes_stored"}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")


def same_tree(one: Path, other: Path) -> bool:
    """Same names, kinds, contents, modes and times, all the way down."""
    for name in sorted(set(os.listdir(os.fsencode(one))) | set(os.listdir(os.fsencode(other)))):
        first, second = (
            Path(os.fsdecode(os.fsencode(one) + b"/" + name)),
            Path(os.fsdecode(os.fsencode(other) + b"/" + name)),
        )
        facts = [path.lstat() for path in (first, second)]
        if (facts[0].st_mode, facts[0].st_mtime_ns) != (facts[1].st_mode, facts[1].st_mtime_ns):
            return False
        if first.is_symlink():
            if first.readlink() != second.readlink():
                return False
        elif first.is_dir():
            if not same_tree(first, second):
                return False
        elif not filecmp.cmp(first, second, shallow=False):
            return False
    return True


def restored(directory: Path, data: Path) -> Path:
    """Where ``restore --to`` puts ``data``."""
    return directory / "files" / str(data).lstrip("/")


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


class TestBackup:
    def test_its_summary_and_its_silence(self, ready: Site) -> None:
        said = ready.run("backup").text
        assert re.search(r"^backup +full_\d{8}_\d{6}$", said, re.MULTILINE)
        assert re.search(r"^status +complete$", said, re.MULTILINE)
        quiet = ready.run("backup", "--quiet")
        assert quiet.out == b""
        assert quiet.err == ""

    def test_a_source_that_fails_leaves_it_partial(self, ready: Site) -> None:
        settings = ready.root / "compose.yaml"
        settings.write_text("services: {}")
        ready.settings["BACKUP_CONFIGURATION_PATHS"] = str(settings)
        ready.backup()
        ready.data.rename(ready.root / "elsewhere")
        ready.data.symlink_to("nowhere")
        partial = ready.json("backup", code=4)
        assert partial["status"] == "partial"
        assert list(partial["failures"]) == ["files"]
        said = ready.run("backup", code=4)
        assert "partial: files is missing" in said.err
        assert ready.json("show", "latest")["status"] == "complete"

    def test_nothing_to_back_up_is_a_failure(self, ready: Site) -> None:
        ready.data.rename(ready.root / "elsewhere")
        error = ready.json("backup", code=1)["error"]
        assert error["kind"] == "BackupFailed"
        assert list(error["failures"]) == ["files"]
        assert ready.json("list") == []

    def test_no_repository(self, site: Site) -> None:
        error = site.json("backup", code=3)["error"]
        assert error["kind"] == "RepositoryMissing"
        assert "init" in error["hint"]

    def test_past_its_time_it_is_cancelled_and_says_so(self, ready: Site) -> None:
        with (ready.data / "slow").open("wb") as sparse:
            for _ in range(600):
                sparse.write(os.urandom(1_000_000))
        error = ready.json("backup", code=1, BACKUP_TIMEOUT_SECONDS="1")["error"]
        assert error["kind"] == "Cancelled"
        assert "BACKUP_TIMEOUT_SECONDS" in error["message"]
        assert ready.json("list") == []
        assert ready.json("backup")["status"] == "complete"

    @pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
    def test_a_signal_leaves_the_repository_whole(self, name: str, ready: Site) -> None:
        import signal

        for number in range(300):
            (ready.data / f"{number}").write_bytes(os.urandom(1_000_000))
        process = subprocess.Popen(
            [*COMMAND, "backup", "--json"],
            cwd=ready.root,
            env=environment(ready.settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        time.sleep(0.8)
        process.send_signal(signal.Signals[name])
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert json.loads(out)["error"]["kind"] == "Cancelled"
        assert b"the repository is whole" in err
        assert ready.json("list") == []
        assert ready.json("verify", "--full")["ok"] is True
        assert ready.json("backup")["status"] == "complete"


class TestReplicas:
    @pytest.fixture
    def mirrored(self, ready: Site) -> Site:
        ready.settings["BACKUP_LOCAL_MIRROR_PATH"] = str(ready.root / "mirror")
        return ready

    def test_backup_replicates(self, mirrored: Site) -> None:
        made = mirrored.json("backup")
        assert [(one["storage"], one["ok"]) for one in made["replicas"]] == [("local_mirror", True)]
        assert [one["id"] for one in mirrored.json("list", "--storage", "local_mirror")] == [made["id"]]
        assert mirrored.json("verify", "--full", "--storage", "local_mirror")["ok"] is True
        target = mirrored.root / "restored"
        mirrored.run("restore", "latest", "--to", str(target), "--storage", "local_mirror")
        assert same_tree(mirrored.data, restored(target, mirrored.data))

    def test_with_storage_it_does_not(self, mirrored: Site) -> None:
        assert mirrored.json("backup", "--storage", "local")["replicas"] == []
        assert mirrored.json("list", "--storage", "local_mirror", code=3)["error"]["kind"] == "RepositoryMissing"
        replicas = mirrored.json("replicate")["replicas"]
        assert replicas[0]["objects_copied"] > 0
        assert mirrored.json("replicate", "--to", "local_mirror")["replicas"][0]["objects_copied"] == 0

    def test_a_replica_that_fails_leaves_the_backup_complete(self, mirrored: Site) -> None:
        (mirrored.root / "mirror").write_text("in the way")
        ran = mirrored.run("backup", "--json", code=4)
        assert ran.json["status"] == "complete"
        assert ran.json["replicas"][0]["ok"] is False
        assert "no replica in local_mirror" in ran.err

    def test_no_other_storage(self, ready: Site) -> None:
        assert "no other enabled storage" in ready.run("replicate", code=2).err
        assert "is not another enabled storage" in ready.run("replicate", "--to", "sftp", code=2).err


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
        line = next(
            line for line in backed_up.run("ls", "latest", str(backed_up.data)).text.splitlines() if "notes" in line
        )
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
        for words in (("get", "latest", missing), ("ls", "latest", missing)):
            error = backed_up.json(*words, code=3)["error"]
            assert error["kind"] == "EntryMissing"
            assert "never" in error["message"]
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
        new = {"BACKUP_ENCRYPTION_KEY": "", "BACKUP_ENCRYPTION_KEY_FILE": str(key_file)}
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
        policy = {
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
    def test_it_is_named_and_has_its_exit_code(self, ready: Site) -> None:
        ready.backup()
        packs = sorted((ready.repository / "packs").rglob("*"), key=lambda path: path.stat().st_size)
        pack = [path for path in packs if path.is_file()][-1]
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.chmod(0o600)
        pack.write_bytes(data)
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
