"""Contents to store in tests, and storing them."""

from __future__ import annotations

from chrono_backups.repository.repository import Repository
from chrono_backups.repository.writer import SLOT_SIZE, ChunkWriter, PipelineOptions
from chrono_backups_tests.backup.taking import noise

WIDE = PipelineOptions(workers=4, uploads=2, slots=6)
NARROW = PipelineOptions(workers=1, uploads=1, slots=3)


def store(writer: ChunkWriter, contents: list[bytes]) -> list[bytes]:
    """Hand in contents, slot by slot; their ids."""
    tickets = []
    cuts: list[tuple[int, int]] = []
    at, slot = 0, writer.slot()
    for content in contents:
        if at + len(content) > SLOT_SIZE:
            tickets.append(writer.store(slot, cuts))
            at, cuts, slot = 0, [], writer.slot()
        slot[at : at + len(content)] = content
        cuts.append((at, at + len(content)))
        at += len(content)
    tickets.append(writer.store(slot, cuts))
    return [chunk_id for ticket in tickets for chunk_id in writer.wait(ticket)]


def stored(repository: Repository, contents: list[bytes], options: PipelineOptions = NARROW) -> list[bytes]:
    with repository.writer(options) as writer:
        ids = store(writer, contents)
        writer.flush()
    return ids


CONTENTS = [noise(n, 1000 + 37 * n) for n in range(200)]
