"""Who may delete: a prune shares a storage with any number of backups, with no other prune, replication or repair.

Two prunes could each rely on the copy of a chunk that the other one deletes; a replication relies on packs that
no manifest of its destination names yet, however long ago they were condemned there. Each takes a lease under a
name of its own first and looks for others then, so of two that begin together at least one sees the other.
A lease that was left behind by a killed one runs out by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Literal

from chrono_backups.clock import to_text
from chrono_backups.errors import RepositoryError, StorageError
from chrono_backups.repository.leases import Lease
from chrono_backups.repository.repository import Repository

Purpose = Literal["prune", "replicate", "repair"]

CLOCKS_DIFFER = timedelta(hours=1)
"""How far the clocks of machines that share a repository may be apart."""
_OUTS: dict[Purpose, tuple[Purpose, ...]] = {
    "prune": ("prune", "replicate", "repair"),
    "replicate": ("prune",),
    "repair": ("prune",),
}
_NAMES: dict[Purpose, str] = {"prune": "prune", "replicate": "replication into this storage", "repair": "repair"}


def purpose_of(lease: Lease) -> Purpose | None:
    """What a lease is for; None for a backup's."""
    for purpose in _NAMES:
        if lease.holder.startswith(f"{purpose}-"):
            return purpose
    return None


class Claim:
    """A lease that is kept while the work goes on."""

    def __init__(self, repository: Repository, lease: Lease) -> None:
        self._repository = repository
        self._lease = lease

    def keep(self) -> None:
        """Before each step that relies on it. Raises ``LeaseLost`` where it ran out meanwhile."""
        self._lease = self._repository.leases.keep(self._lease)


@contextmanager
def claim(repository: Repository, purpose: Purpose) -> Iterator[Claim]:
    """Hold the repository for that purpose. Raises ``RepositoryError`` where another holds it."""
    holder = f"{purpose}-{repository.clock.random_bytes(8).hex()}"
    lease = repository.leases.take(holder)
    try:
        for other in repository.leases.all():
            other_purpose = purpose_of(other)
            if other.holder != holder and other_purpose in _OUTS[purpose] and not has_run_out(repository, other):
                raise RepositoryError(
                    f"a {_NAMES[other_purpose]} by {other.host} (process {other.process}) goes on, "
                    f"or was killed; its lease runs out at {to_text(other.expires_at + CLOCKS_DIFFER)}",
                    hint="Try again when it is done, or when its lease has run out.",
                )
        yield Claim(repository, lease)
    finally:
        with suppress(StorageError):  # it runs out by itself, and what happened before matters more
            repository.leases.release(holder)


def has_run_out(repository: Repository, lease: Lease) -> bool:
    """Whether nobody relies on the lease any more, whatever clock they go by."""
    return repository.clock.now() >= lease.expires_at + CLOCKS_DIFFER
