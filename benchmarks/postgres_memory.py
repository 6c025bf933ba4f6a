"""What a capture of a large cluster takes in memory: relation files as a base backup brings them, up to 40 GB::

    python -m benchmarks.postgres_memory              # 1, 10 and 40 GB
    python -m benchmarks.postgres_memory 4 100

No disk of that size is needed: the pages are made as they are read, each 64 KiB of them like no others, and packs
are thrown away as soon as they are sealed. All else is the real thing, in a process of its own for each size, with
the modules that a backup of PostgreSQL by the command line loads.
"""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from chrono_backups import settings
from chrono_backups.assembly import Application
from chrono_backups.backup.service import capture, plan_backup
from chrono_backups.clock import SystemClock
from chrono_backups.events import Finding, Listener
from chrono_backups.identifiers import SourceName
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.base import Earlier, StreamedEntry
from chrono_backups.sources.postgres import source as _loaded_by_every_backup  # noqa: F401
from chrono_backups.sources.postgres.base_backup import RELATION_BLOCK
from chrono_backups.storage.memory import MemoryStorage

SIZES = (1, 10, 40)
BOUND = 200
_RELATION_FILE = 1 << 30
_MESSAGE = 32 * 1024
_PAGES = (os.urandom(300) * 28)[:8192] * (RELATION_BLOCK // 8192)


class Discarding(MemoryStorage):
    """Keeps what is small. Nothing of what a large capture stores is read again by it."""

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        if not key.startswith(("packs/", "index/")):
            super().put(key, data)


class Relation:
    """A relation file of the largest size that there is."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._at = 0
        self._block = bytearray(_PAGES)

    def read_into(self, view: memoryview) -> int:
        """As ``StreamedEntry.read_into``, by as much as a server sends at a time."""
        within = self._at % RELATION_BLOCK
        if not within:
            self._block[:16] = (self._number << 32 | self._at // RELATION_BLOCK).to_bytes(16, "big")
        count = min(len(view), _RELATION_FILE - self._at, _MESSAGE - within % _MESSAGE)
        view[:count] = memoryview(self._block)[within : within + count]
        self._at += count
        return count


class Cluster:
    """A source of so many relation files."""

    name: SourceName = "postgres"
    effective: Literal["full"] = "full"
    reason = ""
    expected_bytes = None

    def __init__(self, files: int) -> None:
        self._files = files

    def probe(self) -> list[Finding]:
        return []

    @contextmanager
    def stream(self, earlier: Earlier | None, asked: str, listener: Listener) -> Iterator[Cluster]:
        yield self

    def entries(self) -> Iterator[StreamedEntry]:
        mode = stat.S_IFREG | 0o600
        for number in range(self._files):
            path = b"data/base/5/%d" % (16384 + number)
            read = Relation(number).read_into
            yield StreamedEntry(path, mode, _RELATION_FILE, block_size=RELATION_BLOCK, read_into=read)

    def facts(self) -> Mapping[str, Any]:
        return {}


def peak_of(size: int) -> float:
    """MB of memory of this process at the most, after a capture of ``size`` GB."""
    given = {
        "BACKUP_LOCAL_PATH": str(Path.cwd()),
        "BACKUP_ENCRYPTION_ENABLED": "false",
        "BACKUP_COMPRESSION_LEVEL": "1",
    }
    options = Application(settings.load(given, env_file=None)).pipeline_options("local")
    key = bytes(range(32))
    repository = Repository.create(Discarding(), algorithm="AES-256-GCM", operator_key=key, clock=SystemClock())
    plan = plan_backup(repository, "full", ["postgres"])
    outcome = capture(repository, plan, Cluster(size), options=options)
    if outcome.error is not None:
        raise SystemExit(outcome.error)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main(arguments: Sequence[str]) -> int:
    """Each size in a process of its own."""
    if arguments[:1] == ["--one"]:
        print(f"{peak_of(int(arguments[1])):.0f}")
        return 0
    print("| GB captured | peak MB | |\n|---|---|---|")
    for size in [int(one) for one in arguments] or SIZES:
        ran = [sys.executable, "-m", "benchmarks.postgres_memory", "--one", str(size)]
        peak = int(subprocess.run(ran, check=True, capture_output=True, text=True).stdout)
        print(f"| {size} | {peak} | {'met' if peak <= BOUND else '**missed**'} (≤ {BOUND}) |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
