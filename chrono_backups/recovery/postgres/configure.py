"""Setting up a restored data directory for its recovery.

What would make the copy act as the server that it is a copy of is switched off, in ``postgresql.auto.conf``, which
counts above every other file. Lines of ``postgresql.conf`` that name files which are not there become comments,
as the server would not start with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from chrono_backups.recovery.postgres.catalogues import has_subscriptions
from chrono_backups.recovery.postgres.conf_files import (
    AUTO_CONF,
    CONF,
    Assignment,
    assignments,
    effective,
    included,
    lines_of,
    quoted,
    write_lines,
)
from chrono_backups.recovery.postgres.control_file import NEEDED_SETTINGS, ControlFile
from chrono_backups.recovery.postgres.target import TARGETS

RECOVERY_SIGNAL = "recovery.signal"
MANIFEST = "backup_manifest"
_BACKUP_LABEL = "backup_label"
_TABLESPACE_MAP = "tablespace_map"
_OF_INCREMENTAL = ("INCREMENTAL FROM LSN:", "INCREMENTAL FROM TLI:")
_OFF: dict[str, tuple[str, Callable[[str], bool], str]] = {
    "archive_mode": ("off", lambda value: value.lower() not in {"", "off", "false", "no", "0"}, "it archives nothing"),
    "archive_command": ("", bool, ""),
    "archive_library": ("", bool, ""),
    "archive_cleanup_command": ("", bool, ""),
    "recovery_end_command": ("", bool, "the command is not run"),
    "primary_conninfo": ("", bool, "it follows no primary"),
    "primary_slot_name": ("", bool, ""),
    "synchronous_standby_names": ("", bool, "commits wait for no standby"),
    "recovery_min_apply_delay": ("0", lambda value: value not in {"", "0"}, ""),
}
"""Setting → what it becomes, when that is a change worth a word, and the word."""
_NO_SUBSCRIPTIONS = "max_logical_replication_workers"
_OTHER_PLACES = frozenset({"data_directory", "external_pid_file"})
_OTHER_FILES = frozenset({"hba_file", "ident_file"})
_HBA = "pg_hba.conf"
_PLAIN_HBA = ["local all all peer", "host all all 127.0.0.1/32 scram-sha-256", "host all all ::1/128 scram-sha-256"]


@dataclass(frozen=True)
class Recovery:
    """What a server is told to recover to."""

    restore_command: str
    targets: Mapping[str, str]
    """One of ``TARGETS`` with its value; empty: all WAL that there is."""
    timeline: str
    """``latest``, ``current`` or a number."""
    action: str
    """``promote``, ``pause`` or ``shutdown`` once the target is reached."""

    def settings(self) -> dict[str, str]:
        """As settings of the server, the target last."""
        return {
            "restore_command": self.restore_command,
            "recovery_target_inclusive": "on",
            "recovery_target_timeline": self.timeline,
            "recovery_target_action": self.action,
            **self.targets,
        }


@dataclass
class Configured:
    """What was changed, for people."""

    switched_off: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def configure(
    data: Path, recovery: Recovery, *, written_by: str, tablespaces: Mapping[int, Path], true_manifest: bool
) -> Configured:
    """Set a data directory up. ``tablespaces``: oid → where its content will be found, an absolute path.

    ``true_manifest``: the manifest is of these files, and is kept where none of them had to be changed.
    """
    done = Configured()
    control = ControlFile.read(data)
    before = effective(data)
    changed = _label(data) | _link(data, tablespaces) | _without_broken_lines(data, done)
    overrides = {name: value for name, (value, _, _) in _OFF.items()}
    # A second target is an error, and so is the clearing of one behind another: first what goes, then what counts.
    overrides |= {name: "" for name in TARGETS if before.get(name) and name not in recovery.targets}
    overrides |= recovery.settings()
    for name, (_, worth_telling, effect) in _OFF.items():
        if worth_telling(before.get(name, "")):
            done.switched_off.append(f"{name}: {effect}" if effect else name)
    if has_subscriptions(data):
        overrides[_NO_SUBSCRIPTIONS] = "0"
        done.switched_off.append(f"{_NO_SUBSCRIPTIONS}: subscriptions take nothing from their publishers")
    overrides |= _too_low(before, control)
    if not (data / CONF).exists():
        _made_anew(data, control, done)
        changed = True
    _override(data, overrides, written_by)
    (data / RECOVERY_SIGNAL).touch(mode=0o600)
    (data / "standby.signal").unlink(missing_ok=True)
    if changed or not true_manifest:
        (data / MANIFEST).unlink(missing_ok=True)
    return done


def _label(data: Path) -> bool:
    """Let the label say that this is a whole data directory, which the server asks of it; whether it was changed."""
    label = data / _BACKUP_LABEL
    lines = lines_of(label)
    kept = [line for line in lines if not line.startswith(_OF_INCREMENTAL)]
    if kept != lines:
        write_lines(label, kept)
    return kept != lines


def _link(data: Path, tablespaces: Mapping[int, Path]) -> bool:
    """Lead from ``pg_tblspc`` to the tablespaces; the server would else make links to their old places."""
    folder = data / "pg_tblspc"
    for oid, place in tablespaces.items():
        link = folder / str(oid)
        link.unlink(missing_ok=True)
        link.symlink_to(place)
    present = (data / _TABLESPACE_MAP).exists()
    (data / _TABLESPACE_MAP).unlink(missing_ok=True)
    return present


def _without_broken_lines(data: Path, done: Configured) -> bool:
    """Make comments of lines that would keep the server from starting here."""
    broken: dict[Path, dict[int, str]] = {}
    for one in assignments(data):
        why = _broken(one)
        if why and data in one.file.parents:
            broken.setdefault(one.file, {})[one.number] = why
            done.notes.append(f"{one.file.name}: {one.name} = {one.value} is now a comment: {why}")
    for file, numbers in broken.items():
        lines = lines_of(file)
        for number, why in numbers.items():
            lines[number] = f"# {lines[number].strip()}    # by chrono-backups restore: {why}"
        write_lines(file, lines)
    return bool(broken)


def _broken(one: Assignment) -> str:
    """Why the server can't do with that line here; empty where it can."""
    if one.name in _OTHER_PLACES:
        return "it is a place of the old server"
    if one.name in _OTHER_FILES and not (one.file.parent / one.value).is_file():
        return "there is no such file"
    if one.name == "include" and not included(one):
        return "there is no such file"
    if one.name == "include_dir" and not (one.file.parent / one.value).is_dir():
        return "there is no such directory"
    return ""


