"""Deterministic trees to back up: the same arguments give the same names and bytes (times aside).

| tree | what | at the usual size |
|---|---|---|
| `make_tree` | scraped HTML and JSON, media that do not shrink, three growing logs | scale 0.5: 1.07 GB, 20,103 files |
| `make_tiny` | files of 100 to 2,000 bytes, a hundred in a directory | 300,000: 315 MB |
| `mutate` | changes 1 % of a tree in place, as a day's work does | |

Standard library only, so `python -m benchmarks tree DIR` runs anywhere.
"""

import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.text import SITES, Text, text_of

PER_DIRECTORY = 100
_LOG_MEGABYTES = (100, 150, 300)
_TEXTS, _MEDIA = 40000, 200
_MEDIA_KINDS = ("jpg", "pdf", "png", "webp")
_FIRST_NEW_TEXT = 10_000_000


def make_tree(root: Path, scale: float, seed: int = 1) -> int:
    """Write the scraper's tree of about `scale` × 2.1 GB into `root`; its size in bytes."""
    texts = int(_TEXTS * scale)
    jobs: list[_Job] = [
        (_write_log, root, seed, number, max(10, int(megabytes * scale)))
        for number, megabytes in enumerate(_LOG_MEGABYTES)
    ]
    jobs += [(_write_texts, root, seed, first, min(texts, first + 1000)) for first in range(0, texts, 1000)]
    jobs += [(_write_media, root, seed, number, number + 1) for number in range(int(_MEDIA * scale))]
    return _run(jobs)


def text_page(number: int, seed: int = 1) -> str:
    """One scraped page or answer, as a row of a table has it."""
    return _text_file(text_of(seed), number)[1].decode()


def make_tiny(root: Path, count: int, seed: int = 1) -> int:
    """Write `count` (rounded down to hundreds) tiny files into `root`; their size in bytes."""
    directories = count // PER_DIRECTORY
    jobs: list[_Job] = [
        (_write_tiny, root, seed, first, min(directories, first + 100)) for first in range(0, directories, 100)
    ]
    return _run(jobs)


@dataclass
class Changes:
    """What one `mutate` did; `fresh_bytes` is the content that no earlier backup can hold."""

    edited: int = 0
    inserted: int = 0
    new: int = 0
    deleted: int = 0
    renamed: int = 0
    large_inserted: int = 0
    appended: int = 0
    fresh_bytes: int = 0


