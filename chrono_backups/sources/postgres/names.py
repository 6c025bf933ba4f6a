"""Names as SQL has them."""

from __future__ import annotations

from chrono_backups.sources.settings import PostgresSettings


def quoted(name: str) -> str:
    """An identifier, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def role(settings: PostgresSettings) -> str:
    """The backup role, quoted."""
    return quoted(settings.user or "postgres")
