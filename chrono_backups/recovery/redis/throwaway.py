"""A Redis server of a drill's own: in a throwaway directory, on a free port of this machine, with its own secret."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import SecretStr

from chrono_backups.errors import RestoreError, SourceError, SourceRefused
from chrono_backups.sources.redis.connection import RedisConnection, find_server
from chrono_backups.sources.settings import RedisSettings

_PROGRAMS = ("redis-server", "valkey-server")
_USUAL = ("/usr/bin", "/usr/local/bin", "/usr/sbin", "/usr/local/sbin", "/opt/redis/bin", "/opt/valkey/bin")
_START_PATIENCE = 60.0
_END_PATIENCE = 20.0
_TRIES = 3
_SHOWN = 1000
_FIRST_WITH_GUARDED_DEBUG = 7
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


def find_program(folders: Sequence[Path]) -> Path:
    """The server's program, from the folders named, ``PATH`` or the usual places. Raises ``RestoreError``."""
    places = [str(folder) for folder in folders] or [*os.environ.get("PATH", "").split(os.pathsep), *_USUAL]
    for name in _PROGRAMS:
        found = shutil.which(name, path=os.pathsep.join(places))
        if found is not None:
            return Path(found)
    where = ", ".join(map(str, folders)) or "PATH and the usual places"
    raise RestoreError(
        f"a drill of Redis needs redis-server, and there is none in {where}",
        hint="Install it (apt install redis-server), or set BACKUP_REDIS_BIN_DIR to its folder.",
    )


def program_version(program: Path) -> tuple[int, int]:
    """Major and minor. Raises ``RestoreError`` where it can't be run."""
    try:
        ran = subprocess.run(  # noqa: S603 - the operator's own program
            [str(program), "--version"], capture_output=True, text=True, check=False, timeout=_START_PATIENCE
        )
    except OSError as error:
        raise RestoreError(f"{program} can't be run: {error.strerror}", hint="Set BACKUP_REDIS_BIN_DIR.") from error
    found = re.search(r"v=(\d+)\.(\d+)", ran.stdout)
    if found is None:
        raise RestoreError(f"{program} is no Redis server", hint="Set BACKUP_REDIS_BIN_DIR to the folder of one.")
    return int(found[1]), int(found[2])


@contextmanager
def throwaway(program: Path, directory: Path, databases: int) -> Iterator[RedisSettings]:
    """A server that runs, empty, until the context is left; how it is reached. Raises ``RestoreError``."""
    directory.mkdir(parents=True, exist_ok=True)
    version = program_version(program)
    for attempt in range(1, _TRIES + 1):
        settings = RedisSettings(
            host="127.0.0.1", port=_free_port(), password=SecretStr(secrets.token_urlsafe(24)), tls=False
        )
        process = _start(program, directory, settings, databases, version)
        try:
            if _answers(process, settings):
                yield settings
                return
        finally:
            _end(process)
        if attempt == _TRIES:
            raise RestoreError(
                f"{program} did not start: {_last_words(directory)}",
                hint="See that BACKUP_REDIS_BIN_DIR has a Redis server that this machine can run.",
            )


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def _start(
    program: Path, directory: Path, settings: RedisSettings, databases: int, version: tuple[int, int]
) -> subprocess.Popen[bytes]:
    assert settings.password is not None
    lines = [
        "bind 127.0.0.1",
        f"port {settings.port}",
        f"requirepass {settings.password.get_secret_value()}",
        f"databases {max(16, databases)}",
        'save ""',
        "appendonly no",
        "daemonize no",
        "repl-diskless-sync yes",
        "repl-diskless-sync-delay 0",
        "dir .",
        "pidfile server.pid",
        *(["enable-debug-command local"] if version[0] >= _FIRST_WITH_GUARDED_DEBUG else []),
    ]
    config = directory / "redis.conf"
    config.touch(mode=0o600)
    config.write_text("".join(f"{line}\n" for line in lines))
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    with (directory / "log").open("wb") as log:
        return subprocess.Popen(  # noqa: S603 - the operator's own program
            [str(program), str(config)], cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, start_new_session=True,
        )  # fmt: skip


def _answers(process: subprocess.Popen[bytes], settings: RedisSettings) -> bool:
    """Whether it answers within a while; only the server that has our secret does."""
    until = time.monotonic() + _START_PATIENCE
    while process.poll() is None and time.monotonic() < until:
        with suppress(SourceError), RedisConnection.open(settings, find_server(settings)) as connection:
            connection.ask("PING")
            with suppress(SourceRefused):  # a key whose time passes is to be found as it was captured
                connection.ask("DEBUG", "SET-ACTIVE-EXPIRE", "0")
            return True
        time.sleep(0.02)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_words(directory: Path) -> str:
    with suppress(OSError):
        return (directory / "log").read_bytes()[-_SHOWN:].decode(errors="replace").strip() or "it said nothing"
    return "it said nothing"
