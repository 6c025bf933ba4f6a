"""Copying archived WAL from one storage of a repository to another: for replicas, and to mend a gap.

What the base backups at the destination need is copied, the oldest first, so that what is there at any moment leads on
from them without a new hole. A piece goes only while no longer one takes its place, at either side; pieces that the
copies made needless are removed at the destination.

The receiver writes at the source meanwhile: a piece that is gone when it is read had its place taken, and the listing
is read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from chrono_backups.errors import Damaged, ObjectMissing
from chrono_backups.events import Listener, Progress, silent
from chrono_backups.maintenance.copying import Copier
from chrono_backups.maintenance.exclusion import Claim
from chrono_backups.maintenance.inspection import Findings
from chrono_backups.maintenance.packs import on_threads
from chrono_backups.maintenance.wal_retention import judge_wal
from chrono_backups.maintenance.wal_survey import ArchivedWal, archived_wal
from chrono_backups.repository.format import object_key, open_object
from chrono_backups.repository.recovery_points import Base, bases
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.wal_archive import MOMENT_SIZE, Contents, WalArchive
from chrono_backups.repository.wal_names import history_timeline, piece_name

_THREADS = 4
_ROUNDS = 3
_CONFLICT = "Two servers wrote the same log, or one was put back without a new timeline. Look at both of them."


class WalCopies:
    """Makes a repository's copy elsewhere have the WAL that it needs."""

    def __init__(
        self,
        source: Repository,
        target: Repository,
        copier: Copier,
        held: Claim,
        findings: Findings,
        listener: Listener = silent,
    ) -> None:
        self._source = source
        self._target = target
        self._copier = copier
        self._held = held
        self._findings = findings
        self._listener = listener

    def run(self, *, every: bool) -> list[str]:
        """Copy; the keys of what was missing and is there now. ``every``: of clusters without a base backup there, too.

        Damage at the source is a finding.
        """
        there = bases(self._target.readable_backups()[0])
        copied: list[str] = []
        for _ in range(_ROUNDS):
            gone = False
            for one in archived_wal(self._source, there, silent):
                if every or any(base.system_identifier == one.system for base in there):
                    gone |= self._cluster(one, there, copied)
            if not gone:
                break
        return copied

    def _cluster(self, one: ArchivedWal, there: Sequence[Base], copied: list[str]) -> bool:
        """Copy one cluster's; whether something vanished meanwhile."""
        archive = WalArchive(self._target, one.system)
        contents, present = one.archived.contents, archive.contents()
        left_out = set(judge_wal(one.archived, there, (), self._source.clock.now(), one.newest).remove)
        left_out |= {str(piece) for piece in Contents.of({**contents.sizes, **present.sizes}).needless()}
        missing = [
            name
            for name, size in contents.sizes.items()
            if name not in left_out and present.sizes.get(name) != size and _is_known(contents, name)
        ]
        self._copier.present += sum(present.sizes.get(name) == size for name, size in contents.sizes.items())
        gone = False
        total, done = sum(contents.sizes[name] for name in missing), 0

        def copy(name: str) -> bool | None:
            try:
                return self._copy(one.system, name, present.sizes.get(name))
            except ObjectMissing:
                return None

        with closing(on_threads(copy, missing, _THREADS)) as results:
            for number, (name, result) in enumerate(zip(missing, results, strict=True), 1):
                self._held.keep()
                gone |= result is None
                if result:
                    copied.append(object_key("wal", f"{one.system}/{name}"))
                done += contents.sizes[name]
                self._listener(Progress("replicate", "wal", done, number, total, len(missing)))
        archive.remove(archive.contents().needless())
        return gone

    def _copy(self, system: str, name: str, there: int | None) -> bool:
        """Whether the object was put. Raises ``ObjectMissing`` where the source has it no more."""
        whole = f"{system}/{name}"
        key = object_key("wal", whole)
        try:
            stored = self._copier.read("wal", whole)
        except Damaged as error:
            self._findings.damage(error)
            return False
        if there is not None and not self._may_replace(whole, key, stored):
            return False
        self._copier.put(key, stored)
        return True

    def _may_replace(self, whole: str, key: str, stored: bytes | bytearray) -> bool:
        """Clear the place where what the destination has there is damaged; a sound one that says the same stays."""
        keys = self._source.keys
        skip = 0 if whole.endswith(".history") else MOMENT_SIZE
        try:
            here = open_object(keys, "wal", whole, stored)
            found = open_object(keys, "wal", whole, self._target.storage.get(key))
        except ObjectMissing:
            return True
        except Damaged:
            return self._copier.replace(key)
        if found[skip:] != here[skip:]:
            self._findings.add("conflict", key, "the replica has other WAL of that name, which is sound", _CONFLICT)
        return False


def _is_known(contents: Contents, name: str) -> bool:
    """Whether it is an object of an archive, and not something else that lies there."""
    return name in contents.segments or piece_name(name) is not None or history_timeline(name) is not None
