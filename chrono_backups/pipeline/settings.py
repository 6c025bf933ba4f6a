"""How content is compressed and encrypted, and where the key comes from."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator

from chrono_backups.errors import Problem, SettingsError
from chrono_backups.variables import AbsolutePath, Section, variable

KEY_SIZE = 32
KEY_TEXT = "32 bytes in URL-safe base64 (44 characters), as `chrono-backups keygen` prints"
KEY_COMMAND_SECONDS = 30
_KEY_FILE_MOST = 4096
_ONE_KEY = "only one of BACKUP_ENCRYPTION_KEY, BACKUP_ENCRYPTION_KEY_FILE and BACKUP_ENCRYPTION_KEY_COMMAND"

LEVELS = {"zstd": range(1, 23), "gzip": range(1, 10), "none": range(0)}
"""The levels each compression type knows."""


class CompressionSettings(Section):
    """Compression"""

    type: Literal["zstd", "gzip", "none"] = variable(
        "BACKUP_COMPRESSION_TYPE", "zstd", about="How content is compressed; what does not shrink is stored as it is."
    )
    level: int | None = variable(
        "BACKUP_COMPRESSION_LEVEL",
        default_note="the type's own",
        example="3",
        accepted="a whole number: 1 to 22 for zstd, 1 to 9 for gzip, unset for none",
        about="Higher is smaller and slower.",
    )

    @field_validator("level")
    @classmethod
    def _known_to_the_type(cls, level: int | None, info: ValidationInfo) -> int | None:
        levels = LEVELS.get(info.data.get("type", ""))
        if level is None or levels is None or level in levels:
            return level
        kind = info.data["type"]
        if not levels:
            raise ValueError(f"unset: BACKUP_COMPRESSION_TYPE={kind} has no levels")
        raise ValueError(f"a whole number from {levels[0]} to {levels[-1]} for BACKUP_COMPRESSION_TYPE={kind}")


def key_bytes(text: str) -> bytes:
    """The key that ``text`` spells; ``ValueError``, without the text, where it spells none."""
    try:
        key = base64.b64decode(text.strip().encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        key = b""
    # b64decode with altchars takes '+' and '/' as well; one spelling is enough.
    if len(key) != KEY_SIZE or "+" in text or "/" in text:
        raise ValueError(KEY_TEXT)
    return key


def _spells_a_key(secret: SecretStr) -> SecretStr:
    key_bytes(secret.get_secret_value())
    return secret


KeyText = Annotated[SecretStr, AfterValidator(_spells_a_key), Field(json_schema_extra={"accepted": KEY_TEXT})]


class EncryptionSettings(Section):
    """Encryption"""

    enabled: bool = variable(
        "BACKUP_ENCRYPTION_ENABLED",
        True,
        about="Encrypt what is stored; a repository is encrypted or not from its creation.",
    )
    algorithm: Literal["AES-256-GCM", "CHACHA20-POLY1305"] = variable(
        "BACKUP_ENCRYPTION_ALGORITHM",
        "AES-256-GCM",
        about="The cipher; AES is the faster one where the CPU knows it.",
    )
    key: KeyText | None = variable(
        "BACKUP_ENCRYPTION_KEY", about="The key itself. Without it no backup can be read: keep a copy elsewhere."
    )
    key_file: AbsolutePath | None = variable(
        "BACKUP_ENCRYPTION_KEY_FILE", example="/run/secrets/backup_key", about="A file that holds the key instead."
    )
    key_command: str | None = variable(
        "BACKUP_ENCRYPTION_KEY_COMMAND",
        hidden=True,
        accepted="a shell command that prints the key",
        example="vault kv get -field=key secret/backups",
        about="A command that prints the key instead, as a vault's client does; it has 30 seconds.",
    )

    @field_validator("key_file", "key_command")
    @classmethod
    def _one_key_source(cls, value: Path | str | None, info: ValidationInfo) -> Path | str | None:
        others = (info.data.get(other) for other in ("key", "key_file") if other != info.field_name)
        if value is not None and any(other is not None for other in others):
            raise ValueError(_ONE_KEY)
        return value

    def load_key(self) -> bytes | None:
        """The 32 bytes of the configured key, or None where none is configured.

        Reads the file or runs the command. ``SettingsError`` where that fails or gives no key; it
        shows neither what the file holds nor what the command prints.
        """
        if self.key is not None:
            return key_bytes(self.key.get_secret_value())
        if self.key_file is not None:
            return _key_of("BACKUP_ENCRYPTION_KEY_FILE", f"'{self.key_file}', which holds no key", _read(self.key_file))
        if self.key_command is not None:
            return _key_of("BACKUP_ENCRYPTION_KEY_COMMAND", "a command that printed no key", _output(self.key_command))
        return None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_KEY_FILE_MOST + 1)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        found, accepted = f"'{path}', which can't be read ({reason})", "a readable file that holds the key"
        raise SettingsError([Problem("BACKUP_ENCRYPTION_KEY_FILE", found, accepted)]) from error


def _output(command: str) -> bytes:
    # A session of its own, so that a timeout ends the shell's children too: one of them would hold
    # the pipe open. Its error output may quote secrets, so it is dropped.
    process = subprocess.Popen(  # noqa: S602 - the operator's own command line
        command,
        shell=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    fault = ""
    try:
        output, _ = process.communicate(timeout=KEY_COMMAND_SECONDS)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        fault = f"a command that ran longer than {KEY_COMMAND_SECONDS} s"
    else:
        if process.returncode != 0:
            fault = f"a command that failed with exit status {process.returncode}"
    if fault:
        raise SettingsError(
            [Problem("BACKUP_ENCRYPTION_KEY_COMMAND", fault, "a shell command that prints the key")],
            hint="Run the command by hand to see why; its output is not shown here because it may hold the key.",
        )
    return output


def _key_of(variable_name: str, what: str, content: bytes) -> bytes:
    try:
        return key_bytes(content.decode("ascii"))
    except ValueError:
        found = f"{what} ({_size(content)})"
    raise SettingsError([Problem(variable_name, found, KEY_TEXT)])


def _size(content: bytes) -> str:
    return f"more than {_KEY_FILE_MOST} bytes" if len(content) > _KEY_FILE_MOST else f"{len(content)} bytes"
