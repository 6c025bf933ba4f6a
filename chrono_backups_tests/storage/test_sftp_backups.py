"""Whole backups on an SFTP server: through the front door, and when the way fails."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chrono_backups.assembly import Application
from chrono_backups.errors import StorageUnavailable
from chrono_backups.settings import load
from chrono_backups.storage.sftp import SftpStorage
from chrono_backups_tests.cli.conftest import KEY, Site, same_tree, write_tree
from chrono_backups_tests.cli.in_process import SiteInProcess
from chrono_backups_tests.servers.fault_proxy import FaultProxy
from chrono_backups_tests.servers.faults import Reset
from chrono_backups_tests.servers.sftp_by_paramiko import PASSWORD, password_server
from chrono_backups_tests.servers.sshd import SshServer, ssh_server, sshd_program

pytestmark = pytest.mark.skipif(sshd_program() is None, reason="needs sshd")


@pytest.fixture
def server() -> Iterator[SshServer]:
    with ssh_server() as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: SshServer) -> Site:
    """A tree to protect, the storage's settings, no repository yet."""
    made = SiteInProcess(tmp_path)
    write_tree(made.data)
    made.settings = {
        "BACKUP_ENCRYPTION_KEY": KEY,
        "BACKUP_FILES_PATHS": str(made.data),
        "BACKUP_SFTP_ENABLED": "true",
        "BACKUP_SFTP_HOST": "127.0.0.1",
        "BACKUP_SFTP_PORT": str(server.port),
        "BACKUP_SFTP_USERNAME": server.username,
        "BACKUP_SFTP_PRIVATE_KEY_PATH": str(server.user_key),
        "BACKUP_SFTP_KNOWN_HOSTS": str(server.known_hosts),
    }
    return made


def restores(site: Site) -> None:
    """The newest backup is whole, and gives the tree back."""
    site.run("verify", "--full")
    site.run("restore", "latest", "--to", str(site.root / "restored"))
    assert same_tree(site.data, site.root / "restored" / "files" / str(site.data).lstrip("/"))


class TestFrontDoor:
    def test_with_a_key(self, site: Site, server: SshServer) -> None:
        assert "init" in site.run("backup", code=1).err
        site.run("init")
        first = site.backup()
        (site.data / "later.txt").write_text("came later")
        second = site.backup("incremental")
        assert [one["id"] for one in site.json("list")] == [second, first]
        restores(site)
        site.run("forget")
        site.run("prune")
        site.run("init", code=2)
        until = time.monotonic() + 60
        while server.sessions:  # each run has closed its own; the server takes a moment to see it
            assert time.monotonic() < until, server.sessions
            time.sleep(0.05)

    def test_with_a_password(self, site: Site) -> None:
        with password_server() as other:
            del site.settings["BACKUP_SFTP_PRIVATE_KEY_PATH"]
            site.settings |= {
                "BACKUP_SFTP_PORT": str(other.port),
                "BACKUP_SFTP_USERNAME": "backup-user",
                "BACKUP_SFTP_PASSWORD": PASSWORD,
                "BACKUP_SFTP_KNOWN_HOSTS": str(other.known_hosts),
            }
            site.run("init")
            site.backup()
            restores(site)
            wrong = site.run("backup", code=6, BACKUP_SFTP_PASSWORD="another secret")
            assert "does not let backup-user in by the password" in wrong.err
            assert "another secret" not in wrong.err

    def test_a_server_that_is_not_known(self, site: Site, tmp_path: Path) -> None:
        refused = site.run("init", code=6, BACKUP_SFTP_KNOWN_HOSTS=str(tmp_path / "none"))
        assert "ssh-keyscan" in refused.err
        assert "SHA256:" in refused.err


class TestFaults:
    def test_sessions_killed_cost_an_attempt_each(self, site: Site, server: SshServer) -> None:
        (site.data / "more.bin").write_bytes(os.urandom(40_000_000))
        application = Application(load(site.settings))
        application.create_repository().close()
        done = threading.Event()

        def kill() -> None:
            for wait in (0.5, 0.3, 0.7, 0.4):
                done.wait(wait)
                server.kill_sessions()

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            assert application.take_backup("full", trigger="test").status == "complete"
        finally:
            done.set()
            killer.join()
        restores(site)

    def test_resets_cost_an_attempt_each(self, site: Site, server: SshServer) -> None:
        application = Application(load(site.settings))
        application.create_repository().close()
        with FaultProxy(server.port, http=False) as proxy:
            through = SiteInProcess(site.root, site.settings | {"BACKUP_SFTP_PORT": str(proxy.port)})
            proxy.script(Reset(direction="up", after=20_000), Reset(direction="down", after=4000))
            through.backup()
            proxy.script(Reset(direction="down", after=30_000), Reset(direction="down", after=2_000_000))
            restores(through)

    def test_a_server_that_goes_away_is_named_and_the_next_run_goes_on(
        self, site: Site, server: SshServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("chrono_backups.assembly._REMOTE_ATTEMPTS", 2)
        (site.data / "more.bin").write_bytes(os.urandom(60_000_000))
        application = Application(load(site.settings))
        application.create_repository().close()
        packs = server.data / "chrono-backups" / "packs"
        put = SftpStorage.put
        stopping = threading.Lock()

        def put_and_stop(self: SftpStorage, key: str, data: bytes) -> None:
            put(self, key, data)
            if key.startswith("packs/") and stopping.acquire(blocking=False):
                server.stop()

        with monkeypatch.context() as patched, pytest.raises(StorageUnavailable) as caught:
            patched.setattr(SftpStorage, "put", put_and_stop)
            application.take_backup("full", trigger="test")
        assert caught.value.storage == "sftp"
        assert any(path.is_file() for path in packs.rglob("*"))
        server.start()
        assert application.take_backup("full", trigger="test").status == "complete"
        # What the run before had stored is not stored again.
        assert sum(path.stat().st_size for path in packs.rglob("*") if path.is_file()) < 66_000_000
        restores(site)
