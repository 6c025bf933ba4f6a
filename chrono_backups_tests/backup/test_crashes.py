"""Backups that are cut short: whatever is in sight is whole, and a plain retry goes on from what was stored."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.backup.plan import plan_backup
from chrono_backups.backup.service import capture
from chrono_backups.errors import ChronoBackupsError, StorageError, StorageFull, StorageUnavailable
from chrono_backups.identifiers import BackupType
from chrono_backups.pipeline.packing import PACK_TARGET
from chrono_backups.sources.files import FilesSource
from chrono_backups.storage.base import Storage
from chrono_backups.storage.faulty import Fail, FailFrom, FaultyStorage
from chrono_backups.storage.local import LocalStorage
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups.storage.metered import MeteredStorage
from chrono_backups_tests.backup.crashing import (
    PROJECT,
    attempt,
    check_all,
    copy_of,
    ending,
    no_thread_left,
    small_site,
)
from chrono_backups_tests.backup.taking import (
    LEADING,
    new_repository,
    noise,
    on_disk,
    opened,
    take,
    write_all,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return small_site(tmp_path / "site")


def changed(root: Path) -> None:
    write_all(root, {"small/3": b"changed", "new/large": noise(101, 700_000), "new/x": b"1"})
    (root / "small/4").unlink()


@pytest.mark.parametrize("backup_type", ["incremental", "full"])
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("fault", [FailFrom, Fail])
def test_a_backup_may_fail_at_any_call(
    root: Path, backup_type: BackupType, after_effect: bool, fault: type[FailFrom] | type[Fail]
) -> None:
    base = MemoryStorage()
    before = take(new_repository(base), "full", root)
    trees = {before.backup_id: on_disk(root)}
    changed(root)
    calls = 0
    while True:
        storage = copy_of(base)
        faulty = FaultyStorage(storage, fault(calls, after_effect=after_effect))
        try:
            ending(attempt, faulty, backup_type, root)
        except ChronoBackupsError:
            failed = True
        else:
            failed = False
        check_all(storage, root, trees)
        if failed:
            retried = ending(attempt, storage, backup_type, root)
            assert retried.status == "complete"
            assert retried.backup_id in {one.backup_id for one in check_all(storage, root, trees)}
        if faulty.unreached:
            break
        calls += 1
    assert not failed
    assert calls > 20


def test_a_first_backup_may_fail_at_any_call(root: Path) -> None:
    base = MemoryStorage()
    new_repository(base)
    calls = 0
    stored: set[int] = set()
    while True:
        storage = copy_of(base)
        faulty = FaultyStorage(storage, FailFrom(calls, after_effect=bool(calls % 2)))
        try:
            ending(attempt, faulty, "full", root)
        except StorageError:
            check_all(storage, root, {})
            ending(attempt, storage, "full", root)
        check_all(storage, root, {})
        # Packs of the attempt were adopted: content is never stored twice.
        stored.add(sum(len(data) for key, data in storage.objects.items() if key.startswith("packs/")))
        if faulty.unreached:
            break
        calls += 1
    assert max(stored) < min(stored) + LEADING


def test_creating_a_repository_may_fail_at_any_call() -> None:
    for fault in (FailFrom, Fail):
        for after_effect in (False, True):
            calls = 0
            while True:
                storage = MemoryStorage()
                faulty = FaultyStorage(storage, fault(calls, after_effect=after_effect))
                try:
                    new_repository(faulty)
                except StorageError:
                    if "repository" not in storage.objects:
                        new_repository(storage)
                assert opened(storage).backups() == []
                if faulty.unreached:
                    break
                calls += 1
            assert calls >= 3


@pytest.mark.parametrize("call", range(6))
def test_a_passing_fault_of_the_pack_storage_raises_and_leaves_no_thread(root: Path, call: int) -> None:
    write_all(root, {f"big/{n}": noise(1000 + n, 9_000_000) for n in range(5)})  # three packs and more
    storage = MemoryStorage()
    new_repository(storage)
    faulty = FaultyStorage(storage, Fail(call, "put", StorageUnavailable))
    with no_thread_left(), pytest.raises(StorageUnavailable):
        ending(attempt, faulty, "full", root)
    take(opened(storage), "full", root)
    check_all(storage, root, {})


_KILLED = """
    import sys, time
    from pathlib import Path
    from chrono_backups_tests.backup.taking import opened, take
    from chrono_backups.storage.local import LocalStorage

    class Slow(LocalStorage):
        stored = 0

        def put(self, key, data):
            if key.startswith("packs/"):
                Slow.stored += 1
                if Slow.stored == int(sys.argv[3]):
                    print("ready", flush=True)
                    time.sleep(600)
            super().put(key, data)

    take(opened(Slow(Path(sys.argv[1]))), "full", Path(sys.argv[2]))
