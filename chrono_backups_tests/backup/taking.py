"""Taking backups of real trees in tests, and reading back what is stored with nothing but the repository."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from chrono_backups.backup.service import capture, commit, plan_backup
from chrono_backups.clock import Clock, SystemClock
from chrono_backups.errors import Damaged
from chrono_backups.events import Finding, Progress
from chrono_backups.identifiers import BackupType
from chrono_backups.pipeline.encryption import Algorithm
from chrono_backups.repository.listing import Extent
from chrono_backups.repository.listings import content_extents, read_listing
from chrono_backups.repository.records import Manifest, Snapshot
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.writer import PipelineOptions
from chrono_backups.sources.base import AnySource
from chrono_backups.sources.files import FilesSource
from chrono_backups.storage.base import Storage
from chrono_backups.storage.memory import MemoryStorage

KEY = bytes(range(32))
LEADING = 5_000
"""Bytes of listing that any backup may add: it lists the directories that lead to the tree, and `/tmp` changes."""
OPTIONS = PipelineOptions(workers=1, uploads=1, slots=3)


class AheadClock(SystemClock):
    """An hour ahead, so that every file was changed long before a backup: none is read for being too fresh."""

    def __init__(self, ahead: timedelta = timedelta(hours=1)) -> None:
        self.ahead = ahead

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


def new_repository(
    storage: Storage | None = None, *, algorithm: Algorithm = "AES-256-GCM", clock: Clock | None = None
) -> Repository:
    key = None if algorithm == "none" else KEY
    return Repository.create(
        storage or MemoryStorage(), algorithm=algorithm, operator_key=key, clock=clock or AheadClock()
    )


def opened(storage: Storage, clock: Clock | None = None) -> Repository:
    """The repository as a new process would open it."""
    return Repository.open(storage, operator_key=KEY, clock=clock or AheadClock())


@dataclass
class Heard:
    """A listener that remembers findings."""

    findings: list[Finding] = field(default_factory=list)

    def __call__(self, event: Progress | Finding) -> None:
        if isinstance(event, Finding):
            self.findings.append(event)

    @property
    def codes(self) -> list[str]:
        return [finding.code for finding in self.findings]


def take(
    repository: Repository,
    backup_type: BackupType,
    *sources: AnySource | Path,
    listener: Callable[[Progress | Finding], None] | None = None,
    options: PipelineOptions = OPTIONS,
) -> Manifest:
    """One whole backup."""
    chosen = [FilesSource("files", [one]) if isinstance(one, Path) else one for one in sources]
    plan = plan_backup(repository, backup_type, [source.name for source in chosen])
    outcomes = [capture(repository, plan, source, options=options, listener=listener or Heard()) for source in chosen]
    return commit(repository, plan, outcomes, trigger="test")


def snapshot_of(repository: Repository, manifest: Manifest, source: str = "files") -> Snapshot:
    summary = manifest.snapshot(source)
    assert summary is not None
    return repository.snapshot(summary.snapshot_id)


@dataclass(frozen=True)
class Thing:
    """All that a restore has to bring back of one entry."""

    mode: int
    owner: tuple[int, int]
    mtime: int
    content: bytes = b""
    link: bytes | None = None
    device: int | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


def on_disk(root: Path) -> dict[bytes, Thing]:
    """The tree below ``root``, by absolute path without the leading ``/``."""
    found: dict[bytes, Thing] = {}
    pending = [os.fsencode(root)]
    while pending:
        path = pending.pop()
        seen = os.lstat(path)
        if stat.S_ISSOCK(seen.st_mode):
            continue
        regular, link = stat.S_ISREG(seen.st_mode), stat.S_ISLNK(seen.st_mode)
        device = stat.S_ISCHR(seen.st_mode) or stat.S_ISBLK(seen.st_mode)
        names = sorted(os.fsencode(name) for name in os.listxattr(path, follow_symlinks=False))
        found[path[1:]] = Thing(
            seen.st_mode,
            (seen.st_uid, seen.st_gid),
            seen.st_mtime_ns,
            Path(os.fsdecode(path)).read_bytes() if regular else b"",
            os.readlink(path) if link else None,
            seen.st_rdev if device else None,
            tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names),
        )
        if stat.S_ISDIR(seen.st_mode):
            pending += [entry.path for entry in os.scandir(path)]
    return found


def in_repository(
    repository: Repository, snapshot: Snapshot, below: Path | None = None, *, check_sizes: bool = True
) -> dict[bytes, Thing]:
    """What the snapshot would restore, every byte fetched and decoded. Raises ``Damaged``."""
    found: dict[bytes, Thing] = {}
    start = os.fsencode(below)[1:] if below else b""
    for segment in read_listing(repository.reader, snapshot.listing):
        every = [list(content_extents(repository.reader, segment, position)) for position in range(len(segment))]
        chunks = _chunks(repository, [extent for extents in every for extent in extents])
        for position, name in enumerate(segment.names):
            path = (segment.path + b"/" + name).lstrip(b"/")
            if not (path + b"/").startswith(start + b"/" if start else b""):
                continue
            extra = segment.extras.get(position)
            content = bytearray()
            for extent in every[position]:
                part = bytes(extent.length)
                if extent.chunk_id is not None:
                    part = chunks[extent.chunk_id][extent.offset : extent.offset + extent.length]
                assert len(part) == extent.length
                content += part
            if check_sizes:
                assert len(content) == segment.size[position], path
            assert path not in found
            found[path] = Thing(
                segment.mode[position],
                (segment.uid[position], segment.gid[position]),
                segment.mtime[position],
                bytes(content),
                extra.link_target if extra else None,
                extra.device if extra else None,
                tuple(sorted(extra.xattrs.items())) if extra else (),
            )
    return found


def _chunks(repository: Repository, extents: list[Extent]) -> dict[bytes, bytes]:
    wanted = list(dict.fromkeys(extent.chunk_id for extent in extents if extent.chunk_id is not None))
    found: dict[bytes, bytes] = {}
    for chunk_id, content in zip(wanted, repository.reader.stream(wanted), strict=True):
        if isinstance(content, Damaged):
            raise content
        found[chunk_id] = bytes(content)
    return found


def hard_links(repository: Repository, snapshot: Snapshot) -> dict[bytes, bytes]:
    """Path → the path it is another name of."""
    return {
        (segment.path + b"/" + segment.names[position]).lstrip(b"/"): extra.hard_link
        for segment in read_listing(repository.reader, snapshot.listing)
        for position, extra in segment.extras.items()
        if extra.hard_link is not None
    }


def packs(storage: MemoryStorage) -> dict[str, bytes]:
    return {key: data for key, data in storage.objects.items() if key.startswith("packs/")}


def write_all(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def noise(seed: int, size: int) -> bytes:
    """``size`` bytes that don't compress, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def mixed_site(path: Path) -> Path:
    write_all(path, {f"small/{n}": noise(n, 1000 + n) for n in range(30)})
    write_all(path, {"large": noise(100, 2_000_000), "deep/er/x": b"x", "empty": b""})
    (path / "link").symlink_to("large")
    return path


def total(root: Path) -> int:
    return sum(len(thing.content) for thing in on_disk(root).values())
