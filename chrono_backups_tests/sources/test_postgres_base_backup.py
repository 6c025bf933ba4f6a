"""The stream of a base backup: archives in messages of any size, changed blocks, WAL pages of old segments."""

from __future__ import annotations

import io
import random
import stat
import struct
import tarfile
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrono_backups.errors import SourceError, SourceRefused
from chrono_backups.sources.base import StreamedEntry
from chrono_backups.sources.postgres.base_backup import BaseBackup, Tablespace, WalPages
from chrono_backups.sources.postgres.connection import Row

BLOCK = 8192
MAGIC = 0xD3AE1F0D


class Scripted:
    """A connection that answers BASE_BACKUP with these archives."""

    def __init__(self, archives: Sequence[tuple[str, bytes]], chance: random.Random, failure: str = "") -> None:
        self._archives = archives
        self._chance = chance
        self._failure = failure
        self.warnings = ['checksum verification failed in file "./base/1/2", block 3'] if failure else []
        self._after: list[list[Row]] = [[("0/2000100", "1")]]

    def begin_copy(self, statement: str) -> list[list[Row]]:
        assert statement.startswith("BASE_BACKUP (")
        return [[("0/2000028", "1")], [(None, None, "100"), ("16390", "/srv/fast", "28")]]

    def messages(self) -> Iterator[bytes]:
        for name, content in self._archives:
            yield b"m" if name == "manifest" else b"n" + name.encode() + b"\0location\0"
            yield b"p" + bytes(8)
            at = 0
            while at < len(content):
                size = self._chance.choice([1, 511, 512, 513, 32768, 100_000])
                yield b"d" + content[at : at + size]
                at += size

    def next_rows(self) -> list[Row] | None:
        return self._after.pop() if self._after else None

    def results(self) -> list[Row]:
        if self._failure:
            raise SourceRefused("checksum verification failure during base backup", code=self._failure)
        return []


def archive(members: Sequence[tuple[str, bytes | None]], links: Sequence[tuple[str, str]] = ()) -> bytes:
    """A tar archive; a member without content is a directory."""
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.mode, info.uid, info.gid, info.mtime = 0o600, 999, 998, 1_700_000_000
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o700
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        for name, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return found.getvalue()


def read(entry: StreamedEntry, chance: random.Random) -> bytes:
    content = bytearray()
    while True:
        view = memoryview(bytearray(chance.choice([1, 100, 8192, 1_000_000])))
        count = entry.read_into(view)
        if not count:
            return bytes(content)
        content += view[:count]


def taken(
    archives: Sequence[tuple[str, bytes]], seed: int = 1, *, skip_maps: bool = False, failure: str = ""
) -> tuple[BaseBackup, dict[bytes, tuple[StreamedEntry, bytes]]]:
    chance = random.Random(seed)
    connection = Scripted(archives, chance, failure)
    backup = BaseBackup(connection, block_size=BLOCK, wal_block_size=BLOCK, skip_maps=skip_maps)  # type: ignore[arg-type]
    backup.begin("LABEL 'x'")
    return backup, {entry.path: (entry, read(entry, chance)) for entry in backup.entries()}


def incremental(blocks: Sequence[int], truncated: int, pages: Sequence[bytes]) -> bytes:
    head = struct.pack("<III", MAGIC, len(blocks), truncated) + b"".join(struct.pack("<I", one) for one in blocks)
    return head + (bytes(-len(head) % BLOCK) if blocks else b"") + b"".join(pages)


@pytest.mark.parametrize("seed", range(6))
def test_archives_come_out_as_entries(seed: int) -> None:
    chance = random.Random(seed)
    relation, wide = chance.randbytes(BLOCK * 9), chance.randbytes(100_003)
    base = archive(
        [("base", None), ("base/1", None), ("base/1/1259", relation), ("postgresql.conf", b"a = 1\n"), ("empty", b"")],
        [("pg_tblspc/16390", "/srv/fast")],
    )
    space = archive([("PG_18_202506291", None), ("PG_18_202506291/5", None), ("PG_18_202506291/5/16400", wide)])
    manifest = b'{"PostgreSQL-Backup-Manifest-Version": 2}' * 3000

    backup, found = taken([("16390.tar", space), ("base.tar", base), ("manifest", manifest)], seed)

    assert {path: content for path, (entry, content) in found.items() if stat.S_ISREG(entry.mode)} == {
        b"tablespaces/16390/PG_18_202506291/5/16400": wide,
        b"data/base/1/1259": relation,
        b"data/postgresql.conf": b"a = 1\n",
        b"data/empty": b"",
        b"data/backup_manifest": manifest,
    }
    assert found[b"data/base/1/1259"][0].block_size == 65536
    assert found[b"data/postgresql.conf"][0].block_size is None
    assert found[b"data/pg_tblspc/16390"][0].link_target == b"/srv/fast"
    entry = found[b"data/base/1/1259"][0]
    assert (entry.uid, entry.gid, entry.mtime_ns) == (999, 998, 1_700_000_000_000_000_000)
    assert stat.S_IMODE(entry.mode) == 0o600
    assert stat.S_ISDIR(found[b"tablespaces/16390"][0].mode)
    assert (backup.start_lsn, backup.start_timeline) == ("0/2000028", 1)
    assert (backup.end_lsn, backup.end_timeline) == ("0/2000100", 1)
    assert backup.tablespaces == (Tablespace(16390, "/srv/fast"),)
    assert backup.expected_bytes == 128 * 1024
    assert backup.checksum_failure == ""


