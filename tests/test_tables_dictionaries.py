"""Columns with dictionaries, whatever their values are."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tables_kit import MEMBER, read, write

import pqvault
from pqvault import tables
from pqvault.errors import UsageError


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "a.pqv"


def encoded(values: pa.Array, index: Any = None, *, ordered: bool = False) -> pa.Array:
    found = values.dictionary_encode()
    indices = found.indices.cast(index or pa.int32())
    return pa.DictionaryArray.from_arrays(indices, found.dictionary, ordered=ordered)


VALUES = [
    pa.array(["a", "b", None, "a"]),
    pa.array(["a", "b", None, "a"], pa.large_string()),
    pa.array([b"a", b"b", None, b"a"]),
    pa.array([10, 20, None, 10], pa.int64()),
    pa.array([10, 20, None, 10], pa.uint8()),
    pa.array([1.5, 2.5, None, 1.5]),
    pa.array([True, False, None, True]),
    pa.array([Decimal("1.10"), Decimal("2.20"), None, Decimal("1.10")], pa.decimal128(10, 2)),
    pa.array([1, 2, None, 1], pa.timestamp("us", "UTC")),
    pa.array([1, 2, None, 1], pa.timestamp("s")),
    pa.array([1, 2, None, 1], pa.date64()),
    pa.array([b"abcd", b"efgh", None, b"abcd"], pa.binary(4)),
]


@pytest.mark.parametrize("values", VALUES, ids=lambda values: str(values.type))
@pytest.mark.parametrize(("index", "ordered"), [(pa.int32(), False), (pa.uint8(), True)], ids=str)
def test_they_come_back_with_their_type(
    archive: Path, values: pa.Array, index: Any, ordered: bool
) -> None:
    """Values, and the type to the last detail."""
    if values.type == pa.date64():
        values = pa.array([0, 86_400_000, None, 0], pa.int64()).cast(pa.date64())
    table = pa.table({"d": encoded(values, index, ordered=ordered), "n": [1, 2, 3, 4]})
    write(archive, table)
    found = read(archive)
    assert found.schema == table.schema
    assert found.to_pylist() == table.to_pylist()
    assert read(archive, columns=["n"]).to_pylist() == table.select(["n"]).to_pylist()


def test_filters_and_groups(archive: Path) -> None:
    """A filter on such a column, in a group and out of one; SQL; a second part without one."""
    numbers = [None, *range(299)]
    table = pa.table({"d": encoded(pa.array(numbers), pa.int16()), "prompt": numbers})
    table = table.append_column("answer", table["d"])
    group = tables.ColumnGroup("pii", ("prompt", "answer"), (MEMBER.recipient,))
    write(archive, table, groups=[group])
    for name in ("d", "answer"):
        wanted = pc.field(name) > 296
        assert read(archive, key=MEMBER, filter=wanted)["prompt"].to_pylist() == [297, 298]
    with pqvault.open(archive, identities=[MEMBER]) as opened:
        data = tables.dataset(opened, "runs")
        assert data.count_rows(filter=pc.field("d").isin([3, 4])) == 2
        assert data.head(2).to_pylist() == table.slice(0, 2).to_pylist()
    assert read(archive)["d"].to_pylist() == numbers
    more = pa.table({"d": pa.array([7, 8]), "prompt": [7, 8], "answer": [7, 8]})
    write(archive, more, mode="append", groups=[group])
    found = read(archive, key=MEMBER)
    assert found.schema.field("d").type == pa.int64()
    assert found["d"].to_pylist() == [*numbers, 7, 8]


def test_more_values_than_one_dictionary_can_number(archive: Path) -> None:
    """Two chunks with dictionaries of their own, 220 values together, indices to 127."""
    chunks = [encoded(pa.array(range(at, at + 110)), pa.int8()) for at in (0, 110)]
    write(archive, pa.table({"d": pa.chunked_array(chunks)}))
    found = read(archive)
    assert found.schema.field("d").type == chunks[0].type
    assert found["d"].to_pylist() == list(range(220))
    found.validate(full=True)


def test_below_other_types_they_are_refused(archive: Path) -> None:
    """Numbers with a dictionary inside of a struct: named before anything is written."""
    inner = pa.StructArray.from_arrays([encoded(pa.array([1, 2]))], ["x"])
    with pytest.raises(UsageError, match=r"'s' of table runs .* cannot hold"):
        write(archive, pa.table({"s": inner}))
    assert list(archive.glob("commits/*")) == list(archive.glob("parts/*")) == []
