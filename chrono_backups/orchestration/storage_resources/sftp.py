"""The storage `sftp` as a resource."""

from typing import Any, Optional

import dagster as dg
from pydantic import Field

from chrono_backups.orchestration.storage_resources.base import secret, variables
from chrono_backups.settings import Settings


class SftpStorageResource(dg.ConfigurableResource[None]):
    """A server's folder that keeps a repository (storage `sftp`)."""

    host: str = Field(description="The server.")
    port: int = Field(default=22, description="Its port.")
    username: str = Field(description="The account there.")
    path: str = Field(description="The repository's folder there.")
    private_key_path: Optional[str] = Field(  # noqa: UP045 (the launchpad documents this form)
        default=None, description="File of the private key to log in with."
    )
    known_hosts: Optional[str] = Field(  # noqa: UP045
        default=None, description="File that has the server's host key; unset, ~/.ssh/known_hosts."
    )
    password: Optional[str] = Field(  # noqa: UP045
        default=None, description="The account's password, where no private key is used."
    )

    private_key_passphrase: Optional[str] = Field(  # noqa: UP045
        default=None, description="What opens the private key, where it is encrypted."
    )

    def environment(self) -> dict[str, str]:
        """The variables that say the same."""
        return variables(
            BACKUP_SFTP_ENABLED="true",
            BACKUP_SFTP_HOST=self.host,
            BACKUP_SFTP_PORT=self.port,
            BACKUP_SFTP_USERNAME=self.username,
            BACKUP_SFTP_PATH=self.path,
            BACKUP_SFTP_PRIVATE_KEY_PATH=self.private_key_path,
            BACKUP_SFTP_KNOWN_HOSTS=self.known_hosts,
            BACKUP_SFTP_PASSWORD=self.password,
            BACKUP_SFTP_PRIVATE_KEY_PASSPHRASE=self.private_key_passphrase,
        )

    def client(self, settings: Settings) -> None:
        """The driver connects by itself."""
        del settings


def resource(settings: Settings) -> Any:
    """As the settings say; the launchpad may say otherwise."""
    section = settings.sftp
    return SftpStorageResource.configure_at_launch(
        host=section.host or "",
        port=section.port,
        username=section.username or "",
        path=section.path,
        private_key_path=None if section.private_key_path is None else str(section.private_key_path),
        known_hosts=None if section.known_hosts is None else str(section.known_hosts),
        password=secret("BACKUP_SFTP_PASSWORD"),
        private_key_passphrase=secret("BACKUP_SFTP_PRIVATE_KEY_PASSPHRASE"),
    )
