"""What a Redis server says of its configuration, as files for the source ``configuration`` and beside its data.

=================== ====================================================================================
``server.json``     version, mode, role, replication, what is held in memory (``INFO``)
``config.json``     every parameter (``CONFIG GET *``); passwords with it, as sealed as all the rest
``users.acl``       users and their rights as an ACL file has them; passwords as hashes
``functions.json``  libraries of functions with their code; they are in the data as well
=================== ====================================================================================

What the user may not see is left out; one ``info`` finding says what would let it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from chrono_backups.errors import SourceRefused
from chrono_backups.events import Finding, Listener
from chrono_backups.sources.redis.connection import RedisConnection, find_server, info, lacks_rights
from chrono_backups.sources.settings import RedisSettings

_SECTIONS = ("server", "replication", "persistence", "memory", "cluster", "modules", "keyspace")


def server_settings(settings: RedisSettings, listener: Listener) -> Mapping[str, bytes]:
    """Name of a file, as above → its content. Raises ``SourceError`` where the server does not answer."""
    with RedisConnection.open(settings, find_server(settings)) as connection:
        return told_by(connection, listener)


def told_by(connection: RedisConnection, listener: Listener) -> dict[str, bytes]:
    """As ``server_settings``, of a server that is connected to."""
    found = {"server.json": _json(info(connection, *_SECTIONS))}
    unseen, rights = [], []
    for name, words, what, read in (
        ("config.json", ("CONFIG", "GET", "*"), "its parameters", _parameters),
        ("users.acl", ("ACL", "LIST"), "its users", _users),
        ("functions.json", ("FUNCTION", "LIST", "WITHCODE"), "its functions", _functions),
    ):
        try:
            found[name] = read(connection.ask(*words))
        except SourceRefused as error:
            if lacks_rights(error):
                unseen.append(what)
                rights.append(f"+{words[0].lower()}|{words[1].lower()}")
            # Else it is older than the command, or a provider took it away.
    if unseen:
        message = f"of its configuration the backup's user may not read {', '.join(unseen)}"
        hint = f"ACL SETUSER the user {' '.join(rights)}, or leave it so."
        listener(Finding("redis-configuration-unseen", "info", "redis", message, hint))
    return found


def parameters(connection: RedisConnection, *names: str) -> dict[str, str]:
    """Some parameters by their names; those that the server does not have are left out. Raises as ``ask``."""
    found: dict[str, str] = {}
    for name in names:
        found |= _pairs(connection.ask("CONFIG", "GET", name))
    return found


def _pairs(answer: list[bytes]) -> dict[str, str]:
    texts = [one.decode("utf-8", "backslashreplace") for one in answer]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _parameters(answer: list[bytes]) -> bytes:
    return _json(_pairs(answer))


def _users(answer: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in answer)


def _functions(answer: list[Any]) -> bytes:
    return _json([_plain(one) for one in answer])


def _plain(value: Any) -> Any:
    """An answer as JSON has it; lists whose even places are words become objects."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, list):
        even = len(value) % 2 == 0 and value and all(isinstance(one, bytes) for one in value[::2])
        if even and any(not isinstance(one, bytes) for one in value[1::2]):
            return {_plain(name): _plain(what) for name, what in zip(value[::2], value[1::2], strict=True)}
        return [_plain(one) for one in value]
    return value


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True).encode() + b"\n"
