"""Verification of archived WAL: names, histories and gaps, and in a full one every byte.

A gap is no damage to what was written, and undoes no backup: it is a warning, which tells what can't be restored to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

from chrono_backups.errors import Damaged, ObjectMissing
from chrono_backups.events import Finding, Progress
from chrono_backups.maintenance.inspection import Inspector
from chrono_backups.maintenance.packs import on_threads
from chrono_backups.maintenance.wal_retention import judge_wal
from chrono_backups.maintenance.wal_survey import archived_wal
from chrono_backups.repository.format import object_key, open_object
from chrono_backups.repository.recovery_points import Gap, bases, recovery_points
from chrono_backups.repository.wal_archive import MOMENT_SIZE, WalArchive
from chrono_backups.repository.wal_names import SEGMENT_SIZES, history_timeline, is_segment, parse_history, piece_name

_GAP = (
    "`chrono-backups verify --repair` puts back what another storage has. Otherwise nothing in the gap can be restored "
    "to; the next base backup begins a new range."
)


def verify_wal(inspector: Inspector, *, full: bool, progress: Callable[[str, int, int], None]) -> None:
    """Look at all that is archived; what is wrong goes to the inspector's findings."""
    repository, findings = inspector.repository, inspector.findings
    found = {system: contents for system, contents in WalArchive.systems(repository).items() if contents.sizes}
    if not found:
        return
    needless = _not_relied_on(inspector)
    names = [(system, name) for system, contents in found.items() for name in contents.sizes]
    wanted = [one for one in names if full or one[1].endswith(".history")]

    def prove(one: tuple[str, str]) -> Damaged | None:
        whole = "/".join(one)
        try:
            _prove(one[1], open_object(repository.keys, "wal", whole, inspector.get(object_key("wal", whole))), whole)
        except ObjectMissing:  # a longer piece took its place, or it was pruned
            return None
        except Damaged as error:
            return error
        return None

    with closing(on_threads(prove, wanted)) as results:
        for number, ((system, name), error) in enumerate(zip(wanted, results, strict=True), 1):
            progress("wal", number, len(wanted))
            if error is not None:
                findings.damage(error, relied_on=(system, name) not in needless)
    for system, name in names:
        if not (is_segment(name) or piece_name(name) or history_timeline(name) is not None):
            findings.add("stray", object_key("wal", f"{system}/{name}"), "it is no WAL", severity="warning")
    for gap in _gaps(inspector):
        key = object_key("wal", f"{gap.system_identifier}/{gap.first.lower()}")
        findings.add("wal-gap", key, f"WAL is missing: {gap}", _GAP, "warning")


def _prove(name: str, content: bytes, whole: str) -> None:
    """Raises ``Damaged`` where what was sealed is not what the name says."""
    key = object_key("wal", whole)
    piece = piece_name(name)
    if is_segment(name):
        if len(content) - MOMENT_SIZE not in SEGMENT_SIZES:
            raise Damaged(f"{key} holds {len(content) - MOMENT_SIZE} bytes, which is no segment", key=key)
    elif piece is not None:
        if len(content) - MOMENT_SIZE != piece.end - piece.start:
            raise Damaged(f"{key} holds {len(content) - MOMENT_SIZE} bytes", key=key)
    elif history_timeline(name) is not None:
        try:
            parse_history(content)
        except ValueError as error:
            raise Damaged(f"{key} is no timeline's history: {error}", key=key) from error


def _not_relied_on(inspector: Inspector) -> set[tuple[str, str]]:
    repository = inspector.repository
    kept = bases(repository.readable_backups()[0])
    now = repository.clock.now()
    return {
        (one.system, name)
        for one in archived_wal(repository, kept, lambda _: None)
        for name in judge_wal(one.archived, kept, (), now, one.newest).remove
    }


def _gaps(inspector: Inspector) -> Iterator[Gap]:
    def hear(event: Progress | Finding) -> None:
        if isinstance(event, Finding) and event.subject.startswith("wal/"):
            inspector.findings.add(event.code, event.subject, event.message, event.hint, event.severity)

    yield from recovery_points(inspector.repository, hear).gaps
