"""How the tree of a PostgreSQL snapshot becomes a data directory, tablespaces and dumps of their own.

=================== =====================================================================
``data``            ``DIR/postgres``
``tablespaces/OID`` ``DIR/postgres-tablespaces/OID``, or where the operator maps it to
``dump``            ``DIR/postgres-dump``
=================== =====================================================================
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from chrono_backups.recovery.plan import STAGING
from chrono_backups.recovery.postgres.configure import Configured, Recovery, configure
from chrono_backups.recovery.tree import Placing

DATA, TABLESPACES, DUMP = "data", "tablespaces", "dump"
_DESTINATIONS = {DATA: "postgres", TABLESPACES: "postgres-tablespaces", DUMP: "postgres-dump"}


class ClusterArrangement:
    """Of one restore."""

    def __init__(
        self,
        target: Path,
        *,
        owner: tuple[int, int] | None,
        tablespaces: Mapping[int, Path],
        mapped: Mapping[int, Path],
        recovery: Recovery | None,
        written_by: str,
        true_manifest: bool,
    ) -> None:
        """``tablespaces``: oid → where its content will be; ``mapped``: those that are not below ``target``.

        Without ``recovery`` only a part is restored: files, set up for nothing.
        """
        self.whole = recovery is not None
        self.configured = Configured()
        self._target = target
        self._owner = owner
        self._tablespaces = tablespaces
        self._recovery = recovery
        self._written_by = written_by
        self._true_manifest = true_manifest
        run = f"{STAGING}{os.urandom(4).hex()}"
        self._mapped = {place: place / run for place in mapped.values()}
        self._made: list[Path] = []
        elsewhere = {f"{TABLESPACES}/{oid}".encode(): os.fsencode(place / run) for oid, place in mapped.items()}
        self.placing = Placing(owner, elsewhere)

    @classmethod
    def of_files(cls, target: Path, owner: tuple[int, int] | None) -> ClusterArrangement:
        """Of a part, or of dumps: set up for nothing."""
        return cls(target, owner=owner, tablespaces={}, mapped={}, recovery=None, written_by="", true_manifest=False)

    def prepare(self) -> None:
        """Have the directories that tablespaces are mapped to; what killed restores left in them goes."""
        for place in self._mapped:
            if not place.exists():
                place.mkdir(parents=True, mode=0o700)
                self._made.append(place)
            for name in os.listdir(place):
                if name.startswith(STAGING):
                    shutil.rmtree(place / name)
            if self._owner is not None and os.geteuid() == 0:
                os.chown(place, *self._owner)

    @staticmethod
    def destination(root: Path, part: str) -> Path:
        """Where a part of the snapshot goes."""
        return root / _DESTINATIONS[part]

    def arrange(self, staged: Path) -> Sequence[tuple[Path, Path]]:
        """Set the data directory up for its recovery; what is then to be moved where, the data directory last."""
        data = staged / DATA
        moves: list[tuple[Path, Path]] = []
        for place, content in self._mapped.items():
            moves += [(content / name, place / name) for name in sorted(os.listdir(content))]
        for link in staged.glob(f"{TABLESPACES}/*"):
            if link.is_symlink():
                link.unlink()
        for part in (TABLESPACES, DUMP, DATA):
            if (staged / part).is_dir() and (part == DATA or any((staged / part).iterdir())):
                moves.append((staged / part, self.destination(self._target, part)))
        if self._recovery is not None and data.is_dir():
            before = _names(data)
            self.configured = configure(
                data,
                self._recovery,
                written_by=self._written_by,
                tablespaces=self._tablespaces,
                true_manifest=self._true_manifest,
            )
            self._give(data, before)
        return moves

    def _give(self, data: Path, before: set[Path]) -> None:
        """Let what was made anew have the owner of the rest."""
        if self._owner is None or os.geteuid() != 0:
            return
        for path in {data, *(_names(data) - before)}:
            os.chown(path, *self._owner, follow_symlinks=False)
        for path in (data.parent / TABLESPACES,):
            if path.is_dir():
                os.chown(path, *self._owner)

    def settle(self) -> None:
        """All is moved: what is left of the staging beside mapped tablespaces goes."""
        for content in self._mapped.values():
            shutil.rmtree(content, ignore_errors=True)

    def give_up(self) -> None:
        """Remove what was written outside of the target."""
        self.settle()
        for place in self._made:
            shutil.rmtree(place, ignore_errors=True)


def _names(data: Path) -> set[Path]:
    """What lies in a data directory and in its folder of tablespaces."""
    return {*data.iterdir(), *(data / "pg_tblspc").glob("*")}
