"""The storage `aws_s3` as a resource: Dagster's own of S3, and the bucket."""

from contextlib import suppress
from typing import Any

from dagster_aws.s3 import S3Resource
from pydantic import Field

from chrono_backups.orchestration.storage_resources.base import secret, variables
from chrono_backups.settings import Settings


class AwsS3StorageResource(S3Resource):
    """A bucket that keeps a repository (storage `aws_s3`)."""

    bucket: str = Field(description="The bucket.")
    prefix: str = Field(default="", description="What the repository's keys begin with.")
    storage_class: str = Field(default="STANDARD", description="Class of the objects.")
    lock_days: int = Field(default=0, description="Days that objects can't be deleted (Object Lock); 0 for none.")

    def get_object_to_set_on_execution_context(self) -> Any:
        """Itself: the integration's would make a client in every run, also in one that does not ask this storage."""
        return self

    def environment(self) -> dict[str, str]:
        """The variables that say the same."""
        return variables(
            BACKUP_AWS_ENABLED="true",
            BACKUP_AWS_BUCKET_NAME=self.bucket,
            BACKUP_AWS_PREFIX=self.prefix,
            BACKUP_AWS_STORAGE_CLASS=self.storage_class,
            BACKUP_AWS_LOCK_DAYS=self.lock_days,
            BACKUP_AWS_REGION=self.region_name,
            BACKUP_AWS_ENDPOINT_URL=self.endpoint_url,
            BACKUP_AWS_ACCESS_KEY_ID=self.aws_access_key_id,
            BACKUP_AWS_SECRET_ACCESS_KEY=self.aws_secret_access_key,
            BACKUP_AWS_SESSION_TOKEN=self.aws_session_token,
        )

    def client(self, settings: Settings) -> Any:
        """The integration's client for AWS itself.

        Compatible servers need one that addresses buckets by path and sends no trailing checksums; the driver makes it,
        as it does where the keys are in `.env` and not in the environment.
        """
        own = self.profile_name is not None or self.use_unsigned_session or self.verify is not None
        keys_elsewhere = settings.aws_s3.access_key_id is not None and self.aws_access_key_id is None
        if not own and (self.endpoint_url is not None or keys_elsewhere):
            return None
        with suppress(Exception):
            return self.get_client()
        return None


def resource(settings: Settings) -> Any:
    """As the settings say; the launchpad may say otherwise."""
    section = settings.aws_s3
    return AwsS3StorageResource.configure_at_launch(
        bucket=section.bucket_name or "",
        prefix=section.prefix,
        storage_class=section.storage_class,
        lock_days=section.lock_days,
        region_name=section.region,
        endpoint_url=section.endpoint_url,
        max_attempts=1,  # a storage is asked again by our own rules
        aws_access_key_id=secret("BACKUP_AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=secret("BACKUP_AWS_SECRET_ACCESS_KEY"),
        aws_session_token=secret("BACKUP_AWS_SESSION_TOKEN"),
    )
