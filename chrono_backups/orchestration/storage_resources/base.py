"""What all resources of storages have in common."""

import os
from typing import Any, Optional, Protocol

import dagster as dg

from chrono_backups.settings import Settings


class StorageResource(Protocol):
    """A storage as a resource."""

    def environment(self) -> dict[str, str]:
        """The variables that say what its fields say."""

    def client(self, settings: Settings) -> Any:
        """The SDK's client for the storage's driver; None where the driver makes it from the settings.

        One that can't be made is None too: the driver says what is wrong with the settings, in our words.
        """


def secret(variable: str) -> Optional[dg.EnvVar]:  # noqa: UP045 (as everywhere where Dagster reads types)
    """The variable by name; None where it is not in the environment, and settings have the secret from elsewhere."""
    return dg.EnvVar(variable) if os.environ.get(variable) else None


def variables(**values: Any) -> dict[str, str]:
    """Texts of what is set, by variable."""
    return {name: str(value) for name, value in values.items() if value is not None}
