"""Finding PostgreSQL's own programs on this machine: of a version, or of one that understands a server's."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from chrono_backups.errors import SourceError

_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/libexec/postgresql*",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/opt/homebrew/opt/libpq/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/usr/local/opt/libpq/bin",
)
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)(?:\.(\d+)|\w+)?")
_ANSWER_SECONDS = 20


@dataclass(frozen=True, order=True)
class Programs:
    """A folder with PostgreSQL's programs. ``version`` as the server counts it: 180004."""

    version: int
    folder: Path

    @property
    def major(self) -> int:
        return self.version // 10000

    @property
    def shown(self) -> str:
        """As ``18.4``."""
        return f"{self.major}.{self.version % 10000}"


def installed(needed: Sequence[str], folders: Sequence[Path] = ()) -> list[Programs]:
    """Every folder that has all ``needed`` programs: those of ``folders``, then the usual places, in that order.

    The version is what the first of them says of itself.
    """
    found: list[Programs] = []
    for folder in dict.fromkeys((*folders, *_usual(needed[0]))):
        if all(os.access(folder / name, os.X_OK) for name in needed):
            version = _version(folder / needed[0])
            if version is not None:
                found.append(Programs(version, folder))
    return found


def client_programs(server: int, folders: Sequence[Path] = ()) -> Programs:
    """Programs that can dump a server of version ``server`` (as 180004): its own major version, else the next later.

    Raises ``SourceError`` that says what to install, and which versions were found.
    """
    major = server // 10000
    found = installed(("pg_dump", "pg_dumpall"), folders)
    fit = [one for one in found if one.major >= major]
    if fit:
        return min(fit, key=lambda one: one.major)
    seen = ", ".join(f"{one.shown} in {one.folder}" for one in found) or "none"
    raise SourceError(
        f"the server is PostgreSQL {major}, and there is no pg_dump of that version or a later one; found: {seen}",
        source="postgres",
        hint=f"Install the client package of PostgreSQL {major} (Debian: postgresql-client-{major}), or set"
        " BACKUP_POSTGRES_BIN_DIR to the folder of its programs.",
    )


def _usual(program: str) -> Iterator[Path]:
    on_path = shutil.which(program)
    if on_path is not None:
        yield Path(on_path).parent
    for place in _PLACES:
        yield from map(Path, sorted(glob.glob(place), reverse=True))


def _version(program: Path) -> int | None:
    try:
        ran = subprocess.run(  # noqa: S603 - the operator's own program
            [program, "--version"], capture_output=True, text=True, check=False, timeout=_ANSWER_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(ran.stdout)
    return int(match[1]) * 10000 + int(match[2] or 0) if match else None
