"""An SFTP server of the tests' own, in this process, made with paramiko's server side.

For what an unprivileged OpenSSH can't do: it lets in by password, asked for in either way, or by a key *and* a
password. And it is another kind of server: it knows no extension, so no fsync and no hard link, and its rename
overwrites, as that of some servers does.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import paramiko
from paramiko import common, sftp

from chrono_backups.storage.settings import SftpSettings
from chrono_backups_tests.servers.sshd import make_key

USERNAME = "backup-user"
PASSWORD = "a pass'word\\ of its own"


class PasswordServer:
    """``ways``: what one has to show, in that order, of ``password``, ``keyboard-interactive``, ``publickey``."""

    def __init__(self, home: Path, *ways: str) -> None:
        self.ways = ways or ("password",)
        self.data = home / "data"
        self.data.mkdir()
        self.user_key = make_key(home / "user_key")
        self.known_hosts = home / "known_hosts"
        self.refused_logins = 0
        self._host_key = paramiko.Ed25519Key.from_private_key_file(str(make_key(home / "host_key")))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._transports: list[paramiko.Transport] = []
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} ssh-ed25519 {self._host_key.get_base64()}\n")
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:  # closed
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport = paramiko.Transport(sock)
            transport.set_log_channel("chrono_backups_tests.sftp_by_paramiko")
            transport.add_server_key(self._host_key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Files, self.data)
            with suppress(paramiko.SSHException, EOFError, OSError):
                transport.start_server(server=_Login(self))
            self._transports.append(transport)

    def settings(self, **other: Any) -> SftpSettings:
        """Settings that lead here, by the password."""
        given = {
            "enabled": True, "host": "127.0.0.1", "port": self.port, "username": USERNAME, "password": PASSWORD,
            "known_hosts": self.known_hosts, **other,
        }  # fmt: skip
        return SftpSettings(**{name: value for name, value in given.items() if value is not None})

    def stop(self) -> None:
        # Closing alone does not wake the thread that waits in accept.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        for transport in self._transports:
            transport.close()
            transport.join(10)


class _Login(paramiko.ServerInterface):
    def __init__(self, server: PasswordServer) -> None:
        self._server = server
        self._left = list(server.ways)

    def get_allowed_auths(self, username: str) -> str:
        return self._left[0]

    def _judge(self, way: str, username: str, proven: bool) -> int:
        if self._left[0] != way or username != USERNAME or not proven:
            self._server.refused_logins += 1
            return common.AUTH_FAILED
        self._left.pop(0)
        return common.AUTH_PARTIALLY_SUCCESSFUL if self._left else common.AUTH_SUCCESSFUL

    def check_auth_password(self, username: str, password: str) -> int:
        return self._judge("password", username, password == PASSWORD)

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        known = self._server.user_key.with_name("user_key.pub").read_text().split()[1]
        return self._judge("publickey", username, key.get_base64() == known)

    def check_auth_interactive(self, username: str, submethods: str) -> Any:
        if self._left[0] != "keyboard-interactive" or username != USERNAME:
            return common.AUTH_FAILED
        return paramiko.server.InteractiveQuery("", "", ("Password: ", False))

    def check_auth_interactive_response(self, responses: list[str]) -> int:
        return self._judge("keyboard-interactive", USERNAME, responses == [PASSWORD])

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return common.OPEN_SUCCEEDED if kind == "session" else common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED


class _Handle(paramiko.SFTPHandle):
    def __init__(self, flags: int, file: Any) -> None:
        super().__init__(flags)
        self.readfile = self.writefile = file

    def stat(self) -> Any:
        return paramiko.SFTPAttributes.from_stat(os.fstat(self.readfile.fileno()))


class _Files(paramiko.SFTPServerInterface):
    """A folder's files."""

    def __init__(self, server: paramiko.ServerInterface, root: Path) -> None:
        super().__init__(server)
        self._root = root

    def _path(self, path: str) -> Path:
        return self._root / path.lstrip("/")

    def open(self, path: str, flags: int, attr: Any) -> Any:
        try:
            number = os.open(self._path(path), flags, 0o600)
            if flags & os.O_ACCMODE == os.O_RDONLY and os.path.isdir(number):
                os.close(number)
                return sftp.SFTP_FAILURE
            return _Handle(flags, os.fdopen(number, "wb" if flags & os.O_WRONLY else "rb"))
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)

    def list_folder(self, path: str) -> Any:
        try:
            found = []
            for entry in os.scandir(self._path(path)):
                with suppress(FileNotFoundError):
                    found.append(paramiko.SFTPAttributes.from_stat(entry.stat(follow_symlinks=False), entry.name))
            return found
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)

    def stat(self, path: str) -> Any:
        return self._look(os.stat, path)

    def lstat(self, path: str) -> Any:
        return self._look(os.lstat, path)

    def _look(self, look: Any, path: str) -> Any:
        try:
            return paramiko.SFTPAttributes.from_stat(look(self._path(path)))
        except NotADirectoryError:
            return sftp.SFTP_NO_SUCH_FILE
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)

    def remove(self, path: str) -> int:
        return self._change(os.unlink, path)

    def mkdir(self, path: str, attr: Any) -> int:
        return self._change(os.mkdir, path)

    def rmdir(self, path: str) -> int:
        return self._change(os.rmdir, path)

    def rename(self, oldpath: str, newpath: str) -> int:
        return self._change(os.rename, oldpath, newpath)

    def _change(self, change: Any, *paths: str) -> int:
        try:
            change(*map(self._path, paths))
        except OSError as error:
            known = errno.ENOENT if error.errno == errno.ENOTDIR else error.errno
            return paramiko.SFTPServer.convert_errno(known or 0)
        return sftp.SFTP_OK


@contextmanager
def password_server(*ways: str) -> Iterator[PasswordServer]:
    """A running server with an empty ``data``; all of it is gone afterwards."""
    home = Path(tempfile.mkdtemp(prefix="sftp-"))
    try:
        server = PasswordServer(home, *ways)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)
