"""The verbs, their files and one line about each. Importing it costs nothing: ``--help`` prints it."""

from __future__ import annotations

from collections.abc import Sequence

PROGRAM = "chrono-backups"

GROUPS: dict[str, dict[str, str]] = {
    "set up": {
        "validate": "check settings, sources, storages, key and permissions",
        "keygen": "make an encryption key",
        "init": "create the repository in a storage",
        "storage": "list the storages, test one, see how full they are",
        "key": "list, add or remove the keys that open the repository",
    },
    "back up": {
        "backup": "take a backup, and replicate it",
        "replicate": "copy what is missing to the other storages",
        "wal-receive": "stream a PostgreSQL server's log into the archive, as a service",
        "wal-push": "archive one file of the log (archive_command)",
    },
    "look": {
        "list": "list the backups",
        "show": "show all that is known of one backup",
        "ls": "list the files of a backup",
        "diff": "compare two backups",
        "get": "write one file of a backup to standard output or a file (also: cat)",
    },
    "restore": {
        "restore": "put data back: whole, by source or by path",
        "verify": "prove that stored data is true",
        "recovery-points": "list what a PostgreSQL cluster can be restored to",
        "wal-fetch": "give a recovering server a file of the log (restore_command)",
        "drill": "restore to a throwaway place, start it, and prove it right",
    },
    "watch": {
        "health": "check that everything is there that a restore will need",
        "metrics": "success rate, durations, growth, recovery time; for Prometheus too",
        "audit": "show who did what, and prove the record of it",
        "notify": "try the channels of notifications, see what waits, send it",
    },
    "make room": {
        "forget": "drop backups by the retention policy, or by id",
        "prune": "free the space of what no backup refers to",
    },
}
"""Verb → summary, in the order of the help."""

ALIASES = {"cat": "get"}

EXIT_CODES_HELP = """\
exit codes:
  0    done
  1    failed; `health`: something is critical
  2    wrong usage or settings (wrong key too)
  3    stored data is damaged or missing
  4    done in part: a source or a replica is missing; `health`: warnings only
  5    the target of a restore is not recoverable, not empty or too small
  6    a storage or a source can't be reached
  130  cancelled
"""

_HEAD = f"""\
usage: {PROGRAM} [--env-file FILE] [--json] [--quiet] [--debug] VERB …

Backups of a whole application at one recovery point: encrypted, deduplicated, proven.
Settings come from BACKUP_… variables of the environment, then from .env in the working directory.
"""

_TAIL = f"""\
options, before or after the verb:
  --env-file FILE  read settings from FILE in place of .env
  --json           one JSON document on standard output, and nothing else there
  --quiet          no progress and no messages but warnings and errors
  --debug          a traceback for every error (also: BACKUP_DEBUG=1)
  --version        print the version
  -h, --help       print this, or a verb's help after its name

examples:
  {PROGRAM} keygen                                a key for BACKUP_ENCRYPTION_KEY
  {PROGRAM} init                                  once per repository
  {PROGRAM} backup --type incremental             from cron, or by hand
  {PROGRAM} restore latest --to /srv/restored     on any machine that has the key
  {PROGRAM} VERB --help                           more examples
"""


def split(words: Sequence[str]) -> tuple[Sequence[str], str | None]:
    """The words before the verb (global options and their values), and the verb as it was typed."""
    value_follows = False
    for position, word in enumerate(words):
        if not word.startswith("-") and not value_follows:
            return words[:position], word
        value_follows = word == "--env-file" and not value_follows
    return words, None


def find(name: str) -> str | None:
    """The verb of that name or alias, or None."""
    verb = ALIASES.get(name, name)
    return verb if any(verb in group for group in GROUPS.values()) else None


def summary(verb: str) -> str:
    """The verb's line in the help."""
    return next(group[verb] for group in GROUPS.values() if verb in group)


def module_of(verb: str) -> str:
    """The module that has the verb's ``register`` and ``run``."""
    return f"chrono_backups.cli.{verb.replace('-', '_')}"


def failure_code(typed: str | None) -> int | None:
    """The exit code of all that goes wrong in the verb, where it is not that of the error."""
    # PostgreSQL takes any code up to 125 of its restore_command for the end of the log, and opens the cluster.
    return 126 if typed == "wal-fetch" else None


def help_text() -> str:
    """What ``chrono-backups --help`` prints."""
    width = max(len(verb) for group in GROUPS.values() for verb in group)
    lines = [_HEAD]
    for title, group in GROUPS.items():
        lines.append(f"{title}:")
        lines += [f"  {verb:<{width}}  {line}" for verb, line in group.items()]
        lines.append("")
    return "\n".join([*lines, _TAIL, EXIT_CODES_HELP])
