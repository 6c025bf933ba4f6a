"""A damaged index object is stood in for by what the packs say of themselves."""

from pathlib import Path

from chrono_backups.repository.listings import read_listing
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.backup.taking import new_repository, noise, opened, take, write_all
from chrono_backups_tests.damaging import last_byte_changed


def test_a_damaged_index_object_costs_nothing(tmp_path: Path) -> None:
    root = tmp_path / "site"
    write_all(root, {f"{n}": noise(n, 400_000) for n in range(5)})
    storage = MemoryStorage()
    new_repository(storage)
    take(opened(storage), "full", root)
    key = next(key for key in storage.objects if key.startswith("index/"))
    storage.objects[key] = last_byte_changed(storage.objects[key])

    repository = opened(storage)
    snapshot = repository.snapshot(repository.backup("latest").snapshots[0].snapshot_id)
    listed = {name for segment in read_listing(repository.reader, snapshot.listing) for name in segment.names}
    assert {b"0", b"4"} <= listed
    for chunk in snapshot.listing:
        repository.reader.read(chunk.chunk_id)

    packs = [key for key in storage.objects if key.startswith("packs/")]
    take(opened(storage), "incremental", root)
    named = {pack.name for _, table in opened(storage).index_tables(pass_over_damaged=True) for pack in table.packs}
    assert {f"packs/{name}" for name in named} >= set(packs)
