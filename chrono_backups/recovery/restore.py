"""Carrying out a restore of file trees.

To a directory, everything is written to a staging folder inside it and moved to its name when all of it
is on the disk: a crash leaves the staging folder, which the next restore removes, and nothing else.
In place, each file is written beside the one it replaces; batches are flushed to the disk and then take
their places, so that a crash leaves each file either old or new.

A file of which a chunk is damaged is named and left out; its neighbours are restored.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from chrono_backups.errors import Damaged, InsufficientSpace
from chrono_backups.events import Finding, Listener, Progress, silent
from chrono_backups.recovery.plan import STAGING, RestorePlan, RestoreSource, restorable
from chrono_backups.recovery.tree import AS_LISTED, FATAL, Entry, Placing, Tree
from chrono_backups.repository.listing import Extent, Segment
from chrono_backups.repository.listings import content_extents, read_listing
from chrono_backups.repository.opening import Content
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.patterns import Selection

_FINDINGS_KEPT = 1000
_FLUSH_EVERY = 128 * 1024 * 1024


@dataclass
class RestoreReport:
    """What a restore did."""

    backup_id: str
    target: str
    files: int = 0
    bytes: int = 0
    seconds: float = 0.0
    damaged: int = 0
    """Files left out because stored data is damaged or missing."""
    findings: list[Finding] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "backup_id": self.backup_id,
            "target": self.target,
            "files": self.files,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "damaged": self.damaged,
            "findings": [finding.to_json() for finding in self.findings],
        }


class Arrangement(Protocol):
    """How the staged tree of one source becomes what is asked for."""

    placing: Placing
    whole: bool
    """A damaged file is not left out: the restore fails, and leaves nothing."""

    def prepare(self) -> None:
        """Have the places outside of the staging folder that entries go to."""

    def arrange(self, staged: Path) -> Sequence[tuple[Path, Path]]:
        """Finish the tree below ``staged``; what is then to be moved where."""

    def settle(self) -> None:
        """All is moved: have nothing left over."""

    def give_up(self) -> None:
        """Remove what was written outside of the staging folder."""


Arrangements = Mapping[str, Arrangement]
"""By source; one without is moved to its destination as it is."""


def restore(
    repository: Repository, plan: RestorePlan, *, listener: Listener = silent, arrangements: Arrangements | None = None
) -> RestoreReport:
    """Carry out a plan. Raises ``TargetNotEmpty``, ``InsufficientSpace`` before the first byte.

    Where it is interrupted or fails, what it staged is removed again. ``Damaged`` where an arrangement says so.
    """
    plan.check()
    report = RestoreReport(plan.backup_id, str(plan.target))
    began = time.monotonic()
    restorer = _Restorer(repository, plan, report, listener, arrangements or {})
    try:
        if plan.in_place:
            for source in plan.sources:
                restorer.run(source, os.fsencode(plan.target), in_place=True)
        else:
            _restore_to(plan, restorer)
    except OSError as error:
        if error.errno in FATAL:
            where = f" at {os.fsdecode(error.filename)}" if error.filename else ""
            raise InsufficientSpace(
                f"the restore to {plan.target} stopped{where}: {error.strerror}",
                hint="What was staged is removed. Make room, or name another place.",
            ) from error
        raise
    report.seconds = time.monotonic() - began
    return report


def _restore_to(plan: RestorePlan, restorer: _Restorer) -> None:
    plan.target.mkdir(parents=True, exist_ok=True)
    for name in os.listdir(plan.target):
        if name.startswith(STAGING):
            shutil.rmtree(plan.target / name)
    staging = plan.target / f"{STAGING}{os.urandom(4).hex()}"
    staging.mkdir(mode=0o700)
    try:
        for arrangement in restorer.arrangements:
            arrangement.prepare()
        with _Flusher(os.fsencode(staging)) as flusher:
            for source in plan.sources:
                (staging / source.source).mkdir(mode=0o755)
                restorer.run(source, os.fsencode(staging / source.source), in_place=False, flusher=flusher)
        moves = [move for source in plan.sources for move in restorer.arranged(source, staging / source.source)]
        for place in {os.stat(one).st_dev: one for one in (staging, *(source for source, _ in moves))}.values():
            sync_file_system(os.fsencode(place))
        for staged, destination in moves:
            os.rename(staged, destination)
        for arrangement in restorer.arrangements:
            arrangement.settle()
        shutil.rmtree(staging)
        _fsync_directory(os.fsencode(plan.target))
    except BaseException:
        for arrangement in restorer.arrangements:
            arrangement.give_up()
        shutil.rmtree(staging, ignore_errors=True)
        raise


def sync_file_system(path: bytes) -> None:
    """Put on the disk all that was written to the file system of ``path``."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            os.sync()
    finally:
        os.close(descriptor)


class _Flusher:
    """Has what lies in the page cache put on the disk while more is written, so that the end need not wait for all."""

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="flush")
        self._under_way: Future[None] | None = None
        self._waiting = 0

    def __enter__(self) -> _Flusher:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def written(self, size: int) -> None:
        """So many more bytes are in the page cache."""
        self._waiting += size
        if self._waiting >= _FLUSH_EVERY and (self._under_way is None or self._under_way.done()):
            self._waiting = 0
            self._under_way = self._threads.submit(sync_file_system, self._path)


def _fsync_directory(path: bytes) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class _Task:
    entry: Entry
    extents: tuple[Extent, ...]


