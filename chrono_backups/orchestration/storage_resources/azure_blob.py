"""The storage `azure_blob` as a resource: Dagster's own of Azure Blob Storage, and the container."""

from contextlib import suppress
from typing import Any, Optional

from dagster_azure.blob import AzureBlobStorageDefaultCredential, AzureBlobStorageResource
from pydantic import Field

from chrono_backups.orchestration.storage_resources.base import secret, variables
from chrono_backups.settings import Settings

_PUBLIC = "https://{}.blob.core.windows.net"


class AzureBlobResource(AzureBlobStorageResource):
    """A container that keeps a repository (storage `azure_blob`)."""

    # The integration's choice of credentials can't be preset and yet left to the launchpad: so a key and a token stand
    # beside it, and where neither is set it is the machine's own identity.
    credential: AzureBlobStorageDefaultCredential = AzureBlobStorageDefaultCredential()
    account_key: Optional[str] = Field(default=None, description="The account's key.")  # noqa: UP045
    sas_token: Optional[str] = Field(default=None, description="A shared access signature, in the key's place.")  # noqa: UP045
    account_name: str = Field(description="The account.")
    container: str = Field(description="The container.")
    tier: str = Field(default="Hot", description="Tier of the blobs.")
    lock_days: int = Field(default=0, description="Days that blobs can't be deleted (immutability); 0 for none.")

    def _raw_credential(self) -> Any:
        return self.sas_token or self.account_key or super()._raw_credential()

    def environment(self) -> dict[str, str]:
        """The variables that say the same."""
        endpoint = None if self.account_url == _PUBLIC.format(self.account_name) else self.account_url
        return variables(
            BACKUP_AZURE_ENABLED="true",
            BACKUP_AZURE_ACCOUNT_NAME=self.account_name,
            BACKUP_AZURE_CONTAINER_NAME=self.container,
            BACKUP_AZURE_TIER=self.tier,
            BACKUP_AZURE_LOCK_DAYS=self.lock_days,
            BACKUP_AZURE_ENDPOINT_URL=endpoint,
            BACKUP_AZURE_ACCOUNT_KEY=self.account_key,
            BACKUP_AZURE_SAS_TOKEN=self.sas_token,
        )

    def client(self, settings: Settings) -> Any:
        """The integration's client; the driver makes one where the key is in `.env` and not in the environment."""
        section = settings.azure_blob
        given = self.account_key is not None or self.sas_token is not None
        if not given and (section.account_key is not None or section.sas_token is not None):
            return None
        with suppress(Exception), self.get_client() as client:  # its address and credential are what the driver takes
            return client
        return None


def resource(settings: Settings) -> Any:
    """As the settings say; the launchpad may say otherwise."""
    section = settings.azure_blob
    return AzureBlobResource.configure_at_launch(
        account_url=section.endpoint_url or _PUBLIC.format(section.account_name),
        account_key=secret("BACKUP_AZURE_ACCOUNT_KEY"),
        sas_token=secret("BACKUP_AZURE_SAS_TOKEN"),
        account_name=section.account_name or "",
        container=section.container_name or "",
        tier=section.tier,
        lock_days=section.lock_days,
    )