def test_what_is_not_read_is_passed_over() -> None:
    connection = Scripted([("base.tar", archive([("a", b"x" * 5000), ("b", b"y")]))], random.Random(3))
    backup = BaseBackup(connection, block_size=BLOCK, wal_block_size=BLOCK, skip_maps=False)  # type: ignore[arg-type]
    backup.begin("LABEL 'x'")
    paths = [entry.path for entry in backup.entries()]
    assert paths == [b"data", b"data/a", b"data/b"]


def test_changed_blocks_come_with_their_numbers() -> None:
    pages = [bytes([i]) * BLOCK for i in range(3)]
    base = archive(
        [
            ("base/1/INCREMENTAL.16384", incremental([0, 5, 6], 9, pages)),
            ("base/1/INCREMENTAL.16385", incremental([], 4, [])),
            ("base/1/INCREMENTAL.16386", incremental([7], 2, pages[:1])),
            ("base/1/INCREMENTAL.16384_vm", incremental([], 1, [])),
            ("base/1/16387_vm", b"v" * BLOCK),
            ("base/1/16387_fsm", b"f" * BLOCK),
        ]
    )
    backup, found = taken([("base.tar", base)], skip_maps=True)
    changes = {path: entry.changes for path, (entry, _) in found.items() if entry.changes is not None}
    assert {path: (list(one.blocks), one.size, one.kept) for path, one in changes.items()} == {
        b"data/base/1/16384": ([0, 5, 6], 9 * BLOCK, 9 * BLOCK),
        b"data/base/1/16385": ([], 4 * BLOCK, 4 * BLOCK),
        b"data/base/1/16386": ([7], 8 * BLOCK, 2 * BLOCK),
    }
    assert found[b"data/base/1/16384"][1] == b"".join(pages)
    assert b"data/base/1/16387_fsm" in found
    assert not any(path.endswith(b"_vm") for path in found)
    assert backup.changed_bytes == 4 * BLOCK


def test_the_label_does_not_call_a_whole_cluster_incremental() -> None:
    label = b"START WAL LOCATION: 0/2000028\nINCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\nLABEL: x\n"
    _, found = taken([("base.tar", archive([("backup_label", label)]))])
    entry, content = found[b"data/backup_label"]
    assert content == b"START WAL LOCATION: 0/2000028\nLABEL: x\n"
    assert entry.size == len(content)


def test_damaged_pages_of_the_server_are_told_and_do_not_lose_the_backup() -> None:
    backup, found = taken([("base.tar", archive([("a", b"x")]))], failure="XX001")
    assert b"data/a" in found
    assert "base/1/2" in backup.checksum_failure
    with pytest.raises(SourceRefused):
        taken([("base.tar", archive([("a", b"x")]))], failure="58P01")


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<III", 1, 0, 0),
        incremental([3, 1], 9, [bytes(BLOCK)] * 2),
        incremental([0, 1], 9, [bytes(BLOCK)]),
        incremental([0], 9, [bytes(BLOCK)] * 2),
        struct.pack("<III", MAGIC, 50, 1),
        b"short",
    ],
)
def test_an_incremental_file_that_is_none_stops_the_backup(content: bytes) -> None:
    with pytest.raises(SourceError):
        taken([("base.tar", archive([("base/1/INCREMENTAL.1", content)]))])


def test_a_damaged_or_cut_stream_stops_the_backup() -> None:
    whole = bytearray(archive([("a", b"x" * 3000)]))
    for at in (0, 130, 150, 200):
        flipped = bytearray(whole)
        flipped[at] ^= 1
        with pytest.raises(SourceError, match="damaged"):
            taken([("base.tar", bytes(flipped))])
    for end in (100, 600, 2000):
        with pytest.raises(SourceError, match="ended within"):
            taken([("base.tar", bytes(whole[:end]))])
    with pytest.raises(SourceError, match="not understood"):
        taken([("base.tar", archive([("../etc/passwd", b"x")]))])


def page(address: int, fill: int) -> bytes:
    return struct.pack("<HHIQ", 0xD118, 0, 1, address) + bytes([fill]) * (BLOCK - 16)


@given(st.integers(0, 2**40), st.lists(st.booleans(), min_size=1, max_size=6), st.integers(1, 20_000), st.booleans())
def test_pages_of_another_segment_become_zeros(base: int, own: list[bool], step: int, cut: bool) -> None:
    own = [True, *own]
    base -= base % BLOCK
    content = b"".join(page(base + i * BLOCK + (0 if mine else 1 << 30), i + 1) for i, mine in enumerate(own))
    expected = b"".join(page(base + i * BLOCK, i + 1) if mine else bytes(BLOCK) for i, mine in enumerate(own))
    if cut:
        content, expected = content[:-5000], expected[:-5000]
    left = memoryview(content)

    def read_into(view: memoryview) -> int:
        nonlocal left
        count = min(len(view), len(left), step)
        view[:count] = left[:count]
        left = left[count:]
        return count

    pages, found = WalPages(read_into), bytearray()
    view = memoryview(bytearray(step))
    while count := pages.read_into(view):
        found += view[:count]
    assert found == expected
