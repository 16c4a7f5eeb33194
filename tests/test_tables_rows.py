"""Rows as JSON lines and CSV: no value lost, none turned into another, bounded memory."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pqvault.sources import open_source
from pqvault.tables import rows
from pqvault.tables.rows import write_rows


def written(table: pa.Table, kind: str) -> str:
    out = io.BytesIO()
    assert write_rows(table.to_reader(), kind, out) == len(table)
    return out.getvalue().decode()


texts = st.none() | st.text("ab ,\"'\r\n\t;\x00é😀", max_size=5)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=8))
def test_texts_come_back_from_csv(tmp_path_factory: pytest.TempPathFactory, rows: Any) -> None:
    """A lone CR too, at which others would begin a row; null and the empty text stay two things."""
    kinds = pa.schema([("one", pa.string()), ("two, or more", pa.string())])
    table = pa.Table.from_arrays([*map(pa.array, zip(*rows, strict=True))], kinds.names).cast(kinds)
    path = tmp_path_factory.mktemp("csv") / "it.csv"
    path.write_bytes(written(table, "csv").encode())
    with open_source(path) as source:
        assert pa.Table.from_batches(source.batches(), source.schema).equals(table)
    with open(path, encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    assert lines == [kinds.names, *([cell or "" for cell in row] for row in rows)]


def test_a_row_of_nothing_is_a_row_of_csv() -> None:
    """A blank line would be none."""
    assert written(pa.table({"a": [None, "", "b"]}), "csv") == 'a\n""\n""\nb\n'
    cells = pa.table({"f": [0.1, -0.0], "n": [2**63 - 1, None], "b": [True, None], "l": [[1], []]})
    assert written(cells, "csv") == "f,n,b,l\n0.1,9223372036854775807,true,[1]\n-0.0,,,[]\n"


def test_fields_of_one_name_are_all_written() -> None:
    """An object would keep one of them."""
    twice = pa.StructArray.from_arrays([pa.array([1, None]), pa.array([3, 4])], ["x", "x"])
    table = pa.table({"a": twice, "b": pa.ListArray.from_arrays([0, 1, 2], twice)})
    first, second = map(json.loads, written(table, "jsonl").splitlines())
    assert first == {"a": [["x", 1], ["x", 3]], "b": [[["x", 1], ["x", 3]]]}
    assert second == {"a": [["x", None], ["x", 4]], "b": [[["x", None], ["x", 4]]]}
    assert written(table, "csv").splitlines()[1] == (
        '"[[""x"", 1], [""x"", 3]]","[[[""x"", 1], [""x"", 3]]]"'
    )


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_long_texts_of_a_dictionary_are_written_a_few_rows_at_a_time(kind: str) -> None:
    """They stand there once in memory, and once for each row in the output."""
    sizes: list[int] = []

    class Out(io.RawIOBase):
        def write(self, data: Any) -> int:
            sizes.append(len(data))
            return len(data)

    column = pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), ["x" * 2**20])
    write_rows(pa.table({"t": column}).to_reader(), kind, Out())  # type: ignore[arg-type]
    assert sum(sizes) > 300 * 2**20
    assert max(sizes) < 20 * 2**20


def test_lists_and_maps_are_written_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice of them has the values of all the rows: each piece took the time and the memory of
    the whole."""
    seen: list[int] = []
    real = rows.plain

    def counted(array: Any) -> list[Any]:
        seen.append(len(array))
        return real(array)

    monkeypatch.setattr(rows, "plain", counted)
    count = 20_000
    ends = pa.array(range(0, count * 3 + 1, 3), pa.int32())
    numbers = pa.array(range(count * 3), pa.int32())
    lists = pa.ListArray.from_arrays(ends, numbers)
    table = pa.table(
        {
            "l": lists,
            "m": pa.MapArray.from_arrays(ends, numbers.cast("string"), numbers),
            "w": lists.cast(pa.list_(pa.int32(), 3)),
        }
    ).slice(7)
    lines = list(map(json.loads, written(table, "jsonl").splitlines()))
    assert lines[8000]["l"] == lines[8000]["w"] == [24021, 24022, 24023]
    assert lines[19000]["m"] == {"57021": 57021, "57022": 57022, "57023": 57023}
    assert sum(seen) == 15 * len(table), "three rows, and four times three values"