class _Restorer:
    def __init__(
        self,
        repository: Repository,
        plan: RestorePlan,
        report: RestoreReport,
        listener: Listener,
        arrangements: Arrangements,
    ) -> None:
        self._repository = repository
        self._arrangements = arrangements
        self._plan = plan
        self._report = report
        self._listener = listener
        self._selection = Selection(plan.patterns)

    def find(self, finding: Finding) -> None:
        """Keep a finding, and pass it on."""
        if len(self._report.findings) < _FINDINGS_KEPT:
            self._report.findings.append(finding)
        self._listener(finding)

    def run(self, source: RestoreSource, root: bytes, *, in_place: bool, flusher: _Flusher | None = None) -> None:
        """Restore one source below ``root``."""
        snapshot = self._repository.snapshot(source.snapshot_id)
        queue: deque[_Task] = deque()
        listed = read_listing(self._repository.reader, snapshot.listing)
        segments = restorable(listed, source.source, in_place=in_place)
        contents = _Contents(self._repository, self._chunk_ids(segments, queue))
        arrangement = self._arrangements.get(source.source)
        placing = AS_LISTED if arrangement is None else arrangement.placing
        tree = Tree(root, in_place=in_place, find=self.find, sync=sync_file_system, placing=placing)
        damaged, cached = self._report.damaged, 0
        try:
            while contents.advance() or queue:
                while queue:
                    self._carry_out(queue.popleft(), contents, tree, source)
                if flusher is not None:
                    flusher.written(tree.cached - cached)
                    cached = tree.cached
            tree.finish()
        finally:
            tree.close()
        if arrangement is not None and arrangement.whole and self._report.damaged > damaged:
            self._fail(source)

    def _fail(self, source: RestoreSource) -> None:
        lost = next(one for one in self._report.findings if one.code == "file-damaged")
        count = self._report.damaged
        raise Damaged(
            f"{source.source} of {self._plan.backup_id} can't be restored: {count} of its files are damaged or "
            f"missing in the repository, the first {lost.subject}",
            key=lost.subject,
            hint=f"{lost.hint} What can be read is restored as files with --path '/**'.",
        )

    def arranged(self, source: RestoreSource, staged: Path) -> Sequence[tuple[Path, Path]]:
        """Finish a source's staged tree; what is to be moved where."""
        arrangement = self._arrangements.get(source.source)
        return [(staged, source.destination)] if arrangement is None else arrangement.arrange(staged)

    @property
    def arrangements(self) -> Sequence[Arrangement]:
        """Of the sources that are restored."""
        return [self._arrangements[one.source] for one in self._plan.sources if one.source in self._arrangements]

    def _chunk_ids(self, segments: Iterator[Segment], queue: deque[_Task]) -> Iterator[bytes]:
        """Queue each entry, and yield the ids of the chunks it needs, a run of the same id once."""
        last = None
        for segment in segments:
            for position, mode in enumerate(segment.mode):
                entry = Entry.of(segment, position, self._selection)
                extents: tuple[Extent, ...] = ()
                if entry.selected and stat.S_ISREG(mode):
                    extents = tuple(content_extents(self._repository.reader, segment, position))
                elif not entry.selected and not stat.S_ISDIR(mode):
                    continue
                queue.append(_Task(entry, extents))
                for extent in extents:
                    if extent.chunk_id is not None and extent.chunk_id != last:
                        last = extent.chunk_id
                        yield last

    def _carry_out(self, task: _Task, contents: _Contents, tree: Tree, source: RestoreSource) -> None:
        damage: list[Damaged] = []

        def pieces() -> Iterator[tuple[int, memoryview]]:
            offset = 0
            for extent in task.extents:
                if extent.chunk_id is not None:
                    content = contents.get(extent.chunk_id)
                    if isinstance(content, Damaged):
                        damage.append(content)
                    elif not damage:
                        yield offset, memoryview(content)[extent.offset : extent.offset + extent.length]
                offset += extent.length

        report = self._report
        written = tree.restore(task.entry, pieces(), lambda: not damage)
        if damage:
            report.damaged += 1
            hint = f"It is left out ({damage[0].key}). Restore it from another storage or backup."
            message = "its stored data is damaged or missing"
            self.find(Finding("file-damaged", "error", task.entry.shown, message, hint))
        elif written is not None:
            report.files += 1
            report.bytes += written
        done = Progress("restore", source.source, report.bytes, report.files, self._plan.bytes, self._plan.files)
        self._listener(done)


class _Contents:
    """The chunks of ``ids`` in order; the current one may be asked for again and again."""

    def __init__(self, repository: Repository, ids: Iterator[bytes]) -> None:
        self._asked: deque[bytes] = deque()
        self._stream = repository.reader.stream(self._noted(ids))
        self._next: Content | None = None
        self._current: Content | None = None
        self._current_id: bytes | None = None

    def _noted(self, ids: Iterator[bytes]) -> Iterator[bytes]:
        for chunk_id in ids:
            self._asked.append(chunk_id)
            yield chunk_id

    def advance(self) -> bool:
        """Have the next chunk at hand, which queues the entries before it; False at the end."""
        if self._next is None:
            self._next = next(self._stream, None)
        return self._next is not None

    def get(self, chunk_id: bytes) -> Content:
        """The content of that chunk: the current one, or the next in order."""
        if chunk_id != self._current_id:
            if not self.advance() or self._asked.popleft() != chunk_id:
                raise AssertionError("chunks are asked for in another order than they were announced")
            self._current, self._current_id, self._next = self._next, chunk_id, None
        assert self._current is not None
        return self._current
