"""Backups of a whole application at one recovery point: encrypted, deduplicated, proven.

The rooms and what may import what are drawn in ``docs/architecture.md``.
"""

__version__ = "1.0.0"
