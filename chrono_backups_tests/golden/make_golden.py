"""Makes the golden repositories: ``python -m chrono_backups_tests.golden.make_golden``.

What is stored here is what some release wrote; every later release has to read it. So this is run once a format
version, never to make a failing test pass. Repositories: one for each cipher and codec, and the tree they hold.
"""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from chrono_backups.clock import FrozenClock
from chrono_backups.pipeline.compression import Type
from chrono_backups.pipeline.encryption import Algorithm
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.writer import PipelineOptions
from chrono_backups.sources.files import FilesSource
from chrono_backups.storage.local import LocalStorage
from chrono_backups_tests.backup.taking import Thing, on_disk, take, write_all

HERE = Path(__file__).parent / "format-1"
ROOT = Path("/tmp/chrono-backups-golden")
KEY = bytes.fromhex("00112233445566778899aabbccddeeff" * 2)
SECOND_KEY = bytes.fromhex("ffeeddccbbaa99887766554433221100" * 2)
REPOSITORIES: dict[str, tuple[Algorithm, Type]] = {
    "aes-zstd": ("AES-256-GCM", "zstd"),
    "chacha-gzip": ("CHACHA20-POLY1305", "gzip"),
    "plain-none": ("none", "none"),
}
EPOCH = datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)


def tree(*, large: bool) -> Path:
    """The first state of the tree: one of each kind of thing that can be had without being root."""
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir()
    small = {f"many/{number:03}": b"file %d\n" % number * (number % 7) for number in range(60)}
    write_all(ROOT, {**small, "a/b/c": b"deep", "a-b": b"between a and a/b, but for the order", "empty": b""})
    Path(os.fsdecode(os.fsencode(ROOT) + b"/caf\xe9\nline")).write_bytes(b"a name that is no text")
    (ROOT / "link").symlink_to("many/001")
    os.link(ROOT / "a-b", ROOT / "hard link")
    os.mkfifo(ROOT / "fifo")
    (ROOT / "empty directory").mkdir(mode=0o700)
    os.setxattr(ROOT / "empty", "user.golden", b"\x00value\xff")
    with (ROOT / "sparse").open("wb") as file:
        file.seek(300_000)
        file.write(b"data between holes")
        file.truncate(2_000_000)
    if large:
        write_all(ROOT, {"large": b"".join(b"line %d of a large file\n" % number for number in range(60_000))})
        with (ROOT / "comb").open("wb") as file:  # more extents than a segment takes
            for number in range(140):
                file.seek(number * 200_000)
                file.write(b"%d" % number)
    for position, path in enumerate([*sorted(ROOT.rglob("*")), ROOT]):
        moment = 1_700_000_000_123_456_789 + position
        os.utime(path, ns=(moment, moment), follow_symlinks=False)
    return ROOT


def described(things: dict[bytes, Thing]) -> list[dict[str, object]]:
    """The tree as JSON can say it."""
    return [
        {
            "path": path.hex(),
            "mode": thing.mode,
            "owner": list(thing.owner),
            "mtime": thing.mtime,
            "size": len(thing.content),
            "sha256": sha256(thing.content).hexdigest(),
            "link": None if thing.link is None else thing.link.hex(),
            "xattrs": [[name.hex(), value.hex()] for name, value in thing.xattrs],
        }
        for path, thing in sorted(things.items())
    ]


def main() -> None:
    """Replace all that is stored here."""
    shutil.rmtree(HERE, ignore_errors=True)
    for name, (algorithm, compression) in REPOSITORIES.items():
        clock = FrozenClock(EPOCH)
        storage = LocalStorage(HERE / name, create=True)
        key = None if algorithm == "none" else KEY
        expected: dict[str, object] = {}
        options = PipelineOptions(compression, workers=1, uploads=1, slots=3)
        with Repository.create(storage, algorithm=algorithm, operator_key=key, clock=clock) as repository:
            source = FilesSource("files", [tree(large=compression == "zstd")])
            full = take(repository, "full", source, options=options)
            expected[full.backup_id] = described(on_disk(ROOT))
            clock.advance(timedelta(hours=1))
            write_all(ROOT, {"many/005": b"changed", "many/new": b"new"})
            (ROOT / "many/006").unlink()
            os.utime(ROOT / "many", (1, 1))
            later = take(repository, "incremental", source, options=options)
            expected[later.backup_id] = described(on_disk(ROOT))
            clock.advance(timedelta(hours=1))
            dropped = take(repository, "full", source, options=options)
            repository.forget(dropped.backup_id, "an example")
            repository.pin(full.backup_id, "an example")
            repository.condemn([bytes(range(32))])
            repository.leases.take("full_20260102_060405")
            if algorithm != "none":
                repository.keyring.add(SECOND_KEY, "the second key")
            expected["forgotten"] = [dropped.backup_id]
        (HERE / f"{name}.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")
    shutil.rmtree(ROOT)


if __name__ == "__main__":
    main()
