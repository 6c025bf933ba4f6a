"""What every source owes. A driver joins by subclassing ``SourceContract`` with its two fixtures."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable

import pytest

from chrono_backups.errors import SourceError
from chrono_backups.events import Finding, Progress
from chrono_backups.identifiers import SOURCE_NAMES
from chrono_backups.repository.listing import order
from chrono_backups.sources.base import Capture, Directory, Source

Opener = Callable[[], Source]
SMALL = 256 * 1024


def read_small(directory: Directory, position: int) -> bytes | None:
    """A file through ``read_small``, or None where it is too large for it."""
    buffer = bytearray(SMALL)
    size, description, finding = directory.read_small(position, memoryview(buffer))
    assert finding is None
    assert description == directory.describe(position)
    return None if size < 0 else bytes(buffer[:size])


def read_large(directory: Directory, position: int, step: int = 100_000) -> bytes:
    """A file through ``open``, holes as zeros."""
    content = directory.open(position)
    assert content.block_size is None or content.block_size > 0
    found = bytearray(content.size())
    end = 0
    for start, length in content.parts():
        assert start >= end
        assert length > 0
        end = start + length
        at = start
        while at < end:
            buffer = bytearray(min(step, end - at))
            count = content.read_into(at, memoryview(buffer))
            assert count > 0
            found[at : at + count] = buffer[:count]
            at += count
    assert end <= content.size()
    assert content.close() is None
    return bytes(found)


def contents(capture: Capture) -> dict[bytes, bytes | None]:
    """Path → content of regular files, None for all else."""
    found: dict[bytes, bytes | None] = {}
    for directory in capture.directories():
        for position, name in enumerate(directory.attributes.names):
            path = (directory.path + b"/" + name).lstrip(b"/")
            assert path not in found
            found[path] = None
            if stat.S_ISREG(directory.attributes.mode[position]):
                small = read_small(directory, position)
                large = read_large(directory, position)
                assert small is None or small == large
                found[path] = large
    return found


def quiet(event: Progress | Finding) -> None:
    assert not (isinstance(event, Finding) and event.severity == "error"), event


class SourceContract:
    """``opener`` makes the source over something worth capturing; ``broken`` one that can't be captured."""

    @pytest.fixture
    def opener(self) -> Opener:
        raise NotImplementedError

    @pytest.fixture
    def broken(self) -> Source:
        raise NotImplementedError

    def test_its_name_is_one_of_ours(self, opener: Opener) -> None:
        assert opener().name in SOURCE_NAMES

    def test_a_good_source_has_no_error_to_report(self, opener: Opener) -> None:
        assert [finding for finding in opener().probe() if finding.severity == "error"] == []

    def test_directories_come_in_order_each_behind_its_own_entry(self, opener: Opener) -> None:
        seen = {b""}
        last_path, last_name = b"", b""
        with opener().capture(quiet) as capture:
            for directory in capture.directories():
                assert not directory.path.startswith(b"/")
                assert not directory.path.endswith(b"/")
                assert directory.path in seen
                assert order(directory.path) >= order(last_path)
                names = directory.attributes.names
                assert names, "a stretch that lists nothing"
                assert names == sorted(set(names))
                if directory.path == last_path:
                    assert names[0] > last_name or not last_name
                last_path, last_name = directory.path, names[-1]
                assert not any(b"/" in name or b"\0" in name or not name for name in names)
                for position, name in enumerate(names):
                    if stat.S_ISDIR(directory.attributes.mode[position]):
                        seen.add((directory.path + b"/" + name).lstrip(b"/"))

    def test_columns_have_a_place_for_every_name(self, opener: Opener) -> None:
        with opener().capture(quiet) as capture:
            for directory in capture.directories():
                attributes = directory.attributes
                columns = (attributes.mode, attributes.uid, attributes.gid, attributes.size)
                times = (attributes.mtime, attributes.ctime, attributes.inode)
                assert {len(column) for column in (*columns, *times)} == {len(attributes.names)}
                for mode, size in zip(attributes.mode, attributes.size, strict=True):
                    assert stat.S_ISREG(mode) or size == 0

    def test_contents_are_the_same_read_in_either_way_and_again(self, opener: Opener) -> None:
        with opener().capture(quiet) as capture:
            first = contents(capture)
        assert any(content for content in first.values())
        with opener().capture(quiet) as capture:
            assert contents(capture) == first

    def test_a_read_fills_no_more_than_its_view_and_ends_with_nothing(self, opener: Opener) -> None:
        with opener().capture(quiet) as capture:
            for directory in capture.directories():
                for position, mode in enumerate(directory.attributes.mode):
                    if stat.S_ISREG(mode):
                        content = directory.open(position)
                        assert content.read_into(content.size(), memoryview(bytearray(10))) == 0
                        assert content.read_into(0, memoryview(bytearray(3))) <= 3
                        assert content.close() is None

    def test_everything_can_be_described(self, opener: Opener) -> None:
        with opener().capture(quiet) as capture:
            for directory in capture.directories():
                for position, mode in enumerate(directory.attributes.mode):
                    described = directory.describe(position)
                    assert (described.link_target is not None) is stat.S_ISLNK(mode)

    def test_facts_are_json(self, opener: Opener) -> None:
        with opener().capture(quiet) as capture:
            for _ in capture.directories():
                pass
            facts = dict(capture.facts())
        assert json.loads(json.dumps(facts)) == facts

    def test_probing_changes_nothing(self, opener: Opener) -> None:
        source = opener()
        with source.capture(quiet) as capture:
            before = contents(capture)
        source.probe()
        with source.capture(quiet) as capture:
            assert contents(capture) == before

    def test_what_cant_be_captured_says_so_before_anything(self, broken: Source) -> None:
        assert any(finding.severity == "error" for finding in broken.probe())
        with pytest.raises(SourceError) as raised, broken.capture(lambda event: None):
            pytest.fail("the capture began")
        assert raised.value.source == broken.name
        assert raised.value.hint
