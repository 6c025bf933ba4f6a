"""Writing the content of files: every byte in its place, by whichever way; errors, interruptions, bounds."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from chrono_backups.recovery import content_writer
from chrono_backups.recovery.content_writer import ContentWriter
from chrono_backups_tests.backup.taking import noise

MB = 1024 * 1024


@pytest.fixture
def writer() -> Iterator[ContentWriter]:
    writer = ContentWriter()
    yield writer
    writer.close()


def cut(content: bytes, seed: int, hole: float) -> Iterator[tuple[int, memoryview]]:
    """``content`` in pieces of chance; what is left out is zeros in it."""
    chance = random.Random(seed)
    at = 0
    while at < len(content):
        size = chance.choice((1, 100, 4096, 65536, 65536, 300_001, MB, 3 * MB))
        if chance.random() < hole and not any(content[at : at + size]):
            at += size
            continue
        yield at, memoryview(content)[at : at + size]
        at += size


def written(writer: ContentWriter, path: Path, pieces: Iterator[tuple[int, memoryview]], size: int) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        return writer.write(descriptor, pieces, size)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "refused"])
@pytest.mark.parametrize("size", [0, 5, 4 * MB - 1, 4 * MB, 9 * MB + 8192, 11 * MB + 777])
def test_every_byte_comes_to_its_place(
    tmp_path: Path, writer: ContentWriter, monkeypatch: pytest.MonkeyPatch, size: int, direct: bool
) -> None:
    real = os.pwrite

    def refusing(descriptor: int, data: memoryview, offset: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no")
        return real(descriptor, data, offset)

    if not direct:
        monkeypatch.setattr(os, "pwrite", refusing)
    for seed in range(3):
        content = bytearray(noise(seed, size))
        for hole in range(0, size, 700_000):  # zeros that begin and end anywhere in a block
            content[hole : hole + 333_333] = bytes(len(content[hole : hole + 333_333]))
        path = tmp_path / f"{seed}"
        before = writer.cached
        end = written(writer, path, cut(bytes(content), seed, 0.7), size)
        os.truncate(path, size)
        assert end <= size
        assert path.read_bytes() == content
        if not direct:
            assert writer.cached - before == sum(len(piece) for _, piece in cut(bytes(content), seed, 0.7))


def test_an_error_on_a_thread_is_the_files_and_the_next_file_is_written(
    tmp_path: Path, writer: ContentWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = noise(1, 20 * MB)
    real, calls = os.pwrite, [0]

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        calls[0] += 1
        if calls[0] == 3:
            raise OSError(errno.ENOSPC, "no space")
        return real(descriptor, data, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="no space") as caught:
            written(writer, tmp_path / "first", cut(content, 1, 0), len(content))
    assert caught.value.errno == errno.ENOSPC
    assert calls[0] < 20  # it is not found out at the end alone
    written(writer, tmp_path / "second", cut(content, 2, 0), len(content))
    assert (tmp_path / "second").read_bytes() == content


def test_an_interruption_waits_for_what_is_under_way_and_nothing_is_written_later(
    tmp_path: Path, writer: ContentWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = noise(1, 8 * MB)
    real, going = os.pwrite, threading.Semaphore(0)
    under_way: list[int] = []

    def slow(descriptor: int, data: memoryview, offset: int) -> int:
        under_way.append(offset)
        going.acquire()
        done = real(descriptor, data, offset)
        under_way.remove(offset)
        return done

    def stopped() -> Iterator[tuple[int, memoryview]]:
        for offset in range(0, 3 * MB, 65536):
            yield offset, memoryview(content)[offset : offset + 65536]
        assert len(under_way) <= content_writer._THREADS
        threading.Timer(0.2, going.release, (100,)).start()
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "pwrite", slow)
    with pytest.raises(KeyboardInterrupt):
        written(writer, tmp_path / "file", stopped(), len(content))
    assert under_way == []
    assert not held_open(tmp_path / "file")


def held_open(path: Path) -> bool:
    """Whether this process has the file open. Of other descriptors nothing is said: they come and go."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            if descriptor.readlink() == path:
                return True
    return False


def test_a_slow_disk_holds_the_reader_up(
    tmp_path: Path, writer: ContentWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 40 * MB
    real, reached, most = os.pwrite, [0], [0]
    done: list[int] = []

    def counting(descriptor: int, data: memoryview, offset: int) -> int:
        most[0] = max(most[0], reached[0] - sum(done))
        written = real(descriptor, data, offset)
        done.append(written)
        return written

    def pieces() -> Iterator[tuple[int, memoryview]]:
        for offset in range(0, size, 65536):
            yield offset, memoryview(bytes(65536))
            reached[0] = offset + 65536

    monkeypatch.setattr(os, "pwrite", counting)
    assert written(writer, tmp_path / "file", pieces(), size) == size
    assert most[0] <= (content_writer._BUFFERS + 1) * MB
