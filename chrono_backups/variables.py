"""How a setting is declared: one environment variable, one typed field, one place.

A room's settings are ``Section``s, frozen pydantic models whose fields are made by ``variable``::

    class CompressionSettings(Section):
        \"""How content is compressed.\"""

        level: int | None = variable("BACKUP_COMPRESSION_LEVEL", None, about="Compression level.")

``settings.Settings`` composes them; the documentation and ``.env.example`` are tested against them.

Two rules for validators: the text of a ``ValueError`` says what *is accepted* (never what was found:
that is added, and masked where it is secret), and a field that depends on another is validated as a
field, by ``info.data``, so that the problem bears its variable's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo
from pydantic_core import PydanticCustomError

from chrono_backups.errors import Problem

GIGABYTE = 10**9
"""Bytes of a gigabyte in every ``…_GB`` variable: the decimal one, so that a limit errs on the small side."""


class Section(BaseModel):
    """Settings that belong together. Frozen; no message of it ever shows an input."""

    model_config = ConfigDict(
        frozen=True,
        defer_build=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )


def variable(
    name: str,
    default: Any = None,
    *,
    about: str,
    accepted: str = "",
    also: tuple[str, ...] = (),
    default_note: str = "",
    example: str = "",
    hidden: bool = False,
    **limits: Any,
) -> Any:
    """A field read from the variable ``name``, else from the first set one of ``also``.

    ``accepted`` is derived from the type and ``limits`` (``ge``, ``le``, …) where it is left empty.
    ``default_note`` says what an unset one means where the default itself does not tell.
    ``hidden`` keeps the value out of ``repr``, messages and descriptions; a ``SecretStr`` is so anyway.
    """
    facts: dict[str, Any] = {
        "variable": name, "also": list(also), "default_note": default_note, "example": example, "hidden": hidden,
    }  # fmt: skip
    if accepted:
        facts["accepted"] = accepted
    return Field(default, description=about, repr=not hidden, json_schema_extra=facts, **limits)


@dataclass(frozen=True)
class Variable:
    """What is known of one variable. ``place`` is the path of its field from the outermost section."""

    name: str
    also: tuple[str, ...]
    about: str
    secret: bool
    default: str
    default_note: str
    example: str
    place: tuple[str, ...]
    section: type[Section]

    @property
    def accepted(self) -> str:
        """What the variable takes, for people."""
        schema = _schema(self.section)["properties"][self.place[-1]]
        return _accepted(schema)


@cache
def variables(section: type[Section]) -> tuple[Variable, ...]:
    """Every variable of ``section`` and the sections in it, in the order they are declared."""
    return tuple(_walk(section, ()))


def _walk(section: type[Section], place: tuple[str, ...]) -> Iterator[Variable]:
    for field_name, field in section.model_fields.items():
        here = (*place, field_name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _walk(field.annotation, here)
            continue
        facts: Any = field.json_schema_extra
        yield Variable(
            name=facts["variable"],
            also=tuple(facts["also"]),
            about=field.description or "",
            secret=facts["hidden"] or _holds_secret(field.annotation),
            default=as_text(field.default),
            default_note=facts["default_note"],
            example=facts["example"],
            place=here,
            section=section,
        )


def secret_values(settings: Section) -> set[str]:
    """Every value that nobody is to see, those that are plain text in the model too, and each address in one."""
    found: set[str] = set()
    for known in variables(type(settings)):
        if known.secret:
            value: Any = settings
            for part in known.place:
                value = getattr(value, part)
            text = value.get_secret_value() if isinstance(value, SecretStr) else value
            if isinstance(text, str):
                found |= {text, *(word for word in text.split() if "://" in word)}
    return found


def as_text(value: object) -> str:
    """A default as one would write it in ``.env``; empty for none."""
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _holds_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(_holds_secret(part) for part in get_args(annotation))


@cache
def _schema(section: type[Section]) -> dict[str, Any]:
    return section.model_json_schema()


def _accepted(schema: dict[str, Any]) -> str:
    if "accepted" in schema:
        return str(schema["accepted"])
    (schema,) = [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
    if "accepted" in schema:
        return str(schema["accepted"])
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    match schema.get("type"):
        case "boolean":
            return "true or false"
        case "integer" | "number" as kind:
            return ("a whole number" if kind == "integer" else "a number") + _bounds(schema)
        case _:
            return "any text"


def _bounds(schema: dict[str, Any]) -> str:
    if "exclusiveMinimum" in schema:
        return f" above {schema['exclusiveMinimum']:.12g}"
    if "maximum" in schema:
        return f" from {schema['minimum']:.12g} to {schema['maximum']:.12g}"
    return f", {schema['minimum']:.12g} or more" if "minimum" in schema else ""


_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?(BACKUP_\w*)")


def read_env_file(env_file: Path | None) -> tuple[Mapping[str, str | None], list[Problem]]:
    """The values of ``env_file``, and what is wrong with it; ``.env`` of the working directory, if any, for None."""
    path = env_file or Path(".env")
    if env_file is None and not path.is_file():  # a directory of that name is a virtual environment
        return {}, []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else "it is not UTF-8"
        found, accepted = f"'{path}', which can't be read ({reason})", "a readable file of NAME=value lines"
        return {}, [Problem("--env-file" if env_file else ".env", found, accepted)]
    from dotenv import dotenv_values  # noqa: PLC0415 - without a file it is not needed

    values = dotenv_values(stream=StringIO(text), interpolate=False)
    problems = [
        Problem(match[1], f"line {number} of '{path}', which can't be read", "NAME=value, with quotes closed")
        for number, line in enumerate(text.splitlines(), start=1)
        # dotenv leaves out what it can't parse; a protected path must not vanish so quietly.
        if (match := _ASSIGNMENT.match(line)) and values.get(match[1]) is None
    ]
    return values, problems


# The shapes that several rooms use.


def needed_when_enabled(value: Any, info: ValidationInfo) -> Any:
    """A field validator: the field must be set once the section's ``enabled`` is true."""
    if info.data.get("enabled") and (value is None or value == ()):
        raise PydanticCustomError("needed_when_enabled", "needed when enabled")
    return value


