"""Plain aligned columns: no rules, no colours, two spaces between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> list[str]:
    """Lines of a table. Columns named in ``right`` are aligned to the right; the last one is never padded."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    to_the_right = [name in right for name in header]
    return [_aligned(line, widths, to_the_right) for line in lines]


def facts(pairs: Iterable[tuple[str, str]], *, indent: str = "") -> list[str]:
    """Lines of ``name  value`` with the values in one column; pairs without a value are left out."""
    shown = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    return [f"{indent}{name:<{width}}  {value}" for name, value in shown]


def _aligned(line: Sequence[str], widths: Sequence[int], to_the_right: Sequence[bool]) -> str:
    cells = [
        f"{cell:>{width}}" if right else f"{cell:<{width}}"
        for cell, width, right in zip(line, widths, to_the_right, strict=True)
    ]
    return "  ".join(cells).rstrip()
