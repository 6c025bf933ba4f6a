"""Attributes in columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrono_backups.pipeline.attributes import ATTRIBUTES_SIZE, Attributes, attribute_columns

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
ROWS = st.lists(st.tuples(U32, U32, U32, U64, I64, I64, U64), max_size=20)


@given(rows=ROWS)
def test_round_trip(rows: list[tuple[int, ...]]) -> None:
    names = [b"%d" % number for number in range(len(rows))]
    built = Attributes.build(names, [[row[column] for row in rows] for column in range(7)])
    block = built.encode()
    assert len(block) == ATTRIBUTES_SIZE * len(rows)
    columns = attribute_columns(memoryview(block), len(rows))
    assert [tuple(column[i] for column in columns) for i in range(len(rows))] == rows


def test_select_keeps_rows_together() -> None:
    built = Attributes.build([b"a", b"b", b"c"], [[10 * column + row for row in range(3)] for column in range(7)])
    picked = built.select([2, 0])
    assert picked.names == [b"c", b"a"]
    assert [picked.mode[0], picked.mtime[0], picked.inode[1]] == [2, 42, 60]


@pytest.mark.parametrize("size", [0, ATTRIBUTES_SIZE - 1, ATTRIBUTES_SIZE + 1, 2 * ATTRIBUTES_SIZE])
def test_a_wrong_size_is_an_error(size: int) -> None:
    with pytest.raises(ValueError, match="attributes for 1 entries"):
        attribute_columns(memoryview(bytes(size)), 1)
