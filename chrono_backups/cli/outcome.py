"""What a verb does that others have to hear of: it says so when it begins, and what it found when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chrono_backups.events import Finding
    from chrono_backups.repository.records import Manifest


@dataclass
class Undertaking:
    """One operation. A verb that begins none, as a dry run does, is nobody else's business."""

    operation: str
    event: str
    """What its failure is (``notifications/catalogue.py``)."""
    backup_type: str = ""
    backup_id: str = ""
    storage: str = ""
    """The storage that it works with."""
    findings: list[Finding] = field(default_factory=list)
    """What is wrong although it came to its end."""
    manifest: Manifest | None = None
    """The backup that it made."""
    proven: tuple[str, str] | None = None
    """A backup's id, and by what it was proven whole: ``drill`` or ``verify``."""
