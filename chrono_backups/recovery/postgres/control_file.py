"""What a cluster's ``global/pg_control`` says.

Source: ``src/include/catalog/pg_control.h``, the same up to ``floatFormat`` from PostgreSQL 15 to 18; little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from chrono_backups.errors import RestoreError

_HEAD = struct.Struct("<Q")
_TIMELINE = struct.Struct("<I")
_TIMELINE_AT = 48
_SETTINGS = struct.Struct("<iiiii?")
_SETTINGS_AT = 180
_FLOAT_FORMAT = struct.Struct("<d")
_FLOAT_FORMAT_AT = 208
_FLOAT_FORMAT_IS = 1234567.0
"""By this the server itself tells whether a control file is laid out as it thinks."""


@dataclass(frozen=True)
class ControlFile:
    """The cluster, and the settings that a server needs at least to replay its WAL and be asked meanwhile."""

    system_identifier: str
    timeline: int
    """Of its last checkpoint."""
    needed: dict[str, int]
    """Setting → least value; empty where the file is laid out in a way that is not known."""
    track_commit_timestamp: bool

    @classmethod
    def read(cls, data: Path) -> ControlFile:
        """Raises ``RestoreError`` where the directory has none."""
        try:
            content = (data / "global" / "pg_control").read_bytes()
        except OSError as error:
            raise RestoreError(f"{data} is no data directory: it has no global/pg_control") from error
        return cls.parse(content)

    @classmethod
    def parse(cls, content: bytes) -> ControlFile:
        """Raises ``RestoreError`` where it is too short."""
        if len(content) < _FLOAT_FORMAT_AT + _FLOAT_FORMAT.size:
            raise RestoreError(f"global/pg_control has {len(content)} bytes, which is too short")
        needed, track = {}, False
        if _FLOAT_FORMAT.unpack_from(content, _FLOAT_FORMAT_AT)[0] == _FLOAT_FORMAT_IS:
            *numbers, track = _SETTINGS.unpack_from(content, _SETTINGS_AT)
            needed = dict(zip(NEEDED_SETTINGS, numbers, strict=True))
        system = _HEAD.unpack_from(content, 0)[0]
        return cls(str(system), _TIMELINE.unpack_from(content, _TIMELINE_AT)[0], needed, track)


NEEDED_SETTINGS: dict[str, int] = {
    "max_connections": 100,
    "max_worker_processes": 8,
    "max_wal_senders": 10,
    "max_prepared_transactions": 0,
    "max_locks_per_transaction": 64,
}
"""Settings that a hot standby must have at least as high as the server whose WAL it replays, with their defaults."""
