"""A backup or a receiver that is killed leaves nothing on the server that nobody hears of."""

from __future__ import annotations

import subprocess

from chrono_backups_tests.backup.receiving import SMALL_SEGMENTS, slot_position, wait, write_wal
from chrono_backups_tests.cli.conftest import COMMAND, environment
from chrono_backups_tests.recovery.postgres.operated import Operated, operated
from chrono_backups_tests.servers.postgres import PostgresServer

CHECKPOINT = "waiting for checkpoint to finish"
STREAMING = "streaming database files"


def begun(site: Operated, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, *words], cwd=site.home, env=environment({"TMPDIR": str(site.home)}),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def is_as_before(server: PostgresServer) -> bool:
    """No base backup, no slot, nobody who replicates."""
    return not server.execute(
        "SELECT pid FROM pg_stat_progress_basebackup UNION ALL SELECT 1 FROM pg_replication_slots "
        "UNION ALL SELECT pid FROM pg_stat_replication"
    )


def test_a_backup_killed_in_any_phase_leaves_nothing_on_the_server() -> None:
    with operated(settings={"max_wal_size": "1GB"}, options=SMALL_SEGMENTS) as site:
        server = site.server
        server.load(scale=4)
        for phase, checkpoint in ((CHECKPOINT, "spread"), (STREAMING, "fast"), (STREAMING, "fast")):
            site.write_settings(BACKUP_POSTGRES_CHECKPOINT=checkpoint)
            server.execute("UPDATE pgbench_tellers SET tbalance = tbalance + 1")
            process = begun(site, "backup", "--type", "full")
            seen = f"SELECT 1 FROM pg_stat_progress_basebackup WHERE phase = '{phase}'"
            wait(lambda: server.execute(seen))  # noqa: B023 - it is called at once
            process.kill()
            process.wait()
            server.execute("CHECKPOINT")  # the server looks for us again once a spread one is done
            wait(lambda: is_as_before(server))
        assert site.json("list") == []
        # What was stored before is no hindrance, and found again.
        assert site.json("backup", "--type", "full")["status"] == "complete"
        assert is_as_before(server)


def test_a_killed_receiver_is_told_of_by_validate() -> None:
    with operated() as site:
        server = site.server
        process = begun(site, "wal-receive")
        wait(lambda: slot_position(server))
        said = site.run("validate", code=None).text
        assert "WAL is received from the replication slot chrono_backups (wal_status reserved, " in said
        process.kill()
        process.wait()
        wait(lambda: not server.execute("SELECT FROM pg_replication_slots WHERE active"))
        write_wal(server, 2)
        ran = site.run("validate", code=None)
        assert "nobody receives from the replication slot chrono_backups (wal_status" in ran.text + ran.err
        assert "bytes of WAL kept for it" in ran.text + ran.err
