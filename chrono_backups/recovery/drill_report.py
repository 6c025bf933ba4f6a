"""What is asked of a drill, and what it did and found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from chrono_backups.clock import to_text
from chrono_backups.events import Finding
from chrono_backups.recovery.checks.judge import CheckResult
from chrono_backups.recovery.checks.reading import read_checks
from chrono_backups.recovery.checks.syntax import Check
from chrono_backups.recovery.point import RecoveryPoint
from chrono_backups.recovery.postgres.proof import Proof
from chrono_backups.recovery.postgres.target import TO_THE_END, Target
from chrono_backups.sources.settings import MeilisearchSettings, PostgresSettings, RedisSettings


@dataclass(frozen=True)
class DrillOptions:
    """How a drill is done."""

    place: Path | None = None
    """Where the throwaway directory is made; None: the system's temporary folder."""
    programs: Sequence[Path] = ()
    """Folders to look for PostgreSQL's programs in before the usual places."""
    redis_programs: Sequence[Path] = ()
    """Folders to look for ``redis-server`` in before the usual places."""
    meilisearch_bin: Path | None = None
    """Meilisearch's program; None: the one in ``PATH``, if any."""
    target: Target = TO_THE_END
    """That a cluster is recovered to once it was found right at the end of its base backup."""
    structure: bool = True
    """Have ``pg_amcheck`` read every table and index."""
    sources: Sequence[str] = ()
    """Only these; a drill of a part proves nothing of the backup."""
    checks: Sequence[Check] = ()
    """The operator's own: with any, all sources stand at once, so that they can be asked together."""
    database: str = "postgres"
    """That SQL is asked in, where a check names none."""

    @classmethod
    def of(
        cls,
        place: Path | None,
        checks: str | None,
        postgres: PostgresSettings,
        redis: RedisSettings,
        meilisearch: MeilisearchSettings,
        *,
        target: Target = TO_THE_END,
        structure: bool = True,
        sources: Sequence[str] = (),
    ) -> DrillOptions:
        """As the settings have it. Raises ``UsageError`` where a check can't be read."""
        return cls(
            place,
            postgres.bin_dir,
            redis.bin_dir,
            meilisearch.bin,
            target,
            structure,
            sources,
            read_checks(checks),
            postgres.db or "postgres",
        )


@dataclass
class SourceDrill:
    """What became of one source."""

    source: str
    seconds: float = 0.0
    ready_seconds: float = 0.0
    """Of ``seconds``: until it was restored, and answered where it is a server. The rest is finding out."""
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
            "ready_seconds": round(self.ready_seconds, 3),
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
    point: RecoveryPoint | None = None
    """What was restored together."""
    checks: list[CheckResult] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Nothing that was drilled differs from what was captured, and all checks hold."""
        return bool(self.sources) and all(one.good for one in self.sources) and all(one.good for one in self.checks)

    @property
    def recovery_seconds(self) -> float:
        """Time to recovery: until all of it was restored and answered, one source after another."""
        return sum(one.ready_seconds for one in self.sources)

    @property
    def errors(self) -> list[Finding]:
        """All that is wrong."""
        found = [finding for one in self.sources for finding in one.findings]
        found += [finding for one in self.sources for proof in one.proofs for finding in proof.findings]
        found += [result.finding for result in self.checks if result.finding is not None]
        return [one for one in found if one.severity == "error"]

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
            "recovery_seconds": round(self.recovery_seconds, 3),
            "target": self.target,
            "point": self.point.to_json() if self.point is not None else None,
            "good": self.good,
            "proven": self.proven,
            "sources": [one.to_json() for one in self.sources],
            "checks": [one.to_json() for one in self.checks],
            "findings": [finding.to_json() for finding in self.findings],
            "evidence": self.evidence,
        }
