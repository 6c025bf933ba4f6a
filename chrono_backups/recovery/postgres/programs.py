"""The server's programs of a major version."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from chrono_backups.errors import RestoreError
from chrono_backups.sources.postgres.programs import installed


def server_programs(major: int, folders: Sequence[Path] = ()) -> Path:
    """The folder with the server of that version: the first of ``folders``, then of the usual places.

    Raises ``RestoreError`` that says which versions were found instead.
    """
    every = installed(("postgres",), folders)
    for one in every:
        if one.major == major:
            return one.folder
    found = ", ".join(f"{one.shown} in {one.folder}" for one in every) or "none"
    raise RestoreError(
        f"there are no server programs of PostgreSQL {major} on this machine; found: {found}",
        hint=f"Install the server package of PostgreSQL {major}, or set BACKUP_POSTGRES_BIN_DIR to its programs.",
    )
