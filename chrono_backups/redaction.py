"""Secrets masked in whatever is said: a driver's own message may quote a password or a key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

from chrono_backups.identifiers import SOURCE_NAMES, STORAGE_NAMES

MASK = "[secret]"
_SECRET_WORDS = ("PASSWORD", "SECRET", "TOKEN", "CREDENTIAL", "WEBHOOK_URL", "DSN")
_SECRET_ENDS = ("_KEY",)
_SHORTEST = 4
"""A shorter value would mask half of every message."""
_OUR_WORDS = {*SOURCE_NAMES, *STORAGE_NAMES}
"""A password of ``postgres`` is no secret, and masking it would hide what a message is about."""


def secrets_of_environment(environ: Mapping[str, str]) -> set[str]:
    """Values of the variables whose names say that they are secret; paths and commands are not."""
    return {
        value
        for name, value in environ.items()
        if (any(word in name for word in _SECRET_WORDS) or name.endswith(_SECRET_ENDS))
        and not name.endswith(("_FILE", "_PATH", "_COMMAND"))
    }


def secrets_of_settings(settings: Any) -> set[str]:
    """Every ``SecretStr`` and every hidden value in a pydantic model, whatever its depth."""
    found: set[str] = set()
    fields = type(settings).model_fields
    for name, value in vars(settings).items():
        facts = fields[name].json_schema_extra if name in fields else None
        hidden = isinstance(facts, dict) and bool(facts.get("hidden"))
        found |= {value} if hidden and isinstance(value, str) else _secrets_in(value)
    return found


def _secrets_in(value: Any) -> set[str]:
    if hasattr(value, "get_secret_value"):
        secret = value.get_secret_value()
        return {secret if isinstance(secret, str) else secret.decode("utf-8", "replace")}
    if isinstance(value, Mapping):
        return set[str]().union(*map(_secrets_in, value.values()))
    if isinstance(value, list | tuple):
        return set[str]().union(*map(_secrets_in, value))
    return secrets_of_settings(value) if hasattr(type(value), "model_fields") else set()


def redactor(settings: Any, environ: Mapping[str, str]) -> Callable[[str], str]:
    """Masks every secret of those settings (or of none) and of that environment."""
    secrets = secrets_of_environment(environ) | (secrets_of_settings(settings) if settings is not None else set())
    return lambda text: redacted(text, secrets)


def redacted(text: str, secrets: Iterable[str]) -> str:
    """``text`` with every secret masked, URL-quoted ones too, the longest first."""
    for secret in sorted(
        (one for one in secrets if len(one) >= _SHORTEST and one not in _OUR_WORDS), key=len, reverse=True
    ):
        for form in (secret, quote(secret, safe="")):
            text = text.replace(form, MASK)
    return text
