"""A base backup as it comes over the replication protocol: its messages, and the tar archives in them.

Sources: PostgreSQL documentation, "Streaming Replication Protocol", BASE_BACKUP; POSIX ustar for the archives;
``src/include/backup/basebackup_incremental.h`` for the header of a file of which only changed blocks come.

A file ``INCREMENTAL.<name>`` begins with ``magic u32 | count u32 | truncation length u32 | count × block number u32``
in the server's byte order (another one is told by the magic); where there are blocks, zeros up to the next multiple
of the block size follow, and then the blocks.
"""

from __future__ import annotations

import stat
import struct
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from chrono_backups.errors import SourceError, SourceRefused
from chrono_backups.sources.base import Changes, StreamedEntry
from chrono_backups.sources.postgres.connection import ReplicationConnection, Row

RELATION_BLOCK = 64 * 1024
"""Bytes of a relation file's chunks: eight pages, so that a page that changed stores little beside itself anew."""
WAL_BLOCK = 256 * 1024
_INCREMENTAL_MAGIC = 0xD3AE1F0D
_PREFIX = b"INCREMENTAL."
_TAR_BLOCK = 512
_RELATION_FOLDERS = (b"base/", b"global/", b"pg_tblspc/", b"PG_")
_PAGE_HEADER = struct.Struct("<HHIQ")
_WAL_PAGE = 8192
"""The only size of a WAL page that is looked into; a server can be built with another."""
_SEGMENT_NAME = 24
_DATA_CORRUPTED = "XX001"


@dataclass(frozen=True)
class Tablespace:
    """One beside the cluster's own: its oid and where it lies on the server."""

    oid: int
    path: str


class BaseBackup:
    """One BASE_BACKUP under way on a connection, which it has for itself."""

    def __init__(
        self, connection: ReplicationConnection, *, block_size: int, wal_block_size: int, skip_maps: bool
    ) -> None:
        """``skip_maps``: leave visibility maps out, as an incremental one must."""
        self._connection = connection
        self._block_size = block_size
        self._wal_block_size = wal_block_size
        self._skip_maps = skip_maps
        self.checksum_failure = ""
        """What the server said of pages whose checksums are wrong; empty where there were none."""
        self.start_lsn = ""
        self.start_timeline = 0
        self.end_lsn = ""
        self.end_timeline = 0
        self.tablespaces: tuple[Tablespace, ...] = ()
        self.expected_bytes: int | None = None
        self.changed_bytes = 0
        """Of blocks that came for files that had changed."""
        self.manifest = bytearray()

    def begin(self, options: str) -> None:
        """Start it; the server makes a checkpoint first. Raises ``SourceRefused``."""
        before = self._connection.begin_copy(f"BASE_BACKUP ({options})")
        if len(before) < 2 or not before[0]:
            raise SourceError("the server's answer to BASE_BACKUP is not understood", source="postgres")
        self.start_lsn, self.start_timeline = _position(before[0][0])
        spaces = [row for row in before[1] if row[0] is not None]
        self.tablespaces = tuple(Tablespace(int(row[0] or 0), row[1] or "") for row in spaces)
        sizes = [int(row[2]) for row in before[1] if row[2] is not None]
        self.expected_bytes = sum(sizes) * 1024 if sizes else None

    def entries(self) -> Iterator[StreamedEntry]:
        """All entries, below ``data`` and ``tablespaces/<oid>``, the manifest last. Then the end is known."""
        messages = _Messages(self._connection.messages())
        yield StreamedEntry(b"data", stat.S_IFDIR | 0o700)
        while (archive := messages.next_archive()) is not None:
            if archive == "manifest":
                continue
            yield from self._archive(messages, _archive_root(archive))
        self.manifest = messages.manifest
        self._end()
        if self.manifest:
            content = _Bytes(self.manifest)
            yield StreamedEntry(
                b"data/backup_manifest", stat.S_IFREG | 0o600, size=len(self.manifest), read_into=content.read_into
            )

    def _end(self) -> None:
        for row in self._connection.next_rows() or []:
            self.end_lsn, self.end_timeline = _position(row)
        if not self.end_lsn:
            raise SourceError("the server ended the base backup without saying where it ends", source="postgres")
        try:
            self._connection.results()
        except SourceRefused as error:
            # Said when everything has been sent. The only backup of a damaged cluster is better than none.
            if error.code != _DATA_CORRUPTED:
                raise
            self.checksum_failure = "; ".join([error.message, *self._connection.warnings])

    def _archive(self, messages: _Messages, root: bytes) -> Iterator[StreamedEntry]:
        """The entries of one tar archive."""
        if root != b"data":
            yield StreamedEntry(root, stat.S_IFDIR | 0o700)
        while (header := messages.take(_TAR_BLOCK, at_end=True)) is not None:
            member = _Member.of(header)
            if member is None:  # two blocks of zeros end an archive; some servers leave them out
                continue
            messages.begin_member(member.size)
            entry = self._entry(messages, root, member)
            if entry is not None:
                yield entry
            messages.end_member()

    def _entry(self, messages: _Messages, root: bytes, member: _Member) -> StreamedEntry | None:
        path = root + b"/" + member.name
        directory, _, name = member.name.rpartition(b"/")
        if member.kind != "file":
            kind = stat.S_IFDIR if member.kind == "directory" else stat.S_IFLNK
            return StreamedEntry(
                path, kind | member.mode, 0, member.mtime_ns, member.uid, member.gid, member.link_target
            )
        if self._skip_maps and name.removeprefix(_PREFIX).split(b".")[0].endswith(b"_vm"):
            return None
        changes, size, block = None, member.size, None
        read_into: Callable[[memoryview], int] = messages.read_into
        if member.name == b"backup_label":
            label = _whole_label(messages.content(member.size))
            size, read_into = len(label), _Bytes(label).read_into
        elif name.startswith(_PREFIX):
            changes, size = self._changes(messages, member)
            path = b"/".join(part for part in (root, directory, name.removeprefix(_PREFIX)) if part)
            self.changed_bytes += size
        elif directory == b"pg_wal":
            block = WAL_BLOCK
            if len(name) == _SEGMENT_NAME and self._wal_block_size == _WAL_PAGE:
                read_into = WalPages(messages.read_into).read_into
        elif member.name.startswith(_RELATION_FOLDERS):
            block = RELATION_BLOCK
        return StreamedEntry(
            path,
            stat.S_IFREG | member.mode,
            size,
            member.mtime_ns,
            member.uid,
            member.gid,
            block_size=block,
            changes=changes,
            read_into=read_into,
        )

    def _changes(self, messages: _Messages, member: _Member) -> tuple[Changes, int]:
        """The header of a file that comes as its changed blocks; how many bytes of blocks follow."""
        magic, count, truncated = struct.unpack("<III", messages.content(12))
        if magic != _INCREMENTAL_MAGIC:
            raise SourceError(f"{member.name.decode(errors='replace')} is no incremental file", source="postgres")
        blocks = array("I", messages.content(4 * count))
        if list(blocks) != sorted(blocks):
            raise SourceError(
                f"the blocks of {member.name.decode(errors='replace')} are not in order", source="postgres"
            )
        head = 12 + 4 * count
        if count:
            messages.content(-head % self._block_size)
        following = count * self._block_size
        if messages.left != following:
            raise SourceError(
                f"{member.name.decode(errors='replace')} has {messages.left} bytes of blocks, not {following}",
                source="postgres",
            )
        kept = truncated * self._block_size
        size = max(kept, (blocks[-1] + 1) * self._block_size if count else 0)
        return Changes(self._block_size, blocks, size, kept), following


