"""What backups store once, find again, and store anew where it is gone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chrono_backups.clock import SystemClock
from chrono_backups.identifiers import BackupType
from chrono_backups.pipeline.encryption import Algorithm
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.backup.taking import (
    LEADING,
    Heard,
    in_repository,
    mixed_site,
    new_repository,
    noise,
    on_disk,
    opened,
    packs,
    snapshot_of,
    take,
    total,
    write_all,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return mixed_site(tmp_path / "site")


def test_bundles_that_are_mostly_unused_are_packed_anew_by_the_next_full_backup(tmp_path: Path) -> None:
    root = tmp_path / "site"
    write_all(root, {f"{n:04}": noise(n, 4000) for n in range(400)})
    storage = MemoryStorage()
    repository = new_repository(storage)
    take(repository, "full", root)
    for number in range(400):
        if number % 5:
            (root / f"{number:04}").unlink()
    shrunk = take(repository, "full", root)
    assert shrunk.statistics.bytes_added < 100_000
    wasteful = snapshot_of(repository, shrunk).wasteful
    assert wasteful
    carried = take(repository, "incremental", root)
    assert snapshot_of(repository, carried).wasteful == wasteful
    packed = take(repository, "full", root)
    assert packed.statistics.bytes_added >= 80 * 4000
    snapshot = snapshot_of(repository, packed)
    assert snapshot.wasteful == ()
    assert in_repository(repository, snapshot, root) == on_disk(root)
    assert take(repository, "full", root).statistics.bytes_added <= LEADING


def test_copies_are_stored_once(tmp_path: Path) -> None:
    root = tmp_path / "site"
    write_all(root, {f"{folder}/{n}": noise(n, 3000) for folder in "abc" for n in range(20)})
    write_all(root, {"x": noise(50, 900_000), "y": noise(50, 900_000)})
    manifest = take(new_repository(), "full", root)
    assert 20 * 3000 + 900_000 <= manifest.statistics.bytes_added < 20 * 3000 + 900_000 + 20_000


def test_extent_rows_of_a_huge_file(tmp_path: Path) -> None:
    """More extents than a segment takes: they lie in chunks of their own, and are found again."""
    root = tmp_path / "site"
    root.mkdir()
    with (root / "comb").open("wb") as file:
        for number in range(300):
            file.seek(number * 200_000)
            file.write(noise(number, 4096))
    os.link(root / "comb", root / "other name")
    write_all(root, {"z": b"behind"})
    storage = MemoryStorage()
    repository = new_repository(storage)
    take(repository, "full", root)
    kinds: tuple[BackupType, ...] = ("incremental", "full")
    for kind in kinds:
        manifest = take(repository, kind, root)
        assert in_repository(repository, snapshot_of(repository, manifest), root) == on_disk(root)
        assert manifest.statistics.bytes_added <= LEADING
    (root / "other name").unlink()
    with (root / "comb").open("r+b") as file:
        file.seek(40_000_000)
        file.write(b"changed")
    manifest = take(repository, "incremental", root)
    assert in_repository(repository, snapshot_of(repository, manifest), root) == on_disk(root)
    again = take(repository, "incremental", root)
    assert again.statistics.files_read == 0
    assert in_repository(repository, snapshot_of(repository, again), root) == on_disk(root)
    (root / "comb").write_bytes(b"small now")
    manifest = take(repository, "incremental", root)
    assert in_repository(repository, snapshot_of(repository, manifest), root) == on_disk(root)


def test_a_chunk_that_is_gone_is_stored_anew_where_the_file_is_still_at_hand(root: Path) -> None:
    storage = MemoryStorage()
    repository = new_repository(storage)
    first = take(repository, "full", root)
    for key in packs(storage):
        del storage.objects[key]
    heard = Heard()
    manifest = take(repository, "incremental", root, listener=heard)
    assert heard.codes.count("pack-missing") == 2
    assert manifest.statistics.bytes_read == total(root)
    fresh = opened(storage)
    assert in_repository(fresh, snapshot_of(fresh, manifest), root) == on_disk(root)
    # What was stored anew serves the older backup too, but for its listing.
    assert snapshot_of(fresh, first).backup_id == first.backup_id


@pytest.mark.parametrize("keep", [0, 39, 1000, -1])
def test_a_pack_that_was_cut_is_distrusted(root: Path, keep: int) -> None:
    storage = MemoryStorage()
    repository = new_repository(storage)
    take(repository, "full", root)
    for key, data in packs(storage).items():
        storage.objects[key] = data[:keep]
    heard = Heard()
    manifest = take(repository, "incremental", root, listener=heard)
    assert heard.codes.count("pack-missing") == 2
    fresh = opened(storage)
    assert in_repository(fresh, snapshot_of(fresh, manifest), root) == on_disk(root)


def test_plain_and_chacha_repositories(root: Path) -> None:
    algorithms: tuple[Algorithm, ...] = ("none", "CHACHA20-POLY1305")
    for algorithm in algorithms:
        storage = MemoryStorage()
        repository = new_repository(storage, algorithm=algorithm, clock=SystemClock())
        manifest = take(repository, "full", root)
        fresh = opened(storage)
        assert in_repository(fresh, snapshot_of(fresh, manifest), root) == on_disk(root)
        stored = b"".join(storage.objects.values())
        assert (noise(1, 1001)[:50] in stored) is (algorithm == "none")
        assert (b"small" in stored) is False or algorithm == "none"


@pytest.mark.parametrize("how", ["missing", "cut", "condemned"])
@pytest.mark.parametrize("other_change", [False, True], ids=["whole directory", "entry by entry"])
def test_nothing_is_taken_over_whose_content_is_gone(root: Path, how: str, other_change: bool) -> None:
    """The parent's listing is whole, the packs of its contents are not: unchanged files are read all the same."""
    with (root / "deep/comb").open("wb") as file:  # whose extents lie in rows, one step further away
        for number in range(300):
            file.seek(number * 200_000)
            file.write(b"%d" % number)
    os.link(root / "deep/comb", root / "deep/er/linked")
    storage = MemoryStorage()
    repository = new_repository(storage)
    listings = {chunk.chunk_id for chunk in snapshot_of(repository, take(repository, "full", root)).listing}
    kept = {place.pack.digest for chunk_id, place in repository.index.chunks() if chunk_id in listings}
    gone = [pack for digest, pack in repository.index.packs().items() if digest not in kept]
    assert gone
    for pack in gone:
        if how == "cut":
            storage.objects[f"packs/{pack.name}"] = storage.objects[f"packs/{pack.name}"][:-1]
        elif how == "missing":
            del storage.objects[f"packs/{pack.name}"]
    if how == "condemned":
        repository.condemn(pack.digest for pack in gone)
    if other_change:
        write_all(root, {"new": b"1", "small/new": b"2", "deep/new": b"3", "deep/er/new": b"4"})
    heard = Heard()
    manifest = take(opened(storage), "incremental", root, listener=heard)
    assert "parent-damaged" not in heard.codes
    for pack in gone:  # what a prune does in the end
        storage.objects.pop(f"packs/{pack.name}", None)
    fresh = opened(storage)
    assert in_repository(fresh, snapshot_of(fresh, manifest), root) == on_disk(root)
    assert take(fresh, "incremental", root).statistics.bytes_read == 0
