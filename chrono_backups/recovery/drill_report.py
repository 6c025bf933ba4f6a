"""What is asked of a drill, and what it did and found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from chrono_backups.clock import to_text
from chrono_backups.events import Finding
from chrono_backups.recovery.postgres.proof import Proof
from chrono_backups.recovery.postgres.target import TO_THE_END, Target


@dataclass(frozen=True)
class DrillOptions:
    """How a drill is done."""

    place: Path | None = None
    """Where the throwaway directory is made; None: the system's temporary folder."""
    programs: Sequence[Path] = ()
    """Folders to look for PostgreSQL's programs in before the usual places."""
    target: Target = TO_THE_END
    """That a cluster is recovered to once it was found right at the end of its base backup."""
    structure: bool = True
    """Have ``pg_amcheck`` read every table and index."""
    sources: Sequence[str] = ()
    """Only these; a drill of a part proves nothing of the backup."""


@dataclass
class SourceDrill:
    """What became of one source."""

    source: str
    seconds: float = 0.0
    files: int = 0
    bytes: int = 0
    reached: dict[str, Any] | None = None
    """Where a cluster's recovery ended."""
    proofs: list[Proof] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return all(proof.good for proof in self.proofs) and not any(one.severity == "error" for one in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "good": self.good,
            "seconds": round(self.seconds, 3),
            "files": self.files,
            "bytes": self.bytes,
            "reached": self.reached,
            "proofs": [proof.to_json() for proof in self.proofs],
            "findings": [finding.to_json() for finding in self.findings],
        }


@dataclass
class DrillReport:
    """What a drill did and found."""

    backup_id: str
    started_at: datetime
    finished_at: datetime
    target: str
    whole: bool
    """Every source of the backup was drilled."""
    sources: list[SourceDrill]
    evidence: str | None = None
    """Name of the evidence in the repository; None where it could not be stored."""
    findings: list[Finding] = field(default_factory=list)
    """Of the drill as a whole."""

    @property
    def good(self) -> bool:
        """Nothing that was drilled differs from what was captured."""
        return bool(self.sources) and all(one.good for one in self.sources)

    @property
    def proven(self) -> bool:
        """The whole backup was found true."""
        return self.good and self.whole

    def to_json(self) -> dict[str, Any]:
        return {
            "backup_id": self.backup_id,
            "started_at": to_text(self.started_at),
            "finished_at": to_text(self.finished_at),
            "seconds": round((self.finished_at - self.started_at).total_seconds(), 3),
            "target": self.target,
            "good": self.good,
            "proven": self.proven,
            "sources": [one.to_json() for one in self.sources],
            "findings": [finding.to_json() for finding in self.findings],
            "evidence": self.evidence,
        }
