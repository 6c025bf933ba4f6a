"""The names that the UI shows and that the files of this room share: assets, checks, tags."""

import dagster as dg

from chrono_backups.identifiers import BackupType

BACKUP_ID_TAG = "chrono/backup_id"
BACKUP_TYPE_TAG = "chrono/backup_type"
EVIDENCE_TAG = "chrono/evidence"
KIND_TAG = "chrono/kind"
TRIGGER_TAG = "chrono/trigger"

COMPLETE_CHECK = "complete"
STRUCTURE_CHECK = "structure_verified"
BYTES_CHECK = "bytes_verified"
SIZE_CHECK = "size_plausible"
FINDINGS_CHECK = "no_findings"
RESTORES_CHECK = "restores"
APPLICATION_CHECK = "application_checks"
WAL_CHECK = "wal_continuous"

VERIFICATION = dg.AssetKey("verification")
DRILL = dg.AssetKey("drill")
WAL_ARCHIVE = dg.AssetKey("wal_archive")
REPLICA = dg.AssetKey("backup_replica")


def backup_asset_key(backup_type: BackupType) -> dg.AssetKey:
    """The asset of that backup type."""
    return dg.AssetKey(f"{backup_type}_backup")
