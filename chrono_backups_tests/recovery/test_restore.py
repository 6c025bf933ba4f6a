"""Restores: whole, in part, in place, over damage, interrupted, out of space."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chrono_backups.errors import EntryMissing, InsufficientSpace, TargetNotEmpty
from chrono_backups.recovery import restore as restore_module
from chrono_backups.recovery.plan import STAGING, plan_restore
from chrono_backups.recovery.restore import restore
from chrono_backups.repository.repository import Repository
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.backup.taking import new_repository, noise, opened, take, write_all
from demo.compare import compare
from demo.site import build_site


@pytest.fixture
def storage() -> MemoryStorage:
    storage = MemoryStorage()
    new_repository(storage)
    return storage


def restored(repository: Repository, target: Path, root: Path, *patterns: str) -> Path:
    restore(repository, plan_restore(repository, "latest", target, patterns=patterns))
    return target / "files" / str(root).lstrip("/")


def test_a_whole_site_comes_back_as_it_was(tmp_path: Path, storage: MemoryStorage) -> None:
    site = build_site(tmp_path / "site")
    take(opened(storage), "full", site.root)
    repository = opened(storage)
    assert compare(site.root, restored(repository, tmp_path / "out", site.root)) == []
    assert sorted(os.listdir(tmp_path / "out")) == ["files"]


def test_by_pattern_with_the_directories_on_the_way(tmp_path: Path, storage: MemoryStorage) -> None:
    root = tmp_path / "site"
    write_all(root, {"a/b/x.sql": b"1", "a/b/y.txt": b"2", "c/z.sql": b"3", "d/e": b"4"})
    (root / "a").chmod(0o711)
    take(opened(storage), "full", root)
    out = restored(opened(storage), tmp_path / "out", root, "*.sql", str(root / "d"))
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert found == {"a/b/x.sql", "c/z.sql", "d/e"}
    assert (out / "a").stat().st_mode & 0o777 == 0o711
    with pytest.raises(EntryMissing):
        plan_restore(opened(storage), "latest", tmp_path / "other", patterns=["*.nothing"])


def test_what_is_damaged_is_named_and_left_out_and_the_rest_is_right(tmp_path: Path, storage: MemoryStorage) -> None:
    root = tmp_path / "site"
    wanted = {f"large{n}": noise(n, 900_000) for n in range(8)} | {"huge": noise(9, 9_000_001)}
    wanted |= {f"small{n}": noise(50 + n, 900) for n in range(50)}
    write_all(root, wanted)
    take(opened(storage), "full", root)
    key = max((key for key in storage.objects if key.startswith("packs/")), key=lambda key: len(storage.objects[key]))
    data = bytearray(storage.objects[key])
    data[len(data) // 2] ^= 1
    storage.objects[key] = bytes(data)

    repository = opened(storage)
    report = restore(repository, plan_restore(repository, "latest", tmp_path / "out"))
    out = tmp_path / "out" / "files" / str(root).lstrip("/")
    got = {path.name: path.read_bytes() for path in out.iterdir()}
    named = {finding.subject.rpartition("/")[2] for finding in report.findings if finding.code == "file-damaged"}
    assert report.damaged == len(named) >= 1
    assert got == {name: content for name, content in wanted.items() if name not in named}
    assert got


def test_a_target_that_holds_something_is_not_touched(tmp_path: Path, storage: MemoryStorage) -> None:
    root = tmp_path / "site"
    write_all(root, {"a": b"1"})
    take(opened(storage), "full", root)
    out = tmp_path / "out"
    write_all(out, {"mine": b"mine"})
    repository = opened(storage)
    with pytest.raises(TargetNotEmpty):
        restore(repository, plan_restore(repository, "latest", out))
    assert os.listdir(out) == ["mine"]


def test_space_is_checked_before_the_first_byte(tmp_path: Path, storage: MemoryStorage) -> None:
    root = tmp_path / "site"
    write_all(root, {"a": b"12345"})
    take(opened(storage), "full", root)
    repository = opened(storage)
    plan = plan_restore(repository, "latest", tmp_path / "out")
    assert plan.bytes_needed == 5
    with pytest.raises(InsufficientSpace, match="needs 5 bytes"):
        restore(repository, replace(plan, bytes_free=4))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize(("files", "size"), [(8, 300_000), (1, 6_000_000)], ids=["small", "large"])
def test_a_disk_that_fills_up_is_left_empty(
    tmp_path: Path, storage: MemoryStorage, small_disk: Path, files: int, size: int
) -> None:
    root = tmp_path / "site"
    write_all(root, {f"{n}": noise(n, size) for n in range(files)})
    take(opened(storage), "full", root)
    repository = opened(storage)
    plan = replace(plan_restore(repository, "latest", small_disk / "out"), bytes_free=10**9)
    with pytest.raises(InsufficientSpace, match="stopped"):
        restore(repository, plan)
    assert os.listdir(small_disk / "out") == []


def test_in_place_leaves_each_file_old_or_new_wherever_it_stops(
    tmp_path: Path, storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "site"
    new = {f"{n}": noise(n, 2000) for n in range(30)}
    write_all(root, new)
    take(opened(storage), "full", root)
    repository = opened(storage)
    real = os.rename
    for stop in range(0, 30, 7):
        old = dict.fromkeys(new, b"changed since")
        for name, content in old.items():
            (root / name).write_bytes(content)
        left = [stop]

        def rename(source: bytes, target: bytes, left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            real(source, target)

        monkeypatch.setattr("os.rename", rename)
        with pytest.raises(KeyboardInterrupt):
            restore(repository, plan_restore(repository, "latest", None, in_place=True))
        monkeypatch.setattr("os.rename", real)
        found = {path.name: path.read_bytes() for path in root.iterdir()}
        assert found.keys() == new.keys()
        assert all(content in (old[name], new[name]) for name, content in found.items())
        assert sum(content == new[name] for name, content in found.items()) == stop
    restore(repository, plan_restore(repository, "latest", None, in_place=True))
    assert {path.name: path.read_bytes() for path in root.iterdir()} == new


def test_an_interrupted_restore_leaves_nothing_and_a_killed_one_is_cleared_away(
    tmp_path: Path, storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "site"
    write_all(root, {f"{n}": noise(n, 2000) for n in range(30)})
    take(opened(storage), "full", root)
    repository = opened(storage)
    out = tmp_path / "out"

    def interrupt(_path: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(restore_module, "sync_file_system", interrupt)
        with pytest.raises(KeyboardInterrupt):
            restore(repository, plan_restore(repository, "latest", out))
    assert os.listdir(out) == []
    write_all(out / f"{STAGING}killed", {"files/x": b"half"})
    assert compare(root, restored(repository, out, root)) == []
    assert os.listdir(out) == ["files"]