def _too_low(before: Mapping[str, str], control: ControlFile) -> dict[str, str]:
    """Settings that the files have lower than the old server ran with, as by words of its command line."""
    found = {}
    for name, least in control.needed.items():
        text = before.get(name, "")
        value = int(text) if text.isdigit() else NEEDED_SETTINGS[name]
        if value < least:
            found[name] = str(least)
    return found


def _made_anew(data: Path, control: ControlFile, done: Configured) -> None:
    """A configuration for a data directory that has none, because the old server kept its elsewhere."""
    lines = ["# Made by chrono-backups restore: the old server's was not in its data directory."]
    lines += [f"{name} = {value}" for name, value in control.needed.items()]
    if control.track_commit_timestamp:
        lines.append("track_commit_timestamp = on")
    write_lines(data / CONF, lines)
    (data / CONF).chmod(0o600)
    done.notes.append(f"{CONF} was not in the data directory: a plain one was made")
    if not (data / _HBA).exists():
        write_lines(data / _HBA, ["# Made by chrono-backups restore.", *_PLAIN_HBA])
        (data / _HBA).chmod(0o600)
        done.notes.append(f"{_HBA} was not in the data directory: one for connections from this machine was made")


def _override(data: Path, overrides: Mapping[str, str], written_by: str) -> None:
    file = data / AUTO_CONF
    lines = lines_of(file)
    for one in assignments(data):
        if one.file == file and one.name in overrides:
            lines[one.number] = f"# {lines[one.number].strip()}"
    lines += ["", f"# {written_by}", *(f"{name} = {quoted(value)}" for name, value in overrides.items())]
    write_lines(file, lines)
    file.chmod(0o600)
