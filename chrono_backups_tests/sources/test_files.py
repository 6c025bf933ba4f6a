"""Real trees captured into a repository and read back: every kind of thing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.backup.service import capture, plan_backup
from chrono_backups.errors import SourceError
from chrono_backups.repository.listings import content_extents, read_listing
from chrono_backups.repository.repository import Repository
from chrono_backups.sources.files import FilesSource
from chrono_backups_tests.backup.taking import (
    Heard,
    hard_links,
    in_repository,
    new_repository,
    noise,
    on_disk,
    snapshot_of,
    take,
    write_all,
)

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may")
SHM = Path("/dev/shm")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "site"
    path.mkdir()
    return path


@pytest.fixture
def on_tmpfs() -> Iterator[Path]:
    if not SHM.is_dir():
        pytest.skip("no tmpfs at hand")
    with tempfile.TemporaryDirectory(dir=SHM) as path:
        yield Path(path)


def check(root: Path, *, heard: Heard | None = None) -> tuple[Repository, Any]:
    """Back ``root`` up, and compare what is stored with what is there."""
    repository = new_repository()
    listener = heard or Heard()
    manifest = take(repository, "full", root, listener=listener)
    snapshot = snapshot_of(repository, manifest)
    assert in_repository(repository, snapshot, root) == on_disk(root)
    if heard is None:
        assert listener.findings == []
        assert snapshot.findings == ()
    return repository, snapshot


def test_plain_files_directories_and_links(root: Path) -> None:
    write_all(root, {"a": b"x", "d/e/f": b"deep", "empty": b"", "a-b": b"1", "a.b": b"2", "d-/x": b"3", "d.": b"4"})
    (root / "nothing in it").mkdir()
    (root / "link").symlink_to("a")
    (root / "dangling").symlink_to("/nowhere/at all")
    (root / "to a directory").symlink_to("d")
    (root / "loop").symlink_to("loop")
    check(root)


def test_names_that_are_no_text(root: Path) -> None:
    names = [b"two\nlines", b"caf\xe9", "café".encode(), b"\x01\x1b[31m", b" ", b"-rf", b"*", b"\xff\xfe", b"a" * 255]
    names += [b"back\\slash", b"quote'\"", b"..."]
    for name in names:
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(name)
    below = os.fsencode(root) + b"/dir\xff\n"
    os.mkdir(below)
    Path(os.fsdecode(below + b"/x\xff")).write_bytes(b"inside")
    os.symlink(b"target\xff\n", os.fsencode(root) + b"/link\xff")
    check(root)


@pytest.mark.parametrize("size", [1, 4095, 262_143, 262_144, 262_145, 1_000_000, 4 * 2**20, 8 * 2**20, 9_000_001])
def test_files_of_any_size(root: Path, size: int) -> None:
    write_all(root, {"before": b"1", "content": noise(size, size), "later": b"2", "zeros": bytes(size)})
    check(root)


def test_many_sizes_at_once(root: Path) -> None:
    write_all(root, {f"{n:03}": noise(n, (n * 7919) % 400_000) for n in range(150)})
    write_all(root, {f"big {n}": noise(n, 3_000_000 + n) for n in range(8)})
    check(root)


def test_modes_owners_and_times(root: Path) -> None:
    for number, mode in enumerate((0o000, 0o644, 0o755, 0o4755, 0o2755, 0o1777, 0o6711)):
        path = root / f"{mode:o}"
        path.write_bytes(b"x")
        if os.geteuid() == 0:
            os.chown(path, 1000 + number, 4_000_000_000 + number)
        path.chmod(mode)
        os.utime(path, ns=(1, 1_234_567_890_123_456_789 + number))
    directory = root / "d"
    directory.mkdir(mode=0o700)
    directory.chmod(0o3770)
    os.utime(directory, ns=(0, -1_500_000_001))
    (root / "old link").symlink_to("x")
    os.utime(root / "old link", ns=(5, 5), follow_symlinks=False)
    check(root)


def test_times_that_64_bits_do_not_hold(on_tmpfs: Path) -> None:
    write_all(on_tmpfs, {"far": b"x", "near": b"y"})
    os.utime(on_tmpfs / "far", ns=(0, 2**63 + 5))
    if (on_tmpfs / "far").stat().st_mtime_ns < 2**63:
        pytest.skip("this file system keeps no such time")
    repository = new_repository()
    found = in_repository(repository, snapshot_of(repository, take(repository, "full", on_tmpfs)), on_tmpfs)
    far = next(thing for path, thing in found.items() if path.endswith(b"/far"))
    assert (far.content, far.mtime) == (b"x", 2**63 - 1)
    assert len(found) == 3


def test_extended_attributes(root: Path) -> None:
    write_all(root, {"f": b"x", "g": b"y", "large": noise(1, 300_000)})
    (root / "d").mkdir()
    for name in ("f", "d", "large"):
        os.setxattr(root / name, "user.empty", b"")
        os.setxattr(root / name, "user.bytes", bytes(range(256)))
    os.setxattr(root / "f", "user.caf\udce9", b"no UTF-8")
    check(root)


def test_hard_links(root: Path) -> None:
    write_all(root, {"b/first": b"small", "z/large": noise(1, 700_000), "a": b"alone"})
    os.link(root / "b/first", root / "b/second")
    os.link(root / "b/first", root / "c")
    os.link(root / "z/large", root / "z/again")
    repository, snapshot = check(root)
    start = os.fsencode(root)[1:]
    assert hard_links(repository, snapshot) == {
        start + b"/b/second": start + b"/b/first",
        start + b"/b/first": start + b"/c",
        start + b"/z/large": start + b"/z/again",
    } or hard_links(repository, snapshot) == {
        start + b"/b/first": start + b"/c",
        start + b"/b/second": start + b"/c",
        start + b"/z/large": start + b"/z/again",
    }
    assert snapshot.statistics.bytes_read == 5 + 700_000 + 5


def test_a_hard_link_whose_other_name_is_elsewhere(root: Path, tmp_path: Path) -> None:
    write_all(tmp_path, {"outside": b"content"})
    os.link(tmp_path / "outside", root / "inside")
    repository, snapshot = check(root)
    assert hard_links(repository, snapshot) == {}


def test_hard_links_that_change(root: Path) -> None:
    write_all(root, {"a": b"one", "b": b"two"})
    os.link(root / "a", root / "a2")
    repository = new_repository()
    take(repository, "full", root)
    (root / "a").unlink()  # the inode lives on as a2
    (root / "a").write_bytes(b"three")
    os.link(root / "b", root / "b2")
    with (root / "b2").open("ab") as file:
        file.write(b" and more")
    for _ in range(2):
        snapshot = snapshot_of(repository, take(repository, "incremental", root))
        assert in_repository(repository, snapshot, root) == on_disk(root)
    start = os.fsencode(root)[1:]
    assert hard_links(repository, snapshot) == {start + b"/b2": start + b"/b"}


@AS_ROOT
def test_fifos_devices_and_sockets(root: Path) -> None:
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", 0o600 | 0o020000, os.makedev(1, 3))
    os.mknod(root / "disk", 0o600 | 0o060000, os.makedev(259, 70_000))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "socket"))
        check(root)


def holes(repository: Repository, snapshot: Any, name: bytes) -> list[tuple[bool, int]]:
    for segment in read_listing(repository.reader, snapshot.listing):
        if name in segment.names:
            extents = content_extents(repository.reader, segment, segment.names.index(name))
            return [(extent.chunk_id is None, extent.length) for extent in extents]
    raise AssertionError(name)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [(0, 4096)],
        [(8_000_000, 4096)],
        [(1_000_000, 300_000), (9_000_000, 5_000_000)],
        [(0, 9_000_000), (12_000_000, 1)],
        [(4096 * n, 4096) for n in range(0, 1200, 2)],
    ],
    ids=["all hole", "at the end", "at the start", "between", "large", "comb"],
)
def test_sparse_files(root: Path, parts: list[tuple[int, int]]) -> None:
    size = 16_000_000
    for name, length in (("file", size), ("small", 100_000)):
        with (root / name).open("wb") as file:
            for start, count in parts:
                if start + count <= length:
                    file.seek(start)
                    file.write(noise(start, count))
            file.truncate(length)
    (root / "z").write_bytes(noise(0, 400_000))  # what comes behind a hole at the end
    repository, snapshot = check(root)
    found = holes(repository, snapshot, b"file")
    assert sum(length for _, length in found) == size
    data = sum(length for hole, length in found if not hole)
    assert data <= 3 * sum(count for _, count in parts) + 8192
    assert sum(1 for hole, _ in found if hole) >= (1 if data < size else 0)
    assert snapshot.statistics.bytes_read < size or len(parts) > 100


def test_a_file_that_is_one_hole_stays_one_in_an_incremental(root: Path) -> None:
    with (root / "hole").open("wb") as file:
        file.truncate(10_000_000)
    repository, snapshot = check(root)
    assert holes(repository, snapshot, b"hole") == [(True, 10_000_000)]
    again = snapshot_of(repository, take(repository, "incremental", root))
    assert in_repository(repository, again, root) == on_disk(root)


def test_a_huge_directory(on_tmpfs: Path) -> None:
    for number in range(9_000):
        (on_tmpfs / f"{number:05}").write_bytes(b"%d" % number)
    (on_tmpfs / "00500d").mkdir()
    (on_tmpfs / "00500d" / "below").write_bytes(b"deep")
    repository, snapshot = check(on_tmpfs)
    segments = [one for one in read_listing(repository.reader, snapshot.listing) if len(one) > 10]
    assert len(segments) > 1
    assert max(map(len, segments)) <= 8192

    again = take(repository, "incremental", on_tmpfs)
    assert again.statistics.bytes_read == 0
    assert again.statistics.files_read == 0
    (on_tmpfs / "08999").write_bytes(b"changed")
    (on_tmpfs / "00000a").write_bytes(b"new")
    (on_tmpfs / "04000").unlink()
    changed = take(repository, "incremental", on_tmpfs)
    assert changed.statistics.files_read == 2
    assert in_repository(repository, snapshot_of(repository, changed), on_tmpfs) == on_disk(on_tmpfs)


def test_a_deep_tree(root: Path) -> None:
    deep = root
    for number in range(150):
        deep = deep / f"directory {number}"
    write_all(deep, {"f": b"deep"})
    check(root)


def test_two_trees_one_in_the_other_and_one_beside(tmp_path: Path) -> None:
    write_all(tmp_path, {"a/x": b"1", "a/b/y": b"2", "a-/z": b"3", "not/this": b"4", "c/d/e": b"5"})
    repository = new_repository()
    paths = [tmp_path / "a/b", tmp_path / "a", tmp_path / "c/d", tmp_path / "a-", tmp_path / "a"]
    snapshot = snapshot_of(repository, take(repository, "full", FilesSource("files", paths)))
    found = in_repository(repository, snapshot, tmp_path)
    names = {os.fsdecode(path).removeprefix(str(tmp_path)[1:]) for path in found}
    assert names == {"", "/a", "/a/x", "/a/b", "/a/b/y", "/a-", "/a-/z", "/c", "/c/d", "/c/d/e"}


def test_a_root_that_is_a_link_is_captured_where_it_leads(tmp_path: Path) -> None:
    write_all(tmp_path, {"real/x": b"1"})
    (tmp_path / "link").symlink_to("real")
    heard = Heard()
    repository = new_repository()
    snapshot = snapshot_of(repository, take(repository, "full", tmp_path / "link", listener=heard))
    assert os.fsencode(tmp_path / "real/x")[1:] in in_repository(repository, snapshot)
    assert heard.codes == ["path-resolved"]
    assert [finding.code for finding in snapshot.findings] == ["path-resolved"]


@pytest.mark.parametrize("kind", ["missing", "file", "below a file", "fifo"])
def test_a_root_that_is_no_directory(tmp_path: Path, kind: str) -> None:
    write_all(tmp_path, {"good/x": b"1", "file": b"2"})
    os.mkfifo(tmp_path / "fifo")
    bad = tmp_path / {"missing": "gone", "file": "file", "below a file": "file/x", "fifo": "fifo"}[kind]
    source = FilesSource("files", [tmp_path / "good", bad])
    assert [finding.subject for finding in source.probe()] == [str(bad)]
    with pytest.raises(SourceError, match=str(bad)), source.capture(Heard()):
        pass


def test_a_configuration_file_may_be_a_root(tmp_path: Path) -> None:
    write_all(tmp_path, {".env": b"SECRET=1", "other": b"2", "conf.d/a": b"3"})
    repository = new_repository()
    source = FilesSource("configuration", [tmp_path / ".env", tmp_path / "conf.d"], single_files=True)
    manifest = take(repository, "configuration", source)
    found = in_repository(repository, snapshot_of(repository, manifest, "configuration"), tmp_path)
    names = {os.fsdecode(path).removeprefix(str(tmp_path)[1:]) for path in found}
    assert names == {"", "/.env", "/conf.d", "/conf.d/a"}


def test_patterns_leave_out_and_never_more(root: Path) -> None:
    write_all(root, {"a.tmp": b"1", "keep/b.txt": b"2", "cache/c.txt": b"3", "keep/cache": b"4", "keep/d.tmp/e": b"5"})
    repository = new_repository()
    source = FilesSource("files", [root], exclude=["*.tmp", "cache/"])
    found = in_repository(repository, snapshot_of(repository, take(repository, "full", source)), root)
    names = {os.fsdecode(path).removeprefix(str(root)[1:]) for path in found}
    assert names == {"", "/keep", "/keep/b.txt", "/keep/cache"}


def test_the_own_storage_is_left_out_by_whatever_name(root: Path, tmp_path: Path) -> None:
    write_all(root, {"x": b"1", "backups/packs/p": b"2"})
    (tmp_path / "by link").symlink_to(root / "backups")
    heard = Heard()
    repository = new_repository()
    source = FilesSource("files", [root], never=[tmp_path / "by link"])
    found = in_repository(repository, snapshot_of(repository, take(repository, "full", source, listener=heard)), root)
    assert {os.fsdecode(path).removeprefix(str(root)[1:]) for path in found} == {"", "/x"}
    assert heard.codes == ["own-storage"]


_AS_NOBODY = """
    import os, sys
    from pathlib import Path
    from chrono_backups_tests.backup.taking import Heard, in_repository, new_repository, snapshot_of, take
    os.setgid(65534), os.setuid(65534)
    root, heard, repository = Path(sys.argv[1]), Heard(), new_repository()
    snapshot = snapshot_of(repository, take(repository, "full", root, listener=heard))
    for path in sorted(in_repository(repository, snapshot, root)):
        print("took", path.decode())
    for finding in snapshot.findings:
        print(finding.code, finding.severity, finding.subject, bool(finding.hint))
"""


@AS_ROOT
def test_what_may_not_be_read_is_named_and_the_rest_is_taken() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        root = Path(name)
        write_all(root, {"open/x": b"1", "secret file": b"2", "secret directory/y": b"3", "large": noise(1, 300_000)})
        for path in ("secret file", "large"):
            (root / path).chmod(0o600)
        (root / "secret directory").chmod(0o700)
        root.chmod(0o755)
        program = [sys.executable, "-c", textwrap.dedent(_AS_NOBODY), name]
        ran = subprocess.run(program, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    start = name[1:]
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [
        f"took {start}",
        f"took {start}/open",
        f"took {start}/open/x",
        f"took {start}/secret directory",
        f"directory-unreadable error {name}/secret directory True",
        f"file-unreadable error {name}/large True",
        f"file-unreadable error {name}/secret file True",
    ]


def test_a_source_that_is_gone_is_an_outcome_not_a_crash(tmp_path: Path) -> None:
    repository = new_repository()
    plan = plan_backup(repository, "full", ["files"])
    outcome = capture(repository, plan, FilesSource("files", [tmp_path / "gone"]))
    assert outcome.snapshot_id is None
    assert outcome.error_kind == "SourceError"
    assert str(tmp_path / "gone") in (outcome.error or "")
