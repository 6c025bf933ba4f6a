"""The source ``configuration``: named files, and beside them what the servers say of their own configuration.

Files keep their absolute paths. What a server says is listed below ``server-settings/NAME/``; it is there to be read,
and never put back in place. A server that does not answer is a finding: the files are captured all the same.
"""

from __future__ import annotations

import heapq
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from chrono_backups.clock import Clock
from chrono_backups.errors import SourceError
from chrono_backups.events import Finding, Listener
from chrono_backups.identifiers import SourceName
from chrono_backups.pipeline.attributes import Attributes
from chrono_backups.sources.base import PLAIN, Capture, Content, Description, Directory
from chrono_backups.sources.files import FilesSource

FOLDER = b"server-settings"
"""The directory, at the source's root, of what servers say."""

Told = Callable[[Listener], Mapping[str, bytes]]
"""Asks one server: name of a file → its content. Raises ``SourceError``."""


class ConfigurationSource:
    """Named files, and what servers say of themselves."""

    name: SourceName = "configuration"

    def __init__(
        self, paths: Sequence[Path], servers: Mapping[str, Told], *, clock: Clock, never: Sequence[Path] = ()
    ) -> None:
        """``servers``: by the name of their folder. ``never``: places that are left out whatever is asked."""
        self._files = FilesSource("configuration", paths, never=never, single_files=True, cut=FOLDER) if paths else None
        self._paths = tuple(paths)
        self._servers = servers
        self._clock = clock

    def probe(self) -> list[Finding]:
        """Of the files; each server's own source looks after the server."""
        return self._files.probe() if self._files is not None else []

    @contextmanager
    def capture(self, listener: Listener) -> Iterator[Capture]:
        """Raises ``SourceError`` naming every path that can't be captured, or where nothing at all is found."""
        if self._servers and any(FOLDER.decode() in path.resolve().parts[1:2] for path in self._paths):
            raise SourceError(
                f"/{FOLDER.decode()} can't be captured: what servers say of their configuration has that name",
                source="configuration",
                hint="Move it, or take it out of BACKUP_CONFIGURATION_PATHS.",
            )
        told: dict[str, Mapping[str, bytes]] = {}
        for name, ask in sorted(self._servers.items()):
            try:
                told[name] = ask(listener)
            except SourceError as error:
                if self._files is None and len(self._servers) == 1:
                    raise
                message = f"its configuration is not in this backup: {error.message}"
                listener(Finding("server-settings-missing", "error", name, message, error.hint))
        with ExitStack() as stack:
            files = stack.enter_context(self._files.capture(listener)) if self._files is not None else None
            yield _Capture(files, told, int(self._clock.now().timestamp() * 1e9))


class _Capture:
    def __init__(self, files: Capture | None, told: Mapping[str, Mapping[str, bytes]], now_ns: int) -> None:
        self._files = files
        self._told = told
        self._now = now_ns

    def facts(self) -> Mapping[str, Any]:
        paths = dict(self._files.facts()) if self._files is not None else {"paths": []}
        return {**paths, "servers": {name: sorted(files) for name, files in self._told.items()}}

    def directories(self) -> Iterator[Directory]:
        files = self._files.directories() if self._files is not None else iter(())
        return heapq.merge(files, self._made(), key=_place)

    def _made(self) -> Iterator[Directory]:
        if not self._told:
            return
        yield _Made(b"", {FOLDER: None}, self._now)
        yield _Made(FOLDER, {name.encode(): None for name in sorted(self._told)}, self._now)
        for name, files in sorted(self._told.items()):
            content: dict[bytes, bytes | None] = {file.encode(): files[file] for file in sorted(files)}
            yield _Made(FOLDER + b"/" + name.encode(), content, self._now)


def _place(directory: Directory) -> tuple[bytes, bytes]:
    """Where a directory's stretch comes in the order of the listing."""
    return directory.path.replace(b"/", b"\0"), directory.attributes.names[0]


class _Made:
    """A directory that exists in no file system. Names without content are directories."""

    leading = False
    linked: Mapping[int, tuple[int, int]] = {}

    def __init__(self, path: bytes, entries: Mapping[bytes, bytes | None], now_ns: int) -> None:
        """``now_ns``: the entries' times, so that none is ever taken for one that was captured before."""
        self.path = path
        self._contents = [content or b"" for content in entries.values()]
        modes = [stat.S_IFDIR | 0o700 if content is None else stat.S_IFREG | 0o600 for content in entries.values()]
        count = len(entries)
        nothing, times = [0] * count, [now_ns] * count
        columns = [modes, nothing, nothing, list(map(len, self._contents)), times, times, nothing]
        self.attributes = Attributes.build(list(entries), columns)

    def read_ahead(self, positions: Sequence[int]) -> None:
        """All is at hand."""

    def describe(self, _position: int) -> Description:
        return PLAIN

    def read_small(self, position: int, view: memoryview) -> tuple[int, Description, Finding | None]:
        content = self._contents[position]
        if len(content) > len(view):
            return -1, PLAIN, None
        view[: len(content)] = content
        return len(content), PLAIN, None

    def open(self, position: int) -> Content:
        return _MadeContent(self._contents[position])

    def close(self) -> None:
        """Nothing is open."""


class _MadeContent:
    block_size: int | None = None

    def __init__(self, content: bytes) -> None:
        self._content = content

    def parts(self) -> Sequence[tuple[int, int]]:
        return [(0, len(self._content))] if self._content else []

    def size(self) -> int:
        return len(self._content)

    def read_into(self, offset: int, view: memoryview) -> int:
        part = self._content[offset : offset + len(view)]
        view[: len(part)] = part
        return len(part)

    def close(self) -> Finding | None:
        return None
