"""The one place where settings become live objects."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from chrono_backups.backup.boundaries import Positions
from chrono_backups.backup.hooks import Hooks
from chrono_backups.backup.order import MEET, in_order
from chrono_backups.backup.plan import BackupPlan, Outcome, plan_backup
from chrono_backups.backup.service import abandon, capture, commit
from chrono_backups.clock import Clock, SystemClock
from chrono_backups.errors import (
    ChronoBackupsError,
    Damaged,
    EncryptionMismatch,
    Problem,
    RepositoryMissing,
    SettingsError,
    StorageError,
    StorageUnavailable,
    UsageError,
    WrongKey,
)
from chrono_backups.events import Finding, Listener, silent
from chrono_backups.identifiers import SOURCES_OF_TYPE, BackupType, SourceName, StorageName
from chrono_backups.maintenance.identity import may_be_ours
from chrono_backups.monitoring.audit.log import head_of
from chrono_backups.recovery.checks.reading import probe_checks
from chrono_backups.recovery.in_place import Stores
from chrono_backups.redaction import redactor
from chrono_backups.repository.create_once import check_creates_once
from chrono_backups.repository.records import Manifest
from chrono_backups.repository.repository import Repository
from chrono_backups.repository.same import SameRepository
from chrono_backups.repository.writer import PipelineOptions
from chrono_backups.settings import Settings
from chrono_backups.sources.base import AnySource
from chrono_backups.sources.configuration import ConfigurationSource, Told
from chrono_backups.sources.files import FilesSource
from chrono_backups.sources.server_settings import tellers
from chrono_backups.storage.base import Storage
from chrono_backups.storage.cached import CachedStorage, default_directory
from chrono_backups.storage.fallback import FallbackStorage, Place
from chrono_backups.storage.local import LocalStorage
from chrono_backups.storage.metered import MeteredStorage
from chrono_backups.storage.retrying import RetryingStorage
from chrono_backups.storage.shared_limits import SharedLimits
from chrono_backups.storage.throttled import ThrottledStorage

if TYPE_CHECKING:
    from pathlib import Path

_WORKERS_MOST = 4
_UPLOADS_HERE, _UPLOADS_AWAY = 1, 4
"""A disk takes one pack after another. A service answers once it has a pack, which takes about as long as sending it:
others are sent meanwhile."""
_LOCAL_ATTEMPTS = 2
"""A disk that is not mounted does not appear while one waits; a network share may answer the second time."""
_REMOTE_ATTEMPTS = 8


class Application:
    """What the command line and Dagster work with. Makes nothing before it is asked for."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        attempts: int | None = None,
        clients: Mapping[StorageName, Callable[[], Any]] | None = None,
        on_begun: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``attempts``: how often a storage is asked at most, where the answer is not worth a longer wait.

        ``clients`` give ready clients of storages' SDKs, or None where the driver is to make its own.
        ``on_begun`` hears the id of each backup that is begun.
        """
        self._on_begun = on_begun
        self._clients = dict(clients or {})
        self._most_attempts = attempts
        self.settings = settings
        self.clock = clock or SystemClock()
        self.limits = SharedLimits(
            (settings.local, settings.aws_s3, settings.gcs, settings.azure_blob, settings.sftp),
            megabits_per_second=settings.limits.bandwidth_limit_mbps,
            operations=settings.limits.max_parallel_operations,
            clock=self.clock,
        )
        """Kept to together with all processes of this installation."""

    # Storages and repositories.

    def storage(self, name: StorageName | None = None, *, create: bool = False) -> Storage:
        """The storage of that name, or the primary one, retried, throttled and metered.

        Only ``create`` makes its place; a place that is gone is ``StorageUnavailable``, never made anew.
        """
        name = name or self.settings.primary_storage
        if name not in self.settings.storages:
            enabled = ", ".join(self.settings.storages) or "none"
            raise UsageError(f"the storage {name} is not enabled", hint=f"Enabled: {enabled}.")
        storage: Storage = self._once(name, create=create)
        storage = RetryingStorage(storage, attempts=self._attempts(name), clock=self.clock)
        return self._cached(name, MeteredStorage(storage, clock=self.clock))

    def _cached(self, name: StorageName, storage: Storage) -> Storage:
        """The storage with what is kept of it on this machine, unless it is here itself."""
        directory = self.settings.cache.directory or default_directory()
        return storage if name in {"local", "local_mirror"} or directory is None else CachedStorage(storage, directory)

    def _attempts(self, name: StorageName) -> int:
        attempts = _LOCAL_ATTEMPTS if name in {"local", "local_mirror"} else _REMOTE_ATTEMPTS
        return min(attempts, self._most_attempts or attempts)

    def _once(self, name: StorageName, *, create: bool = False) -> Storage:
        """The storage as it answers when it is asked once: throttled, and not retried."""
        storage: Storage = self._driver(name, create=create)
        return storage if self.limits.bandwidth is None else ThrottledStorage(storage, self.limits.bandwidth)

    def _driver(self, name: StorageName, *, create: bool) -> Storage:
        # Each SDK takes long to import, so only that of a storage in use is.
        client = self._clients[name]() if name in self._clients else None
        if name == "aws_s3":
            from chrono_backups.storage.s3 import S3Storage  # noqa: PLC0415

            return S3Storage.open(self.settings.aws_s3, create=create, clock=self.clock, client=client)
        if name == "gcs":
            from chrono_backups.storage.gcs import GcsStorage  # noqa: PLC0415

            return GcsStorage.open(self.settings.gcs, create=create, clock=self.clock, client=client)
        if name == "azure_blob":
            from chrono_backups.storage.azure import AzureBlobStorage  # noqa: PLC0415

            return AzureBlobStorage.open(self.settings.azure_blob, create=create, clock=self.clock, client=client)
        if name == "sftp":
            from chrono_backups.storage.sftp import SftpStorage  # noqa: PLC0415

            return SftpStorage.open(self.settings.sftp, create=create, clock=self.clock)
        local = self.settings.local
        path = local.mirror_path if name == "local_mirror" else local.path
        assert path is not None  # settings do not enable a storage without it
        return LocalStorage(
            path,
            name=name,
            max_size=local.max_size if name == "local" else None,
            directory_mode=local.permissions,
            create=create,
            clock=self.clock,
        )

    def open_repository(self, name: StorageName | None = None) -> Repository:
        """The repository in that storage. Raises ``RepositoryMissing``, ``WrongKey`` and their like."""
        return self._opened(self.storage(name))

    def open_for_reading(self, name: StorageName | None = None, listener: Listener = silent) -> Repository:
        """As ``open_repository``, but without a name from whichever storage answers, the primary one first.

        Where one fails later, or has an object damaged, the others are read; ``listener`` hears of it. Nothing can be
        written. Raises what the primary storage fails with where none can be read.
        """
        if name is not None or len(self.settings.storages) < 2:
            return self.open_repository(name)
        same = SameRepository()
        places = [self._place(one, same) for one in self.settings.storages]
        return self._opened(self._cached(self.settings.primary_storage, FallbackStorage(places, listener)))

    @contextmanager
    def opened_for_repair(
        self, name: StorageName | None = None, listener: Listener = silent
    ) -> Iterator[tuple[Repository, list[Repository]]]:
        """The repository in that storage, and those in the other enabled ones to mend it from, as far as they answer.

        Where header or key slots are lost or damaged, another storage's open it. Raises as ``open_repository``.
        """
        name = name or self.settings.primary_storage
        with ExitStack() as opened:
            others = []
            for one in self.settings.storages:
                if one != name:
                    try:
                        others.append(opened.enter_context(self.open_repository(one)))
                    except ChronoBackupsError as error:
                        listener(Finding("storage-left-out", "warning", one, error.message, error.hint))
            try:
                repository = self.open_repository(name)
            except (Damaged, RepositoryMissing, WrongKey):
                found = self._by_the_keys_of(others, name)
                if found is None:
                    raise
                repository = found
            opened.enter_context(repository)
            for other in [other for other in others if other.id != repository.id]:
                others.remove(other)
                message = f"it holds another repository: {other.id}, not {repository.id}"
                listener(Finding("storage-left-out", "warning", other.storage.name, message))
            yield repository, others

    def _by_the_keys_of(self, others: Sequence[Repository], name: StorageName) -> Repository | None:
        """The repository in that storage, opened by another one's keys; None where there is nothing of it."""
        storage = self.storage(name)
        for other in others:
            found = Repository(storage, other.keyring, self.clock)
            if next(storage.list(), None) is not None and may_be_ours(found):
                return found
        storage.close()
        return None

    def _place(self, name: StorageName, same: SameRepository) -> Place:
        def open_storage() -> Storage:
            storage = self._once(name)
            try:
                same.check(RetryingStorage(storage, attempts=_LOCAL_ATTEMPTS, clock=self.clock))
            except BaseException:
                storage.close()
                raise
            return storage

        return Place(name, open_storage, attempts=self._attempts(name), clock=self.clock)

    def _opened(self, storage: Storage) -> Repository:
        """The repository in ``storage``, which is closed where it can't be opened."""
        try:
            repository = Repository.open(storage, operator_key=self._operator_key(), clock=self.clock)
        except BaseException:
            storage.close()
            raise
        if repository.encrypted and not self.settings.encryption.enabled:
            repository.close()
            raise EncryptionMismatch(
                "BACKUP_ENCRYPTION_ENABLED=false, and the repository is encrypted",
                hint="A repository is encrypted or not from its creation. Remove the setting, or use another place.",
            )
        if not repository.encrypted and self.settings.encryption.enabled:
            repository.close()
            raise EncryptionMismatch(
                "encryption is asked for, and the repository is not encrypted",
                hint="Set BACKUP_ENCRYPTION_ENABLED=false to go on with it, or make an encrypted one elsewhere.",
            )
        return repository

    def create_repository(self, name: StorageName | None = None) -> Repository:
        """``init``. Raises ``RepositoryExists``; without a key ``SettingsError``, unless encryption is off; and
        ``StorageError`` where the storage overwrites what exists.

        A storage that is not the primary one gets no repository of its own: it is filled by replication.
        """
        encryption = self.settings.encryption
        key = self._operator_key()
        if encryption.enabled and key is None:
            raise SettingsError(
                [Problem("BACKUP_ENCRYPTION_KEY", "nothing", "a key, or BACKUP_ENCRYPTION_ENABLED=false")],
                hint="Make a key: chrono-backups keygen. Keep a copy of it away from the backups.",
            )
        algorithm = encryption.algorithm if encryption.enabled else "none"
        storage = self.storage(name, create=True)
        try:
            repository = Repository.create(storage, algorithm=algorithm, operator_key=key, clock=self.clock)
            check_creates_once(storage, repository.keyring.header.encode())
        except BaseException:
            storage.close()
            raise
        return repository

    def _operator_key(self) -> bytes | None:
        return self.settings.encryption.load_key() if self.settings.encryption.enabled else None

    # Sources.

    def sources(
        self, backup_type: BackupType, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> list[AnySource]:
        """The configured sources that such a backup captures, in order. ``UsageError`` where there is none.

        ``include`` and ``exclude`` are patterns beside those of the settings.
        """
        names = in_order(name for name in SOURCES_OF_TYPE[backup_type] if name in self.settings.sources)
        if not names:
            wanted = ", ".join(SOURCES_OF_TYPE[backup_type])
            raise UsageError(
                f"a backup of type {backup_type} has nothing to capture: it takes {wanted}, none is configured",
                hint="Set BACKUP_FILES_PATHS or BACKUP_CONFIGURATION_PATHS.",
            )
        return [self._source(name, include, exclude) for name in names]

    def _source(self, name: SourceName, include: Sequence[str], exclude: Sequence[str]) -> AnySource:
        files = self.settings.files
        if name == "files":
            return FilesSource(
                "files",
                files.paths,
                include=(*files.include_patterns, *include),
                exclude=(*files.exclude_patterns, *exclude),
                never=self._own_places(),
            )
        if name == "configuration":
            paths = self.settings.configuration.paths
            return ConfigurationSource(paths, self._servers(), clock=self.clock, never=self._own_places())
        if name == "postgres":
            from chrono_backups.sources.postgres.source import PostgresSource  # noqa: PLC0415 - its driver is large

            return PostgresSource(self.settings.postgres, clock=self.clock)
        if name == "redis":
            from chrono_backups.sources.redis.source import RedisSource  # noqa: PLC0415 - as above

            return RedisSource(self.settings.redis, clock=self.clock)
        if name == "meilisearch":
            from chrono_backups.sources.meilisearch.source import MeilisearchSource  # noqa: PLC0415 - as above

            return MeilisearchSource(self.settings.meilisearch, clock=self.clock)
        raise UsageError(f"the source {name} is not built yet")

    def _servers(self) -> dict[str, Told]:
        """Those that are asked for their own configuration."""
        settings = self.settings
        known = tellers(settings.postgres, settings.redis, settings.meilisearch, self.clock)
        return {name: ask for name, ask in known.items() if name in settings.sources}

    def _own_places(self) -> list[Path]:
        local = self.settings.local
        return [path for path in (local.path, local.mirror_path) if path is not None]

    def pipeline_options(self, storage: str) -> PipelineOptions:
        """How content is compressed on its way to that storage, with as much at once as the memory limit allows."""
        compression = self.settings.compression
        workers = min(_WORKERS_MOST, max(2, os.cpu_count() or 2))
        uploads = _UPLOADS_HERE if storage in {"local", "local_mirror"} else _UPLOADS_AWAY
        options = PipelineOptions(compression.type, compression.level, workers, uploads, slots=workers + 2)
        memory = self.settings.limits.memory
        return options if memory is None else options.within(memory)

    def hooks(self, listener: Listener = silent) -> Hooks:
        """The operator's commands around a backup."""
        return Hooks(self.settings.hooks, listener)

    def stores(self) -> Stores:
        """What restores of running stores need."""
        return Stores(self.settings.redis, self.settings.meilisearch, self.clock)

    # The whole of it.

    def take_backup(
        self,
        backup_type: BackupType,
        *,
        storage: StorageName | None = None,
        trigger: str,
        listener: Listener = silent,
        only: Sequence[SourceName] | None = None,
    ) -> Manifest:
        """Plan, capture every source, commit, with the hooks around it.

        ``only``: of the type's sources these, each of which is to be among them. A source that fails makes the backup
        ``partial``. Raises ``BackupFailed`` where all fail.
        """
        self.check_enabled()
        sources = [one for one in self.sources(backup_type) if only is None or one.name in only]
        if only is not None and {one.name for one in sources} != set(only):
            raise UsageError(f"not all of {', '.join(only)} is configured to be backed up", hint="See BACKUP_SOURCES.")
        with self.open_repository(storage) as repository:
            plan = plan_backup(repository, backup_type, [source.name for source in sources])
            self._on_begun(plan.backup_id)
            try:
                with self.hooks(listener).around(plan):
                    outcomes = [self.capture(repository, plan, source, listener) for source in sources]
                    return self.commit(repository, plan, outcomes, trigger=trigger, listener=listener)
            except BaseException:
                with suppress(StorageError):  # the first error is the one to tell; a lease runs out by itself
                    abandon(repository, plan)
                raise

    def check_enabled(self) -> None:
        """Raises ``UsageError`` where ``BACKUP_ENABLED=false``."""
        if not self.settings.enabled:
            raise UsageError("BACKUP_ENABLED=false: no backups are taken", hint="Restoring and verifying still work.")

    def capture(
        self, repository: Repository, plan: BackupPlan, source: AnySource, listener: Listener = silent
    ) -> Outcome:
        """One source of a planned backup."""
        positions = self._positions(source.name) if source.name in MEET and "postgres" in plan.sources else None
        options = self.pipeline_options(repository.storage.name)
        with self.limits.operation(source.name, listener):
            outcome = capture(repository, plan, source, options=options, listener=listener, positions=positions)
        return outcome.masked(redactor(self.settings, os.environ))

    def _positions(self, near: SourceName) -> Positions:
        from chrono_backups.sources.postgres.position import positions  # noqa: PLC0415 - its driver is large

        return partial(positions, self.settings.postgres, near)

    def commit(
        self,
        repository: Repository,
        plan: BackupPlan,
        outcomes: Sequence[Outcome],
        *,
        trigger: str,
        listener: Listener = silent,
    ) -> Manifest:
        """Make a planned backup visible."""
        return commit(
            repository,
            plan,
            outcomes,
            trigger=trigger,
            max_skew=self.settings.limits.max_skew_seconds,
            audit=head_of(self.settings.audit, self.clock),
            listener=listener,
        )

    def probe(self) -> list[Finding]:
        """What ``validate`` finds: settings worth a word, sources, storages, the key. Changes nothing."""
        found = list(self.settings.findings())
        for name in self.settings.sources:
            found += self.probe_source(name)
        found += probe_checks(self.settings.drill_checks, self.settings.sources)
        same = SameRepository()
        for storage in self.settings.storages:
            found += self._probe_storage(storage, same)
        return found

    def probe_source(self, name: SourceName) -> list[Finding]:
        """What ``probe`` finds about one source."""
        return list(self._source(name, (), ()).probe())

    def _probe_storage(self, name: StorageName, same: SameRepository) -> list[Finding]:
        try:
            with self.open_repository(name) as repository:
                same.check(repository.storage)
                usage = repository.storage.usage()
                message = f"holds {len(repository.names('manifest'))} backups in {usage.used} bytes"
                return [Finding("storage-ready", "info", name, message)]
        except RepositoryMissing as error:
            return [Finding("repository-missing", "warning", name, error.message, error.hint)]
        except StorageUnavailable as error:
            return [Finding("storage-unavailable", "error", name, error.message, error.hint)]
        except ChronoBackupsError as error:
            code = "".join(f"-{char.lower()}" if char.isupper() else char for char in type(error).__name__)
            return [Finding(code.strip("-"), "error", name, error.message, error.hint)]
