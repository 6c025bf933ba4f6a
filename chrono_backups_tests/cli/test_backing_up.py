"""Backups and replicas, also where something fails or stops them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest

from chrono_backups_tests.cli.conftest import (
    COMMAND,
    Site,
    environment,
    restored,
    same_tree,
)


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
        error = site.json("backup", code=6)["error"]
        assert error["kind"] == "StorageUnavailable"
        assert "init" in error["hint"]

    @pytest.fixture
    def slow(self, ready: Site) -> Site:
        """100 MB at 5 MB a second: long enough to be stopped half-way, whatever the machine."""
        for number in range(100):
            (ready.data / f"{number}").write_bytes(os.urandom(1_000_000))
        ready.settings["BACKUP_BANDWIDTH_LIMIT_MBPS"] = "40"
        return ready

    def finish(self, site: Site) -> None:
        """Nothing of the stopped backup is in sight, nothing is damaged, and the next one stores the rest only."""
        del site.settings["BACKUP_BANDWIDTH_LIMIT_MBPS"]
        assert site.json("list") == []
        assert site.json("verify", "--full")["ok"] is True
        assert site.json("backup")["status"] == "complete"

    def test_past_its_time_it_is_cancelled_and_says_so(self, slow: Site) -> None:
        ran = slow.run("backup", "--json", code=1, BACKUP_TIMEOUT_SECONDS="1")
        assert ran.json["error"]["kind"] == "Cancelled"
        assert "BACKUP_TIMEOUT_SECONDS" in ran.json["error"]["message"]
        assert "the repository is whole" in ran.err
        self.finish(slow)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_leaves_the_repository_whole(self, number: signal.Signals, slow: Site) -> None:
        process = subprocess.Popen(
            [*COMMAND, "backup", "--json"],
            cwd=slow.root,
            env=environment(slow.settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        assert b"started" in process.stderr.readline()
        time.sleep(0.5)
        process.send_signal(number)
        out, err = process.communicate(timeout=240)
        stored = sum(path.stat().st_size for path in slow.repository.rglob("*") if path.is_file())
        assert stored < 90_000_000, "it must not finish the work first"
        assert process.returncode == 130, err
        assert json.loads(out)["error"]["kind"] == "Cancelled"
        assert b"the repository is whole" in err
        assert b"backup files: " not in err, "what was stopped is not said to be done"
        self.finish(slow)


class TestReplicas:
    @pytest.fixture
    def mirrored(self, site: Site) -> Site:
        site.settings["BACKUP_LOCAL_MIRROR_PATH"] = str(site.root / "mirror")
        assert list(site.json("init")["replicas"]) == ["local_mirror"]
        return site

    def test_backup_replicates(self, mirrored: Site) -> None:
        made = mirrored.json("backup")
        assert [(one["storage"], one["ok"]) for one in made["replicas"]] == [("local_mirror", True)]
        assert [one["id"] for one in mirrored.json("list", "--storage", "local_mirror")] == [made["id"]]
        assert mirrored.json("verify", "--full", "--storage", "local_mirror")["ok"] is True

    def test_a_replica_restores_alone(self, mirrored: Site) -> None:
        mirrored.backup()
        shutil.rmtree(mirrored.repository)
        target = mirrored.root / "restored"
        mirrored.run("restore", "latest", "--to", str(target), "--storage", "local_mirror")
        assert same_tree(mirrored.data, restored(target, mirrored.data))

    def test_with_storage_it_does_not(self, mirrored: Site) -> None:
        assert mirrored.json("backup", "--storage", "local")["replicas"] == []
        assert mirrored.json("list", "--storage", "local_mirror", code=3)["error"]["kind"] == "RepositoryMissing"
        assert mirrored.json("replicate")["replicas"][0]["objects_copied"] > 0
        assert mirrored.json("replicate", "--to", "local_mirror")["replicas"][0]["objects_copied"] == 0

    def test_one_that_is_enabled_later(self, ready: Site) -> None:
        identifier = ready.backup()
        ready.settings["BACKUP_LOCAL_MIRROR_PATH"] = str(ready.root / "mirror")
        assert ready.json("init", "--storage", "local_mirror")["location"] == str(ready.root / "mirror")
        ready.run("replicate")
        assert [one["id"] for one in ready.json("list", "--storage", "local_mirror")] == [identifier]

    def test_one_that_is_gone_leaves_the_backup_complete_and_is_not_made_anew(self, mirrored: Site) -> None:
        shutil.rmtree(mirrored.root / "mirror")
        ran = mirrored.run("backup", "--json", code=4)
        assert ran.json["status"] == "complete"
        assert ran.json["replicas"][0]["ok"] is False
        assert "local_mirror has no complete replica: " in ran.err
        assert not (mirrored.root / "mirror").exists()
        assert mirrored.json("replicate", code=6)["error"]["kind"] == "StorageUnavailable"

    def test_no_other_storage(self, ready: Site) -> None:
        assert "no other enabled storage" in ready.run("replicate", code=2).err
        assert "is not another enabled storage" in ready.run("replicate", "--to", "sftp", code=2).err
