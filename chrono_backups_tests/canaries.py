"""A canary for every secret setting: a value that nothing but that setting has, to be found nowhere else."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from pathlib import Path
from urllib.parse import quote

from chrono_backups.settings import Settings
from chrono_backups.variables import variables

KEY = urlsafe_b64encode(bytes(range(200, 232))).decode()
_INSTEAD = {
    # Of the key's three places one is used. Sentinels, and people who are told, are other tests' concern.
    "BACKUP_ENCRYPTION_KEY_COMMAND", "BACKUP_NOTIFY_URLS", "BACKUP_HEARTBEAT_URL", "BACKUP_DRILL_CHECKS",
}  # fmt: skip


def canary(name: str) -> str:
    """The value of that variable."""
    word = f"canary-{name.removeprefix('BACKUP_').lower()}-7c1d"
    if name == "BACKUP_ENCRYPTION_KEY":
        return KEY
    if name.startswith("BACKUP_HOOK_"):
        return f"true {word}" if not name.endswith("AFTER") else f"false {word}"
    return f"http://127.0.0.1:1/{word}" if name.endswith("URL") else word


def secrets() -> dict[str, str]:
    """Every secret variable with its canary."""
    names = [each.name for each in variables(Settings) if each.secret]
    return {name: canary(name) for name in names if name not in _INSTEAD}


def closed_ports() -> dict[str, str]:
    """Storages and stores that the secrets are for, where nobody answers."""
    return {
        "BACKUP_AWS_ENABLED": "true", "BACKUP_AWS_BUCKET_NAME": "bucket", "BACKUP_AWS_ACCESS_KEY_ID": "AKIAX",
        "BACKUP_AWS_ENDPOINT_URL": "http://127.0.0.1:1", "BACKUP_AZURE_ENABLED": "true",
        "BACKUP_AZURE_ACCOUNT_NAME": "account", "BACKUP_AZURE_CONTAINER_NAME": "container",
        "BACKUP_AZURE_ENDPOINT_URL": "http://127.0.0.1:1/account", "BACKUP_SFTP_ENABLED": "true",
        "BACKUP_SFTP_HOST": "127.0.0.1", "BACKUP_SFTP_PORT": "1", "BACKUP_SFTP_USERNAME": "user",
        "BACKUP_SFTP_PATH": "/backups", "BACKUP_POSTGRES_HOST": "127.0.0.1", "BACKUP_POSTGRES_PORT": "1",
        "BACKUP_POSTGRES_USER": "backup", "BACKUP_REDIS_HOST": "127.0.0.1", "BACKUP_REDIS_PORT": "1",
        "BACKUP_MEILISEARCH_HOST": "http://127.0.0.1:1",
    }  # fmt: skip


def found_in(text: str) -> list[str]:
    """The variables whose canaries are in it, plain or quoted."""
    words = {name: value.rpartition("/")[2].rpartition(" ")[2] for name, value in secrets().items()}
    return [name for name, word in words.items() if word in text or quote(word, safe="") in text]


def found_below(folder: Path) -> dict[str, list[str]]:
    """By file: the variables whose canaries are in it."""
    every = {
        str(path): found_in(path.read_bytes().decode("utf-8", "replace"))
        for path in folder.rglob("*")
        if path.is_file()
    }
    return {path: names for path, names in every.items() if names}


def is_masked(text: str) -> bool:
    """Whether something was masked in it."""
    return re.search(r"\[secret\]", text) is not None
