"""Through the front door: a served Dagster, real run processes, cancelled as from the UI."""

import secrets
from collections.abc import Iterator

import pytest
from chrono_backups.maintenance.verify import verify

from chrono_backups_tests.orchestration.served import Served
from chrono_backups_tests.orchestration.site import Site

MEGABYTE = 1_000_000


@pytest.fixture
def served(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    for schedule in ("FULL_BACKUPS", "INCREMENTAL_BACKUPS", "CONFIGURATION", "RETENTION", "VERIFICATION"):
        monkeypatch.setenv(f"BACKUP_SCHEDULE_{schedule}", "off")
    # 2 MB a second: the files of 40 MB keep a capture busy for long enough to be cancelled in its midst.
    monkeypatch.setenv("BACKUP_BANDWIDTH_LIMIT_MBPS", "16")
    for number in range(10):
        (site.data / f"large-{number}").write_bytes(secrets.token_bytes(4 * MEGABYTE))
    with Served(site.root) as serving:
        yield serving


def test_a_cancelled_run_says_so_and_leaves_the_repository_whole(site: Site, served: Served) -> None:
    run = served.launch("full_backup_job", site.today())

    def stored() -> bool:
        files = (path for path in (site.root / "repository").rglob("*") if path.is_file())
        return sum(path.stat().st_size for path in files) > 5 * MEGABYTE

    served.until(stored, "the capture to be under way")
    served.terminate(run)
    assert served.ended(run) == "CANCELED"
    assert site.backups() == []
    with site.application().open_repository() as repository:
        assert repository.leases.names() == [], "the lease is let go"
        assert verify(repository, full=True).ok
    assert served.log.read_text().count("Traceback") == 0

    run = served.launch("configuration_backup_job", site.today())
    assert served.ended(run) == "SUCCESS", "the next backup works at once"
    assert [one.type for one in site.backups()] == ["configuration"]


def test_nothing_is_strewn_over_the_working_directory(site: Site, served: Served) -> None:
    before = {path.name for path in site.root.iterdir()}
    run = served.launch("observe_sources")
    assert served.ended(run) == "SUCCESS"
    assert {path.name for path in site.root.iterdir()} == before
