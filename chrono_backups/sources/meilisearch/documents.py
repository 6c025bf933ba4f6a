"""One index's documents as entries: ``documents.ndjson``, a document a line as the server writes it, and
``documents.rows``, by which the next capture knows what did not change.

What an earlier capture holds already does not come again: the entry names its stretches there. Each such capture leaves
the file in more stretches; when they have become many, all of it comes once more.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from stat import S_IFREG

from chrono_backups.errors import Damaged, EntryMissing, SourceRefused
from chrono_backups.sources.base import Earlier, StreamedEntry, Stretches
from chrono_backups.sources.meilisearch.paging import Page, Paging
from chrono_backups.sources.meilisearch.samples import Sampler
from chrono_backups.sources.meilisearch.unchanged import ROW, Unchanged, row

DOCUMENTS = "documents.ndjson"
ROWS = "documents.rows"
_FILE = S_IFREG | 0o600
_LEAST = 1024 * 1024
"""Bytes of documents below which all of them come: it saves nothing to look for what did not change."""
_STRETCH = 64
"""Bytes that a further stretch costs, in about."""
_SHARE = 32
"""The stretches may cost this part of the content; beyond, all of it comes."""
_SPOOLED = 8 * 1024 * 1024


@dataclass
class IndexCount:
    """What came of an index, for the facts."""

    documents: int = 0
    bytes: int = 0
    stretches: int = 0
    """Of the earlier documents and of this capture's, one upon another."""
    kept: int = 0
    """Documents that the earlier capture holds."""

    def to_json(self) -> dict[str, int]:
        counts = {"documents": self.documents, "bytes": self.bytes, "stretches": self.stretches, "kept": self.kept}
        return {**counts, "row_size": ROW.size}


@dataclass
class IndexDocuments:
    """The documents of one index, going through it once."""

    paging: Paging
    sampler: Sampler
    folder: str
    mtime_ns: int
    earlier: Earlier | None
    again: bool = False
    count: IndexCount = field(default_factory=IndexCount)
    gone: bool = False
    """The index was deleted meanwhile."""

    def entries(self) -> Iterator[StreamedEntry]:
        """The documents, and then their rows."""
        basis = _Basis.of(self.earlier, self.folder)
        lines = Stretches() if basis is not None else None
        rows = Stretches() if basis is not None else None
        if basis is not None:
            self.count.stretches = basis.stretches
        with tempfile.SpooledTemporaryFile(max_size=_SPOOLED) as spool:
            content = _Pieces(self._new_lines(basis.unchanged if basis else None, lines, rows, spool.write))
            yield self._entry(DOCUMENTS, -1, lines, content.read_into)
            size = spool.tell()
            spool.seek(0)
            yield self._entry(ROWS, size, rows, lambda view: spool.readinto(view) or 0)
        self.count.stretches += len(lines) if lines is not None else 0

    def _entry(
        self, name: str, size: int, stretches: Stretches | None, read_into: Callable[[memoryview], int]
    ) -> StreamedEntry:
        path = f"{self.folder}/{name}".encode()
        return StreamedEntry(
            path, _FILE, size, self.mtime_ns, stretches=stretches, again=self.again, read_into=read_into
        )

    def _new_lines(
        self,
        unchanged: Unchanged | None,
        lines: Stretches | None,
        rows: Stretches | None,
        keep_row: Callable[[bytes], object],
    ) -> Iterator[bytes]:
        """What has to come of each page; its rows go to ``keep_row``."""
        for page in self._pages():
            self.sampler.see(page)
            self.count.documents += len(page)
            if unchanged is None or lines is None or rows is None:
                yield self._all_lines(page, keep_row)
            else:
                yield self._fresh_lines(page, unchanged, lines, rows, keep_row)

    def _pages(self) -> Iterator[Page]:
        try:
            yield from self.paging.pages()
        except SourceRefused as error:
            if error.code != "index_not_found":
                raise
            self.gone = True

    def _all_lines(self, page: Page, keep_row: Callable[[bytes], object]) -> bytes:
        found = [raw + b"\n" for raw, _ in page]
        keep_row(b"".join(map(row, found)))
        content = b"".join(found)
        self.count.bytes += len(content)
        return content

    def _fresh_lines(
        self, page: Page, unchanged: Unchanged, lines: Stretches, rows: Stretches, keep_row: Callable[[bytes], object]
    ) -> bytes:
        fresh, fresh_rows = [], []
        for raw, _ in page:
            line = raw + b"\n"
            one = row(line)
            found = unchanged.find(one)
            if found is None:
                fresh.append(line)
                fresh_rows.append(one)
                lines.add(len(line))
                rows.add(ROW.size)
            else:
                lines.keep(found[0], len(line))
                rows.keep(found[1] * ROW.size, ROW.size)
                self.count.kept += 1
            self.count.bytes += len(line)
        keep_row(b"".join(fresh_rows))
        return b"".join(fresh)


@dataclass
class _Basis:
    """An earlier capture's documents, to be taken over where they did not change."""

    unchanged: Unchanged
    stretches: int

    @classmethod
    def of(cls, earlier: Earlier | None, folder: str) -> _Basis | None:
        """None where there is none, or it is not worth it."""
        if earlier is None:
            return None
        facts = earlier.facts.get("indexes", {}).get(folder.rpartition("/")[2])
        if not isinstance(facts, Mapping) or facts.get("row_size") != ROW.size:
            return None
        size, stretches = int(facts["bytes"]), int(facts["stretches"])
        if size < _LEAST or stretches * _STRETCH > size // _SHARE:
            return None
        path = f"{folder}/{ROWS}".encode()
        return cls(Unchanged(_whole(earlier, path)), stretches)


def _whole(earlier: Earlier, path: bytes) -> Iterator[bytes | memoryview]:
    """The earlier rows, as far as they can be read: what can't be is not found again, and comes."""
    try:
        yield from earlier.stream(path)
    except (Damaged, EntryMissing):
        return


class _Pieces:
    """Pieces of any length, read as a file is."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def read_into(self, view: memoryview) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count
