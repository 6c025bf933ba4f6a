"""Files that come in stretches: whatever the source takes from where, the whole is what it says."""

from __future__ import annotations

import random
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrono_backups.backup.overlay import put_together
from chrono_backups.errors import SourceError
from chrono_backups.events import Finding, Listener
from chrono_backups.identifiers import SourceName
from chrono_backups.repository.listing import Extent
from chrono_backups.sources.base import Earlier, StreamedCapture, StreamedEntry, Stretches
from chrono_backups_tests.backup.taking import in_repository, new_repository, noise, snapshot_of, take

FILE = stat.S_IFREG | 0o600
_CHUNKS = {bytes([number]) * 32: random.Random(number).randbytes(40) for number in range(1, 9)}


def bytes_of(extents: list[Extent]) -> bytes:
    return b"".join(
        bytes(one.length) if one.chunk_id is None else _CHUNKS[one.chunk_id][one.offset : one.offset + one.length]
        for one in extents
    )


def extents_of(chance: random.Random, count: int) -> list[Extent]:
    found = []
    for _ in range(count):
        chunk = chance.choice([None, *_CHUNKS])
        offset = 0 if chunk is None else chance.randrange(30)
        found.append(Extent(chunk, offset, chance.randint(1, 10)))
    return found


@given(st.randoms(use_true_random=False))
def test_the_whole_is_what_the_stretches_say(chance: Any) -> None:
    old, new = extents_of(chance, chance.randrange(20)), extents_of(chance, chance.randrange(20))
    before, came = bytes_of(old), bytes_of(new)
    stretches, expected, at, used = Stretches(), b"", 0, 0
    while True:
        if chance.random() < 0.5 and at < len(before):
            at += chance.randrange(min(5, len(before) - at))
            length = chance.randint(1, len(before) - at)
            stretches.keep(at, length)
            expected += before[at : at + length]
            at += length
        elif used < len(came):
            length = chance.randint(1, len(came) - used)
            stretches.add(length)
            expected += came[used : used + length]
            used += length
        if used == len(came) and (at == len(before) or chance.random() < 0.3):
            break
    found = list(put_together(iter(old), stretches, new))
    assert bytes_of(found) == expected
    assert stretches.kept + stretches.new == len(expected)


def test_stretches_that_lead_nowhere_are_refused() -> None:
    old = [Extent(bytes([1]) * 32, 0, 10)]
    beyond, back = Stretches(), Stretches()
    beyond.keep(5, 6)
    back.keep(5, 2)
    back.keep(0, 2)
    for stretches in (beyond, back):
        with pytest.raises(SourceError):
            list(put_together(old, stretches, []))


class Comparing:
    """A source that keeps what it can of a file, and may give it again."""

    name: SourceName = "meilisearch"
    compares: Literal[True] = True

    def __init__(self) -> None:
        self.content = noise(1, 3_000_000)
        self.before = b""
        self.again = False
        self.offered: list[str | None] = []

    def probe(self) -> list[Finding]:
        return []

    @contextmanager
    def stream(self, earlier: Earlier | None, asked: str, listener: Listener) -> Iterator[StreamedCapture]:
        self.offered.append(asked if earlier else None)
        if earlier is not None:
            assert b"".join(earlier.stream(b"file")) == earlier.read(b"file") == self.before
        yield _Capture(self, earlier)
        self.before = self.content


class _Capture:
    effective: Literal["full"] = "full"
    reason = ""
    expected_bytes = None

    def __init__(self, source: Comparing, earlier: Earlier | None) -> None:
        self._source = source
        self._earlier = earlier

    def entries(self) -> Iterator[StreamedEntry]:
        if self._source.again:
            yield self._entry(b"first try", None, again=False)
        yield self._source_entry(again=self._source.again)

    def _source_entry(self, *, again: bool) -> StreamedEntry:
        content, before = self._source.content, self._source.before
        if self._earlier is None:
            return self._entry(content, None, again=again)
        stretches, fresh, at = Stretches(), b"", 0
        for at in range(0, len(content), 1000):
            piece = content[at : at + 1000]
            if before[at : at + 1000] == piece:
                stretches.keep(at, len(piece))
            else:
                stretches.add(len(piece))
                fresh += piece
        return self._entry(fresh, stretches, again=again)

    def _entry(self, content: bytes, stretches: Stretches | None, *, again: bool) -> StreamedEntry:
        left = memoryview(content)

        def read_into(view: memoryview) -> int:
            nonlocal left
            count = min(len(view), len(left))
            view[:count], left = left[:count], left[count:]
            return count

        return StreamedEntry(b"file", FILE, -1, stretches=stretches, again=again, read_into=read_into)

    def facts(self) -> Mapping[str, Any]:
        return {}


def test_a_full_backup_is_offered_the_earlier_one_and_stores_what_changed() -> None:
    repository, source = new_repository(), Comparing()
    take(repository, "full", source)
    content = bytearray(source.content)
    for at in range(0, 3_000_000, 10_000):
        content[at] ^= 1
    source.content = bytes(content)
    manifest = take(repository, "full", source)
    assert source.offered == [None, "full"]
    assert manifest.statistics.bytes_stored < 340_000
    assert manifest.statistics.bytes_read == manifest.statistics.bytes_total == 3_000_000
    found = in_repository(repository, snapshot_of(repository, manifest, "meilisearch"))
    assert found[b"file"].content == source.content


def test_an_entry_may_come_again_in_the_place_of_the_first() -> None:
    repository, source = new_repository(), Comparing()
    source.again = True
    manifest = take(repository, "full", source)
    found = in_repository(repository, snapshot_of(repository, manifest, "meilisearch"))
    assert found[b"file"].content == source.content and manifest.statistics.files == 1
