"""Names that captures and restores share."""

from __future__ import annotations

IN_BUILD = "__chrono_restore"
"""What the names of indexes end with that a restore builds. A capture leaves them out: they are no one's data yet."""
