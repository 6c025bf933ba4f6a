"""Opening and decoding chunks that lie in one pack, many at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from chrono_backups.errors import Damaged
from chrono_backups.pipeline.compression import Decompressor, NotDecodable
from chrono_backups.pipeline.encryption import HEADER_SIZE, KINDS, MAGIC, TAG_SIZE, VERSION, Keys, NotAuthentic
from chrono_backups.pipeline.packing import FRAME_OVERHEAD
from chrono_backups.repository.format import object_key
from chrono_backups.repository.index import Location


class Wanted(NamedTuple):
    """A chunk, and where to take it from."""

    chunk_id: bytes
    place: Location


Content = bytes | memoryview | Damaged
_Frame = tuple[int, memoryview, int]
"""Codec, data, size of the content."""


class Opening:
    """Opens and decodes chunks, with a buffer that is kept: fresh ones cost page faults. Belongs to one thread."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._decompressor = Decompressor()
        self._scratch = memoryview(bytearray())

    def open(self, wanted: Sequence[Wanted], sealed: Sequence[memoryview]) -> list[Content]:
        """The contents of chunks of one pack, each sealed as given; ``Damaged`` where one is not true."""
        pack = wanted[0].place.pack
        opened = self._frames(wanted, sealed)
        decoded = iter(self._decompressor.decompress_all([frame for frame in opened if isinstance(frame, tuple)]))
        key = object_key("pack", pack.name)
        contents: list[Content] = []
        for one, frame in zip(wanted, opened, strict=True):
            content = next(decoded) if isinstance(frame, tuple) else frame
            if not isinstance(content, NotAuthentic | NotDecodable) and self._keys.chunk_id(content) != one.chunk_id:
                # Sealed as it is now, so nobody changed it since: it was another content already when it was stored.
                content = NotDecodable("its content is not the one that it is named by")
            if isinstance(content, NotAuthentic | NotDecodable):
                contents.append(Damaged(f"{key} is damaged at byte {one.place.offset}: {content}", key=key))
            else:
                contents.append(content)
        return contents

    def _frames(self, wanted: Sequence[Wanted], sealed: Sequence[memoryview]) -> list[_Frame | NotAuthentic]:
        """The chunks' frames, good until the next call; of those stored uncompressed for good."""
        sealer = self._keys.opener("pack", pack_header(wanted[0].place.pack.salt))
        room = sum(map(len, sealed))
        if room > len(self._scratch):
            self._scratch = memoryview(bytearray(room))
        at = 0
        frames: list[_Frame | NotAuthentic] = []
        for (chunk_id, place), data in zip(wanted, sealed, strict=True):
            size = len(data) - TAG_SIZE
            try:
                if size < 1:
                    raise NotAuthentic(f"a frame of {len(data)} bytes is too short")
                if size + TAG_SIZE == place.content_size + FRAME_OVERHEAD:  # uncompressed, and not copied
                    frame = memoryview(bytearray(size))
                else:
                    frame = self._scratch[at : at + size]
                    at += size
                sealer.open_into(place.offset, chunk_id, data, frame)
                frames.append((frame[0], frame[1:], place.content_size))
            except NotAuthentic as error:
                frames.append(error)
        return frames


def pack_header(salt: bytes) -> bytes:
    """The header that a pack with that salt starts with."""
    header = MAGIC + bytes((VERSION, KINDS["pack"], 0, 0)) + salt
    assert len(header) == HEADER_SIZE
    return header
