"""A cluster as its operator sees it: settings in ``.env``, and the program run as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.clock import SystemClock
from chrono_backups.recovery.postgres.server import User
from chrono_backups.repository.repository import Repository
from chrono_backups.storage.local import LocalStorage
from chrono_backups_tests.backup.crashing import PROJECT
from chrono_backups_tests.backup.receiving import SMALL_SEGMENTS, Receiving, wait
from chrono_backups_tests.backup.taking import KEY
from chrono_backups_tests.cli.conftest import COMMAND, Ran, environment
from chrono_backups_tests.servers.postgres import PASSWORD, PostgresServer, postgres_home, postgres_server, server_user
from chrono_backups_tests.servers.postgres_settings import needed


@dataclass(frozen=True)
class Operated:
    """A running cluster, and a folder of which the server's user may read all."""

    server: PostgresServer
    home: Path

    @property
    def place(self) -> Path:
        return self.home / "repository"

    @property
    def storage(self) -> LocalStorage:
        return LocalStorage(self.place, name="local")

    def open(self) -> Repository:
        return Repository.open(self.storage, operator_key=KEY, clock=SystemClock())

    def write_settings(self, **changes: str) -> Path:
        """``.env`` of the home folder."""
        settings = {
            "BACKUP_LOCAL_PATH": str(self.place),
            "BACKUP_ENCRYPTION_KEY": urlsafe_b64encode(KEY).decode(),
            "BACKUP_POSTGRES_HOST": "127.0.0.1",
            "BACKUP_POSTGRES_PORT": str(self.server.port),
            "BACKUP_POSTGRES_USER": "backup",
            "BACKUP_POSTGRES_PASSWORD": PASSWORD,
            "BACKUP_POSTGRES_DB": "postgres",
            "BACKUP_POSTGRES_BIN_DIR": str(self.server.programs),
            "BACKUP_WAL_MAX_LAG_SECONDS": "0.3",
            **changes,
        }
        file = self.home / ".env"
        file.write_text("".join(f'{name}="{value}"\n' for name, value in settings.items()))
        file.chmod(0o600)
        self.server.give(file)
        return file

    def share(self) -> None:
        """Let the server's user read the repository, and write to it."""
        self.server.give(self.place)

    def run(self, *words: str | Path, code: int | None = 0, place: Path | None = None) -> Ran:
        """Run the program in the home folder, or with its settings file from elsewhere; it must end with ``code``."""
        before = () if place is None else ("--env-file", str(self.home / ".env"))
        # What a server that goes on has in the temporary directory is gone with this one.
        surroundings = environment({"TMPDIR": str(self.home)})
        done = subprocess.run(
            [*COMMAND, *before, *map(str, words)],
            cwd=place or self.home, env=surroundings, stdin=subprocess.DEVNULL, capture_output=True, timeout=300,
            check=False,
        )  # fmt: skip
        ran = Ran(done.returncode, done.stdout, done.stderr.decode())
        assert code is None or ran.code == code, f"{words}: exit code {ran.code}\n{ran.text}\n{ran.err}"
        assert "Traceback" not in ran.err, ran.err
        return ran

    def json(self, *words: str | Path, code: int | None = 0) -> Any:
        return json.loads(self.run(*words, "--json", code=code).out)

    def receiving(self, **options: Any) -> Receiving:
        from chrono_backups_tests.servers.postgres_settings import reach

        return Receiving(reach(self.server), self.storage, **options)


@contextmanager
def operated(
    version: int = 18, *, settings: Mapping[str, str] | None = None, options: Sequence[str] = SMALL_SEGMENTS
) -> Iterator[Operated]:
    """A cluster with small segments and an empty repository."""
    needed(version)
    with postgres_server(version, settings=settings, options=options) as server, postgres_home() as home:
        made = Operated(server, home)
        server.add_role("backup", grants=["pg_read_all_settings", "pg_read_all_data"])
        made.write_settings()
        made.run("init")
        made.share()
        yield made


@contextmanager
def by_hand(data: Path, home: Path, version: int = 18) -> Iterator[PostgresServer]:
    """A server that its operator starts on a restored directory, and that has come to the end of its recovery."""
    server = PostgresServer(version, home, data)
    server.start(ready=False)
    try:
        server.wait_ready()
        server.wait_promoted()
        yield server
    finally:
        server.stop()


def let_server_run_us(data: Path) -> None:
    """Where the server's user can't reach the tests' Python, have its restore_command take the system's."""
    user = server_user()
    if user is None or User(user.pw_uid, user.pw_gid, user.pw_name).may("x", Path(sys.executable)):
        return
    said = subprocess.run(["/usr/bin/python3", "--version"], capture_output=True, text=True, check=False).stdout
    if said.split()[-1:] != [] and said.split()[-1].split(".")[:2] != list(map(str, sys.version_info[:2])):
        pytest.skip("needs a Python that the server's user may run")
    packages = [str(PROJECT), *(path for path in sys.path if path.endswith("site-packages"))]
    conf = data / "postgresql.auto.conf"
    python = f"PYTHONPATH={':'.join(packages)} /usr/bin/python3"
    conf.write_text(conf.read_text().replace(sys.executable, python))


def gone(pid: int) -> bool:
    return not os.path.exists(f"/proc/{pid}") or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def wait_gone(pid: int) -> None:
    wait(lambda: gone(pid))
