"""What damaged packs spoil: which backups, and which paths of them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from chrono_backups.errors import Damaged, ObjectMissing
from chrono_backups.events import Finding, Severity
from chrono_backups.maintenance.inspection import HINT, Findings
from chrono_backups.maintenance.marks import LOST, NEEDED
from chrono_backups.maintenance.packs import PackResult
from chrono_backups.maintenance.structure import PackFault, Structure
from chrono_backups.repository.format import object_key, prefix
from chrono_backups.repository.listing import Segment
from chrono_backups.repository.listings import content_extents
from chrono_backups.repository.reader import ChunkReader
from chrono_backups.repository.repository import Repository
from chrono_backups.storage.base import ObjectInfo

_NAMED = 5
_NOWHERE = ""
"""In the place of a pack: chunks that are in none."""


@dataclass
class _Use:
    """Who needs what is lost in one pack."""

    listings: set[int] = field(default_factory=set)
    paths: list[str] = field(default_factory=list)
    more: int = 0

    def add(self, number: int, path: str) -> None:
        self.listings.add(number)
        if path in self.paths:
            return
        if len(self.paths) < _NAMED:
            self.paths.append(path)
        else:
            self.more += 1


class Spoilt:
    """Gathers what is wrong with packs; ``tell`` turns it into findings that say what it spoils."""

    def __init__(self, repository: Repository, structure: Structure, findings: Findings) -> None:
        self._repository = repository
        self._structure = structure
        self._findings = findings

    def gone(self, digest: bytes) -> None:
        """A pack that was listed, and is not there any more."""
        self._lose(digest, None)
        self._structure.faults.append(PackFault(digest, "missing", "it is missing"))

    def pack(self, digest: bytes, message: str) -> None:
        """A pack that can't be read at all."""
        self._lose(digest, None)
        self._structure.faults.append(PackFault(digest, "damaged", message))

    def result(self, result: PackResult) -> None:
        """A pack with faults."""
        self._lose(result.digest, result.bad)
        more = len(result.faults) - _NAMED
        message = "; ".join(result.faults[:_NAMED]) + (f"; and {more:,} more faults" if more > 0 else "")
        self._structure.faults.append(PackFault(result.digest, "damaged", message))

    def _lose(self, digest: bytes, chunk_ids: list[bytes] | None) -> None:
        index = self._structure.index
        if chunk_ids is None:
            places = list(index.select(lambda pack: pack.digest == digest))
        else:
            places = [place for chunk_id in chunk_ids for place in index.places(chunk_id)]
        for table, row in places:
            if table.packs[table.pack[row]].digest == digest:
                table.marks[row] |= LOST

    def tell(self) -> tuple[Finding, ...]:
        """All findings, with those of packs."""
        uses = self._uses(self._lost())
        faults: dict[bytes, PackFault] = {}
        for fault in self._structure.faults:  # the last word on a pack is the most exact, unless it is not there
            if fault.digest not in faults or faults[fault.digest].code != "missing":
                faults[fault.digest] = fault
        for fault in faults.values():
            self._tell_pack(fault, uses.pop(fault.digest.hex(), None))
        nowhere = uses.pop(_NOWHERE, None)
        if nowhere is not None:
            self._tell_nowhere(nowhere)
        for name, use in uses.items():  # found in packs that no index object names
            message = f"no index object names it, and backups need it; {self._spoils(use)}"
            self._findings.add("unindexed", prefix("pack") + name, message, "Take a backup: it is adopted then.")
        found = self._findings.found
        if self._structure.backup_id is None or self._structure.nowhere:
            return found
        # The one backup has all its chunks, so an index object that can't be read is not one that it needs.
        return tuple(
            Finding(one.code, "warning", one.subject, one.message, one.hint) if _is_index(one) else one for one in found
        )

    def _tell_pack(self, fault: PackFault, use: _Use | None) -> None:
        severity: Severity = "error"
        if use is None and (fault.code == "missing" or self._structure.backup_id is not None):
            severity = "warning"
        key = prefix("pack") + fault.digest.hex()
        if fault.code == "missing" and use is None:
            message, hint = f"{fault.message}; no backup needs it", "`prune` takes it off the index."
        else:
            message, hint = f"{fault.message}; {self._spoils(use)}", HINT
        self._findings.add(fault.code, key, message, hint, severity)

    def _tell_nowhere(self, use: _Use) -> None:
        for holder in self._structure.listings.held_by(use.listings):
            key = object_key("snapshot", holder.snapshot_id)
            self._findings.add("chunks-missing", key, f"chunks that it needs are in no pack; {self._spoils(use)}", HINT)

    def _spoils(self, use: _Use | None) -> str:
        if use is None:
            return "no backup needs what is lost"
        backups = list(dict.fromkeys(one.backup_id for one in self._structure.listings.held_by(use.listings)))
        more = len(backups) - _NAMED
        named = ", ".join(backups[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
        paths = ", ".join(use.paths) + (f" and {use.more:,} more" if use.more else "")
        return f"it spoils {paths} in {named}"

    # Which chunks are lost, and where they would be.

    def _lost(self) -> dict[bytes, list[str]]:
        """Every needed chunk that can't be had → the names of the packs that it should be in."""
        index = self._structure.index
        lost: dict[bytes, list[str]] = {}
        for table, row in index.marked(LOST):
            chunk_id = table.chunk_id(row)
            places = index.places(chunk_id)
            if table.marks[row] & NEEDED and all(one.marks[at] & LOST for one, at in places):
                lost[chunk_id] = [one.packs[one.pack[at]].name for one, at in places]
        for chunk_id in self._structure.nowhere:
            lost[chunk_id] = [_NOWHERE]
        if self._structure.nowhere:
            self._look_into_unindexed(lost)
        return lost

    def _look_into_unindexed(self, lost: dict[bytes, list[str]]) -> None:
        known = self._structure.index.packs()
        for digest, size in self._structure.stored.items():
            if digest in known:
                continue
            info = ObjectInfo(prefix("pack") + digest.hex(), size)
            try:
                _, rows = self._repository.read_pack_directory(info)
            except (Damaged, ObjectMissing):
                continue
            for row in rows:
                if row.chunk_id in self._structure.nowhere:
                    lost[row.chunk_id] = [digest.hex()]

    # Who needs them.

    def _uses(self, lost: dict[bytes, list[str]]) -> dict[str, _Use]:
        """Pack name → who needs what is lost in it. Reads the listings once more, where anything is lost."""
        uses: dict[str, _Use] = {}
        if not lost:
            return uses
        listings = self._structure.listings
        readable = []
        for number, chunk_id in enumerate(listings.chunk_ids):
            if chunk_id not in lost:
                readable.append(number)
            for name in lost.get(chunk_id, ()):
                first = listings.first_paths[number].decode("utf-8", "backslashreplace")
                uses.setdefault(name, _Use()).add(number, f"the listing from /{first}")
        reader = self._structure.reader()
        try:
            for number, content in listings.read(reader, self._structure.index, readable):
                for segment in [] if isinstance(content, Damaged) else content:
                    self._uses_in(reader, number, segment, lost, uses)
        finally:
            reader.close()
        return uses

    def _uses_in(
        self, reader: ChunkReader, number: int, segment: Segment, lost: dict[bytes, list[str]], uses: dict[str, _Use]
    ) -> None:
        indirect = {position for position, extra in segment.extras.items() if extra.indirect}
        if not indirect and not any(chunk_id in lost for chunk_id in segment.chunk_ids()):
            return
        for position, name in enumerate(segment.names):
            chunks = {extent.chunk_id for extent in segment.extents(position)}
            if position in indirect:
                with suppress(Damaged):  # the rows themselves are lost, and named
                    chunks |= {extent.chunk_id for extent in content_extents(reader, segment, position)}
            path = "/" + (segment.path + b"/" + name).lstrip(b"/").decode("utf-8", "backslashreplace")
            for pack in {pack for chunk_id in chunks if chunk_id in lost for pack in lost[chunk_id]}:
                uses.setdefault(pack, _Use()).add(number, path)


def _is_index(finding: Finding) -> bool:
    return finding.subject.startswith(prefix("index"))
