"""The calls of a storage by name, as wrappers count and address them."""

from __future__ import annotations

from typing import Literal, get_args

Operation = Literal["put", "get", "info", "list", "delete", "usage", "locked_until", "extend_lock"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
