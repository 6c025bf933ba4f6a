"""Reading ahead changes nothing but the time it takes: not what is read, whatever befalls the helper process."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.identifiers import BackupType
from chrono_backups.sources import read_ahead
from chrono_backups.sources.read_ahead import Batch, ReadAhead
from chrono_backups_tests.backup.taking import (
    Heard,
    in_repository,
    new_repository,
    noise,
    on_disk,
    snapshot_of,
    take,
    write_all,
)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Batch]]:
    """Have every small file read ahead; the batches that were asked for."""
    gc.collect()
    asked: list[Batch] = []
    original = ReadAhead.request

    def request(self: ReadAhead, *args: Any) -> Batch | None:
        batch = original(self, *args)
        if batch is not None:
            asked.append(batch)
        return batch

    monkeypatch.setattr(read_ahead, "_START_AFTER", 0)
    monkeypatch.setattr(ReadAhead, "request", request)
    before = len(os.listdir("/proc/self/fd"))
    yield asked
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "site"
    for folder in range(30):
        write_all(path, {f"{folder:02}/{n}": noise(1000 * folder + n, (folder * n) % 900) for n in range(40)})
    write_all(path, {"10/large": noise(1, 600_000), "11/medium": noise(2, 100_000), "many": b""})
    os.setxattr(path / "05/7", "user.note", b"seen by a closer look")
    (path / "06/link").symlink_to("7")
    os.link(path / "07/1", path / "07/linked")
    Path(os.fsdecode(os.fsencode(path) + b"/08/caf\xe9\n")).write_bytes(b"no text")
    return path


def check(root: Path) -> Heard:
    repository = new_repository()
    heard = Heard()
    kinds: tuple[BackupType, ...] = ("full", "incremental", "full")
    for kind in kinds:
        snapshot = snapshot_of(repository, take(repository, kind, root, listener=heard))
        assert in_repository(repository, snapshot, root) == on_disk(root)
    return heard


def test_everything_is_read_as_without_it(root: Path, batches: list[Batch], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = Batch.take

    def take(self: Batch, view: memoryview) -> int:
        sizes.append(original(self, view))
        return sizes[-1]

    monkeypatch.setattr(Batch, "take", take)
    assert check(root).findings == []
    assert len(batches) > 40
    assert len(sizes) > 2000
    assert sizes.count(-1) == 2  # the one with attributes, in two full backups


def test_large_batches_do_not_wait_for_each_other(tmp_path: Path, batches: list[Batch]) -> None:
    """About as many files as a request takes, in more directories than are in use at once."""
    root = tmp_path / "site"
    for folder in range(12):
        (root / f"{folder:02}").mkdir(parents=True)
        for number in range(500):
            (root / f"{folder:02}" / f"{number:05}{'n' * 200}").write_bytes(b"%d" % number)
    repository = new_repository()
    manifest = take(repository, "full", root)
    assert manifest.statistics.files == manifest.statistics.files_read == 12 * 500
    assert len(batches) >= 12
    assert in_repository(repository, snapshot_of(repository, manifest), root) == on_disk(root)


@pytest.mark.parametrize("change", ["content", "size", "gone", "replaced by a link", "xattr"])
def test_what_changes_behind_its_back_is_looked_at_again(
    root: Path, batches: list[Batch], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Between the scan and the helper's look."""
    original = ReadAhead.request
    path = root / "03/20"

    def request(self: ReadAhead, where: bytes, *args: Any) -> Batch | None:
        if where.endswith(b"/03/") and path.exists() and not path.is_symlink():
            if change == "content":
                path.write_bytes(b"n" * path.stat().st_size)
            elif change == "size":
                path.write_bytes(b"another size")
            elif change == "xattr":
                os.setxattr(path, "user.new", b"1")
            else:
                path.unlink()
                if change != "gone":
                    path.symlink_to("21")
        return original(self, where, *args)

    monkeypatch.setattr(ReadAhead, "request", request)
    repository = new_repository()
    snapshot = snapshot_of(repository, take(repository, "full", root))
    found, now = in_repository(repository, snapshot, root), on_disk(root)
    name = os.fsencode(path)[1:]
    if change in {"gone", "replaced by a link"}:
        assert [finding.subject for finding in snapshot.findings] == [str(path)]
        assert name not in found
        now.pop(name, None)
    folder = os.fsencode(root / "03")[1:]
    found.pop(folder)
    now.pop(folder)  # its own times were taken before
    assert found == now


@pytest.mark.parametrize("after", [0, 1, 7, 20])
def test_a_helper_that_dies_costs_nothing(
    root: Path, batches: list[Batch], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    original = ReadAhead.request

    def request(self: ReadAhead, *args: Any) -> Batch | None:
        batch = original(self, *args)
        if len(batches) == after and self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        return batch

    monkeypatch.setattr(ReadAhead, "request", request)
    assert check(root).findings == []


@pytest.mark.parametrize("what", ["process", "memory", "pipe"])
def test_a_helper_that_cant_be_started_costs_nothing(
    root: Path, batches: list[Batch], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise OSError(11, "Resource temporarily unavailable")

    if what == "process":
        monkeypatch.setattr(subprocess, "Popen", refused)
    elif what == "memory":
        monkeypatch.setattr(os, "memfd_create", refused)
    else:
        monkeypatch.setattr(os, "pipe", refused)
    assert check(root).findings == []


def test_the_helper_ends_with_the_capture(root: Path, batches: list[Batch], monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    original = subprocess.Popen

    def start(*args: Any, **kwargs: Any) -> Any:
        started.append(original(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)

    def interrupt(event: Any) -> None:
        if getattr(event, "done_items", 0) > 600:
            raise KeyboardInterrupt

    take(new_repository(), "full", root)
    with pytest.raises(KeyboardInterrupt):
        take(new_repository(), "full", root, listener=interrupt)
    assert len(started) == 2
    assert all(process.returncode is not None for process in started)
