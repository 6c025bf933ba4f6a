"""The archive of a cluster's log, without a server: what is written once, read back whole, and never wrong."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chrono_backups.errors import Damaged, ObjectMissing, RepositoryError
from chrono_backups.repository.format import object_key
from chrono_backups.repository.wal_archive import (
    Contents,
    WalArchive,
    cover,
    moment_bytes,
    moment_of,
    sum_of_cover,
)
from chrono_backups.repository.wal_names import (
    SEGMENT_SIZES,
    Lineage,
    PieceName,
    Segment,
    Switch,
    history_timeline,
    is_backup_label,
    is_segment,
    parse_history,
    partial_segment,
    piece_name,
)
from chrono_backups.repository.wal_pages import filled_size, segment_header
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.backup.taking import new_repository, opened

SYSTEM = "7400000000000000001"
SIZE = 1 << 20
PAGE = 8192
MOMENT = datetime(2026, 1, 4, 12, 30, tzinfo=UTC)
NAME = "00000001000000000000002a"


def segment_content(number: int = 42, timeline: int = 1, filled: int = SIZE, system: str = SYSTEM) -> bytes:
    """A segment as a server writes it, as far as its pages' headers go."""
    content = bytearray()
    for offset in range(0, SIZE, PAGE):
        flags = 0x0002 if offset == 0 else 0
        head = struct.pack("<HHIQIxxxx", 0xD118, flags, timeline, number * SIZE + offset, 0)
        if offset == 0:
            head += struct.pack("<QII", int(system), SIZE, PAGE)
        content += (head + b"%d " % offset * PAGE)[:PAGE]
    content[filled:] = bytes(SIZE - filled)
    return bytes(content)


CONTENT = segment_content()
PREFIX = moment_bytes(MOMENT)


@pytest.fixture
def storage() -> MemoryStorage:
    found = MemoryStorage()
    new_repository(found).close()
    return found


@pytest.fixture
def archive(storage: MemoryStorage) -> WalArchive:
    return WalArchive(opened(storage), SYSTEM)


def put_piece(archive: WalArchive, start: int, end: int, moment: datetime = MOMENT) -> PieceName:
    piece = PieceName(NAME, start, end)
    archive.put_piece(piece, moment_bytes(moment) + CONTENT[start:end])
    return piece


def key_of(name: str | PieceName) -> str:
    return object_key("wal", f"{SYSTEM}/{name}")


class TestSegments:
    def test_it_comes_back_with_its_moment(self, archive: WalArchive) -> None:
        assert archive.put_segment(NAME.upper(), PREFIX + CONTENT)
        for name in (NAME, NAME.upper()):
            found = archive.read_segment(name)
            assert (bytes(found.content), found.end, found.moment, found.whole) == (CONTENT, SIZE, MOMENT, True)
        assert archive.contents().segments == {NAME}
        assert archive.segment_size(archive.contents()) == SIZE

    def test_stored_again_it_is_the_same_whatever_the_moment(self, archive: WalArchive) -> None:
        archive.put_segment(NAME, PREFIX + CONTENT)
        assert not archive.put_segment(NAME, moment_bytes(None) + CONTENT)
        assert archive.read_segment(NAME).moment == MOMENT

    def test_another_one_of_its_name_is_refused(self, archive: WalArchive, storage: MemoryStorage) -> None:
        archive.put_segment(NAME, PREFIX + CONTENT)
        before = dict(storage.objects)
        for other in (CONTENT[:-1] + b"!", CONTENT[:-1], CONTENT + b"!"):
            with pytest.raises(RepositoryError, match=f"holds another {NAME} of the cluster {SYSTEM}") as raised:
                archive.put_segment(NAME, PREFIX + other)
            assert "new base backup" in raised.value.hint
        assert storage.objects == before

    def test_a_damaged_one_is_put_right_by_whoever_has_it(self, archive: WalArchive, storage: MemoryStorage) -> None:
        archive.put_segment(NAME, PREFIX + CONTENT)
        storage.objects[key_of(NAME)] = storage.objects[key_of(NAME)][:-1]
        with pytest.raises(Damaged):
            archive.read_segment(NAME)
        assert archive.put_segment(NAME, PREFIX + CONTENT)
        assert archive.read_segment(NAME).content == CONTENT

    @pytest.mark.parametrize("how", ["flipped", "cut", "swapped", "emptied"])
    def test_damage_is_named(self, archive: WalArchive, storage: MemoryStorage, how: str) -> None:
        other = Segment(1, 43).name(SIZE).lower()
        archive.put_segment(NAME, PREFIX + CONTENT)
        archive.put_segment(other, PREFIX + segment_content(43))
        stored = storage.objects[key_of(NAME)]
        storage.objects[key_of(NAME)] = {
            "flipped": stored[:500] + bytes([stored[500] ^ 1]) + stored[501:],
            "cut": stored[:-10],
            "swapped": storage.objects[key_of(other)],
            "emptied": b"",
        }[how]
        with pytest.raises(Damaged) as raised:
            archive.read_segment(NAME)
        assert raised.value.key == key_of(NAME)

    def test_of_another_cluster_it_is_another(self, archive: WalArchive) -> None:
        archive.put_segment(NAME, PREFIX + CONTENT)
        other = WalArchive(archive.repository, "7400000000000000002")
        assert other.put_segment(NAME, PREFIX + CONTENT[::-1])
        assert archive.read_segment(NAME).content == CONTENT
        assert sorted(WalArchive.systems(archive.repository)) == [SYSTEM, other.system_identifier]


