"""Any run of changes, backups, crashes, forgetting and pruning, against what each backup's tree was."""

from __future__ import annotations

import os
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chrono_backups.errors import ChronoBackupsError, StorageDenied
from chrono_backups.events import Finding, Progress
from chrono_backups.identifiers import BackupType
from chrono_backups.maintenance.prune import plan_prune, prune
from chrono_backups.storage.faulty import FailFrom, FaultyStorage
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.backup.taking import (
    AheadClock,
    Heard,
    Thing,
    hard_links,
    in_repository,
    new_repository,
    noise,
    on_disk,
    opened,
    snapshot_of,
    take,
)

NAMES = st.sampled_from(["a", "a-", "a/x", "a/x/deep", "b", "b/y", "c\n", "d\udce9", "e/f", "e/f.g"])
SIZES = st.sampled_from([0, 1, 100, 5000, 262_143, 262_144, 700_000])
TYPES = st.sampled_from(["full", "incremental", "differential", "files_only"])
SEEDS = st.integers(0, 5)
TICK = 0.012
"""Seconds after which the file system's clock has moved on: a change is seen by its time."""


class Backups(RuleBasedStateMachine):
    """One tree, one repository; a process of its own for every backup."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.root = Path(self.place.name) / "site"
        self.root.mkdir()
        self.storage = MemoryStorage()
        self.clock = AheadClock()
        self.trees: dict[str, dict[bytes, Thing]] = {}
        self.forgotten: set[str] = set()
        self.unchecked: set[str] = set()

    @initialize()
    def begin(self) -> None:
        new_repository(self.storage, clock=self.clock)

    def teardown(self) -> None:
        try:
            self.check(list(self.trees))
        finally:
            self.place.cleanup()

    # The tree.

    def free(self, name: str) -> Path | None:
        """The place of that name, if nothing in the way is a file."""
        path = self.root / name
        if path.is_dir() or any(one.is_symlink() or one.is_file() for one in path.parents if one != self.root.parent):
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @rule(name=NAMES, seed=SEEDS, size=SIZES)
    def write(self, name: str, seed: int, size: int) -> None:
        path = self.free(name)
        if path is not None and not path.is_symlink():
            path.write_bytes(noise(seed, size))

    @rule(name=NAMES, seed=SEEDS)
    def overwrite_in_silence(self, name: str, seed: int) -> None:
        """The same size, and the old time put back."""
        path = self.root / name
        if path.is_file() and not path.is_symlink():
            time.sleep(TICK)
            before = path.stat()
            with path.open("r+b") as file:
                file.write(noise(seed, before.st_size))
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        path = self.root / name
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()

    @rule(name=NAMES, other=NAMES)
    def rename(self, name: str, other: str) -> None:
        path, target = self.root / name, self.free(other)
        if target is not None and (path.is_symlink() or path.is_file()):
            path.rename(target)

    @rule(name=NAMES, other=NAMES)
    def hard_link(self, name: str, other: str) -> None:
        path, target = self.root / name, self.free(other)
        if target is not None and path.is_file() and not path.is_symlink() and not os.path.lexists(target):
            os.link(path, target)

    @rule(name=NAMES, leads_to=NAMES)
    def symbolic_link(self, name: str, leads_to: str) -> None:
        path = self.free(name)
        if path is not None and not os.path.lexists(path):
            path.symlink_to(leads_to)

    @rule(name=NAMES, mode=st.sampled_from([0o600, 0o644, 0o4755]))
    def change_mode(self, name: str, mode: int) -> None:
        path = self.root / name
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)

    # The repository.

    def manifests(self) -> list[str]:
        return opened(self.storage).names("manifest")

    def hear(self, event: Progress | Finding) -> None:
        assert not isinstance(event, Finding), event

    def settle(self) -> None:
        time.sleep(TICK)

    def record(self, backup_id: str) -> None:
        self.trees[backup_id] = on_disk(self.root)
        self.unchecked.add(backup_id)
        self.forgotten.discard(backup_id)  # a model is quick: the second of one that was pruned may come again

    @rule(backup_type=TYPES)
    def back_up(self, backup_type: BackupType) -> None:
        self.settle()
        manifest = take(opened(self.storage, self.clock), backup_type, self.root, listener=self.hear)
        self.settle()
        assert manifest.status == "complete"
        self.record(manifest.backup_id)

    @rule(backup_type=TYPES, call=st.integers(0, 25), after=st.booleans())
    def crash(self, backup_type: BackupType, call: int, after: bool) -> None:
        self.settle()
        before = set(self.manifests())
        faulty = FaultyStorage(self.storage, FailFrom(call, error=StorageDenied, after_effect=after))
        try:
            taken = take(opened(faulty, self.clock), backup_type, self.root)
        except StorageDenied:
            taken = None
        self.settle()
        visible = set(self.manifests()) - before
        assert len(visible) <= 1
        assert taken is None or visible == {taken.backup_id}
        for backup_id in visible:  # committed, and only the answer was lost
            self.record(backup_id)

    @rule(number=st.integers(0, 5))
    def forget(self, number: int) -> None:
        there = sorted(set(self.trees) - self.forgotten)
        if there:
            backup_id = there[number % len(there)]
            opened(self.storage, self.clock).forget(backup_id, "model")
            self.forgotten.add(backup_id)

    @rule(later=st.booleans(), call=st.one_of(st.none(), st.integers(0, 30)))
    def prune(self, later: bool, call: int | None) -> None:
        """Condemn; sweep what was condemned before; crash somewhere on the way, perhaps."""
        if later:
            self.clock.ahead += timedelta(hours=9)  # leases of crashed runs are over
        storage = self.storage if call is None else FaultyStorage(self.storage, FailFrom(call, error=StorageDenied))
        try:
            repository = opened(storage, self.clock)
            prune(repository, plan_prune(repository, grace=timedelta(0), now=self.clock.now()), Heard())
        except StorageDenied:
            assert call is not None
        except ChronoBackupsError as error:
            # One that was killed still holds its lease; or this one could not read what it would have had to.
            assert "goes on" in str(error) or call is not None, error
        self.unchecked |= set(self.trees) - self.forgotten

    @invariant()
    def what_is_in_sight_is_what_it_should_be(self) -> None:
        if "repository" not in self.storage.objects:
            return
        visible = {manifest.backup_id for manifest in opened(self.storage).backups()}
        assert visible == set(self.trees) - self.forgotten
        # Each is read once after it was made and after each prune; all of them at the end.
        self.check(sorted(self.unchecked))
        self.unchecked.clear()

    def check(self, backup_ids: list[str]) -> None:
        repository = opened(self.storage)
        for backup_id in backup_ids:
            if backup_id in self.forgotten:
                continue
            snapshot = snapshot_of(repository, repository.backup(backup_id))
            found = in_repository(repository, snapshot, self.root)
            assert found == self.trees[backup_id]
            for path, first in hard_links(repository, snapshot).items():
                assert found[path] == found[first]
                assert path != first
        repository.close()


TestBackups = Backups.TestCase
TestBackups.settings = settings(
    max_examples=20,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
