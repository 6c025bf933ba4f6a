"""What is protected: paths, and how to reach the stores.

A store takes the application's own variables (``POSTGRES_SERVER``, …) where no ``BACKUP_…`` one is
set, so that the application's ``.env`` works unchanged and the backup role can have its own account.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from chrono_backups.variables import AbsolutePath, AbsolutePaths, Port, Section, Words, variable

_HOST = "a host name or address, without scheme"
_PATTERNS = "patterns separated by ','"


def _host(text: str) -> str:
    if "://" in text or any(character.isspace() for character in text):
        raise ValueError(_HOST)
    return text


def _without_service_link(value: Any) -> Any:
    # Kubernetes sets REDIS_PORT=tcp://10.0.0.1:6379 in every pod beside a service called redis.
    if isinstance(value, str) and value.startswith("tcp://"):
        return value.rpartition(":")[2]
    return value


Host = Annotated[str, AfterValidator(_host), Field(json_schema_extra={"accepted": _HOST})]
StorePort = Annotated[Port, BeforeValidator(_without_service_link)]


_SLOT = "1 to 63 of a-z, 0-9 and '_'"


def _slot_name(text: str) -> str:
    if re.fullmatch(r"[a-z0-9_]{1,63}", text) is None:
        raise ValueError(_SLOT)
    return text


SlotName = Annotated[str, AfterValidator(_slot_name), Field(json_schema_extra={"accepted": _SLOT})]


class FilesSettings(Section):
    """Files"""

    paths: AbsolutePaths = variable(
        "BACKUP_FILES_PATHS", (), example="/app/data:/app/uploads", about="The trees to protect."
    )
    include_patterns: Words = variable(
        "BACKUP_INCLUDE_PATTERNS",
        (),
        default_note="everything",
        accepted=_PATTERNS,
        example="*.sql,*.json",
        about="Only files that match one of these.",
    )
    exclude_patterns: Words = variable(
        "BACKUP_EXCLUDE_PATTERNS",
        (),
        accepted=_PATTERNS,
        example="*.tmp,*.cache",
        about="No files that match one of these.",
    )


class ConfigurationSettings(Section):
    """Configuration"""

    paths: AbsolutePaths = variable(
        "BACKUP_CONFIGURATION_PATHS",
        (),
        example="/app/.env:/app/docker-compose.yml",
        about="The configuration files to protect: `.env`, compose files, …",
    )


class PostgresSettings(Section):
    """PostgreSQL"""

    host: Host | None = variable(
        "BACKUP_POSTGRES_HOST",
        also=("BACKUP_POSTGRES_SERVER", "POSTGRES_SERVER"),
        example="postgres",
        about="The server. A source when set.",
    )
    port: StorePort = variable("BACKUP_POSTGRES_PORT", 5432, also=("POSTGRES_PORT",), about="Its port.")
    user: str | None = variable(
        "BACKUP_POSTGRES_USER", also=("POSTGRES_USER",), example="backup", about="The backup role."
    )
    password: SecretStr | None = variable(
        "BACKUP_POSTGRES_PASSWORD", also=("POSTGRES_PASSWORD",), about="The role's password."
    )
    db: str | None = variable(
        "BACKUP_POSTGRES_DB", also=("POSTGRES_DB",), example="chrono_scraper", about="The database to connect to."
    )
    method: Literal["physical", "logical", "both"] = variable(
        "BACKUP_POSTGRES_METHOD", "physical", about="Base backups and WAL, or `pg_dump`, or both."
    )
    checkpoint: Literal["fast", "spread"] = variable(
        "BACKUP_POSTGRES_CHECKPOINT",
        "fast",
        about="A base backup begins with a checkpoint: at once, or slowly and with less load.",
    )
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] | None = variable(
        "BACKUP_POSTGRES_SSLMODE",
        default_note="prefer",
        example="verify-full",
        about="Whether the connection is encrypted and the server's certificate checked.",
    )
    sslrootcert: AbsolutePath | None = variable(
        "BACKUP_POSTGRES_SSLROOTCERT",
        example="/app/secrets/postgres-ca.pem",
        about="Certificates of those who may vouch for the server's.",
    )
    wal_max_lag_seconds: float = variable(
        "BACKUP_WAL_MAX_LAG_SECONDS", 5.0, gt=0, about="Seconds after which a part of a WAL segment is stored."
    )
    slot: SlotName = variable(
        "BACKUP_POSTGRES_SLOT", "chrono_backups", about="The replication slot that WAL is received from."
    )
    bin_dir: AbsolutePaths = variable(
        "BACKUP_POSTGRES_BIN_DIR",
        (),
        default_note="the usual places",
        example="/usr/lib/postgresql/18/bin",
        about="Where PostgreSQL's programs are, for drills, `restore --start` and dumps.",
    )


_SENTINELS = "HOST:PORT of each Sentinel, separated by ','"


def _addresses(words: tuple[str, ...]) -> tuple[str, ...]:
    for word in words:
        host, colon, port = word.rpartition(":")
        if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(_SENTINELS)
        _host(host)
    return words


class RedisSettings(Section):
    """Redis"""

    host: Host | None = variable(
        "BACKUP_REDIS_HOST",
        also=("REDIS_HOST",),
        example="redis",
        about="The server, or any node of a cluster. A source when set.",
    )
    port: StorePort = variable("BACKUP_REDIS_PORT", 6379, also=("REDIS_PORT",), about="Its port.")
    user: str | None = variable(
        "BACKUP_REDIS_USER", default_note="the default user", example="backup", about="The backup's own user."
    )
    password: SecretStr | None = variable("BACKUP_REDIS_PASSWORD", also=("REDIS_PASSWORD",), about="Its password.")
    sentinels: Annotated[Words, AfterValidator(_addresses)] = variable(
        "BACKUP_REDIS_SENTINELS",
        (),
        accepted=_SENTINELS,
        example="sentinel-1:26379,sentinel-2:26379",
        about="Whom to ask for the master, in place of BACKUP_REDIS_HOST. A source when set.",
    )
    sentinel_master: str = variable(
        "BACKUP_REDIS_SENTINEL_MASTER", "mymaster", about="The master's name in the Sentinels' configuration."
    )
    sentinel_password: SecretStr | None = variable(
        "BACKUP_REDIS_SENTINEL_PASSWORD", about="The Sentinels' own password."
    )
    tls: bool = variable("BACKUP_REDIS_TLS", False, about="Encrypt the connection, and check the server's certificate.")
    tls_ca: AbsolutePath | None = variable(
        "BACKUP_REDIS_TLS_CA",
        default_note="the system's",
        example="/app/secrets/redis-ca.pem",
        about="Certificates of those who may vouch for the server's.",
    )
    tls_cert: AbsolutePath | None = variable(
        "BACKUP_REDIS_TLS_CERT", example="/app/secrets/redis-client.pem", about="Our own certificate."
    )
    tls_key: AbsolutePath | None = variable(
        "BACKUP_REDIS_TLS_KEY", example="/app/secrets/redis-client.key", about="The key of BACKUP_REDIS_TLS_CERT."
    )
    restore_address: Host | None = variable(
        "BACKUP_REDIS_RESTORE_ADDRESS",
        default_note="the one that reaches the server",
        example="worker",
        about="Where the server finds this machine when it is restored: it connects to us.",
    )
    restore_port: int = variable(
        "BACKUP_REDIS_RESTORE_PORT", 0, ge=0, le=65535, default_note="any free one", about="The port for that."
    )
    bin_dir: AbsolutePaths = variable(
        "BACKUP_REDIS_BIN_DIR",
        (),
        default_note="the usual places",
        example="/usr/local/bin",
        about="Where `redis-server` is, for drills.",
    )


def _meilisearch_host(text: str) -> str:
    _host(text.removeprefix("http://").removeprefix("https://"))
    return text


class MeilisearchSettings(Section):
    """Meilisearch"""

    host: Annotated[str, AfterValidator(_meilisearch_host)] | None = variable(
        "BACKUP_MEILISEARCH_HOST",
        also=("MEILISEARCH_HOST",),
        accepted="a URL, or a host name or address",
        example="http://meilisearch:7700",
        about="The server. A source when set.",
    )
    master_key: SecretStr | None = variable(
        "BACKUP_MEILISEARCH_MASTER_KEY", also=("MEILISEARCH_MASTER_KEY",), about="A key that may read everything."
    )
    dump_dir: AbsolutePath | None = variable(
        "BACKUP_MEILISEARCH_DUMP_DIR",
        example="/meili_data/dumps",
        about="Where the server's own dumps and snapshots are mounted; they are kept too.",
    )
    task_wait_seconds: float = variable(
        "BACKUP_MEILISEARCH_TASK_WAIT_SECONDS",
        60.0,
        ge=0,
        about="How long a capture waits for tasks under way; what still is then is named.",
    )
    bin: AbsolutePath | None = variable(
        "BACKUP_MEILISEARCH_BIN",
        default_note="`meilisearch` in PATH",
        example="/usr/local/bin/meilisearch",
        about="The server's program, for drills.",
    )
