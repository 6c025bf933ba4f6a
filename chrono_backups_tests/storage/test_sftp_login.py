"""Who the server is, and who we are: host keys, private keys, passwords."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from chrono_backups.errors import StorageDenied, StorageError, StorageUnavailable
from chrono_backups.storage.settings import SftpSettings
from chrono_backups.storage.sftp import SftpStorage
from chrono_backups_tests.servers.ports import free_port
from chrono_backups_tests.servers.sftp_by_paramiko import PASSWORD, password_server
from chrono_backups_tests.servers.sshd import SshServer, make_key, ssh_server, sshd_program

pytestmark = pytest.mark.skipif(sshd_program() is None, reason="needs sshd")


@pytest.fixture(scope="module")
def server() -> Iterator[SshServer]:
    with ssh_server() as server:
        yield server


def works(settings: SftpSettings) -> None:
    storage = SftpStorage.open(settings, create=True)
    try:
        assert storage.usage().used == 0
    finally:
        storage.close()


def refused(settings: SftpSettings, kind: type[StorageError] = StorageDenied) -> StorageError:
    with pytest.raises(StorageError) as caught:
        SftpStorage.open(settings, create=True)
    error = caught.value
    assert type(error) is kind
    assert error.storage == "sftp"
    assert error.operation == "create"
    assert f"sftp://{settings.username}@127.0.0.1:{settings.port}/~/chrono-backups" in error.message
    told = "".join(traceback.format_exception(error)) + error.hint + repr(error)
    for secret in (settings.password, settings.private_key_passphrase):
        assert secret is None or secret.get_secret_value() not in told
    return error


class TestHostKey:
    def shown_by(self, server: SshServer) -> dict[str, str]:
        scan = ["ssh-keyscan", "-p", str(server.port), "127.0.0.1"]
        lines = subprocess.run(scan, check=True, capture_output=True, text=True).stdout.splitlines()
        return {line.split()[1]: line for line in lines if not line.startswith("#")}

    def test_what_the_hint_tells_to_do_helps(self, server: SshServer, tmp_path: Path) -> None:
        path = tmp_path / "known_hosts"
        settings = server.settings(known_hosts=path)
        error = refused(settings)
        assert f"the host key of [127.0.0.1]:{server.port} is not in {path}" in error.message
        shown = re.search(r"the server shows (\S+ SHA256:\S+)", error.message)
        own = subprocess.run(
            ["ssh-keygen", "-lf", server.home / "host_ed25519.pub"], check=True, capture_output=True, text=True
        ).stdout.split()[1]
        assert shown is not None and shown[1] == f"ssh-ed25519 {own}"
        (told,) = re.findall(r"`(ssh-keyscan [^`]*)`", error.hint)
        subprocess.run(told, shell=True, check=True, capture_output=True)
        works(settings)

    @pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256"])
    def test_the_server_is_asked_for_a_key_of_a_type_that_is_known(
        self, server: SshServer, tmp_path: Path, kind: str
    ) -> None:
        path = tmp_path / "known_hosts"
        path.write_text(self.shown_by(server)[kind] + "\n")
        works(server.settings(known_hosts=path))

    def test_a_changed_key(self, tmp_path: Path) -> None:
        with ssh_server() as server:
            works(server.settings())
            server.change_host_keys()
            server.restart()
            error = refused(server.settings())
            assert "has CHANGED" in error.message
            assert len(re.findall(r"SHA256:\S+", error.message)) == 2
            assert "ssh-keygen -R" in error.hint
            assert "Accepted" not in server.log.read_text().split("Server listening")[-1], "no login was tried"
            server.trust()
            works(server.settings())

    def test_a_revoked_key(self, server: SshServer, tmp_path: Path) -> None:
        path = tmp_path / "known_hosts"
        line = self.shown_by(server)["ssh-ed25519"]
        path.write_text(f"{line}\n@revoked {line}\n")
        assert "revoked" in refused(server.settings(known_hosts=path)).message

    def test_no_password_is_sent_to_a_server_that_is_not_known(self, tmp_path: Path) -> None:
        with password_server() as server:
            refused(server.settings(known_hosts=tmp_path / "none", password="another password"))
            assert server.refused_logins == 0

    def test_the_file_of_the_user_is_the_default(
        self, server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        settings = server.settings(known_hosts=None)
        assert f"is not in {tmp_path}/.ssh/known_hosts" in refused(settings).message
        (tmp_path / ".ssh").mkdir()
        (tmp_path / ".ssh/known_hosts").write_text(server.known_hosts.read_text())
        works(settings)

    def test_a_file_that_is_none(self, server: SshServer, tmp_path: Path) -> None:
        assert "can't be read: Is a directory" in refused(server.settings(known_hosts=tmp_path)).message


class TestPrivateKey:
    @pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
    @pytest.mark.parametrize("passphrase", ["", "open, sesame"])
    def test_kinds(self, server: SshServer, tmp_path: Path, kind: str, passphrase: str) -> None:
        key = make_key(tmp_path / "key", kind, passphrase)
        server.authorize(tmp_path / "key.pub", "restrict")
        works(server.settings(private_key_path=key, private_key_passphrase=passphrase or None))

    @pytest.mark.parametrize("given", [None, "open, barley"])
    def test_a_passphrase_that_does_not_fit(self, server: SshServer, tmp_path: Path, given: str | None) -> None:
        key = make_key(tmp_path / "key", passphrase="open, sesame")
        error = refused(server.settings(private_key_path=key, private_key_passphrase=given))
        assert str(key) in error.message
        assert "BACKUP_SFTP_PRIVATE_KEY_PASSPHRASE" in error.hint

    def test_a_key_that_is_not_let_in(self, server: SshServer, tmp_path: Path) -> None:
        error = refused(server.settings(private_key_path=make_key(tmp_path / "key")))
        assert f"does not let {server.username} in by the key {tmp_path / 'key'}" in error.message
        assert "authorized_keys" in error.hint

    def test_an_account_that_is_not_there(self, server: SshServer) -> None:
        assert "does not let no-one in" in refused(server.settings(username="no-one")).message

    @pytest.mark.parametrize("content", [b"", b"not a key", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"])
    def test_a_file_that_is_no_key(self, server: SshServer, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "key").write_bytes(content)
        assert "is no private key" in refused(server.settings(private_key_path=tmp_path / "key")).message

    def test_no_such_file(self, server: SshServer, tmp_path: Path) -> None:
        assert "can't be read: No such file" in refused(server.settings(private_key_path=tmp_path / "key")).message


class TestPassword:
    @pytest.mark.parametrize("way", ["password", "keyboard-interactive"])
    def test_right_and_wrong(self, way: str) -> None:
        with password_server(way) as server:
            works(server.settings())
            error = refused(server.settings(password="not that one"))
            assert "does not let backup-user in by the password" in error.message
            assert server.refused_logins > 0

    def test_a_key_and_a_password(self) -> None:
        with password_server("publickey", "password") as server:
            works(server.settings(private_key_path=server.user_key))
            error = refused(server.settings(private_key_path=server.user_key, password=None))
            assert "the server also wants password" in error.message

    def test_the_password_is_tried_where_the_key_is_not_taken(self, tmp_path: Path) -> None:
        with password_server("password") as server:
            works(server.settings(private_key_path=make_key(tmp_path / "key")))

    def test_a_server_that_wants_something_else(self) -> None:
        with password_server("publickey") as server:
            assert "it would take publickey" in refused(server.settings()).message

    def test_settings_and_storages_do_not_show_it(self) -> None:
        given = {"password": PASSWORD, "private_key_passphrase": "open, sesame"}
        settings = SftpSettings.model_validate({"enabled": True, "host": "h", "username": "u", **given})
        storage = SftpStorage.open(settings)
        for told in (repr(settings), settings.model_dump_json(), repr(storage), storage.location):
            assert "of its own" not in told
            assert "sesame" not in told


class TestNoSuchServer:
    def test_nobody_listens(self, server: SshServer) -> None:
        error = refused(server.settings(port=free_port()), StorageUnavailable)
        assert "can't connect: Connection refused" in error.message
        assert "BACKUP_SFTP_PORT" in error.hint

    def test_no_such_host(self, server: SshServer) -> None:
        with pytest.raises(StorageUnavailable, match="can't connect"):
            SftpStorage.open(server.settings(host="no-such-host.invalid"), create=True)

    def test_a_server_that_does_not_speak_ssh(self, server: SshServer) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def answer() -> None:
                sock, _ = listener.accept()
                with sock:
                    sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 200)

            thread = threading.Thread(target=answer)
            thread.start()
            error = refused(server.settings(port=listener.getsockname()[1]), StorageUnavailable)
            thread.join()
        assert "the SSH handshake failed" in error.message

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (["ForceCommand /bin/echo welcome, dear user"], "does not answer in SFTP"),
            # Where the account's shell is nologin, it has a word to say.
            (["ForceCommand /bin/false"], "the connection was lost|does not answer in SFTP"),
        ],
        ids=["prints", "ends"],
    )
    def test_an_account_without_sftp(self, options: list[str], told: str) -> None:
        with ssh_server(options=options) as server, pytest.raises(StorageError, match=told):
            SftpStorage.open(server.settings(), create=True)

    def test_a_server_without_sftp(self) -> None:
        with ssh_server(subsystem=False) as server:
            error = refused(server.settings(), StorageError)
        assert "offers no SFTP" in error.message
        assert "Subsystem sftp" in error.hint


def test_only_paramiko_takes_long_to_import_and_only_where_it_is_needed() -> None:
    check = "import sys, chrono_backups.assembly, chrono_backups.storage.settings; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.split()
    assert "paramiko" not in loaded