def _whole_label(content: bytes) -> bytes:
    """A backup label that does not call the data directory an incremental one: what is listed is whole."""
    lines = content.splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith(b"INCREMENTAL FROM "))


def _position(row: Row) -> tuple[str, int]:
    return row[0] or "", int(row[1] or 0)


def _archive_root(archive: str) -> bytes:
    if archive == "base.tar":
        return b"data"
    return b"tablespaces/" + archive.removesuffix(".tar").encode()


@dataclass(frozen=True, slots=True)
class _Member:
    """One header of a tar archive."""

    name: bytes
    kind: Literal["file", "directory", "link"]
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link_target: bytes | None

    @classmethod
    def of(cls, header: bytes) -> _Member | None:
        """None for a block of zeros. Raises ``SourceError`` where it is no header."""
        if not header.strip(b"\0"):
            return None
        if sum(header[:148]) + sum(header[156:]) + 8 * 32 != _number(header[148:156]):
            raise SourceError(
                "the stream of the base backup is damaged: a tar header's sum is wrong", source="postgres"
            )
        prefix = header[345:500].rstrip(b"\0") if header[257:262] == b"ustar" else b""
        name = header[:100].split(b"\0", 1)[0]
        name = (prefix.split(b"\0", 1)[0] + b"/" + name if prefix else name).strip(b"/").removeprefix(b"./")
        kinds: dict[bytes, Literal["file", "directory", "link"]] = {
            b"0": "file",
            b"\0": "file",
            b"5": "directory",
            b"2": "link",
        }
        kind = kinds.get(header[156:157])
        if kind is None or not name or b".." in name.split(b"/"):
            raise SourceError(f"the base backup has an entry that is not understood: {name!r}", source="postgres")
        return cls(
            name,
            kind,
            _number(header[100:108]) & 0o7777,
            _number(header[108:116]),
            _number(header[116:124]),
            _number(header[124:136]) if kind == "file" else 0,
            _number(header[136:148]) * 1_000_000_000,
            header[157:257].split(b"\0", 1)[0] if kind == "link" else None,
        )


