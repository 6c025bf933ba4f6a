"""What a restored server runs for each WAL file."""

from __future__ import annotations

import os
import shlex
import sys

from chrono_backups.recovery.wal_spool import BOOT_FILE, FOLDER

NOT_ARCHIVED = 10
"""The code that stands for a file that is not archived."""


def fetch_command(settings_file: str | None, storage: str | None) -> str:
    """This program's ``wal-fetch``, by absolute paths, with the same settings file.

    What was fetched ahead is moved into place by the shell alone: starting Python takes longer than many a replay.
    To the server 1 means that there is no such file, and that recovery is at its end. A Python that can't load this
    program ends with 1 as well: so here another code stands for a file that is not archived.
    """
    words = [sys.executable, "-m", "chrono_backups", "--quiet"]
    if settings_file is not None:
        words += ["--env-file", os.path.abspath(settings_file)]
    words.append("wal-fetch")
    if storage:
        words += ["--storage", storage]
    words += ["--not-archived", str(NOT_ARCHIVED)]
    command = shlex.join(words).replace("%", "%%")
    ahead = f"{{ read -r b <{BOOT_FILE} && mv pg_wal/{FOLDER}/$b/%f %p; }} 2>/dev/null && exit 0"
    code = f"c=$?; test $c = {NOT_ARCHIVED} && exit 1; test $c = 1 && exit 126; exit $c"
    return f"{ahead}; {command} %f %p; {code}"
