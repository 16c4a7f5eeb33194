"""Pages of tables: a few MiB, however large values are, and never of one value alone."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from tables_kit import read, write

from pqvault import tables
from pqvault.storage.localfiles import LocalSink
from pqvault.tablefile.pages import batch_of

MIB = 1024 * 1024


def blobs(count: int, size: int) -> pa.Table:
    return pa.table({"n": range(count), "blob": [bytes([i % 256]) * size for i in range(count)]})


def test_a_row_group_of_blobs_is_written_page_by_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages stay in the processor's cache; one page of a row group is twice as slow."""
    sizes: list[int] = []
    write_all = LocalSink.write

    def counted(sink: LocalSink, buffer: bytes) -> int:
        sizes.append(len(buffer))
        return write_all(sink, buffer)

    monkeypatch.setattr(LocalSink, "write", counted)
    table = blobs(512, 64 * 1024)
    write(tmp_path / "a.pqv", table, row_groups=tables.RowGroups(rows=512), level=0)
    assert sum(sizes) > 32 * MIB
    assert max(sizes) < 3 * MIB
    assert read(tmp_path / "a.pqv").equals(table)


def test_no_page_has_one_value_alone(tmp_path: Path) -> None:
    """What lengths of pages tell (docs/tables.md, ATTACKS row 31) is not each value's length."""
    assert batch_of(blobs(4, 4 * MIB)) == 8
    table = blobs(10, 2 * MIB)
    write(tmp_path / "a.pqv", table)
    assert read(tmp_path / "a.pqv").equals(table)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda values: values,
        lambda values: pa.StructArray.from_arrays([values, values.is_null()], ["bytes", "path"]),
        lambda values: pa.ListArray.from_arrays(pa.array(range(0, 65, 2), pa.int32()), values),
        lambda values: pa.FixedSizeListArray.from_arrays(values, 4),
        lambda values: pa.MapArray.from_arrays(
            pa.array(range(65), pa.int32()), pa.array(map(str, range(64))), values
        ),
        lambda values: pa.chunked_array([values.slice(0, 10), values.slice(10)]),
    ],
    ids=["plain", "struct", "list", "fixed-size list", "map", "chunks"],
)
def test_large_values_are_found_where_they_are(wrapped: object) -> None:
    """Images are in structs and lists too; what counts is the leaf with the largest values."""
    values = pa.array([bytes(64 * 1024)] * 64)
    table = pa.table({"it": wrapped(values)})  # type: ignore[operator]
    assert 30 <= batch_of(table) <= 32


def test_small_values_are_taken_as_pyarrow_does() -> None:
    """1,024 at once; also when there are none, and for nulls."""
    for values in ([], [1, 2], [None], ["text"] * 2000):
        assert batch_of(pa.table({"it": values})) == 1024
    assert batch_of(pa.table({})) == 1024