class TestPieces:
    def test_they_are_put_together_and_filled_up_with_zeros(self, archive: WalArchive) -> None:
        put_piece(archive, 0, 1000)
        put_piece(archive, 1000, 5000)
        put_piece(archive, 3000, 7000, datetime(2026, 1, 4, 12, 31, tzinfo=UTC))
        found = archive.read_segment(NAME)
        assert (found.end, found.whole) == (7000, False)
        assert found.content == CONTENT[:7000] + bytes(SIZE - 7000)
        assert found.moment == datetime(2026, 1, 4, 12, 31, tzinfo=UTC)
        assert archive.segment_size(archive.contents()) == SIZE

    def test_what_lies_behind_a_hole_does_not_count(self, archive: WalArchive) -> None:
        put_piece(archive, 0, 1000)
        put_piece(archive, 1001, 5000)
        assert archive.read_segment(NAME).end == 1000
        assert archive.contents().reach(NAME) == 1000
        assert archive.contents().needless() == []

    def test_without_a_beginning_there_is_nothing(self, archive: WalArchive) -> None:
        put_piece(archive, 10, 5000)
        with pytest.raises(ObjectMissing):
            archive.read_segment(NAME)

    def test_a_whole_segment_makes_them_needless(self, archive: WalArchive) -> None:
        pieces = [put_piece(archive, 0, 1000), put_piece(archive, 1000, 5000)]
        archive.put_segment(NAME, PREFIX + CONTENT)
        assert archive.contents().needless() == pieces
        assert archive.remove(pieces) == 2
        assert archive.contents().pieces == {}
        assert archive.read_segment(NAME).whole

    def test_a_longer_one_that_takes_its_place_meanwhile(
        self, archive: WalArchive, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        short = put_piece(archive, 0, 1000)
        read = archive.read_piece
        raced: list[PieceName] = []

        def race(piece: PieceName) -> memoryview:
            if not raced:
                raced.append(put_piece(archive, 0, 9000))
                archive.remove([short])
            return read(piece)

        monkeypatch.setattr(archive, "read_piece", race)
        assert archive.read_segment(NAME).end == 9000

    def test_a_segment_that_is_whole_meanwhile(self, archive: WalArchive, monkeypatch: pytest.MonkeyPatch) -> None:
        piece = put_piece(archive, 0, 1000)
        read = archive.read_piece

        def race(asked: PieceName) -> memoryview:
            archive.put_segment(NAME, PREFIX + CONTENT)
            archive.remove([piece])
            return read(asked)

        monkeypatch.setattr(archive, "read_piece", race)
        assert archive.read_segment(NAME).whole

    def test_damage_is_named(self, archive: WalArchive, storage: MemoryStorage) -> None:
        first, second = put_piece(archive, 0, 1000), put_piece(archive, 1000, 2000)
        for piece in (first, second):
            stored = storage.objects[key_of(piece)]
            storage.objects[key_of(piece)] = stored[:-1]
            with pytest.raises(Damaged) as raised:
                archive.read_segment(NAME)
            assert raised.value.key == key_of(piece)
            storage.objects[key_of(piece)] = stored
        assert archive.read_segment(NAME).end == 2000

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=12))
    def test_of_many_the_fewest_are_read_that_reach_as_far(self, drawn: list[tuple[int, int]]) -> None:
        pieces = [PieceName(NAME, start, start + size) for start, size in drawn]
        covered = 0
        while any(one.start <= covered < one.end for one in pieces):
            covered = max(one.end for one in pieces if one.start <= covered)
        chosen = cover(pieces)
        assert sum_of_cover(chosen) == covered
        end = 0
        for one in chosen:
            assert one.start <= end < one.end
            end = one.end
        # What is needless may go, and nothing that is needed.
        contents = Contents.of({str(one): 1 for one in pieces})
        kept = set(pieces) - set(contents.needless())
        assert sum_of_cover(cover(kept)) == covered
        assert {one for one in pieces if one.start > covered} <= kept