def _number(field: bytes) -> int:
    """Octal digits; or, where the first bit is set, a big-endian number."""
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
    digits = field.strip(b" \0")
    try:
        return int(digits, 8) if digits else 0
    except ValueError as error:
        raise SourceError(
            "the stream of the base backup is damaged: a tar header is none", source="postgres"
        ) from error


class _Messages:
    """The copy's messages, and the bytes of the archive that is under way."""

    def __init__(self, messages: Iterator[bytes | memoryview]) -> None:
        self._messages = messages
        self._data = memoryview(b"")
        self._pending: str | None = None
        self.manifest = bytearray()
        self.left = 0
        """Bytes of the member's content that have not been asked for."""
        self._padding = 0

    def next_archive(self) -> str | None:
        """The name of the next archive, or ``manifest`` when that has been taken in; None at the end."""
        while self._pending is None:
            if not self._advance():
                return None
        archive, self._pending = self._pending, None
        if archive == "manifest":
            while self._pending is None and self._advance():
                self.manifest += self._data
                self._data = memoryview(b"")
        return archive

    def _advance(self) -> bool:
        """Have the next message's data at hand, or its archive's name; False at the end."""
        for message in self._messages:
            view = memoryview(message)
            kind = view[0]
            if kind == ord("d"):
                self._data = view[1:]
                return True
            if kind == ord("n"):
                self._pending = bytes(view[1:]).split(b"\0", 1)[0].decode()
                return True
            if kind == ord("m"):
                self._pending = "manifest"
                return True
        return False

    def take(self, size: int, *, at_end: bool = False) -> bytes | None:
        """The archive's next bytes; with ``at_end`` None where it has ended."""
        found = bytearray()
        while len(found) < size:
            if not self._data:
                if self._pending is None and self._advance():
                    continue
                if at_end and not found:
                    return None
                raise SourceError("the base backup's stream ended within a file", source="postgres")
            part = self._data[: size - len(found)]
            found += part
            self._data = self._data[len(part) :]
        return bytes(found)

    def begin_member(self, size: int) -> None:
        self.left = size
        self._padding = -size % _TAR_BLOCK

    def end_member(self) -> None:
        """Pass over what was not read of the member, and its padding."""
        remaining = self.left + self._padding
        self.left = self._padding = 0
        while remaining:
            part = self.take(min(remaining, 65536))
            remaining -= len(part or b"")

    def content(self, size: int) -> bytes:
        """The member's next bytes."""
        if size > self.left:
            raise SourceError("a file of the base backup is shorter than it says", source="postgres")
        self.left -= size
        return self.take(size) or b""

    def read_into(self, view: memoryview) -> int:
        """Fill the start of ``view`` with the member's next bytes; 0 at its end."""
        wanted = min(len(view), self.left)
        at = 0
        data = self._data
        while at < wanted:
            if not data:
                if self._pending is not None or not self._advance():
                    raise SourceError("the base backup's stream ended within a file", source="postgres")
                data = self._data
            part = data[: wanted - at]
            view[at : at + len(part)] = part
            at += len(part)
            data = data[len(part) :]
        self._data = data
        self.left -= wanted
        return wanted


class WalPages:
    """A WAL segment without what is left in it of the segment whose file was used again.

    The server hands out files of old segments anew; behind the end of what was written since, old pages stay, which
    would be stored for nothing. A page that says that it belongs elsewhere becomes zeros, as in a fresh file.
    """

    def __init__(self, read_into: Callable[[memoryview], int]) -> None:
        self._read_into = read_into
        self._page = bytearray(_WAL_PAGE)
        self._held = 0
        self._given = 0
        self._at = 0
        self._base: int | None = None

    def read_into(self, view: memoryview) -> int:
        """As ``StreamedEntry.read_into``."""
        if self._given == self._held and not self._fill():
            return 0
        count = min(len(view), self._held - self._given)
        view[:count] = memoryview(self._page)[self._given : self._given + count]
        self._given += count
        return count

    def _fill(self) -> bool:
        self._held = self._given = 0
        while self._held < len(self._page):
            count = self._read_into(memoryview(self._page)[self._held :])
            if not count:
                break
            self._held += count
        if self._held < _PAGE_HEADER.size:
            return self._held > 0
        address = _PAGE_HEADER.unpack_from(self._page)[3]
        if self._base is None:
            self._base = address
        elif address != self._base + self._at:
            self._page[: self._held] = bytes(self._held)
        self._at += self._held
        return True


class _Bytes:
    """Bytes at hand, as a content."""

    def __init__(self, content: bytes | bytearray) -> None:
        self._left = memoryview(content)

    def read_into(self, view: memoryview) -> int:
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count
