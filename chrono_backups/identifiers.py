"""The names that all rooms share: backup types, sources, storages, ids.

A backup's id is ``{type}_{YYYYMMDD}_{HHMMSS}`` in UTC; it sorts by time within its type.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

BackupType = Literal["full", "incremental", "differential", "database_only", "files_only", "configuration"]
SourceName = Literal["postgres", "redis", "meilisearch", "files", "configuration"]
StorageName = Literal["local", "local_mirror", "aws_s3", "gcs", "azure_blob", "sftp"]

BACKUP_TYPES: tuple[BackupType, ...] = get_args(BackupType)
SOURCE_NAMES: tuple[SourceName, ...] = get_args(SourceName)
STORAGE_NAMES: tuple[StorageName, ...] = get_args(StorageName)

SOURCES_OF_TYPE: dict[BackupType, tuple[SourceName, ...]] = {
    "full": SOURCE_NAMES,
    "incremental": SOURCE_NAMES,
    "differential": SOURCE_NAMES,
    "database_only": ("postgres", "redis"),
    "files_only": ("files", "configuration"),
    "configuration": ("configuration",),
}
"""Which sources each backup type captures."""

_BACKUP_ID = re.compile(rf"({'|'.join(BACKUP_TYPES)})_(\d{{8}}_\d{{6}})")


def backup_id(backup_type: BackupType, moment: datetime) -> str:
    """The id of a backup of that type begun at ``moment`` (an aware datetime)."""
    return f"{backup_type}_{moment.astimezone(UTC):%Y%m%d_%H%M%S}"


def parse_backup_id(text: str) -> tuple[BackupType, datetime] | None:
    """Type and UTC second of a backup id, or None if ``text`` is not one."""
    match = _BACKUP_ID.fullmatch(text)
    if match is None:
        return None
    try:
        moment = datetime.strptime(match[2], "%Y%m%d_%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    return match[1], moment  # type: ignore[return-value]


def next_second(identifier: str) -> str:
    """The id one second later: what a backup takes when its own second is taken."""
    parsed = parse_backup_id(identifier)
    if parsed is None:
        raise ValueError(f"not a backup id: {identifier!r}")
    return backup_id(parsed[0], parsed[1] + timedelta(seconds=1))


_LSN = re.compile(r"([0-9A-F]{1,8})/([0-9A-F]{1,8})", re.IGNORECASE)


def lsn_text(position: int) -> str:
    """``2/A0000158``."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def lsn_number(text: str) -> int:
    """The position that ``lsn_text`` wrote. Raises ``ValueError``."""
    found = _LSN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no LSN")
    return (int(found[1], 16) << 32) + int(found[2], 16)
