"""The demo's Redis: the machine's own ``redis-server`` in a temporary directory, gone at the end."""

import secrets
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import redis

from demo.database import free_port

_PATIENCE = 60.0


class CacheFailed(Exception):
    """The server did not start; carries what it said."""


class Cache:
    """A server with a password, empty; a context. ``program`` is what ``find`` has found."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self.port = free_port()
        self.password = secrets.token_urlsafe(18)
        self.place = Path(tempfile.mkdtemp(prefix="chrono-demo-redis-"))
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def find() -> Path | None:
        """The program; None where the machine has none."""
        found = shutil.which("redis-server")
        return Path(found) if found else None

    def __enter__(self) -> "Cache":
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the server and remove what it left."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()  # it holds nothing that is to outlive it
            self._process.wait()
        shutil.rmtree(self.place, ignore_errors=True)

    def client(self) -> redis.Redis:
        return redis.Redis(host="127.0.0.1", port=self.port, password=self.password, socket_timeout=_PATIENCE)

    @property
    def version(self) -> str:
        answer = self.client().execute_command("INFO", "server")
        return str(answer["redis_version"])

    def settings(self) -> dict[str, str]:
        """How the product is told to reach it, and where the program is that a drill starts."""
        return {
            "BACKUP_REDIS_HOST": "127.0.0.1",
            "BACKUP_REDIS_PORT": str(self.port),
            "BACKUP_REDIS_PASSWORD": self.password,
            "BACKUP_REDIS_BIN_DIR": str(self.program.parent),
        }

    def _start(self) -> None:
        conf = self.place / "redis.conf"  # a password among the arguments could be read by everybody
        conf.touch(mode=0o600)
        conf.write_text(
            f'bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\ndir {self.place}\nsave ""\n'
            "appendonly no\ndaemonize no\nrepl-diskless-sync yes\nrepl-diskless-sync-delay 0\n"
        )
        log = self.place / "server.log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [str(self.program), str(conf)],
                cwd=self.place, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                self.client().ping()
                return
            except redis.RedisError as error:
                if self._process.poll() is not None or time.monotonic() > until:
                    said = log.read_text(errors="replace")[-2000:]
                    raise CacheFailed(f"redis-server does not answer: {error}\n{said}") from error
                time.sleep(0.05)