class TestHistories:
    TEXT = b"1\t0/2A00100\tno recovery target specified\n\n2\t0/2B00200\tbefore 2026-01-04 # x\n"

    def test_they_tell_where_timelines_were_left(self, archive: WalArchive) -> None:
        assert archive.put_history(3, self.TEXT)
        assert not archive.put_history(3, self.TEXT)
        assert archive.read_history(3) == self.TEXT
        assert archive.ancestors(3) == (Switch(1, 0x2A00100), Switch(2, 0x2B00200))
        assert archive.ancestors(1) == ()
        assert archive.contents().histories == (3,)
        with pytest.raises(RepositoryError, match=r"holds another 00000003\.history"):
            archive.put_history(3, self.TEXT + b"x")
        with pytest.raises(ObjectMissing):
            archive.ancestors(2)

    def test_the_segment_where_a_timeline_begins_is_its_own(self) -> None:
        lineage = Lineage(3, (Switch(1, 0x2A00100), Switch(2, 0x2B00200)), SIZE)
        assert [lineage.segment(number).timeline for number in (0x29, 0x2A, 0x2B, 0x2C)] == [1, 2, 3, 3]
        assert lineage.left_at(2) == 0x2B00200
        assert lineage.left_at(3) is None

    @pytest.mark.parametrize("text", [b"x 0/1", b"1", b"1 0-1", b"2 0/1\n1 0/2", b"2 0/1\n2 0/2"])
    def test_what_is_none_is_damaged(self, archive: WalArchive, text: bytes) -> None:
        with pytest.raises(ValueError, match=r"."):
            parse_history(text)
        archive.put_history(3, text)
        with pytest.raises(Damaged, match=r"00000003\.history is no timeline's history"):
            archive.ancestors(3)


class TestNames:
    @pytest.mark.parametrize("size", SEGMENT_SIZES)
    def test_a_segment_s_name_depends_on_its_size(self, size: int) -> None:
        per_log = (1 << 32) // size
        assert Segment(1, per_log - 1).name(size) == f"0000000100000000{per_log - 1:08X}"
        assert Segment(1, per_log).name(size) == "000000010000000100000000"
        assert Segment.at(2, 5 * size + 3, size) == Segment(2, 5)
        for number in (0, 1, per_log - 1, per_log, 3 * per_log + 1):
            assert Segment.parse(Segment(7, number).name(size).lower(), size) == Segment(7, number)
        with pytest.raises(ValueError, match="no name of a WAL segment"):
            Segment.parse(f"0000000100000000{per_log:08X}", size)

    def test_what_a_server_calls_its_files(self) -> None:
        assert is_segment(NAME)
        assert not is_segment(NAME + ".partial")
        assert partial_segment("00000001000000000000002A.partial") == "00000001000000000000002A"
        assert partial_segment(NAME) is None
        assert history_timeline("0000000A.history") == 10
        assert history_timeline(NAME) is None
        assert is_backup_label("00000001000000000000002A.00000028.backup")
        assert not is_backup_label(NAME)

    def test_a_piece_s_name(self) -> None:
        assert piece_name(f"{NAME}.00000000-000003e8") == PieceName(NAME, 0, 1000)
        for bad in (NAME, f"{NAME}.0-3e8", f"{NAME}.000003e8-000003e8", f"{NAME}.00000000-ffffffff", "x"):
            assert piece_name(bad) is None

    def test_foreign_names_are_left_out(self) -> None:
        contents = Contents.of({NAME: 1, "x": 1, "README": 1, f"{NAME}.tmp": 1, "00000002.history": 1})
        assert contents.segments == {NAME}
        assert (contents.histories, contents.newest) == ((2,), NAME)


class TestPages:
    def test_a_segment_says_what_it_is(self) -> None:
        header = segment_header(CONTENT)
        assert (header.timeline, header.position, header.system_identifier, header.segment_size, header.page_size) == (
            1, 42 * SIZE, SYSTEM, SIZE, PAGE,
        )  # fmt: skip

    @pytest.mark.parametrize("bad", [b"", CONTENT[:39], bytes(100), CONTENT[PAGE:], b"x" * 100])
    def test_what_is_none_says_so(self, bad: bytes) -> None:
        with pytest.raises(ValueError, match=r"WAL segment|as a WAL"):
            segment_header(bad)

    def test_what_is_left_of_an_older_file_is_not_of_it(self) -> None:
        assert filled_size(segment_content()) == SIZE
        begun = segment_content(filled=3 * PAGE + 100)
        assert 3 * PAGE + 100 <= filled_size(begun) < 3 * PAGE + 108
        assert filled_size(begun) % 8 == 0
        older = segment_content(number=17)
        assert filled_size(begun[: 4 * PAGE] + older[4 * PAGE :]) == filled_size(begun)


def test_a_moment_is_kept_to_the_microsecond() -> None:
    for moment in (None, MOMENT, datetime(2026, 1, 4, 12, 30, 1, 123456, tzinfo=UTC)):
        assert moment_of(moment_bytes(moment)) == moment
