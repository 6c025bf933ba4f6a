"""Reading objects one by one so that damage is a finding, and the rest goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from chrono_backups.errors import Damaged, ObjectMissing, StorageDenied, StorageError, StorageUnavailable
from chrono_backups.events import Finding, Listener, Severity, silent
from chrono_backups.repository.format import HEADER_KEY, object_key, open_object, prefix
from chrono_backups.repository.index import IndexTable
from chrono_backups.repository.repository import Repository

T = TypeVar("T")
_LISTINGS_MOST = 20

HINT = (
    "`chrono-backups verify --repair` puts it back from another storage; or take a new backup: what is still at hand "
    "is stored anew."
)

UNUSED = "No backup in sight relies on it, and `prune` removes it."


class Findings:
    """What was found wrong: each object once for each kind of fault."""

    def __init__(self, listener: Listener = silent) -> None:
        self._listener = listener
        self._found: dict[tuple[str, str], Finding] = {}

    def add(self, code: str, subject: str, message: str, hint: str = "", severity: Severity = "error") -> None:
        """Keep a finding and pass it on, unless it is known."""
        finding = Finding(code, severity, subject, message, hint)
        if (code, subject) not in self._found:
            self._found[code, subject] = finding
            self._listener(finding)

    def damage(self, error: Damaged, *, relied_on: bool = True) -> None:
        """Keep what an error says of an object; it is a warning where no backup in sight relies on the object."""
        if relied_on:
            self.add("damaged", error.key, error.message, HINT)
        else:
            self.add("damaged", error.key, error.message, UNUSED, "warning")

    @property
    def found(self) -> tuple[Finding, ...]:
        return tuple(self._found.values())

    @property
    def errors(self) -> list[Finding]:
        return [one for one in self._found.values() if one.severity == "error"]


class Inspector:
    """Reads a repository's objects, and counts them. May be shared by threads."""

    def __init__(self, repository: Repository, findings: Findings) -> None:
        self.repository = repository
        self.findings = findings
        self.objects = 0
        self.bytes = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | bytearray:
        """A whole object. Raises ``ObjectMissing``; ``Damaged`` where this one object can't be read."""
        try:
            stored = self.repository.storage.get(key)
        except ObjectMissing:
            raise
        except StorageUnavailable as error:
            # A bad sector looks like this too. Where the header can still be had it is this object's own fault.
            self.repository.storage.get(HEADER_KEY)
            raise unreadable(key, error) from error
        except StorageError as error:
            raise unreadable(key, error) from error
        with self._lock:
            self.objects += 1
            self.bytes += len(stored)
        return stored

    def each(self, names: Iterable[str], inspect: Callable[[str], T], *, relied_on: bool = True) -> dict[str, T]:
        """What ``inspect`` makes of each object; damage is kept, and what was removed meanwhile is left out."""
        made: dict[str, T] = {}
        for name in names:
            try:
                made[name] = inspect(name)
            except ObjectMissing:
                continue
            except Damaged as error:
                self.findings.damage(error, relied_on=relied_on)
        return made

    def index_tables(self) -> dict[str, IndexTable]:
        """All index objects that can be read, by name. One that prune replaces meanwhile is read in its new place."""
        for _ in range(_LISTINGS_MOST):
            gone: list[str] = []
            tables: dict[str, IndexTable] = {}
            for name in self.repository.names("index"):
                key = object_key("index", name)
                try:
                    content = open_object(self.repository.keys, "index", name, self.get(key))
                    tables[name] = IndexTable(content, key)
                except ObjectMissing:
                    gone.append(key)
                except Damaged as error:
                    self.findings.damage(error)
            if not gone:
                return tables
        for key in gone:
            self.findings.add("missing", key, f"{key} is listed and missing", HINT)
        return tables


def digest_of(key: str) -> bytes | None:
    """The digest that a pack's key spells; None where it spells none."""
    try:
        digest = bytes.fromhex(key.removeprefix(prefix("pack")))
    except ValueError:
        return None
    return digest if len(digest) == 32 else None


def unreadable(key: str, error: StorageError) -> Damaged:
    """What an object is that the storage does not give out."""
    why = "may not be read" if isinstance(error, StorageDenied) else "can't be read"
    return Damaged(f"{key} {why}: {error.message}", key=key)
