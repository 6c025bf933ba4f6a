"""The verb ``storage``, and what several storages are to other verbs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from chrono_backups.assembly import Application
from chrono_backups.settings import load
from chrono_backups_tests.cli.conftest import COMMAND, OTHER_KEY, Site, environment, restored, same_tree


@pytest.fixture
def two(site: Site) -> Site:
    """A site with a replica, and one backup."""
    site.settings["BACKUP_LOCAL_MIRROR_PATH"] = str(site.root / "mirror")
    site.run("init")
    site.backup()
    return site


def objects(root: Path, folder: str) -> list[Path]:
    return sorted(path for path in (root / folder).rglob("*") if path.is_file())


def damage(path: Path) -> None:
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


class TestList:
    def test_what_there_is(self, two: Site) -> None:
        shown = two.json("storage", "list")["storages"]
        assert [one["storage"] for one in shown] == ["local", "local_mirror"]
        assert [one["primary"] for one in shown] == [True, False]
        assert {one["state"] for one in shown} == {"ready"}
        assert shown[0]["repository"] == shown[1]["repository"]
        assert [one["backups"] for one in shown] == [1, 1]
        assert all(one["used_bytes"] > 3_000_000 and one["free_bytes"] > 0 for one in shown)
        text = two.run("storage", "list").text
        assert "local *" in text
        assert str(two.repository) in text

    def test_states(self, two: Site) -> None:
        (two.root / "mirror").rename(two.root / "away")
        shown = two.json("storage", "list", code=4)["storages"]
        assert [one["state"] for one in shown] == ["ready", "unreachable"]
        two.json("init", "--storage", "local_mirror")
        assert [one["state"] for one in two.json("storage", "list")["storages"]] == ["ready", "no repository"]
        shown = two.json("storage", "list", code=4, BACKUP_ENCRYPTION_KEY=OTHER_KEY)["storages"]
        assert [one["state"] for one in shown] == ["wrong key", "no repository"]

    def test_two_repositories(self, two: Site) -> None:
        shutil.rmtree(two.root / "mirror")
        two.run("init", BACKUP_LOCAL_PATH=str(two.root / "mirror"), BACKUP_LOCAL_MIRROR_PATH="")
        ran = two.run("storage", "list", code=4)
        assert "another repository" in ran.text
        assert "local_mirror holds another repository than local" in ran.err

    def test_none(self, site: Site) -> None:
        assert site.json("storage", "list", BACKUP_LOCAL_PATH="")["storages"] == []


class TestTest:
    def test_before_init_and_nothing_stays(self, site: Site) -> None:
        before = sorted(site.root.rglob("*"))
        (found,) = site.json("storage", "test", "--megabytes", "1")["storages"]
        assert found["ok"] is True
        assert found["left_behind"] == []
        assert found["rights"]["delete"] is True
        assert sorted(site.root.rglob("*")) == before

    def test_beside_a_repository(self, two: Site) -> None:
        before = sorted(two.root.rglob("*"))
        text = two.run("storage", "test", "--megabytes", "1").text
        assert text.count("it can hold a repository") == 2
        assert sorted(two.root.rglob("*")) == before

    def test_settings_of_the_call_itself(self, site: Site) -> None:
        other = site.root / "other"
        words = ("--set", f"BACKUP_LOCAL_PATH={other}", "--megabytes", "0.5")
        (found,) = site.json("storage", "test", "local", *words)["storages"]
        assert found["location"] == str(other)
        assert not other.exists()

    def test_a_storage_that_is_named_is_enabled_by_that(self, site: Site) -> None:
        problems = site.json("storage", "test", "aws_s3", code=2)["error"]["problems"]
        assert [one["variable"] for one in problems] == ["BACKUP_AWS_BUCKET_NAME"]

    def test_wrong_words(self, site: Site) -> None:
        for words in (("BACKUP_LOCAL_PATH",), ("hunter2=secret-value",)):
            ran = site.run("storage", "test", "--set", *words, code=2)
            assert "--set number 1" in ran.err
            assert "secret-value" not in ran.err
        assert (
            "nearest is BACKUP_LOCAL_PATH" in site.run("storage", "test", "--set", "BACKUP_LOCAL_PAHT=/x", code=2).err
        )
        site.run("storage", "test", "--megabytes", "0", code=2)
        site.run("storage", code=2)
        site.run("storage", "test", "nowhere", code=2)

    def test_secrets_of_the_call_are_not_shown(self, site: Site) -> None:
        secret = "s3cr3t-of-the-call"
        words = ("--set", "BACKUP_AWS_ACCESS_KEY_ID=", "--set", f"BACKUP_AWS_SECRET_ACCESS_KEY={secret}")
        ran = site.run("storage", "test", "aws_s3", *words, "--debug", code=2)
        assert secret not in ran.err + ran.text

    def test_a_place_that_can_not_be(self, site: Site) -> None:
        (site.root / "file").write_text("x")
        ran = site.run("storage", "test", "local", "--set", f"BACKUP_LOCAL_PATH={site.root}/file/below", code=None)
        assert ran.code in {1, 6}
        assert "local" in ran.err


class TestUsage:
    def test_by_kind(self, two: Site) -> None:
        (found,) = two.json("storage", "usage", "local_mirror")["storages"]
        assert found["kinds"]["manifests"]["objects"] == 1
        assert found["used_bytes"] == sum(kind["bytes"] for kind in found["kinds"].values())
        assert "packs" in two.run("storage", "usage").text

    def test_one_that_does_not_answer(self, two: Site) -> None:
        shutil.rmtree(two.root / "mirror")
        assert "local_mirror" in two.run("storage", "usage", code=4).err
        two.run("storage", "usage", "local_mirror", code=6)


def test_no_more_operations_at_once_than_are_allowed_over_all_processes(two: Site) -> None:
    two.settings["BACKUP_MAX_PARALLEL_OPERATIONS"] = "1"
    words = [*COMMAND, "backup", "--type", "full"]
    with Application(load(two.settings)).limits.operation("files"):
        waiting = subprocess.Popen(
            words, env=environment(two.settings), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert waiting.stderr is not None
        told = next((line for line in waiting.stderr if "it waits" in line), "it ended without waiting")
        assert "BACKUP_MAX_PARALLEL_OPERATIONS (1)" in told
        assert waiting.poll() is None
    waiting.communicate(timeout=240)
    assert waiting.returncode == 0


def test_locks_of_a_storage_that_has_none(two: Site) -> None:
    shown = two.json("storage", "extend-locks")["storages"]
    assert [(one["storage"], one["lock_days"]) for one in shown] == [("local", 0), ("local_mirror", 0)]


class TestRepair:
    def test_what_is_damaged_is_put_back(self, two: Site) -> None:
        victims = [objects(two.repository, folder)[0] for folder in ("packs", "index", "snapshots", "manifests")]
        for victim in victims:
            damage(victim)
        assert two.json("verify", "--full", code=3)["ok"] is False
        report = two.json("verify", "--full", "--repair")
        assert report["ok"] is True
        assert {one["subject"].rpartition("/")[2] for one in report["repaired"]} == {victim.name for victim in victims}
        assert two.json("verify", "--full", "--repair")["repaired"] == []
        assert two.json("verify", "--full")["ok"] is True

    def test_a_lost_header(self, two: Site) -> None:
        (two.repository / "repository").unlink()
        two.run("verify", code=3)
        assert "repaired: repository" in two.run("verify", "--repair").text
        two.run("verify")

    def test_a_replica(self, two: Site) -> None:
        damage(objects(two.root / "mirror", "packs")[0])
        two.run("verify", "--full", "--repair")
        assert two.json("verify", "--full", "--storage", "local_mirror", code=3)
        assert len(two.json("verify", "--full", "--repair", "--storage", "local_mirror")["repaired"]) == 1

    def test_damaged_in_both(self, two: Site) -> None:
        for root in (two.repository, two.root / "mirror"):
            damage(objects(root, "packs")[0])
        report = two.json("verify", "--full", "--repair", code=3)
        assert "no other storage has it whole" in report["unrepaired"][0]["message"]

    def test_an_empty_place_is_not_filled(self, two: Site) -> None:
        shutil.rmtree(two.root / "mirror")
        two.run("init", "--storage", "local_mirror")
        two.run("verify", "--repair", "--storage", "local_mirror", code=3)
        assert objects(two.root / "mirror", "") == []


class TestFallingOver:
    def test_every_reading_verb(self, two: Site) -> None:
        identifier = two.json("list")[0]["id"]
        two.repository.rename(two.root / "away")
        assert [one["id"] for one in two.json("list")] == [identifier]
        assert two.json("show", "latest")["id"] == identifier
        assert two.json("ls", "latest")["entries"]
        two.run("diff", identifier, identifier)
        assert two.run("get", "latest", str(two.data / "notes.txt")).out == (two.data / "notes.txt").read_bytes()
        ran = two.run("restore", "latest", "--to", str(two.root / "r"))
        assert "reading goes on from local_mirror" in ran.err
        assert same_tree(restored(two.root / "r", two.data), two.data)
        for words in (("list",), ("restore", "latest", "--to", str(two.root / "r2"))):
            two.run(*words, "--storage", "local", code=6)

    def test_over_what_is_there_the_safety_backup_goes_where_it_can(self, two: Site) -> None:
        two.repository.rename(two.root / "away")
        before = (two.data / "notes.txt").read_bytes()
        (two.data / "notes.txt").write_text("spoilt")
        done = two.json("restore", "latest", "--in-place", "--source", "files")
        assert done["safety_backup_id"] in [one["id"] for one in two.json("list", "--storage", "local_mirror")]
        assert (two.data / "notes.txt").read_bytes() == before

    def test_a_backup_needs_its_storage(self, two: Site) -> None:
        two.repository.rename(two.root / "away")
        ran = two.run("backup", code=6)
        assert "local" in ran.err
        assert len(two.json("list")) == 1
        two.run("backup", "--storage", "local_mirror")
        (two.root / "away").rename(two.repository)
        shutil.rmtree(two.root / "mirror")
        ran = two.run("backup", code=4)
        assert "local_mirror has no complete replica" in ran.err