def _split(separator: str) -> BeforeValidator:
    def split(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(part for part in (part.strip() for part in value.split(separator)) if part)

    return BeforeValidator(split)


_ABSOLUTE = "an absolute path without '..'"
_ALL_ABSOLUTE = "absolute paths without '..', separated by ':'"


def _is_absolute(path: Path) -> bool:
    return path.is_absolute() and ".." not in path.parts and "\0" not in str(path)


def _absolute(path: Path) -> Path:
    if not _is_absolute(path):
        raise ValueError(_ABSOLUTE)
    return path


def _all_absolute(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    if not all(_is_absolute(path) for path in paths):
        raise ValueError(_ALL_ABSOLUTE)
    return paths


def _web_address(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#]+\S*", text):
        raise ValueError(_URL)
    return text


def _secret_web_address(secret: SecretStr) -> SecretStr:
    _web_address(secret.get_secret_value())
    return secret


_URL = "a URL that begins with http:// or https://"

AbsolutePath = Annotated[Path, AfterValidator(_absolute), Field(json_schema_extra={"accepted": _ABSOLUTE})]
AbsolutePaths = Annotated[
    tuple[Path, ...],
    _split(":"),
    AfterValidator(_all_absolute),
    Field(json_schema_extra={"accepted": _ALL_ABSOLUTE}),
]
Words = Annotated[tuple[str, ...], _split(","), Field(json_schema_extra={"accepted": "words separated by ','"})]
Url = Annotated[str, AfterValidator(_web_address), Field(json_schema_extra={"accepted": _URL})]
SecretUrl = Annotated[SecretStr, AfterValidator(_secret_web_address), Field(json_schema_extra={"accepted": _URL})]
Port = Annotated[int, Field(ge=1, le=65535)]
Days = Annotated[int, Field(ge=0, le=36500)]
Gigabytes = Annotated[
    float, Field(gt=0, le=10**9, json_schema_extra={"accepted": "gigabytes (of 1000000000 bytes), a number above 0"})
]
