"""An OpenSSH server of the tests' own: unprivileged, on a free port of the loopback address, with keys of its own.

It runs as ``nobody`` where the tests run as root, so that permissions count, and as ourselves elsewhere. Who logs in
is always the user it runs as, by a key; the server can't look at passwords without privileges, so logging in with one
is tested against ``sftp_by_paramiko``.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from chrono_backups.storage.settings import SftpSettings
from chrono_backups_tests.servers.ports import free_port

_PATIENCE = 60.0


def sshd_program() -> Path | None:
    """The server's program (it must be started by its full path), or None where the machine lacks it."""
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    return None if found is None else Path(found).resolve()


def server_user() -> pwd.struct_passwd:
    """Whom the server runs as, and who logs in."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A new private key in OpenSSH's format, its public half beside it."""
    size = {"rsa": ["-b", "2048"]}.get(kind, [])
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, *size, "-N", passphrase, "-C", "test", "-f", str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return path


class SshServer:
    """``data`` is where an account's files lie: the folder that a session begins in."""

    def __init__(
        self,
        home: Path,
        *,
        sftp_options: Sequence[str] = (),
        options: Sequence[str] = (),
        subsystem: bool = True,
        file_size_limit: int | None = None,
    ) -> None:
        """``sftp_options``: of the program internal-sftp; ``options``: lines of sshd_config before ours."""
        program = sshd_program()
        assert program is not None, "needs sshd"
        self._program = program
        self.home = home
        self.data = home / "data"
        self.data.mkdir()
        self.port = free_port()
        self.log = home / "sshd.log"
        self.user_key = make_key(home / "user_key")
        self.known_hosts = home / "known_hosts"
        self.authorized_keys = home / "authorized_keys"
        self.authorized_keys.write_text((home / "user_key.pub").read_text())
        self._host_keys = [make_key(home / "host_ed25519"), make_key(home / "host_ecdsa", "ecdsa")]
        self._sftp_options = list(sftp_options)
        self._options = list(options)
        self._subsystem = subsystem
        self._file_size_limit = file_size_limit
        self._process: subprocess.Popen[bytes] | None = None
        self.trust()
        self._configure()
        self._give_all()

    @property
    def username(self) -> str:
        return server_user().pw_name

    def trust(self) -> None:
        """Write the known_hosts file anew, with the host keys as they are, for any port: of a proxy too."""
        keys = [path.with_name(path.name + ".pub").read_text().split() for path in self._host_keys]
        lines = [f"[127.0.0.1]:* {kind} {key}\n" for kind, key, *_ in keys]
        self.known_hosts.write_text("".join(lines))

    def change_host_keys(self) -> None:
        """As after a new installation, or with somebody in the middle. Counts from the next start."""
        for path in self._host_keys:
            kind = path.name.removeprefix("host_")
            for one in (path, path.with_name(path.name + ".pub")):
                one.unlink()
            make_key(path, kind)
        self._give_all()

    def authorize(self, public_key: Path, options: str = "") -> None:
        """Let one more key in."""
        with self.authorized_keys.open("a") as file:
            file.write(f"{options} {public_key.read_text()}".lstrip())

    def _configure(self) -> None:
        internal = ["internal-sftp", "-d", str(self.data), *self._sftp_options]
        lines = [
            *self._options,
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            *(f"HostKey {path}" for path in self._host_keys),
            f"AuthorizedKeysFile {self.authorized_keys}",
            f"PidFile {self.home / 'sshd.pid'}",
            "StrictModes no",
            "UsePAM yes",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "MaxStartups 200",
            "PrintMotd no",
            f"Subsystem {'sftp' if self._subsystem else 'other'} {' '.join(internal)}",
        ]
        (self.home / "sshd_config").write_text("\n".join(lines) + "\n")

    def give(self, *paths: Path) -> None:
        """Make them the account's."""
        if os.geteuid() == 0:
            user = server_user()
            for path in paths:
                os.chown(path, user.pw_uid, user.pw_gid)

    def _give_all(self) -> None:
        self.give(self.home, *self.home.iterdir())

    def start(self) -> None:
        """Start it and wait until it answers."""
        user = server_user()
        options: dict[str, Any] = (
            {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        )
        command = [str(self._program), "-D", "-e", "-f", str(self.home / "sshd_config")]
        if self._file_size_limit is not None:
            # The signal of the limit would end the session; ignored, a write fails instead. A shell sets both, and
            # counts in blocks of 512 or 1024 bytes; prlimit counts in bytes.
            limited = 'trap "" XFSZ; exec prlimit --fsize="$0" "$@"'
            command = ["sh", "-c", limited, str(self._file_size_limit), *command]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                start_new_session=True,
                **options,
            )
        until = time.monotonic() + _PATIENCE
        while True:
            assert self._process.poll() is None, f"sshd ended:\n{self.log.read_text()[-3000:]}"
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                probe.settimeout(5)
                if probe.recv(4).startswith(b"SSH"):
                    return
            assert time.monotonic() < until, f"sshd does not answer:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.02)

    @property
    def sessions(self) -> list[int]:
        """The processes that serve the connections there are."""
        return [] if self._process is None else _descendants(self._process.pid)

    def kill_sessions(self, number: signal.Signals = signal.SIGKILL) -> None:
        """What a crash of the server does to the connections; with ``SIGSTOP`` it stalls."""
        for pid in self.sessions:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """End it and all its sessions; afterwards nothing runs."""
        if self._process is None:
            return
        pids = [self._process.pid]
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGSTOP)  # so that no session begins in between
            pids += self.sessions
        for pid in reversed(pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        until = time.monotonic() + _PATIENCE
        while any(_runs(pid) for pid in pids):
            assert time.monotonic() < until, f"still there: {pids}"
            time.sleep(0.01)
        self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def settings(self, **other: Any) -> SftpSettings:
        """Settings that lead here, by the key."""
        given: dict[str, Any] = {
            "enabled": True,
            "host": "127.0.0.1",
            "port": self.port,
            "username": self.username,
            "private_key_path": self.user_key,
            "known_hosts": self.known_hosts,
            **other,
        }
        return SftpSettings(**{name: value for name, value in given.items() if value is not None})


def _descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return [*found, *(below for child in found for below in _descendants(child))]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@contextmanager
def ssh_server(**options: Any) -> Iterator[SshServer]:
    """A running server with an empty ``data``; all of it is gone afterwards."""
    home = Path(tempfile.mkdtemp(prefix="sshd-", dir="/tmp"))
    home.chmod(0o755)
    try:
        server = SshServer(home, **options)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)
