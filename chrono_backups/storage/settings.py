"""Where repositories lie: one section per storage."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from chrono_backups.variables import (
    GIGABYTE,
    AbsolutePath,
    Days,
    Gigabytes,
    Port,
    Section,
    Url,
    needed_when_enabled,
    variable,
)

_MODE = "an octal mode from 0700 to 0777 that leaves the owner every right, such as 0700"


def _octal(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not re.fullmatch(r"(0o|0)?7[0-7]{2}", value):
        raise ValueError(_MODE)
    return int(value.removeprefix("0o"), 8)


Mode = Annotated[int, BeforeValidator(_octal), Field(ge=0o700, le=0o777, json_schema_extra={"accepted": _MODE})]


_REMOTE_PATH = "a path on the server, without '~', '.' and '..' in it"


def _remote_path(path: str) -> str:
    parts = path.strip("/").split("/")
    if not path or "\0" in path or any(part in {"~", ".", ".."} for part in parts) or (path != "/" and not all(parts)):
        raise ValueError(_REMOTE_PATH)
    return path


RemotePath = Annotated[str, AfterValidator(_remote_path), Field(json_schema_extra={"accepted": _REMOTE_PATH})]


class LocalSettings(Section):
    """Local storage"""

    enabled: bool = variable(
        "BACKUP_LOCAL_ENABLED",
        False,
        default_note="true where BACKUP_LOCAL_PATH is set",
        example="true",
        about="Keep a repository in a directory.",
    )
    path: AbsolutePath | None = variable(
        "BACKUP_LOCAL_PATH", example="/var/backups/chrono", about="The repository's directory."
    )
    max_size_gb: Gigabytes | None = variable(
        "BACKUP_LOCAL_MAX_SIZE_GB",
        default_note="no limit",
        example="100",
        about="A write that would pass it is refused before it starts.",
    )
    permissions: Mode = variable(
        "BACKUP_LOCAL_PERMISSIONS",
        0o700,
        default_note="0700",
        about="Mode of directories; files get it less the execute bits.",
    )
    mirror_path: AbsolutePath | None = variable(
        "BACKUP_LOCAL_MIRROR_PATH",
        example="/mnt/nas/chrono",
        about="A second directory (a mounted NAS, a USB disk) for a whole replica: the storage `local_mirror`.",
    )

    @model_validator(mode="before")
    @classmethod
    def _enabled_by_its_path(cls, data: Any) -> Any:
        if isinstance(data, dict) and "enabled" not in data:
            return {**data, "enabled": data.get("path") is not None}
        return data

    _path_needed = field_validator("path")(needed_when_enabled)

    @field_validator("mirror_path")
    @classmethod
    def _apart_from_path(cls, mirror: Path | None, info: ValidationInfo) -> Path | None:
        path: Path | None = info.data.get("path")
        if mirror is not None and path is not None and (mirror.is_relative_to(path) or path.is_relative_to(mirror)):
            raise ValueError("a directory apart from BACKUP_LOCAL_PATH, neither in it nor around it")
        return mirror

    @field_serializer("permissions", when_used="json")
    def _as_octal(self, mode: int) -> str:
        return f"{mode:04o}"

    @property
    def max_size(self) -> int | None:
        """The limit in bytes, or None."""
        return None if self.max_size_gb is None else int(self.max_size_gb * GIGABYTE)


class AwsS3Settings(Section):
    """AWS S3"""

    enabled: bool = variable("BACKUP_AWS_ENABLED", False, about="Keep a repository in a bucket: the storage `aws_s3`.")
    access_key_id: str | None = variable(
        "BACKUP_AWS_ACCESS_KEY_ID",
        default_note="the ambient role",
        example="AKIAIOSFODNN7EXAMPLE",
        about="The account's key id; unset, the machine's own role is used.",
    )
    secret_access_key: SecretStr | None = variable("BACKUP_AWS_SECRET_ACCESS_KEY", about="The account's secret.")
    session_token: SecretStr | None = variable(
        "BACKUP_AWS_SESSION_TOKEN", about="The third part of temporary credentials, where they are such."
    )
    bucket_name: str | None = variable("BACKUP_AWS_BUCKET_NAME", example="chrono-scraper-backups", about="The bucket.")
    region: str | None = variable("BACKUP_AWS_REGION", example="us-east-1", about="The bucket's region.")
    prefix: str = variable(
        "BACKUP_AWS_PREFIX", "", example="backups/production/", about="What the repository's keys begin with."
    )
    storage_class: Literal[
        "STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"
    ] = variable("BACKUP_AWS_STORAGE_CLASS", "STANDARD", about="Classes that can't be read at once hold no repository.")
    endpoint_url: Url | None = variable(
        "BACKUP_AWS_ENDPOINT_URL",
        default_note="AWS",
        example="https://minio.example.com",
        about="An S3-compatible server.",
    )
    lock_days: Days = variable(
        "BACKUP_AWS_LOCK_DAYS", 0, about="Days that objects can't be deleted (Object Lock); 0 for none."
    )
    lock_mode: Literal["COMPLIANCE", "GOVERNANCE"] = variable(
        "BACKUP_AWS_LOCK_MODE",
        "COMPLIANCE",
        about="Whether nobody can undo a lock, or whoever has the right `s3:BypassGovernanceRetention`.",
    )

    _bucket_needed = field_validator("bucket_name")(needed_when_enabled)

    @field_validator("secret_access_key")
    @classmethod
    def _both_or_none(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if "access_key_id" in info.data and (info.data["access_key_id"] is None) != (secret is None):
            raise ValueError("set together with BACKUP_AWS_ACCESS_KEY_ID, or neither")
        return secret


class GcsSettings(Section):
    """Google Cloud Storage"""

    enabled: bool = variable("BACKUP_GCS_ENABLED", False, about="Keep a repository in a bucket: the storage `gcs`.")
    project_id: str | None = variable("BACKUP_GCS_PROJECT_ID", example="your-gcp-project", about="The project.")
    bucket_name: str | None = variable("BACKUP_GCS_BUCKET_NAME", example="chrono-scraper-backups", about="The bucket.")
    credentials_path: AbsolutePath | None = variable(
        "BACKUP_GCS_CREDENTIALS_PATH",
        default_note="the ambient account",
        example="/app/secrets/gcs-service-account.json",
        about="Service account key file.",
    )
    storage_class: Literal["STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"] = variable(
        "BACKUP_GCS_STORAGE_CLASS", "STANDARD", about="Class of the objects."
    )
    endpoint_url: Url | None = variable(
        "BACKUP_GCS_ENDPOINT_URL", default_note="Google", example="http://localhost:4443", about="A compatible server."
    )
    lock_days: Days = variable(
        "BACKUP_GCS_LOCK_DAYS", 0, about="Days that objects can't be deleted (object retention); 0 for none."
    )
    lock_mode: Literal["Locked", "Unlocked"] = variable(
        "BACKUP_GCS_LOCK_MODE", "Locked", about="Unlocked: an account with a right of its own may take a lock back."
    )

    _bucket_needed = field_validator("bucket_name")(needed_when_enabled)


class AzureBlobSettings(Section):
    """Azure Blob Storage"""

    enabled: bool = variable(
        "BACKUP_AZURE_ENABLED", False, about="Keep a repository in a container: the storage `azure_blob`."
    )
    account_name: str | None = variable(
        "BACKUP_AZURE_ACCOUNT_NAME", example="chronoscraperbackups", about="The account."
    )
    account_key: SecretStr | None = variable(
        "BACKUP_AZURE_ACCOUNT_KEY", default_note="the ambient identity", about="The account's key."
    )
    sas_token: SecretStr | None = variable(
        "BACKUP_AZURE_SAS_TOKEN",
        about="A shared access signature, used in the key's place; it may lack the right to delete.",
    )
    container_name: str | None = variable("BACKUP_AZURE_CONTAINER_NAME", example="backups", about="The container.")
    tier: Literal["Hot", "Cool", "Cold"] = variable(
        "BACKUP_AZURE_TIER", "Hot", about="Archive can't be read at once, so it holds no repository."
    )
    endpoint_url: Url | None = variable(
        "BACKUP_AZURE_ENDPOINT_URL",
        default_note="Azure",
        example="http://localhost:10000/devstoreaccount1",
        about="A compatible server.",
    )
    lock_days: Days = variable(
        "BACKUP_AZURE_LOCK_DAYS", 0, about="Days that blobs can't be deleted (version-level immutability); 0 for none."
    )
    lock_mode: Literal["Locked", "Unlocked"] = variable(
        "BACKUP_AZURE_LOCK_MODE", "Locked", about="Unlocked: an account with a right of its own may take a lock back."
    )

    _names_needed = field_validator("account_name", "container_name")(needed_when_enabled)


class SftpSettings(Section):
    """SFTP"""

    enabled: bool = variable("BACKUP_SFTP_ENABLED", False, about="Keep a repository on a server: the storage `sftp`.")
    host: str | None = variable("BACKUP_SFTP_HOST", example="backup-server.company.com", about="The server.")
    port: Port = variable("BACKUP_SFTP_PORT", 22, about="Its port.")
    username: str | None = variable("BACKUP_SFTP_USERNAME", example="backup-user", about="The account there.")
    password: SecretStr | None = variable(
        "BACKUP_SFTP_PASSWORD", about="The account's password, where no private key is used."
    )
    private_key_path: AbsolutePath | None = variable(
        "BACKUP_SFTP_PRIVATE_KEY_PATH",
        example="/app/secrets/backup_ssh_key",
        about="File of the private key to log in with.",
    )
    private_key_passphrase: SecretStr | None = variable(
        "BACKUP_SFTP_PRIVATE_KEY_PASSPHRASE", about="What opens the private key, where it is encrypted."
    )
    known_hosts: AbsolutePath | None = variable(
        "BACKUP_SFTP_KNOWN_HOSTS",
        default_note="~/.ssh/known_hosts",
        example="/app/secrets/known_hosts",
        about="The server's host key must be in this file; `ssh-keyscan` shows it.",
    )
    path: RemotePath = variable(
        "BACKUP_SFTP_PATH",
        "chrono-backups",
        about="The repository's folder there; one that is not absolute lies in the account's home.",
    )
    connections: int = variable("BACKUP_SFTP_CONNECTIONS", 4, about="Connections at a time, at most.", ge=1, le=64)

    _names_needed = field_validator("host", "username")(needed_when_enabled)

    @field_validator("private_key_path")
    @classmethod
    def _some_proof(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if info.data.get("enabled") and path is None and info.data.get("password") is None:
            raise ValueError("an absolute path without '..', needed as BACKUP_SFTP_PASSWORD is not set")
        return path


class CacheSettings(Section):
    """Cache"""

    directory: AbsolutePath | None = variable(
        "BACKUP_CACHE_DIR",
        default_note="`chrono-backups` in `$XDG_CACHE_HOME`, else in `~/.cache`",
        example="/var/cache/chrono-backups",
        about="Copies of small objects of storages elsewhere, sealed as they are there; it may be deleted at any time.",
    )
