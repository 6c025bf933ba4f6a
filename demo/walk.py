"""The walk: a site and its stores, their settings, two backups and their proof through Dagster, restores without it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from chrono_backups.cli.terminal.quantities import count, size
from demo.account import Account
from demo.compare import compare, compare_sparseness
from demo.point_in_time import PointInTime
from demo.served import Served, ServedFailed
from demo.site import Site, build_site, change_site

# What a program needs to start. Nothing else of the caller's environment reaches the demo: a BACKUP_… or
# POSTGRES_… of theirs would be a setting.
_KEPT = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TERM", "TMPDIR")
_SHOWN = 20
_SECONDS_TO_REPLICATE = 150

_SETTINGS = """\
# The demo's settings, made by `make demo`.
BACKUP_FILES_PATHS="{files}"
BACKUP_CONFIGURATION_PATHS="{configuration}"
BACKUP_EXCLUDE_PATTERNS="*.tmp"
BACKUP_LOCAL_PATH="{place}/repository"
BACKUP_LOCAL_MIRROR_PATH="{place}/mirror"
BACKUP_ENCRYPTION_KEY_FILE="{place}/encryption.key"
BACKUP_FIRST_DAY={first_day}
# Sundays a full backup, each other night an incremental one, on Sundays all is proven.
BACKUP_SCHEDULE_FULL_BACKUPS="0 2 * * 0"
BACKUP_SCHEDULE_INCREMENTAL_BACKUPS="0 3 * * 1-6"
BACKUP_SCHEDULE_CONFIGURATION="0 4 * * *"
BACKUP_SCHEDULE_DATABASE_ONLY="0 */6 * * *"
BACKUP_SCHEDULE_RETENTION="0 5 * * *"
BACKUP_SCHEDULE_VERIFICATION="0 6 * * 0"
BACKUP_SCHEDULE_DRILL="0 7 1 * *"
"""


class CommandFailed(Exception):
    """A ``chrono-backups`` ended otherwise than with 0; carries what it said."""


class Walk:
    """Everything below ``place``. The steps are called in the order in which they stand here."""

    def __init__(self, place: Path, account: Account) -> None:
        self._place = place
        self._account = account
        self._site = Site(place / "site")
        self.environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | {
            "PYTHONWARNINGS": "ignore"
        }

    def make_site(self) -> None:
        """What is protected."""
        with self._account.step("A small site to protect: pages, uploads, logs, its configuration") as said:
            build_site(self._site.root)
            said(f"{_extent(self._site)} in {self._site.root}")

    def set_up(self, stores: Mapping[str, str]) -> None:
        """What an operator does once: a key, the settings, the repository. ``stores``: how to reach the servers."""
        with self._account.step("A key, the settings, an empty repository") as said:
            self.command("keygen", "--to", str(self._place / "encryption.key"))
            first_day = (datetime.now(UTC) - timedelta(days=6)).date()
            settings = _SETTINGS.format(
                files=_paths(self._site.files),
                configuration=_paths(self._site.configuration),
                place=self._place,
                first_day=first_day.isoformat(),
            )
            settings += "".join(f'{name}="{value}"\n' for name, value in stores.items())
            file = self._place / ".env"
            file.touch(mode=0o600)
            file.write_text(settings)
            made = self.command("init")
            said(f"encrypted repository {made['repository'][:12]}… in {made['location']}; settings: {self._place}/.env")

    def through(self, served: Served, past: PointInTime) -> bool:
        """Back up, change, back up, prove, replicate, restore; whether all was restored as it was."""
        full = self._back_up(served, "full", "A full backup of all of it, by a Dagster run")
        with self._account.step("A day of work on the site, while orders come in") as said:
            change_site(self._site.root, day=1)
            said(f"pages added, edited, moved and removed, a longer log, a new token: {_extent(self._site)}")
        incremental = self._back_up(served, "incremental", "An incremental backup under load, by a Dagster run")
        accident = past.accident()
        again = past.restore(accident, self.command, served)
        past.drill(self.command, served, _today())
        self._prove(served)
        self._replicate(served, {full, incremental})
        present = self._restore(
            "Restored without Dagster: a new process with the repository and the key",
            incremental, "repository", self._site,
        )  # fmt: skip
        earlier = build_site(self._place / "as-it-was" / "site")
        earlier_site = self._restore(
            "Restored from the mirror alone: the site as it was before the day of work", full, "mirror", earlier
        )
        return again and present and earlier_site

    def _back_up(self, served: Served, kind: str, title: str) -> str:
        with self._account.step(title) as said:
            run = served.run(f"{kind}_backup_job", _today())
            facts = served.facts(run)
            backup_id = str(facts["backup_id"])
            said(
                f"{backup_id}, {facts['status']}: {count(facts['files'], 'file')}, read {size(facts['bytes_read'])}, "
                f"new {size(facts['bytes_added'])}, stored {size(facts['bytes_stored'])}"
            )
            said(
                f"of it the database: {facts['postgres_effective']}, read {size(facts['postgres_bytes_read'])}, "
                f"up to LSN {facts['postgres_lsn']}"
            )
            said(_beside(facts))
            said(f"{_passed(served.checks(run))} – {served.url}/runs/{run}")
            return backup_id

    def _prove(self, served: Served) -> None:
        with self._account.step("Both read back and proven, every byte, by a Dagster run") as said:
            run = served.run("verification_job", _today(), {"ops": {"verification": {"config": {"depth": "full"}}}})
            facts = served.facts(run)
            said(
                f"{facts['whole']} of {count(facts['backups'], 'backup')} whole: "
                f"{count(facts['objects'], 'object')}, {size(facts['bytes'])} read – {served.url}/runs/{run}"
            )

    def _replicate(self, served: Served, wanted: set[str]) -> None:
        """Waited for only: the automation looks every half minute whether a backup was made and proven."""
        with self._account.step("Replicated to the mirror, by Dagster's automation on its own") as said:

            def replicated() -> str:
                if failed := served.failed():
                    raise ServedFailed(f"a run failed: {served.url}/runs/{failed[0]}\n{served.failures(failed[0])}")
                made = served.succeeded("backup_replica")
                if not made:
                    return ""
                held = {one["id"] for one in self.command("list", "--storage", "local_mirror")}
                return made[0] if wanted <= held else ""

            run = served.until(replicated, "the replica", _SECONDS_TO_REPLICATE)
            used = sum(path.stat().st_size for path in (self._place / "mirror").rglob("*") if path.is_file())
            said(f"both backups, {size(used)} in {self._place / 'mirror'} – {served.url}/runs/{run}")

    def _restore(self, title: str, backup_id: str, repository: str, expected: Site) -> bool:
        """Restore what ``repository`` holds of the backup, and compare it with ``expected``."""
        target = self._place / f"restored-from-{repository}"
        elsewhere = self._place / f"elsewhere-{repository}"
        elsewhere.mkdir()  # a working directory without .env
        with self._account.step(title) as said:
            done = self.command(
                "restore", backup_id, "--to", str(target), working=elsewhere,
                settings={
                    "BACKUP_LOCAL_PATH": str(self._place / repository),
                    "BACKUP_ENCRYPTION_KEY_FILE": str(self._place / "encryption.key"),
                },
            )  # fmt: skip
            differences = _differences(self._site, expected, target)
            said(f"{backup_id}: {count(done['files'], 'file')}, {size(done['bytes'])} in {target}")
            if not differences:
                said(
                    "files and configuration compared: every byte, mode, owner, time, link, hole and xattr is as it was"
                )
            else:
                said(f"NOT as it was, {count(len(differences), 'difference')}:")
                for line in differences[:_SHOWN]:
                    said(f"  {line}")
        return not differences

    def command(self, *words: str, settings: Mapping[str, str] | None = None, working: Path | None = None) -> Any:
        """What ``chrono-backups --json …`` answers. Raises ``CommandFailed``."""
        ran = subprocess.run(
            [str(Path(sys.executable).with_name("chrono-backups")), "--json", *words],
            cwd=working or self._place,
            env={**self.environment, **(settings or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode != 0:
            said = f"{ran.stdout}{ran.stderr}"
            raise CommandFailed(f"chrono-backups {' '.join(words)} ended with {ran.returncode}:\n{said}")
        return json.loads(ran.stdout)


def _differences(original: Site, expected: Site, target: Path) -> list[str]:
    """Between what was restored of ``original`` and ``expected``, which may be a copy of it elsewhere."""
    found: list[str] = []
    for source, ours, theirs in (
        ("files", original.files, expected.files),
        ("configuration", original.configuration, expected.configuration),
    ):
        for path, wanted in zip(ours, theirs, strict=True):
            restored = target / source / path.relative_to("/")
            if not os.path.lexists(restored):
                found.append(f"{wanted}: not restored")
                continue
            found += [f"{path.name}: {one}" for one in compare(wanted, restored)]
            found += [f"{path.name}: {one}" for one in compare_sparseness(wanted, restored)]
    return found


def _extent(site: Site) -> str:
    """How much there is, holes apart: ``1,974 files, 28.6 MB``."""
    found = [path.stat() for path in site.root.rglob("*") if path.is_file() and not path.is_symlink()]
    return f"{count(len(found), 'file')}, {size(sum(min(one.st_size, one.st_blocks * 512) for one in found))}"


def _beside(facts: Mapping[str, Any]) -> str:
    """What the stores beside the database held, and how far all parts of the backup lie apart."""
    held = [
        count(facts[name], what)
        for name, what in (("redis_keys", "key"), ("meilisearch_documents", "document"))
        if name in facts
    ]
    return (
        f"with it {', '.join(held)}; all within {float(facts['skew_seconds']):.2f} s, "
        f"with the database's log within {float(facts['skew_with_wal_seconds']):.2f} s"
    )


def _passed(checks: Mapping[str, bool]) -> str:
    failed = [name for name, passed in checks.items() if not passed]
    if failed:
        raise ServedFailed(f"checks failed: {', '.join(failed)}")
    return f"checks passed: {', '.join(sorted(checks)) or 'none'}"


def _paths(paths: tuple[Path, ...]) -> str:
    return ":".join(str(path) for path in paths)


def _today() -> str:
    """The partition of now; the demo's days are UTC, which is the settings' default."""
    return datetime.now(UTC).date().isoformat()
