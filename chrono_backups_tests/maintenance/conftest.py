from pathlib import Path

import pytest

from chrono_backups.clock import FrozenClock
from chrono_backups.storage.memory import MemoryStorage
from chrono_backups_tests.maintenance.site import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    root = tmp_path / "data"
    root.mkdir()
    return Site(root, MemoryStorage(), FrozenClock())
