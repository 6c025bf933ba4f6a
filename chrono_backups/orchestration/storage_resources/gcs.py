"""The storage `gcs` as a resource: Dagster's own of Google Cloud Storage, and the bucket."""

from contextlib import suppress
from typing import Any, Optional

from dagster_gcp.gcs import GCSResource
from pydantic import Field

from chrono_backups.orchestration.storage_resources.base import variables
from chrono_backups.settings import Settings


class GcsStorageResource(GCSResource):
    """A bucket that keeps a repository (storage `gcs`)."""

    bucket: str = Field(description="The bucket.")
    storage_class: str = Field(default="STANDARD", description="Class of the objects.")
    credentials_path: Optional[str] = Field(  # noqa: UP045 (the launchpad documents this form)
        default=None, description="Service account key file; unset, the machine's own account is used."
    )
    endpoint_url: Optional[str] = Field(default=None, description="A compatible server.")  # noqa: UP045
    lock_days: int = Field(default=0, description="Days that objects can't be deleted (object retention); 0 for none.")

    def get_object_to_set_on_execution_context(self) -> Any:
        """Itself: the integration's would make a client in every run, also in one that does not ask this storage."""
        return self

    def environment(self) -> dict[str, str]:
        """The variables that say the same."""
        return variables(
            BACKUP_GCS_ENABLED="true",
            BACKUP_GCS_BUCKET_NAME=self.bucket,
            BACKUP_GCS_PROJECT_ID=self.project,
            BACKUP_GCS_STORAGE_CLASS=self.storage_class,
            BACKUP_GCS_CREDENTIALS_PATH=self.credentials_path,
            BACKUP_GCS_ENDPOINT_URL=self.endpoint_url,
            BACKUP_GCS_LOCK_DAYS=self.lock_days,
        )

    def client(self, settings: Settings) -> Any:
        """The integration's client for the machine's own account; the driver makes one for a key file or a server."""
        if settings.gcs.credentials_path is not None or settings.gcs.endpoint_url is not None:
            return None
        with suppress(Exception):
            return self.get_client()
        return None


def resource(settings: Settings) -> Any:
    """As the settings say; the launchpad may say otherwise."""
    section = settings.gcs
    return GcsStorageResource.configure_at_launch(
        project=section.project_id,
        bucket=section.bucket_name or "",
        storage_class=section.storage_class,
        credentials_path=None if section.credentials_path is None else str(section.credentials_path),
        endpoint_url=section.endpoint_url,
        lock_days=section.lock_days,
    )
