"""What runs work with: a resource for each storage that is enabled, and one for the application on top of them.

A resource's fields are shown in the UI and can be changed in the launchpad for one run, so each is
obeyed: what a resource says goes over the environment's variable of the same meaning when settings are
loaded, in the run. A secret is never a value here, only the name of the variable that holds it.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from chrono_backups import settings as settings_module
from chrono_backups.assembly import Application
from chrono_backups.backup.service import BackupPlan
from chrono_backups.errors import ChronoBackupsError
from chrono_backups.events import Listener, silent
from chrono_backups.identifiers import STORAGE_NAMES, StorageName
from chrono_backups.orchestration import recording
from chrono_backups.orchestration.storage_resources.base import StorageResource
from chrono_backups.orchestration.unfinished import give_up
from chrono_backups.repository.repository import Repository
from chrono_backups.settings import Settings

PRIMARY = "primary"


class LocalStorageResource(dg.ConfigurableResource[None]):
    """A directory that keeps a repository (storage `local`)."""

    path: str
    permissions: str
    max_size_gb: float | None = None

    def environment(self) -> dict[str, str]:
        """The variables that say the same."""
        limit = {} if self.max_size_gb is None else {"BACKUP_LOCAL_MAX_SIZE_GB": str(self.max_size_gb)}
        return {"BACKUP_LOCAL_PATH": self.path, "BACKUP_LOCAL_PERMISSIONS": self.permissions, **limit}

    def client(self, settings: Settings) -> None:
        """A directory has none."""
        del settings


class LocalMirrorResource(dg.ConfigurableResource[None]):
    """A second directory, such as a mounted NAS, that keeps a whole replica (storage `local_mirror`)."""

    path: str

    def environment(self) -> dict[str, str]:
        """The variables that say the same."""
        return {"BACKUP_LOCAL_MIRROR_PATH": self.path}

    def client(self, settings: Settings) -> None:
        """A directory has none."""
        del settings


def _local(settings: Settings) -> Any:
    local = settings.local
    return LocalStorageResource.configure_at_launch(
        path=str(local.path), permissions=f"{local.permissions:04o}", max_size_gb=local.max_size_gb
    )


def _local_mirror(settings: Settings) -> Any:
    return LocalMirrorResource.configure_at_launch(path=str(settings.local.mirror_path))


def _of_its_own_file(name: StorageName) -> Callable[[Settings], Any]:
    def build(settings: Settings) -> Any:
        return import_module(f"chrono_backups.orchestration.storage_resources.{name}").resource(settings)

    return build


# Configured at launch, so that what the launchpad says reaches ``backups`` too: of a resource that is made whole here
# Dagster gives it the values of here, whatever the launchpad says.
STORAGE_RESOURCES: dict[StorageName, Callable[[Settings], Any]] = {
    "local": _local,
    "local_mirror": _local_mirror,
    "aws_s3": _of_its_own_file("aws_s3"),
    "gcs": _of_its_own_file("gcs"),
    "azure_blob": _of_its_own_file("azure_blob"),
    "sftp": _of_its_own_file("sftp"),
}
"""How each storage is shown; a new storage joins with a line here."""


class BackupsResource(dg.ConfigurableResource[None]):
    """The backup application: settings, sources and the repository, made live inside a run.

    It has a field more for each enabled storage, see ``_with_storages``.
    """

    encryption_key: str | None = None

    _begun: dict[str, tuple[BackupPlan, str]] = PrivateAttr(default_factory=dict)

    def load(self) -> Settings:
        """The settings of this run: environment and ``.env``, and over them what the resources say."""
        environment = dict(os.environ)
        for storage in self._storages().values():
            environment |= storage.environment()
        if self.encryption_key is not None:
            environment["BACKUP_ENCRYPTION_KEY"] = self.encryption_key
        return settings_module.load(environment)

    def _storages(self) -> dict[StorageName, StorageResource]:
        found = {name: getattr(self, name, None) for name in STORAGE_NAMES}
        return {name: storage for name, storage in found.items() if storage is not None}

    def application(self) -> Application:
        """The application of this run."""
        settings = self.load()
        clients = {name: partial(storage.client, settings) for name, storage in self._storages().items()}
        return Application(settings, clients=clients)

    @contextmanager
    def opened(self, storage: str = PRIMARY) -> Iterator[tuple[Application, Repository]]:
        """The application and the repository in that storage."""
        application = self.application()
        with application.open_repository(storage_name(storage)) as repository:
            yield application, repository

    def begin(self, planned: BackupPlan, storage: str) -> None:
        """Note a backup that has a lease and no manifest yet."""
        recording.about(planned.backup_id)
        self._begun[planned.backup_id] = planned, storage

    def end(self, planned: BackupPlan) -> None:
        """The backup has its manifest."""
        self._begun.pop(planned.backup_id, None)

    def give_up(
        self, planned: BackupPlan, application: Application, repository: Repository, listener: Listener
    ) -> None:
        """Let go of a backup that a failure or a cancellation ends. Never raises an error of ours."""
        self.end(planned)
        give_up(application, repository, planned, listener)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """A run begins: it is recorded before its first step, or fails."""
        if context.run is not None:
            recording.begin(context.run, self.load)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """A run that is cancelled between two steps, as while it waits to try again, lets go here. It is recorded."""
        try:
            self._let_go(context)
        finally:
            if context.instance is not None and context.run is not None:
                recording.end(context.instance, context.run.run_id)

    def _let_go(self, context: dg.InitResourceContext) -> None:
        if not self._begun or context.instance is None or context.run is None:
            return
        run = context.instance.get_run_by_id(context.run.run_id)
        if run is None or run.status is not dg.DagsterRunStatus.CANCELING:
            return
        for planned, storage in list(self._begun.values()):
            with suppress(ChronoBackupsError), self.opened(storage) as (application, repository):
                self.give_up(planned, application, repository, silent)


def storage_name(word: str) -> StorageName | None:
    """The storage that a launch form names; None for the primary one."""
    return None if word == PRIMARY else word  # type: ignore[return-value]


def build_resources(settings: Settings) -> dict[str, dg.ConfigurableResource[None]]:
    """The resources of the enabled storages, by storage name, and ``backups`` on top of them. Reads no secret."""
    storages: dict[str, Any] = {
        name: build(settings) for name, build in STORAGE_RESOURCES.items() if name in settings.storages
    }
    key = dg.EnvVar("BACKUP_ENCRYPTION_KEY") if os.environ.get("BACKUP_ENCRYPTION_KEY") else None
    return {**storages, "backups": _with_storages(storages)(**storages, encryption_key=key)}


def _with_storages(storages: Mapping[str, Any]) -> type[BackupsResource]:
    """``BackupsResource`` with a field for each of these: Dagster finds nested resources by the fields' types.

    Of a storage that is not enabled nothing is imported, so its type can't stand in the class itself.
    """
    types: dict[str, Any] = {
        name: dg.ResourceDependency[storage.resource_cls]  # type: ignore[name-defined] # known when it runs
        for name, storage in storages.items()
    }
    fields = {"__annotations__": types, "__module__": __name__, "__doc__": BackupsResource.__doc__}
    return type(BackupsResource.__name__, (BackupsResource,), fields)
