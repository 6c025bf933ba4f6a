"""What tests of S3 stand on: a server for the module, a bucket of its own for each test."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from chrono_backups.clock import Clock
from chrono_backups.storage.s3 import S3Storage
from chrono_backups.storage.settings import AwsS3Settings


def bucket_name() -> str:
    """A name that no other bucket has."""
    return f"bucket-{secrets.token_hex(6)}"


def prefix_name() -> str:
    """A prefix that nothing else has."""
    return secrets.token_hex(6)


@dataclass(frozen=True)
class Opener:
    """Opens one more instance over the same objects, in any process."""

    settings: AwsS3Settings
    timeout: float = 30.0
    as_aws: bool = False
    """As if the server were AWS itself, whose objects keep checksums."""
    clock: Clock | None = None

    def __call__(self) -> S3Storage:
        if not self.as_aws:
            return S3Storage.open(self.settings, read_timeout=self.timeout, clock=self.clock)
        inner = S3Storage.open(self.settings, read_timeout=self.timeout)
        settings = self.settings.model_copy(update={"endpoint_url": None})
        return S3Storage.open(settings, client=inner._client, clock=self.clock)


def with_more(opener: Opener, **more: Any) -> Opener:
    """The same place under changed settings."""
    return Opener(opener.settings.model_copy(update=more), opener.timeout, opener.as_aws, opener.clock)
