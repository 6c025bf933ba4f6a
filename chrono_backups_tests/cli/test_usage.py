"""Wrong words: exit code 2, one line and a hint, and with ``--json`` one document."""

from __future__ import annotations

from pathlib import Path

import pytest

from chrono_backups_tests.cli.conftest import Site

_FILES = ("restore", "latest", "--to", "x", "--source", "files")
WRONG = [
    ((), "which verb?"),
    (("lst",), "there is no verb 'lst'"),
    (("list", "--bogus"), "`list` does not know --bogus"),
    (("backup", "--typ", "full"), "does not know --typ"),
    (("backup", "--type", "everything"), "invalid choice: 'everything'"),
    (("list", "--storage", "tape"), "invalid choice: 'tape'"),
    (("show",), "required: ID"),
    (("restore", "latest"), "a restore needs a place to go to"),
    (("restore", "latest", "--in-place"), "--in-place needs --source"),
    (("restore", "latest", "--to", "x", "--in-place", "--source", "files"), "--to beside --in-place is for"),
    (("restore", "latest", "--in-place", "--source", "postgres"), "a cluster is not restored in place"),
    (("restore", "latest", "--in-place"), "--in-place needs --source"),
    (("restore", "latest", "--to", "x", "--no-safety-backup"), "goes with --in-place only"),
    (
        ("restore", "full_20260101_000000", *_FILES[2:], "--target-time", "2026-01-01T00:00:00Z"),
        "--target-time is for the source",
    ),
    ((*_FILES, "--target-lsn", "0/1"), "--target-lsn is for the source"),
    ((*_FILES, "--target-name", "x"), "--target-name is for the source"),
    ((*_FILES, "--start"), "--start is for the source"),
    (("key",), "required: list|add|remove"),
    (("key", "forge"), "invalid choice: 'forge'"),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_wrong_words(words: tuple[str, ...], said: str, site: Site) -> None:
    ran = site.run(*words, code=2)
    assert ran.out == b""
    assert ran.err.startswith("chrono-backups: error: ")
    assert said in ran.err
    assert "\nhint: " in ran.err or "--no-safety-backup" in words


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_wrong_words_in_json(words: tuple[str, ...], said: str, site: Site) -> None:
    error = site.run("--json", *words, code=2).json["error"]
    assert error["kind"] == "UsageError"
    assert said in error["message"]
    assert error["exit_code"] == 2


def test_wrong_settings_are_said_all_at_once(site: Site) -> None:
    wrong = {"BACKUP_COMPRESSION_TYPE": "rar", "BACKUP_RETENTION_DAYS": "soon", "BACKUP_LOCAL_PTH": "/x"}
    ran = site.run("list", code=2, **wrong)
    for name, value in (
        ("BACKUP_COMPRESSION_TYPE", "rar"),
        ("BACKUP_RETENTION_DAYS", "soon"),
        ("BACKUP_LOCAL_PTH", ""),
    ):
        assert name in ran.err
        assert value in ran.err
    error = site.json("list", code=2, **wrong)["error"]
    assert error["kind"] == "SettingsError"
    assert {problem["variable"] for problem in error["problems"]} == set(wrong)
    assert all(set(problem) == {"variable", "found", "accepted"} for problem in error["problems"])


def test_a_wrong_key_is_never_shown(site: Site) -> None:
    ran = site.run("list", "--debug", "--json", code=None, BACKUP_ENCRYPTION_KEY="hunter2-hunter2-hunter2")
    assert ran.code == 2
    assert "hunter2" not in ran.err + ran.text


def test_another_env_file(site: Site) -> None:
    missing = site.run("--env-file", "nowhere.env", "list", code=2)
    assert "nowhere.env" in missing.err
    (site.root / "other.env").write_text("BACKUP_COMPRESSION_TYPE=rar\n")
    for words in (("--env-file", "other.env", "list"), ("list", "--env-file=other.env")):
        assert "BACKUP_COMPRESSION_TYPE" in site.run(*words, code=2).err


class TestKeygen:
    def test_it_prints_a_key(self, site: Site) -> None:
        first, second = (site.run("keygen").text for _ in range(2))
        assert first != second
        assert len(first) == 45
        assert len(site.json("keygen")["key"]) == 44

    def test_into_a_file(self, site: Site) -> None:
        path = site.root / "key"
        ran = site.run("keygen", "--to", str(path))
        assert ran.out == b""
        assert path.stat().st_mode & 0o777 == 0o600
        key = path.read_text()
        assert len(key.strip()) == 44
        assert key.strip() not in ran.err
        refused = site.run("keygen", "--to", str(path), code=2)
        assert "exists already" in refused.err
        assert path.read_text() == key

    def test_in_json_the_file_and_not_the_key(self, site: Site) -> None:
        assert site.json("keygen", "--to", "key") == {"file": "key"}

    def test_where_no_file_can_be(self, site: Site) -> None:
        assert "can't be created" in site.run("keygen", "--to", "no/such/folder/key", code=2).err
        assert not Path(site.root / "no").exists()
