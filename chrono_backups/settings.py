"""All settings, composed from the rooms', read from the environment and then from ``.env``.

``load`` opens no connection, reads no key and touches no path but the ``.env`` file. It raises one
``SettingsError`` with everything that is wrong. Only ``BACKUP_…`` variables must be known: whatever
else the application's ``.env`` holds is ignored, its names for its stores apart (``sources/settings.py``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Set
from datetime import date
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from chrono_backups.backup.settings import HooksSettings, LimitsSettings, SchedulesSettings
from chrono_backups.errors import Problem, SettingsError, UsageError
from chrono_backups.events import Finding
from chrono_backups.identifiers import SOURCE_NAMES, STORAGE_NAMES, BackupType, SourceName, StorageName
from chrono_backups.maintenance.settings import RetentionPolicy
from chrono_backups.monitoring.settings import AuditSettings, HealthSettings, LogSettings
from chrono_backups.notifications.settings import NotificationsSettings
from chrono_backups.pipeline.settings import CompressionSettings, EncryptionSettings, key_bytes
from chrono_backups.recovery.checks.reading import ACCEPTED as CHECKS_ACCEPTED
from chrono_backups.recovery.checks.reading import names_file
from chrono_backups.recovery.checks.syntax import parse_checks
from chrono_backups.sources.settings import (
    ConfigurationSettings,
    FilesSettings,
    MeilisearchSettings,
    PostgresSettings,
    RedisSettings,
)
from chrono_backups.storage.settings import (
    AwsS3Settings,
    AzureBlobSettings,
    CacheSettings,
    GcsSettings,
    LocalSettings,
    SftpSettings,
)
from chrono_backups.variables import AbsolutePath, Section, Variable, Words, read_env_file, variable, variables

Texts = Mapping[str, str]

RUN_VARIABLES = frozenset({"BACKUP_DEBUG", "BACKUP_NEW_ENCRYPTION_KEY"})
"""Variables of one run of the command line, which are no settings; a container may set them for all it runs."""

_LONGEST_SHOWN = 200
_SET_ASIDE = (
    "Correct it. Until then the channel is off, or the default is in force; `notify test` tries the channels out."
)
_LOCAL_PATH = "an absolute path, which enables the storage local"
_TELLING = ("postgres", "redis", "meilisearch")
"""Servers that tell their configuration."""


def _time_zone(name: str) -> str:
    if name == "UTC":  # a machine without tzdata knows this one too
        return name
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        known = False
    else:
        known = True
    if not known:
        raise ValueError("an IANA time zone such as Europe/Berlin")
    return name


def _iso_day(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise ValueError("a date as 2024-01-31")


def _drill_checks(text: str) -> str:
    """Checks that are written in the setting itself are read here; a file of them when they are needed."""
    problem = ""
    if not names_file(text):
        try:
            parse_checks(text)
        except UsageError as error:
            problem = error.message
    if problem:
        raise ValueError(f"{CHECKS_ACCEPTED}; {problem}")
    return text


_SOURCES_ACCEPTED = f"names separated by ',' of {', '.join(SOURCE_NAMES)}"


class Settings(Section):
    """General"""

    enabled: bool = variable("BACKUP_ENABLED", True, about="Whether backups may be taken; restoring always works.")
    system_version: str = variable(
        "BACKUP_SYSTEM_VERSION", "1.0.0", about="The application's version, for its operators."
    )
    default_type: BackupType = variable("BACKUP_DEFAULT_TYPE", "full", about="What `backup` without `--type` takes.")
    verify_integrity: bool = variable(
        "BACKUP_VERIFY_INTEGRITY", True, about="Dagster proves every byte that a backup added before it counts."
    )
    timezone: Annotated[str, AfterValidator(_time_zone)] = variable(
        "BACKUP_TIMEZONE",
        "UTC",
        accepted="an IANA time zone such as Europe/Berlin",
        about="Time zone of schedules and of the days in the UI.",
    )
    first_day: Annotated[date, BeforeValidator(_iso_day)] = variable(
        "BACKUP_FIRST_DAY",
        # A constant, so that the days Dagster knows never change by themselves; old enough that the
        # backups of an existing repository have a day, young enough that the UI's grid stays readable.
        date(2024, 1, 1),
        accepted="a date as 2024-01-31",
        about="The first day in the UI; backups before it have no cell there.",
    )

    # Sections come before the fields that are validated against them.
    files: FilesSettings = Field(default_factory=FilesSettings)
    configuration: ConfigurationSettings = Field(default_factory=ConfigurationSettings)
    postgres: PostgresSettings = Field(default_factory=PostgresSettings)
    redis: RedisSettings = Field(default_factory=RedisSettings)
    meilisearch: MeilisearchSettings = Field(default_factory=MeilisearchSettings)
    requested_sources: Words | None = variable(
        "BACKUP_SOURCES",
        default_note="all that are configured",
        accepted=_SOURCES_ACCEPTED,
        example="files,configuration",
        about="Narrows what is protected: a store is a source when its host is set, the others when their paths are.",
    )

    compression: CompressionSettings = Field(default_factory=CompressionSettings)
    encryption: EncryptionSettings = Field(default_factory=EncryptionSettings)

    local: LocalSettings = Field(default_factory=LocalSettings)
    aws_s3: AwsS3Settings = Field(default_factory=AwsS3Settings)
    gcs: GcsSettings = Field(default_factory=GcsSettings)
    azure_blob: AzureBlobSettings = Field(default_factory=AzureBlobSettings)
    sftp: SftpSettings = Field(default_factory=SftpSettings)
    cache: CacheSettings = Field(default_factory=CacheSettings)
    requested_primary: StorageName | None = variable(
        "BACKUP_PRIMARY_STORAGE",
        default_note=f"the first enabled of {', '.join(STORAGE_NAMES)}",
        example="local",
        about="The storage that backups go to first; the other enabled ones get replicas.",
    )

    limits: LimitsSettings = Field(default_factory=LimitsSettings)
    schedules: SchedulesSettings = Field(default_factory=SchedulesSettings)
    retention: RetentionPolicy = Field(default_factory=RetentionPolicy)
    hooks: HooksSettings = Field(default_factory=HooksSettings)
    drill_dir: AbsolutePath | None = variable(
        "BACKUP_DRILL_DIR",
        default_note="the system's temporary folder",
        example="/var/lib/chrono/drills",
        about="Where drills restore to, each into a directory that is removed again.",
    )
    drill_checks: Annotated[str, AfterValidator(_drill_checks)] | None = variable(
        "BACKUP_DRILL_CHECKS",
        hidden=True,
        accepted=CHECKS_ACCEPTED,
        example="/app/drill-checks.txt",
        about="What values of several stores must be like in every drill (`docs/recovery-points.md`).",
    )
    state_dir: AbsolutePath | None = variable(
        "BACKUP_STATE_DIR",
        default_note="`~/.local/state/chrono-backups`",
        example="/var/lib/chrono/state",
        about="Where incidents and undelivered messages are kept: on a local disk that outlives a restart.",
    )
    notifications: NotificationsSettings = Field(default_factory=NotificationsSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    audit: AuditSettings = Field(default_factory=AuditSettings)
    health: HealthSettings = Field(default_factory=HealthSettings)

    _set_aside: tuple[Problem, ...] = PrivateAttr(default=())
    """What is wrong with the channels and routes of notifications: it costs them, and no backup."""

    @field_validator("requested_sources")
    @classmethod
    def _known_and_configured(cls, names: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if names == () or not set(names or ()) <= set(SOURCE_NAMES):
            raise ValueError(_SOURCES_ACCEPTED)
        for name in names or ():
            source: Section | None = info.data.get(name)
            # The stores' own configuration belongs to it too, so it may be named without paths.
            if source is not None and name != "configuration" and not _is_configured(source):
                setting = variables(type(source))[0].name
                raise ValueError(f"sources that are configured; {name} is not: set {setting}")
        return names

    @field_validator("requested_primary")
    @classmethod
    def _enabled_storage(cls, name: StorageName | None, info: ValidationInfo) -> StorageName | None:
        section = info.data.get("local" if name == "local_mirror" else name or "")
        if name is not None and section is not None and not _is_enabled(name, section):
            raise ValueError(f"an enabled storage; {name} is not")
        return name

    @property
    def sources(self) -> tuple[SourceName, ...]:
        """What backups protect: all that is configured, narrowed by ``BACKUP_SOURCES``.

        A server that is among them tells its configuration to the source of that name, which needs no paths then.
        """
        asked = [name for name in SOURCE_NAMES if self.requested_sources is None or name in self.requested_sources]
        found = [name for name in asked if _is_configured(getattr(self, name))]
        if "configuration" in asked and "configuration" not in found and set(_TELLING) & set(found):
            found.append("configuration")
        return tuple(found)

    @property
    def storages(self) -> tuple[StorageName, ...]:
        """The enabled storages, the primary one first."""
        enabled = tuple(
            name
            for name in STORAGE_NAMES
            if _is_enabled(name, self.local if name == "local_mirror" else getattr(self, name))
        )
        return tuple(sorted(enabled, key=lambda name: name != self.requested_primary))

    @property
    def primary_storage(self) -> StorageName:
        """The storage that backups go to first. ``SettingsError`` where none is enabled."""
        if not self.storages:
            raise SettingsError([Problem("BACKUP_LOCAL_PATH", "no enabled storage", _LOCAL_PATH)])
        return self.storages[0]

    def describe(self) -> dict[str, Any]:
        """The effective values by section and variable, fit for JSON; a secret is ``set`` or ``not set``."""
        described: dict[str, Any] = {}
        for known in variables(Settings):
            *place, field = known.place
            section: Any = self
            for part in place:
                section = getattr(section, part)
            value = getattr(section, field)
            if known.secret:
                shown = "not set" if value is None else "set"
            else:
                shown = section.model_dump(mode="json", include={field})[field]
            described.setdefault(".".join(place) or "general", {})[known.name] = shown
        described["effective"] = {
            "sources": list(self.sources),
            "storages": list(self.storages),
            "primary_storage": self.storages[0] if self.storages else None,
        }
        return described

    def findings(self) -> tuple[Finding, ...]:
        """What is accepted and yet worth knowing, for ``validate`` and health."""
        wrong = [
            Finding(
                "notify-settings", "error", one.variable, f"found {one.found}; accepted: {one.accepted}", _SET_ASIDE
            )
            for one in self._set_aside
        ]
        return (*_findings(self), *wrong)


def _is_configured(source: Section) -> bool:
    return any(getattr(source, name, None) for name in ("paths", "host", "sentinels"))


def _is_enabled(name: StorageName, section: Any) -> bool:
    return section.mirror_path is not None if name == "local_mirror" else bool(section.enabled)


def _findings(settings: Settings) -> Iterable[Finding]:
    encryption, mode = settings.encryption, settings.local.permissions
    if not settings.storages:
        hint = f"Set it to {_LOCAL_PATH}."
        yield Finding("settings.no_storage", "error", "BACKUP_LOCAL_PATH", "no storage is enabled", hint)
    if not settings.sources:
        hint = "Set it, or BACKUP_CONFIGURATION_PATHS."
        yield Finding("settings.no_source", "warning", "BACKUP_FILES_PATHS", "nothing is set to be backed up", hint)
    elif "configuration" in (settings.requested_sources or ()) and "configuration" not in settings.sources:
        what = "configuration is named in BACKUP_SOURCES and has no paths"
        yield Finding("settings.source_without_paths", "warning", "BACKUP_CONFIGURATION_PATHS", what, "Set it.")
    if encryption.enabled and encryption.key is None and encryption.key_file is None and encryption.key_command is None:
        hint = "Run `chrono-backups keygen`, and keep a copy of the key elsewhere."
        yield Finding(
            "settings.no_key", "error", "BACKUP_ENCRYPTION_KEY", "encryption is enabled and no key is set", hint
        )
    if mode & 0o077:
        what = f"mode {mode:04o} lets others into the backups"
        yield Finding("settings.readable_by_others", "warning", "BACKUP_LOCAL_PERMISSIONS", what, "Set it to 0700.")


def load(environ: Mapping[str, str] | None = None, env_file: Path | None = None) -> Settings:
    """The settings of ``environ`` (this process's by default), then of ``env_file``.

    Without ``env_file``, ``.env`` in the working directory is read where it exists. An empty
    value is an unset one. ``SettingsError`` lists every problem there is. Where all of them are the notifications',
    nothing is raised, so that no backup fails for a message: ``findings`` tells them.
    """
    from_file, problems = read_env_file(env_file)
    from_environment = os.environ if environ is None else environ
    texts = _set_ones(from_file) | _set_ones(from_environment)
    known = variables(Settings)
    used = {place: name for place, name in ((each.place, _used_name(each, texts)) for each in known) if name}

    nested: dict[str, Any] = {}
    for each in known:
        section = nested
        for part in each.place[:-1]:
            section = section.setdefault(part, {})
        if name := used.get(each.place):
            section[each.place[-1]] = texts[name] if each.secret else texts[name].strip()

    settings, details = _validated(nested)
    told = [_problem(detail["loc"], detail["type"], detail.get("ctx", {}), texts, used) for detail in details]
    problems += _unknown(texts)
    off = set[str]()
    while details and all(detail["loc"][0] == "notifications" for detail in details):
        off |= {str(detail["loc"][1]) for detail in details}
        settings, details = _validated(nested, off)
    if settings is None or problems:
        raise SettingsError(list(dict.fromkeys([*told, *problems])), hint="docs/settings.md lists every variable.")
    settings._set_aside = tuple(dict.fromkeys(told))
    return settings


def _validated(nested: Mapping[str, Any], off: Set[str] = frozenset()) -> tuple[Settings | None, list[Any]]:
    """The settings without what is ``off`` of the notifications, or what is wrong.

    The error itself goes no further: it carries pydantic's, and that the values.
    """
    told = {name: value for name, value in nested.get("notifications", {}).items() if name not in off}
    try:
        return Settings.model_validate({**nested, "notifications": told}, context={"off": off}), []
    except ValidationError as error:
        return None, list(error.errors(include_input=False, include_url=False))


def _set_ones(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None and value.strip()}


def _used_name(known: Variable, texts: Texts) -> str | None:
    return next((name for name in (known.name, *known.also) if name in texts), None)


def _problem(
    location: tuple[int | str, ...],
    kind: str,
    context: dict[str, Any],
    texts: Texts,
    used: Mapping[tuple[str, ...], str],
) -> Problem:
    known = next(each for each in variables(Settings) if each.place == location[: len(each.place)])
    name = used.get(known.place, known.name)
    accepted = str(context["error"]) if kind == "value_error" else known.accepted
    if kind == "needed_when_enabled":
        switch = next(each.name for each in variables(known.section) if each.place[-1] == "enabled")
        accepted += f", needed as {switch} is true"
    return Problem(name, _found(texts.get(name), secret=known.secret), accepted)


def _found(text: str | None, *, secret: bool) -> str:
    if text is None:
        return "nothing"
    if secret or _looks_like_a_key(text):
        return f"a value of {len(text)} characters"
    return repr(text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…")


def _looks_like_a_key(text: str) -> bool:
    """A key pasted into the wrong variable is not shown either."""
    try:
        key_bytes(text)
    except ValueError:
        return False
    return True


def _unknown(texts: Texts) -> list[Problem]:
    names = {name for each in variables(Settings) for name in (each.name, *each.also)}
    unknown = sorted(name for name in texts if name.startswith("BACKUP_") and name not in names | RUN_VARIABLES)
    if not unknown:
        return []
    from difflib import get_close_matches  # noqa: PLC0415 - needed for a mistake only

    def accepted(name: str) -> str:
        nearest = get_close_matches(name, sorted(names), n=1)
        return f"a known variable; the nearest is {nearest[0]}" if nearest else "a known variable"

    return [Problem(name, "an unknown variable", accepted(name)) for name in unknown]
