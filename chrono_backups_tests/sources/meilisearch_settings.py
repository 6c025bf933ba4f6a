"""How the tests reach their Meilisearch."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr

from chrono_backups.sources.settings import MeilisearchSettings

MASTER_KEY = "the master key of the tests"


def reach(url: str, *, key: str | None = MASTER_KEY, **others: Any) -> MeilisearchSettings:
    """Settings for a server there; tasks under way are waited for shortly."""
    secret = SecretStr(key) if key is not None else None
    return MeilisearchSettings(**{"host": url, "master_key": secret, "task_wait_seconds": 0.2, **others})
