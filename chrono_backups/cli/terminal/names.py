r"""File names and messages made safe for a terminal and for JSON.

A name on disk is bytes: it may hold newlines, escape sequences, or be no UTF-8 at all.

* For people, ``printable`` writes it as ``ls -b`` does (spaces stay as they are): ``\n``, ``\t``, ``\\``,
  and ``\377`` in octal for every byte of what is not printable. The result is one line, unambiguous.
* In JSON, ``json_name`` gives ``path``; where the bytes are no UTF-8, ``path`` is that escaped form,
  for display, and ``path_base64`` (present only then) has the bytes themselves.
"""

from __future__ import annotations

from base64 import b64encode

_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v"}


def printable(name: bytes | str) -> str:
    """``name`` on one line, safe for any terminal, backslashes doubled."""
    text = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_escaped, text))


def safe_message(text: str) -> str:
    """``text`` with its newlines kept and every other unprintable character escaped."""
    if text.isprintable():
        return text
    return "".join(character if character in "\n\\" else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    try:
        encoded = character.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        encoded = character.encode("utf-8", "surrogatepass")
    return "".join(f"\\{byte:03o}" for byte in encoded)


def json_name(name: bytes, field: str = "path") -> dict[str, str]:
    """``{field: text}``, and ``{field}_base64`` where ``name`` is no UTF-8."""
    try:
        return {field: name.decode("utf-8")}
    except UnicodeDecodeError:
        return {field: printable(name), f"{field}_base64": b64encode(name).decode("ascii")}


def json_text(text: str) -> str:
    r"""``text`` without surrogates, which JSON readers refuse: an undecodable byte becomes ``\377``."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "".join(_escaped(one) if "\ud800" <= one <= "\udfff" else one for one in text)
    return text
