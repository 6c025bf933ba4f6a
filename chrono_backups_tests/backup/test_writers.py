"""Several writers and processes at one repository."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.identifiers import BackupType
from chrono_backups.repository.records import Manifest
from chrono_backups.storage.base import ObjectInfo, Storage
from chrono_backups.storage.local import LocalStorage
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.backup.crashing import PROJECT, small_site
from chrono_backups_tests.backup.taking import (
    KEY,
    Heard,
    in_repository,
    new_repository,
    noise,
    on_disk,
    opened,
    snapshot_of,
    take,
    write_all,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return small_site(tmp_path / "site")


class _MeanwhileStorage:
    """Has something happen once, between a listing of packs being made and being seen."""

    def __init__(self, inner: Storage, meanwhile: Callable[[], Any]) -> None:
        self._inner = inner
        self._meanwhile: Callable[[], Any] | None = meanwhile

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        found = list(self._inner.list(prefix))
        if prefix == "packs/" and self._meanwhile is not None:
            meanwhile, self._meanwhile = self._meanwhile, None
            meanwhile()
        return iter(found)


def test_another_writers_packs_are_not_taken_for_missing(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_all(other, {"x": noise(5, 700_000)})
    storage = MemoryStorage()
    new_repository(storage)
    meanwhile = _MeanwhileStorage(storage, lambda: take(opened(storage), "full", other))
    heard = Heard()
    take(opened(meanwhile), "files_only", root, listener=heard)
    assert heard.findings == []
    assert len(opened(storage).backups()) == 2


def test_writers_on_threads_do_not_harm_each_other(tmp_path: Path) -> None:
    storage = MemoryStorage()
    new_repository(storage)
    roots = [tmp_path / f"site {n}" for n in range(3)]
    for number, root in enumerate(roots):
        write_all(root, {f"own/{n}": noise(100 * number + n, 5000) for n in range(20)})
        write_all(root, {"shared/large": noise(7, 2_000_000), "shared/small": noise(8, 20_000)})
    taken: list[tuple[Path, Manifest]] = []
    heard = Heard()
    start = threading.Barrier(len(roots))

    def work(root: Path, backup_type: BackupType) -> None:
        repository = opened(storage)
        start.wait()
        for _ in range(4):
            taken.append((root, take(repository, backup_type, root, listener=heard)))  # noqa: PERF401 - seen as it goes

    types: list[BackupType] = ["full", "files_only", "full"]
    threads = [threading.Thread(target=work, args=pair) for pair in zip(roots, types, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert len(taken) == 12
    assert heard.findings == []
    assert len({manifest.backup_id for _, manifest in taken}) == 12
    repository = opened(storage)
    for root, manifest in taken:
        assert in_repository(repository, snapshot_of(repository, manifest), root) == on_disk(root)


_WRITER = """
    import sys
    from pathlib import Path
    from chrono_backups_tests.backup.taking import opened, take
    from chrono_backups.storage.local import LocalStorage
    for kind in ("full", "incremental", "full"):
        print(take(opened(LocalStorage(Path(sys.argv[1]))), kind, Path(sys.argv[2])).backup_id)
"""


def test_writers_in_processes_do_not_harm_each_other(tmp_path: Path) -> None:
    place = tmp_path / "repository"
    new_repository(LocalStorage(place, create=True)).close()
    roots = [tmp_path / f"site {n}" for n in range(2)]
    for number, root in enumerate(roots):
        write_all(root, {"own": noise(number, 3_000_000), "shared": noise(9, 3_000_000)})
    programs = [[sys.executable, "-c", textwrap.dedent(_WRITER), str(place), str(root)] for root in roots]
    children = [subprocess.Popen(program, stdout=subprocess.PIPE, cwd=PROJECT, text=True) for program in programs]
    outputs = [child.communicate(timeout=300)[0].split() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert len({name for names in outputs for name in names}) == 6
    repository = opened(LocalStorage(place))
    for root, names in zip(roots, outputs, strict=True):
        for name in names:
            found = in_repository(repository, snapshot_of(repository, repository.manifest(name)), root)
            assert found == on_disk(root)


def test_a_second_process_needs_the_repository_and_the_key_alone(root: Path, tmp_path: Path) -> None:
    place = tmp_path / "repository"
    manifest = take(new_repository(LocalStorage(place, create=True)), "full", root)
    program = f"""
        import hashlib
        from pathlib import Path
        from chrono_backups.clock import SystemClock
        from chrono_backups.repository.repository import Repository
        from chrono_backups.storage.local import LocalStorage
        from chrono_backups_tests.backup.taking import in_repository, snapshot_of
        with Repository.open(LocalStorage(Path({str(place)!r})), operator_key={KEY!r}, clock=SystemClock()) as it:
            found = in_repository(it, snapshot_of(it, it.backup({manifest.backup_id!r})), Path({str(root)!r}))
        print(hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest())
    """
    import hashlib

    environment = {name: value for name, value in os.environ.items() if not name.startswith("BACKUP_")}
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        cwd=PROJECT,
        env=environment,
    )
    assert ran.stdout.strip() == hashlib.sha256(repr(sorted(on_disk(root).items())).encode()).hexdigest()
