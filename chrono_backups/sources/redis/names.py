"""What the entries of a snapshot of Redis are called."""

from __future__ import annotations

import re

DUMP = "dump.rdb"
TOLD = b"server"
"""The directory of what the server told of its configuration."""
_SHARD = re.compile(r"shard-(\d+)\.rdb")


def dump_name(shard: int) -> bytes:
    """Of the RDB file of a cluster's shard, from 1; 0: of a server that is no cluster's."""
    return f"shard-{shard}.rdb".encode() if shard else DUMP.encode()


def is_dump(name: bytes) -> bool:
    """Whether an entry of that path is an RDB file."""
    text = name.decode(errors="replace")
    return text == DUMP or _SHARD.fullmatch(text) is not None
