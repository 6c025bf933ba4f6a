"""In which order the sources of a backup are captured: pure, and the same for the command line and Dagster.

A backup is one recovery point, so the boundaries of its sources are to lie close together, and what refers to something
is to be captured no later than what it refers to. Three stages, one after another:

1. **postgres**. A base backup takes long and is consistent at its *end*, so whatever is captured beside it is older by
   up to its whole length, and whatever comes right behind it is not.
2. **meilisearch, redis**: the quick stores. With WAL archived, PostgreSQL then meets them exactly: its recovery target
   is where its log was at the last of their boundaries. Both are made from the database and lag behind it in
   production too, so a database that is no older than they are is a state that the application knows. The index comes
   first, as it is read page by page and ends where Redis's one moment begins.
3. **configuration, files**. A tree has no single moment; walked behind the rest it is off by its own length alone, and
   what a row of the database names was written before the row was. A short walk comes before a long one.

Where each capture is a process of its own, those of one stage run at once.
"""

from __future__ import annotations

from collections.abc import Iterable

from chrono_backups.identifiers import SourceName

STAGES: tuple[tuple[SourceName, ...], ...] = (("postgres",), ("meilisearch", "redis"), ("configuration", "files"))
MEET: frozenset[SourceName] = frozenset({"meilisearch", "redis"})
"""The sources at whose boundaries PostgreSQL is asked where its log is."""


def stages(sources: Iterable[SourceName]) -> tuple[tuple[SourceName, ...], ...]:
    """The sources by stage, in order; as many as ``STAGES`` has, and an empty one where there is nothing to do."""
    wanted = set(sources)
    return tuple(tuple(name for name in stage if name in wanted) for stage in STAGES)


def in_order(sources: Iterable[SourceName]) -> tuple[SourceName, ...]:
    """The sources in the order of their captures, where one follows another."""
    return tuple(name for stage in stages(sources) for name in stage)
