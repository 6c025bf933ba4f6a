"""Verification: what is stored is proven to be what was written, as far as that is asked.

Quick: the header, the key slots and every record open and are well-formed; every backup's snapshots, listings and
chunks are there, in packs that are stored in full size; archived WAL has no gaps. Full: every byte of every pack and of
all WAL besides.

It goes on behind whatever it meets, changes nothing, and names each damaged object once, with the backups and paths
that it spoils. Backups may be taken and pruned meanwhile. What a writer has stored and not yet committed, or a
killed one has left, is no damage.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from chrono_backups.clock import from_text
from chrono_backups.errors import Damaged, ObjectMissing
from chrono_backups.events import Finding, Listener, Progress, silent
from chrono_backups.maintenance.inspection import HINT, Findings, Inspector
from chrono_backups.maintenance.packs import PackProver, PackResult, on_threads
from chrono_backups.maintenance.spoilt import Spoilt
from chrono_backups.maintenance.structure import Structure
from chrono_backups.maintenance.wal_verification import verify_wal
from chrono_backups.pipeline.encryption import Kind
from chrono_backups.repository.evidence import Evidence
from chrono_backups.repository.format import HEADER_KEY, KEYS_FOLDER, Header, KeySlot, object_key, open_record, prefix
from chrono_backups.repository.leases import Lease
from chrono_backups.repository.repository import Repository


@dataclass(frozen=True)
class VerifyReport:
    """What was looked at, and what is wrong."""

    objects: int
    """Objects that were read or, packs in a quick verification, found in their size."""
    bytes: int
    """Stored bytes that were read."""
    chunks: int
    """Chunks that were opened, or in a quick verification found where the index says."""
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing that backups rely on is damaged."""
        return not any(finding.severity == "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "objects": self.objects,
            "bytes": self.bytes,
            "chunks": self.chunks,
            "seconds": self.seconds,
            "findings": [finding.to_json() for finding in self.findings],
        }


def verify(
    repository: Repository, *, backup_id: str | None = None, full: bool = False, listener: Listener = silent
) -> VerifyReport:
    """Verify the repository, or what one backup needs.

    Damage is in the report. Raises ``BackupMissing`` for an unknown id, and ``StorageUnavailable`` where the storage
    as a whole does not answer. ``listener`` hears of each finding at the end, when it is known what it spoils.
    """
    started = repository.clock.monotonic()
    if backup_id is not None:
        _known(repository, backup_id)
    run = _Verification(repository, backup_id, full, listener)
    findings = run.run()
    for finding in findings:
        listener(finding)
    seconds = repository.clock.monotonic() - started
    return VerifyReport(run.objects, run.inspector.bytes, run.chunks, findings, seconds)


def _known(repository: Repository, backup_id: str) -> None:
    """Raises ``BackupMissing``; a damaged manifest is for the report."""
    try:
        repository.backup(backup_id)
    except Damaged:
        return


def _noted(_key: str, record: dict[str, Any]) -> None:
    from_text(record["at"]), str(record["reason"])


def _condemned(_key: str, record: dict[str, Any]) -> None:
    from_text(record["at"]), list(map(bytes.fromhex, record["packs"]))


def _stamp(_key: str, record: dict[str, Any]) -> None:
    from_text(record["at"]), from_text(record["until"])


_RECORDS: dict[Kind, Callable[[str, dict[str, Any]], object]] = {
    "lease": lambda key, record: Lease.from_json(record, key),
    "forgotten": _noted,
    "pin": _noted,
    "condemned": _condemned,
    "lock": _stamp,
    "drill": lambda key, record: Evidence.from_json(record, key),
}
"""What each kind of small record is read as."""


class _Verification:
    def __init__(self, repository: Repository, backup_id: str | None, full: bool, listener: Listener) -> None:
        self._repository = repository
        self._backup_id = backup_id
        self._full = full
        self._listener = listener
        self._findings = Findings()
        self.inspector = Inspector(repository, self._findings)
        self._structure = Structure(repository, self.inspector, backup_id, self._progress)
        self._packs_seen = 0
        self._chunks_opened = 0

    @property
    def objects(self) -> int:
        return self.inspector.objects + (0 if self._full else self._packs_seen)

    @property
    def chunks(self) -> int:
        return self._chunks_opened if self._full else self._structure.chunks

    def _progress(self, subject: str, done: int, total: int) -> None:
        self._listener(Progress("verify", subject, self.inspector.bytes, done, None, total))

    def run(self) -> tuple[Finding, ...]:
        """All of it: records, then what backups refer to, then packs."""
        self._header()
        self._slots()
        if self._backup_id is None:
            self._records()
            verify_wal(self.inspector, full=self._full, progress=self._progress)
        structure = self._structure
        structure.read()
        spoilt = Spoilt(self._repository, structure, self._findings)
        wanted = structure.packs_to_prove()
        self._packs_seen = len(wanted)
        if self._full:
            self._prove(spoilt, wanted)
        return spoilt.tell()

    # Objects that stand for themselves.

    def _header(self) -> None:
        try:
            if Header.decode(self.inspector.get(HEADER_KEY)) != self._repository.keyring.header:
                self._findings.add("damaged", HEADER_KEY, "it is the header of another repository", HINT)
        except ObjectMissing:
            hint = "A replica has the same header. Without one nobody opens this repository any more."
            self._findings.add("missing", HEADER_KEY, "the repository's header is missing", hint)
        except Damaged as error:
            self._findings.damage(error)

    def _slots(self) -> None:
        start = f"{KEYS_FOLDER}/"
        found = set()
        for info in self._repository.storage.list(start):
            found.add(info.key)
            try:
                slot = KeySlot.decode(self.inspector.get(info.key), info.key)
                if slot.header != self._repository.keyring.header:
                    raise Damaged(f"{info.key} is a slot of another repository", key=info.key)
            except ObjectMissing:
                found.discard(info.key)
            except Damaged as error:
                self._findings.damage(error)
        current = self._repository.keyring.current
        if current is not None and start + current not in found:
            hint = "Nothing opens the repository with this key any more: have a replica at hand, or other keys."
            self._findings.add("missing", start + current, "the slot of the key in use is missing", hint)

    def _records(self) -> None:
        for kind in _RECORDS:
            names = self._repository.names(kind)
            self.inspector.each(names, partial(self._record, kind))

    def _record(self, kind: Kind, name: str) -> None:
        key = object_key(kind, name)
        record = open_record(self._repository.keys, kind, name, self.inspector.get(key))
        try:
            _RECORDS[kind](key, record)
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(f"{key} is not such a record: {error}", key=key) from error

    # Packs.

    def _prove(self, spoilt: Spoilt, wanted: dict[bytes, int]) -> None:
        """Read every byte of the packs (digest → size)."""
        prover = PackProver(self._repository.keys, self._structure.index)
        total, done_bytes = sum(wanted.values()), 0

        def prove(digest: bytes) -> PackResult | Damaged | None:
            try:
                return prover.prove(digest, self.inspector.get(prefix("pack") + digest.hex()))
            except ObjectMissing:
                return None
            except Damaged as error:
                return error

        with closing(on_threads(prove, wanted)) as results:
            for number, (digest, result) in enumerate(zip(wanted, results, strict=True), 1):
                if result is None:
                    spoilt.gone(digest)
                elif isinstance(result, Damaged):
                    spoilt.pack(digest, result.message)
                else:
                    self._chunks_opened += result.chunks
                    if result.faults:
                        spoilt.result(result)
                done_bytes += wanted[digest]
                self._listener(Progress("verify", "packs", done_bytes, number, total, len(wanted)))
