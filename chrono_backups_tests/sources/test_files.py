"""Real trees captured into a repository and read back: every kind of thing, and what goes wrong meanwhile."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.backup.service import capture, plan_backup
from chrono_backups.errors import SourceError
from chrono_backups.identifiers import BackupType
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


# What goes wrong meanwhile.

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


LOOK, OPEN, LIST = ("lstat", "stat"), ("open",), ("listdir", "scandir")


def patched(
    monkeypatch: pytest.MonkeyPatch, functions: Sequence[str], path: Path, before: Callable[[Path], Any]
) -> None:
    """Have ``before(path)`` run once, ahead of the source's first call of one of ``os.<functions>`` on that path."""
    done = False

    def instead(original: Any) -> Any:
        def call(which: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal done
            # Sources name what they read by bytes: a path, or a name in a directory that they opened.
            if not done and isinstance(which, bytes) and os.path.basename(which) == os.fsencode(path.name):
                done = True
                before(path)
            return original(which, *args, **kwargs)

        return call

    for function in functions:
        monkeypatch.setattr(os, function, instead(getattr(os, function)))


def survivors(root: Path, *names: str) -> dict[str, bytes]:
    """Take a backup while what was arranged happens; the contents that were kept."""
    repository = new_repository()
    snapshot = snapshot_of(repository, take(repository, "full", root))
    found = in_repository(repository, snapshot, root)
    kept = {os.fsdecode(path).removeprefix(str(root)[1:] + "/"): thing.content for path, thing in found.items()}
    return {
        "findings": " ".join(f.code for f in snapshot.findings).encode(),
        **{n: kept[n] for n in names if n in kept},
    }


@pytest.mark.parametrize("size", [100, 600_000])
@pytest.mark.parametrize("moment", [LOOK, OPEN], ids=["look", "open"])
def test_a_file_that_vanishes(root: Path, monkeypatch: pytest.MonkeyPatch, size: int, moment: tuple[str, ...]) -> None:
    write_all(root, {"a": b"1", "gone": noise(1, size), "z": b"2"})
    patched(monkeypatch, moment, root / "gone", Path.unlink)
    findings = b"file-vanished" if moment == OPEN else b""
    assert survivors(root, "a", "gone", "z") == {"findings": findings, "a": b"1", "z": b"2"}


def test_a_directory_that_vanishes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all(root, {"a": b"1", "d/x": b"2", "z": b"3"})

    def remove(path: Path) -> None:
        (path / "x").unlink()
        path.rmdir()

    patched(monkeypatch, LIST, root / "d", remove)
    found = survivors(root, "a", "d/x", "z")
    # Said of its listing and, where its entry is described later, of the entry.
    assert set(found.pop("findings").split()) <= {b"file-vanished"}
    assert found == {"a": b"1", "z": b"3"}


@pytest.mark.parametrize("size", [100, 600_000])
def test_a_file_replaced_between_the_look_and_the_reading(
    root: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    write_all(root, {"a": b"1", "f": noise(1, size), "z": b"2"})
    fresh = noise(2, size + 1000)

    def replace(path: Path) -> None:
        path.with_suffix(".new").write_bytes(fresh)
        path.with_suffix(".new").rename(path)

    patched(monkeypatch, OPEN, root / "f", replace)
    assert survivors(root, "a", "f", "z") == {"findings": b"", "a": b"1", "f": fresh, "z": b"2"}


def test_a_file_that_outgrows_small_between_the_look_and_the_reading(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(root, {"f": b"small", "z": b"2"})
    fresh = noise(2, 1_000_000)
    patched(monkeypatch, OPEN, root / "f", lambda path: path.write_bytes(fresh))
    assert survivors(root, "f", "z") == {"findings": b"", "f": fresh, "z": b"2"}


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_a_file_that_becomes_something_else(root: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    write_all(root, {"f": b"1", "z": b"2"})

    def replace(path: Path) -> None:
        path.unlink()
        if kind == "link":
            path.symlink_to("z")
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.mkdir()

    patched(monkeypatch, OPEN, root / "f", replace)
    found = survivors(root, "f", "z")
    assert found["z"] == b"2"
    assert found["findings"] in {b"file-unreadable", b"file-vanished"}
    assert found.get("f", b"") != b"2", "a link was followed"


@pytest.mark.parametrize("size", [50_000, 20_000_000])
@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite"])
def test_a_file_that_changes_while_it_is_read(
    root: Path, monkeypatch: pytest.MonkeyPatch, size: int, change: str
) -> None:
    content = noise(1, size)
    write_all(root, {"a": b"1", "f": content, "z": b"2"})
    original: dict[str, Any] = {"readv": os.readv, "preadv": os.preadv}
    calls = 0

    def instead(name: str) -> Any:
        def read(descriptor: int, views: Any, *args: Any) -> int:
            nonlocal calls
            count: int = original[name](descriptor, views, *args)
            if os.readlink(f"/proc/self/fd/{descriptor}").endswith("/f"):
                calls += 1
                if calls == 1:
                    time.sleep(0.02)  # the next tick of the file system's clock
                    with (root / "f").open("r+b") as file:
                        if change == "shrink":
                            file.truncate(size // 3)
                        else:
                            file.seek(size if change == "grow" else 0)
                            file.write(noise(2, 1000))
            return count

        return read

    for name in original:
        monkeypatch.setattr(os, name, instead(name))
    found = survivors(root, "a", "f", "z")
    assert (found["a"], found["z"]) == (b"1", b"2")
    if size < 256 * 1024 and not found["findings"]:
        assert found["f"] == (root / "f").read_bytes()  # read once more, as it is now
    else:
        assert found["findings"] == b"file-changed"
        assert content.startswith(found["f"])  # what was read before the change
        assert change == "shrink" or found["f"] == content


def test_a_read_error_costs_one_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all(root, {"a": b"1", "large": noise(1, 9_000_000), "z": noise(2, 500_000)})
    original = os.preadv

    def failing(descriptor: int, views: Any, offset: int) -> int:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("/large") and offset > 5_000_000:
            raise OSError(5, "Input/output error")
        return original(descriptor, views[:1] if offset else [views[0][:3_000_000]], offset)

    monkeypatch.setattr(os, "preadv", failing)
    found = survivors(root, "a", "large", "z")
    assert found == {"findings": b"file-unreadable", "a": b"1", "z": noise(2, 500_000)}


def test_a_tree_that_something_keeps_writing_to(root: Path) -> None:
    """A real writer: the capture ends, what stood still is right, and what moved is a prefix of something written."""
    still = {f"still/{n}": noise(n, 30_000) for n in range(40)}
    write_all(root, still)
    write_all(root, {f"live/{n}": b"" for n in range(10)})
    stop = threading.Event()

    def write() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            path = root / "live" / str(turn % 10)
            with path.open("ab") as file:
                file.write(b"%d" % (turn % 10) * 5000)
            (root / "live" / f"new {turn % 7}").write_bytes(b"n" * 1000)
            (root / "live" / f"new {(turn + 3) % 7}").unlink(missing_ok=True)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        repository = new_repository()
        kinds: tuple[BackupType, ...] = ("full", "incremental", "full")
        for kind in kinds:
            snapshot = snapshot_of(repository, take(repository, kind, root))
            found = in_repository(repository, snapshot, root)
            for path, thing in found.items():
                name = os.fsdecode(path).removeprefix(str(root)[1:] + "/")
                if name in still:
                    assert thing.content == still[name]
                elif name.startswith("live/new"):
                    assert set(thing.content) <= {ord("n")}
                elif name.startswith("live/"):
                    assert set(thing.content) <= {ord(name[-1])}
            assert {f.severity for f in snapshot.findings} <= {"warning"}
    finally:
        stop.set()
        writer.join()


def test_a_source_that_is_gone_is_an_outcome_not_a_crash(tmp_path: Path) -> None:
    repository = new_repository()
    plan = plan_backup(repository, "full", ["files"])
    outcome = capture(repository, plan, FilesSource("files", [tmp_path / "gone"]))
    assert outcome.snapshot_id is None
    assert outcome.error_kind == "SourceError"
    assert str(tmp_path / "gone") in (outcome.error or "")
