"""What a server's log tells: why it ended, how far it has replayed, what it reached. Messages are in English."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from chrono_backups.errors import RestoreError

_SEVERE = re.compile(r"^(?:FATAL|PANIC):\s+(?P<words>.*)$", re.MULTILINE)
_FOLLOWING = re.compile(r"^(?:DETAIL|HINT|CONTEXT):\s+(?P<words>.*)$")
_NOISE = ("the database system is starting up", "the database system is not yet accepting connections",
          "the database system is shutting down", "terminating connection", "role ")  # fmt: skip
BEFORE_TARGET = "recovery ended before configured recovery target was reached"
_REMEDIES = (
    (
        BEFORE_TARGET,
        "The WAL that is stored ends before the target, or does not hold it. `chrono-backups recovery-points` shows "
        "what can be reached.",
    ),
    (
        "insufficient parameter settings",
        "Raise the settings that the log names in postgresql.auto.conf of the restored directory, and start it again.",
    ),
    ("is not a child of this server's history", "Name the timeline that the target is on: --target-timeline."),
    ("could not access file", "Install the extension whose library is missing, in the server's version."),
    ("could not load library", "Install the extension whose library is missing, in the server's version."),
    ("database files are incompatible with server", "Name the programs of the right version: BACKUP_POSTGRES_BIN_DIR."),
    ("could not locate required checkpoint record", "Its WAL is missing: restore again, or from another backup."),
    ("could not map anonymous shared memory", "Lower shared_buffers in the restored directory, or free memory."),
    ("could not create shared memory segment", "Lower shared_buffers in the restored directory, or free memory."),
    ("No space left on device", "Make room, and restore again."),
    ("could not restore file", "The restore_command was stopped or could not run: the log tells."),
    ("restore_command", "The restore_command could not run as the server's user: the log tells."),
    ("has wrong ownership", "Give the data directory to the user that the server runs as: --owner USER."),
    ("Permission denied", "The server's user can't reach a file: the log names it."),
)
_SEGMENT = re.compile(r'restored log file "([0-9A-F]{24})" from archive')
_STOPPED = re.compile(r"^LOG:\s+recovery stopping (?P<words>.*)$", re.MULTILINE)
_LAST_COMMIT = re.compile(r"last completed transaction was at log time (?P<time>.+)$", re.MULTILINE)
_REDO_DONE = re.compile(r"redo done at (?P<lsn>[0-9A-F]+/[0-9A-F]+)")
_TIMELINE = re.compile(r"selected new timeline ID: (\d+)")


def failure(text: str, log: Path) -> RestoreError:
    """Why the server ended, by its own words, with the remedy where one is known."""
    words, following = "", ""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        match = _SEVERE.match(line)
        if match is None or any(sign in match["words"] for sign in _NOISE):
            continue
        more = [found["words"] for one in lines[number + 1 : number + 4] if (found := _FOLLOWING.match(one))]
        words, following = match["words"], " ".join(more)
        break
    said = f"{words}: {following}" if following else words
    hint = next((remedy for sign, remedy in _REMEDIES if sign in f"{said} {text[-4000:]}"), "")
    message = f"the restored server ended: {said}" if said else "the restored server ended without saying why"
    return RestoreError(message, hint=f"{hint} Its log: {log}".strip())


@dataclass(frozen=True)
class Told:
    """What the log tells of a recovery so far."""

    last_segment: str
    """The newest segment taken from the archive, or empty."""
    stopping: str
    """Where recovery stopped, in the server's words, or empty while it goes on or where there was no target."""
    last_commit: str
    redo_done: str
    new_timeline: int | None


def told(text: str) -> Told:
    """Read a log."""
    segments = _SEGMENT.findall(text)
    stops = _STOPPED.findall(text)
    commits = _LAST_COMMIT.findall(text)
    redone = _REDO_DONE.findall(text)
    timelines = _TIMELINE.findall(text)
    return Told(
        segments[-1] if segments else "",
        stops[-1] if stops else "",
        commits[-1] if commits else "",
        redone[-1] if redone else "",
        int(timelines[-1]) if timelines else None,
    )


def moment(text: str) -> datetime | None:
    """A time as the server logs it, with its offset."""
    try:
        return datetime.fromisoformat(re.sub(r"([+-]\d\d)$", r"\1:00", text.strip()))
    except ValueError:
        return None
