"""The assets that stand for what is protected. Dagster does not make them: it only observes that they are there."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from chrono_backups.identifiers import SourceName
from chrono_backups.orchestration.failures import explained
from chrono_backups.orchestration.metadata import Metadata, table
from chrono_backups.orchestration.names import KIND_TAG
from chrono_backups.orchestration.resources import BackupsResource
from chrono_backups.settings import Settings

GROUP = "sources"

SOURCE_ASSETS: dict[SourceName, dg.AssetSpec] = {
    "files": dg.AssetSpec(
        "application_files",
        group_name=GROUP,
        kinds={"file"},
        description="The trees of BACKUP_FILES_PATHS: files, links, rights, owners, times.",
    ),
    "configuration": dg.AssetSpec(
        "application_configuration",
        group_name=GROUP,
        kinds={"yaml"},
        description="The files of BACKUP_CONFIGURATION_PATHS: `.env`, compose files and their like.",
    ),
}
"""Every source that is built; PostgreSQL, Redis and Meilisearch join with a line each."""

_ROOTS: dict[SourceName, Callable[[Settings], Sequence[Path]]] = {
    "files": lambda settings: settings.files.paths,
    "configuration": lambda settings: settings.configuration.paths,
}


def configured_sources(settings: Settings) -> tuple[SourceName, ...]:
    """The sources that are built and that the settings ask for."""
    return tuple(name for name in SOURCE_ASSETS if name in settings.sources)


@dataclass(frozen=True)
class Root:
    """One protected path, and why it can't be reached; empty if it can."""

    path: str
    problem: str

    @classmethod
    def of(cls, path: Path) -> "Root":
        """Looks at the path itself only: cheap, whatever lies below it."""
        try:
            if path.is_dir():
                with os.scandir(path) as entries:
                    next(entries, None)
            else:
                path.open("rb").close()
        except OSError as error:
            return cls(str(path), error.strerror or str(error))
        return cls(str(path), "")


@dg.op
def observe(context: dg.OpExecutionContext, backups: BackupsResource) -> None:
    """Note for each source how many roots it has and whether they can be reached."""
    with explained(context):
        settings = backups.load()
    for name in configured_sources(settings):
        roots = [Root.of(path) for path in _ROOTS[name](settings)]
        context.log_event(dg.AssetObservation(SOURCE_ASSETS[name].key, metadata=_seen(roots)))
        for root in roots:
            if root.problem:
                context.log.warning(f"{name}: {root.path}: {root.problem}")


@dg.job(name="observe_sources", tags={KIND_TAG: "observation"})
def observe_job() -> None:
    """Note whether what is protected can be reached."""
    observe()


def _seen(roots: Sequence[Root]) -> Metadata:
    return {
        "roots": dg.MetadataValue.int(len(roots)),
        "reachable": dg.MetadataValue.int(sum(not root.problem for root in roots)),
        "paths": dg.MetadataValue.md(
            table(("path", "state"), [(one.path, one.problem or "reachable") for one in roots])
        ),
    }
