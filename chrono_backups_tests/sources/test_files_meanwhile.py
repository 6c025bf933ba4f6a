"""Real trees captured while something changes or breaks them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.identifiers import BackupType
from chrono_backups_tests.backup.taking import (
    in_repository,
    new_repository,
    noise,
    snapshot_of,
    take,
    write_all,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "site"
    path.mkdir()
    return path


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
