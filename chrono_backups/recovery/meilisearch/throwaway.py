"""A Meilisearch of a drill's own: started in a throwaway directory on a free port of this machine, and ended."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chrono_backups.clock import Clock
from chrono_backups.errors import RestoreError, SourceError
from chrono_backups.sources.meilisearch.client import Meilisearch, Server

PROGRAM = "meilisearch"
_START_PATIENCE = 60.0
_END_PATIENCE = 20.0
_TRIES = 3
_SHOWN = 2000
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT")


def find_program(named: Path | None) -> Path | None:
    """The server's program: the one that is named, else that in ``PATH``; None where there is none."""
    if named is not None:
        return named if os.access(named, os.X_OK) and named.is_file() else None
    found = shutil.which(PROGRAM)
    return Path(found) if found else None


@contextmanager
def throwaway(program: Path, directory: Path, clock: Clock) -> Iterator[Server]:
    """A server that runs, with a master key of its own, until the context is left. Raises ``RestoreError``."""
    directory.mkdir(parents=True, exist_ok=True)
    key = secrets.token_urlsafe(24)
    for attempt in range(1, _TRIES + 1):
        server = Server(f"http://127.0.0.1:{_free_port()}", key)
        process = _start(program, directory, server)
        try:
            if _answers(process, server, clock):
                yield server
                return
        finally:
            _end(process)
        if attempt == _TRIES:
            raise RestoreError(
                f"{program} did not start: {_last_words(directory)}",
                hint="See that BACKUP_MEILISEARCH_BIN is the program of a Meilisearch that this machine can run.",
            )


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def _start(program: Path, directory: Path, server: Server) -> subprocess.Popen[bytes]:
    words = [str(program), "--http-addr", server.url.removeprefix("http://"), "--env", "development", "--no-analytics"]
    for option, name in (("--db-path", "data.ms"), ("--dump-dir", "dumps"), ("--snapshot-dir", "snapshots")):
        words += [option, str(directory / name)]
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environment |= {"MEILI_MASTER_KEY": server.key or "", "HOME": str(directory)}
    with (directory / "log").open("wb") as log:
        return subprocess.Popen(  # noqa: S603 - the operator names the program
            words, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip


def _answers(process: subprocess.Popen[bytes], server: Server, clock: Clock) -> bool:
    """Whether it answers within a while; it is asked for what only its own key gives."""
    end = time.monotonic() + _START_PATIENCE
    with Meilisearch(server, clock, attempts=1) as asked:
        while process.poll() is None and time.monotonic() < end:
            with suppress(SourceError):
                asked.get("/version")
                return True
            time.sleep(0.05)
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