"""


def chunk_places(storage: Storage) -> dict[bytes, int]:
    found: dict[bytes, set[bytes]] = {}
    for chunk_id, place in opened(storage).index.chunks():
        found.setdefault(chunk_id, set()).add(place.pack.digest)
    return {chunk_id: len(places) for chunk_id, places in found.items()}


def test_a_killed_run_is_resumed_and_uploads_nothing_twice(tmp_path: Path) -> None:
    root, place = tmp_path / "site", tmp_path / "repository"
    write_all(root, {f"{n}": noise(n, 7_000_000) for n in range(9)})
    write_all(root, {f"small/{n}": noise(n, 3000) for n in range(300)})
    new_repository(LocalStorage(place, create=True)).close()
    program = [sys.executable, "-c", textwrap.dedent(_KILLED), str(place), str(root), "3"]
    child = subprocess.Popen(program, stdout=subprocess.PIPE, cwd=PROJECT)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    storage = LocalStorage(place)
    survived = {info.key: info.size for info in storage.list("packs/")}
    assert len(survived) >= 1  # of two packs under way at once, one may not have been there yet
    assert opened(storage).backups() == []
    assert list(storage.list("manifests/")) == []
    content = 9 * 7_000_000 + 300 * 3000

    metered = MeteredStorage(storage)
    manifest = take(opened(metered), "full", root)
    uploaded = metered.metrics().bytes_up
    assert uploaded < content - sum(survived.values()) + 300_000
    assert set(chunk_places(storage).values()) == {1}
    assert manifest.statistics.bytes_stored < content - sum(survived.values()) + 300_000
    assert set(survived) <= {info.key for info in storage.list("packs/")}
    check_all(storage, root, {})
    assert take(opened(storage), "full", root).statistics.bytes_added <= LEADING


def test_an_interruption_leaves_nothing_in_sight_and_no_thread(root: Path) -> None:
    """Ctrl-C in the middle of the reading: the writer's threads end, whatever they were at."""
    write_all(root, {f"big/{n}": noise(1000 + n, 9_000_000) for n in range(5)})

    for moment in (1, 500_000, 20_000_000, 44_000_000):

        def interrupt(event: Any, moment: int = moment) -> None:
            if getattr(event, "done_bytes", 0) >= moment:
                raise KeyboardInterrupt

        storage = MemoryStorage()
        repository = new_repository(storage)
        with no_thread_left(), pytest.raises(KeyboardInterrupt):
            ending(take, repository, "full", root, listener=interrupt)
        assert not [key for key in storage.objects if key.startswith(("manifests/", "snapshots/"))]
    take(opened(storage), "full", root)
    check_all(storage, root, {})


# No room.


def test_a_size_limit_that_is_reached_costs_no_backup(root: Path, tmp_path: Path) -> None:
    place = tmp_path / "repository"
    storage = LocalStorage(place, create=True)
    before = take(new_repository(storage), "full", root)
    trees = {before.backup_id: on_disk(root)}
    write_all(root, {f"big/{n}": noise(n, 5_000_000) for n in range(4)})
    limited = LocalStorage(place, max_size=6_000_000)
    with pytest.raises(StorageFull, match="limit"):
        ending(attempt, limited, "incremental", root)
    check_all(storage, root, trees)
    take(opened(storage), "incremental", root)
    check_all(storage, root, trees)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "tiny"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a tmpfs")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_full_costs_no_backup(root: Path, tiny_disk: Path) -> None:
    storage = LocalStorage(tiny_disk / "repository", create=True)
    before = take(new_repository(storage), "full", root)
    trees = {before.backup_id: on_disk(root)}
    write_all(root, {f"big/{n}": noise(n, 5_000_000) for n in range(4)})
    with pytest.raises(StorageFull):
        ending(attempt, storage, "incremental", root)
    check_all(storage, root, trees)
    subprocess.run(["mount", "-o", "remount,size=60m", str(tiny_disk)], check=True)
    take(opened(storage), "incremental", root)
    check_all(storage, root, trees)


def test_an_index_that_finds_no_room_leaves_packs_that_are_adopted(root: Path) -> None:
    storage = MemoryStorage()
    new_repository(storage)
    faulty = FaultyStorage(storage, Fail(3, "put", StorageFull))  # lease, two packs, then the index
    with pytest.raises(StorageFull):
        take(opened(faulty), "full", root)
    assert not [key for key in storage.objects if key.startswith("index/")]
    manifest = take(opened(storage), "full", root)
    assert manifest.statistics.bytes_added <= LEADING
    check_all(storage, root, {})


def test_a_capture_whose_lease_was_let_go_commits_nothing(root: Path) -> None:
    repository = new_repository()
    plan = plan_backup(repository, "full", ["files"])
    repository.leases.release(plan.backup_id)
    with pytest.raises(ChronoBackupsError, match="has no lease"):
        capture(repository, plan, FilesSource("files", [root]))


def test_packs_are_closed_at_their_target(tmp_path: Path) -> None:
    root = tmp_path / "site"
    write_all(root, {f"{n}": noise(n, 9_000_000) for n in range(5)})
    with tempfile.TemporaryDirectory() as place:
        storage = LocalStorage(Path(place) / "repository", create=True)
        take(new_repository(storage), "full", root)
        sizes = sorted(info.size for info in storage.list("packs/"))
    assert sizes[-1] < PACK_TARGET + 5 * 2**20
    assert sizes[-2] > PACK_TARGET