def mutate(root: Path, number: int, seed: int = 1) -> Changes:
    """Change 1 % of a tree that `make_tree` made, in place. Each `number` draws other files."""
    text = text_of(seed)
    r = text.stream("mut", number)
    done = Changes()
    files = _files(root)
    texts, media, logs = (_below(files, root, name) for name in ("data", "media", "logs"))
    edits, replaced = int(len(files) * 0.007), int(len(files) * 0.002)
    picked = r.sample(texts, edits + replaced + int(len(files) * 0.0005))
    for position, path in enumerate(picked[:edits]):
        _edit(text, r, path, position % 5 >= 3, done)
    for path in picked[edits : edits + replaced]:
        path.unlink()
        done.deleted += 1
    for path in picked[edits + replaced :]:
        path.rename(path.with_name(f"{path.name}.moved{number}"))
        done.renamed += 1
    for k in range(replaced):
        name, content = _text_file(text, _FIRST_NEW_TEXT + number * 100_000 + k, "new")
        _put(root / name, content)
        done.new += 1
        done.fresh_bytes += len(content)
    for path in r.sample(media, max(2, len(media) // 100)):
        _insert(path, 0.5, r.randbytes(997), done)
        done.fresh_bytes += 997
    _insert(logs[number % len(logs)], 0.4, b"inserted line %027d" % number, done)
    fresh = text.log(text.stream("app", number), 2_000_000)
    with logs[(number + 1) % len(logs)].open("ab") as file:
        file.write(fresh)
    done.appended += 1
    done.fresh_bytes += len(fresh)
    return done


def _edit(text: Text, r: random.Random, path: Path, insert: bool, done: Changes) -> None:
    content = bytearray(path.read_bytes())
    fresh = text.paragraph(r).encode()[: 200 + r.randrange(1800)]
    offset = r.randrange(max(1, len(content) - len(fresh)))
    if insert:
        content[offset:offset] = fresh
        done.inserted += 1
    else:
        content[offset : offset + len(fresh)] = fresh
        done.edited += 1
    done.fresh_bytes += len(fresh)
    path.write_bytes(content)


def _insert(path: Path, where: float, fresh: bytes, done: Changes) -> None:
    content = path.read_bytes()
    offset = int(len(content) * where)
    path.write_bytes(content[:offset] + fresh + content[offset:])
    done.large_inserted += 1


def _files(root: Path) -> list[Path]:
    """All files, in the order of a walk that sorts names: what `mutate` picks depends on it."""
    found: list[Path] = []
    for directory, below, names in os.walk(root):
        below.sort()
        found += [Path(directory, name) for name in sorted(names)]
    return found


def _below(files: Sequence[Path], root: Path, name: str) -> list[Path]:
    return [path for path in files if path.is_relative_to(root / name)]


_Job = tuple[Callable[[Path, int, int, int], int], Path, int, int, int]


def _run(jobs: Sequence[_Job]) -> int:
    with ProcessPoolExecutor() as pool:
        return sum(pool.map(_call, jobs))


def _call(job: _Job) -> int:
    write, root, seed, first, last = job
    return write(root, seed, first, last)


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _text_file(text: Text, number: int, stream: str = "t") -> tuple[str, bytes]:
    site = number % SITES
    kind = "html" if text.stream("tp", number).random() < 0.7 else "json"
    name = f"data/site{site:02d}/2025/{(number // SITES) % 28 + 1:02d}/page-{number:06d}.{kind}"
    r = text.stream(stream, number)
    size = _text_size(r)
    return name, (text.html(r, site, size) if kind == "html" else text.json(r, site, size)).encode()


def _text_size(r: random.Random) -> int:
    """Median about 15 kB, mean about 22 kB."""
    while True:
        size = r.lognormvariate(9.65, 0.85)
        if 1024 <= size <= 200 * 1024:
            return int(size)


def _write_texts(root: Path, seed: int, first: int, last: int) -> int:
    total = 0
    for number in range(first, last):
        name, content = _text_file(text_of(seed), number)
        _put(root / name, content)
        total += len(content)
    return total


def _write_media(root: Path, seed: int, first: int, last: int) -> int:
    total = 0
    for number in range(first, last):
        sizes = random.Random(f"{seed}:bs:{number}")
        size = int((1 + 19 * sizes.random() ** 8) * 1e6) if sizes.random() > 0.05 else int(sizes.uniform(8, 20) * 1e6)
        content = b"\xff\xd8\xff\xe0" + random.Random(f"{seed}:b:{number}").randbytes(size)
        _put(root / f"media/{number % 16:02d}/asset-{number:05d}.{_MEDIA_KINDS[number % 4]}", content)
        total += len(content)
    return total


def _write_log(root: Path, seed: int, number: int, megabytes: int) -> int:
    text = text_of(seed)
    path = root / f"logs/scraper-{number}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        return sum(
            file.write(text.log(text.stream("log", number, k), 10_000_000, 1735689600.0 + number * 1e6 + k * 1e4))
            for k in range(0, megabytes, 10)
        )


def _write_tiny(root: Path, seed: int, first: int, last: int) -> int:
    text = text_of(seed)
    total = 0
    for number in range(first, last):
        r = text.stream("tiny", number)
        directory = root / f"k{number % 64:02x}" / f"d{number:05d}"
        directory.mkdir(parents=True, exist_ok=True)
        pool = " ".join(text.some(r, 4000)).encode()
        for k in range(PER_DIRECTORY):
            size = r.randrange(100, 2001)
            offset = r.randrange(len(pool) - 2000)
            content = (b'{"id":%d,"t":"' % r.getrandbits(60) + pool[offset : offset + size])[:size]
            (directory / f"f{k:03d}.json").write_bytes(content)
            total += size
    return total
