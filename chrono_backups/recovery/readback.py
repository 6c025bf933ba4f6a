"""Reading back what a restore wrote, and holding it against what was captured.

A restore opens and checks every chunk; this says that what came to lie on the disk is the same, byte for byte, with
its attributes.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from chrono_backups.events import Finding, Listener, Progress
from chrono_backups.recovery.browse import join
from chrono_backups.repository.listing import NOTHING_EXTRA, Extent, Extra, Segment
from chrono_backups.repository.listings import content_extents, read_listing
from chrono_backups.repository.records import Snapshot
from chrono_backups.repository.repository import Repository

_FINDINGS_MOST = 100


@dataclass
class ReadBack:
    """What was compared."""

    entries: int = 0
    files: int = 0
    bytes: int = 0
    different: int = 0
    findings: list[Finding] = field(default_factory=list)
    """Of the first that differ."""


def read_back(repository: Repository, snapshot: Snapshot, root: Path, *, listener: Listener) -> ReadBack:
    """Compare the tree below ``root`` with all of a snapshot's listing. Raises ``Damaged``."""
    comparison = _Comparison(repository, snapshot, root)
    total = snapshot.statistics
    for segment in read_listing(repository.reader, snapshot.listing):
        for position in range(len(segment)):
            comparison.entry(segment, position)
        done = comparison.done
        listener(Progress("compare", snapshot.source, done.bytes, done.files, total.bytes_total, total.files))
    return comparison.done


class _Comparison:
    def __init__(self, repository: Repository, snapshot: Snapshot, root: Path) -> None:
        self._repository = repository
        self._source = snapshot.source
        self._root = os.fsencode(root)
        self.done = ReadBack()
        self._chunk_id: bytes | None = None
        self._chunk: bytes | memoryview = b""

    def entry(self, segment: Segment, position: int) -> None:
        path = join(segment.path, segment.names[position])
        self.done.entries += 1
        why = self._compare(self._root + b"/" + path, segment, position)
        if why:
            self.done.different += 1
            if len(self.done.findings) < _FINDINGS_MOST:
                shown = f"{self._source}: /{path.decode('utf-8', 'backslashreplace')}"
                self.done.findings.append(Finding("drill-different", "error", shown, why))

    def _compare(self, path: bytes, segment: Segment, position: int) -> str:
        """How the entry differs; empty where it does not."""
        mode, extra = segment.mode[position], segment.extras.get(position, NOTHING_EXTRA)
        owner = segment.uid[position], segment.gid[position]
        try:
            found = os.lstat(path)
            checks = (
                (found.st_mode != mode, f"its mode is {found.st_mode:o}, and was {mode:o}"),
                (os.geteuid() == 0 and (found.st_uid, found.st_gid) != owner, "it has another owner"),
                (not stat.S_ISDIR(mode) and found.st_mtime_ns != segment.mtime[position], "it has another time"),
                (stat.S_ISLNK(mode) and os.readlink(path) != extra.link_target, "it leads elsewhere"),
                (stat.S_ISREG(mode) and found.st_size != segment.size[position], f"it has {found.st_size} bytes"),
            )
            why = next((words for differs, words in checks if differs), "")
            if why or not stat.S_ISREG(mode):
                return why
            self.done.files += 1
            return self._content(path, segment, position, extra)
        except OSError as error:
            return error.strerror or str(error)

    def _content(self, path: bytes, segment: Segment, position: int, extra: Extra) -> str:
        if extra.hard_link is not None:  # compared under its first name
            return ""
        keys = self._repository.keys
        with open(path, "rb") as file:  # noqa: PTH123 - a path of bytes
            for extent in content_extents(self._repository.reader, segment, position):
                content = file.read(extent.length)
                self.done.bytes += len(content)
                whole = len(content) == segment.size[position]
                if whole and keys.content_hash(content) == segment.content_hash(position):
                    continue
                if not self._same(content, extent):
                    return f"its content differs before byte {file.tell()}"
        return ""

    def _same(self, content: bytes, extent: Extent) -> bool:
        if extent.chunk_id is None:
            return not content.strip(b"\0") and len(content) == extent.length
        if self._repository.keys.chunk_id(content) == extent.chunk_id:
            return True
        # A part of a chunk has no id of its own.
        if self._chunk_id != extent.chunk_id:
            self._chunk, self._chunk_id = self._repository.reader.read(extent.chunk_id), extent.chunk_id
        return bytes(memoryview(self._chunk)[extent.offset : extent.offset + extent.length]) == content
