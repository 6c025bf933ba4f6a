"""What long work tells while it runs, and what it found.

``Listener`` receives ``Progress`` often (tens of times a second at most) and each ``Finding`` once.
It must return quickly and may be called from the thread that does the work only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["info", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing wrong or worth knowing: machine-readable ``code``, the thing, what, and the remedy."""

    code: str
    severity: Severity
    subject: str
    message: str
    hint: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Finding:
        return cls(**{name: data[name] for name in ("code", "severity", "subject", "message", "hint")})

    def masked(self, redact: Callable[[str], str]) -> Finding:
        """Without secrets that a driver's message may have quoted."""
        subject, message, hint = redact(self.subject), redact(self.message), redact(self.hint)
        return Finding(self.code, self.severity, subject, message, hint)

    def __str__(self) -> str:
        return f"{self.severity}: {self.subject}: {self.message}" + (f" ({self.hint})" if self.hint else "")


@dataclass(frozen=True)
class Progress:
    """How far the work is. ``total_*`` is None while unknown; bytes are plain bytes of content."""

    operation: str
    subject: str
    done_bytes: int
    done_items: int
    total_bytes: int | None = None
    total_items: int | None = None


Listener = Callable[[Progress | Finding], None]


def silent(_event: Progress | Finding) -> None:
    """A listener that ignores everything."""
