"""Tables that unpack to far more than they are on the disk are read in bounded memory."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import hostile as h
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tables_kit import KEY, MEMBER, forge, write

import pqvault
from pqvault import tables
from pqvault.archive.tablerows import PartRows, TableRows
from pqvault.errors import PQVaultError, UsageError
from pqvault.format.thrift import parse
from pqvault.tablefile import unpacked

MIB = 1024 * 1024

CHILD = """
import atexit, sys, pqvault, hostile as h
atexit.register(lambda: print(h.peak(), file=sys.stderr))
from pqvault import tables
what, identity, archive, out = sys.argv[1:]
key = pqvault.Identity.parse(identity)
if what == "verify":
    report = pqvault.verify(archive, identities=[key])
    assert not report.problems, report.problems
elif what == "head":
    assert len(tables.head(archive, "runs", 3, identities=[key])) == 3
elif what == "filter":
    data = tables.dataset(archive, "runs", identities=[key])
    few = data.scanner(["t"], filter=tables.reading.pa.compute.field("n") > 5).to_batches()
    assert sum(map(len, few)) == 0
elif what == "query":
    with tables.query(archive, "select count(distinct t) c from runs", identities=[key]) as rows:
        assert rows.read_all().to_pydict() == {"c": [1]}
elif what == "unseal":
    with pqvault.open(archive, identities=[key]) as opened:
        assert not opened.unseal(out).failed
"""


def memory_of(errors: str) -> int:
    """MiB at the peak, which a child says at its end."""
    return int(errors.split()[-1])


def constant(rows: int, text: str) -> pa.DictionaryArray:
    """A dictionary of one text, which takes a few bytes for any number of rows."""
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), [text])


@pytest.mark.parametrize("what", ["verify", "head", "filter", "query", "unseal"])
def test_a_small_table_that_unpacks_to_gigabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Anybody can make one with the public key alone; it takes no more than an honest one."""
    rows = 2_500_000
    numbers = pa.repeat(pa.scalar(0, pa.int32()), rows)
    evil = pa.table({"n": numbers, "t": constant(rows, "x" * 1000)})
    schema = pa.schema([("n", pa.int32()), ("t", pa.string())])
    forge(tmp_path / "a.pqv", evil, schema, monkeypatch)
    run = h.run_child(CHILD, what, KEY.text, tmp_path / "a.pqv", tmp_path / "out", home=tmp_path)
    assert not run.returncode, run.stderr[-3000:]
    assert memory_of(run.stderr) < 1200, "MiB at the peak; the rows are 2.4 GiB"


def test_a_large_text_in_many_rows_is_read_a_few_rows_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The length of a dictionary's longest text is what counts, not the size of the page."""
    texts = constant(100_000, "x" * MIB)
    forge(tmp_path / "a.pqv", pa.table({"t": texts}), pa.schema({"t": pa.string()}), monkeypatch)
    data = tables.dataset(tmp_path / "a.pqv", "runs", identities=[KEY])
    read = [len(batch) for batch in data.head(300).to_batches()]
    assert sum(read) == 300
    assert max(read) < 128, "no more than 128 MiB at once"


def listed(lengths: list[int], text: str) -> pa.ListArray:
    ends = pa.array([0, *itertools.accumulate(lengths)], pa.int32())
    return pa.ListArray.from_arrays(ends, constant(sum(lengths), text))


LISTS = pa.schema([("t", pa.list_(pa.field("element", pa.string())))])


@pytest.mark.parametrize("what", ["verify", "head"])
def test_a_row_that_unpacks_to_gigabytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A list can have any number of texts; pyarrow would unpack them all, and give up then."""
    evil = pa.table({"t": listed([3_000_000], "x" * 1000)})
    forge(tmp_path / "a.pqv", evil, LISTS, monkeypatch)
    run = h.run_child(CHILD, what, KEY.text, tmp_path / "a.pqv", tmp_path / "out", home=tmp_path)
    assert "has a row of over 2 GiB" in run.stderr
    assert memory_of(run.stderr) < 800


def test_rows_whose_lists_differ_are_read_by_what_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1,000 rows, of which a few in the middle have nearly all of the texts."""
    lengths = [1] * 500 + [20_000] * 20 + [1] * 480
    forge(tmp_path / "a.pqv", pa.table({"t": listed(lengths, "x" * 4000)}), LISTS, monkeypatch)
    data = tables.dataset(tmp_path / "a.pqv", "runs", identities=[KEY])
    sizes, read = [], []
    for batch in data.to_batches():
        sizes.append(batch.nbytes)
        read += batch.column(0).value_lengths().to_pylist()
    assert read == lengths
    assert max(sizes) < 300 * MIB
    assert sum(sizes) > 1500 * MIB


def test_what_is_refused_of_a_row_is_refused_when_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pqvault.tablefile.writer.ROW", 1000)
    for fine in ({"t": ["x" * 2000]}, {"t": [["x" * 10]] * 500}):
        write(tmp_path / "a.pqv", pa.table(fine))
    with pytest.raises(UsageError, match="column 't' of table runs has a row of over 2 GiB"):
        write(tmp_path / "a.pqv", pa.table({"t": [["x"], ["x" * 300] * 5, []]}))


KINDS = [
    pa.int64(), pa.string(), pa.large_binary(), pa.bool_(), pa.dictionary(pa.int8(), pa.string()),
    pa.list_(pa.string()), pa.list_(pa.float32(), 3), pa.struct({"a": pa.list_(pa.int8())}),
    pa.map_(pa.string(), pa.int16()), pa.string_view(), pa.large_list(pa.large_binary()),
    pa.null(), pa.decimal128(30, 2),
]  # fmt: skip


def value(kind: Any, rng: random.Random) -> Any:
    if rng.random() < 0.2 or kind == pa.null():
        return None
    if pa.types.is_boolean(kind):
        return rng.random() < 0.5
    if pa.types.is_dictionary(kind):
        return rng.choice(["red", "blue", ""])
    if pa.types.is_map(kind):
        return [(str(i), i) for i in range(rng.randrange(3))]
    if pa.types.is_struct(kind):
        return {"a": [rng.randrange(9)] * rng.randrange(40)}
    if pa.types.is_fixed_size_list(kind):
        return [1.5] * 3
    if pa.types.is_large_list(kind):
        return [rng.randbytes(rng.randrange(60)) for _ in range(rng.choice([0, 1, 50]))]
    if pa.types.is_list(kind):
        return [rng.choice(["x", "yy" * 30])] * rng.randrange(9)
    if pa.types.is_decimal(kind):
        return rng.randrange(10**9)
    if pa.types.is_int64(kind):
        return rng.randrange(50)
    return "z" * rng.randrange(99) if "string" in str(kind) else rng.randbytes(rng.randrange(99))


@pytest.mark.parametrize("grouped", [(), ("c1", "c5", "c9")], ids=["one file", "groups"])
def test_in_pieces_a_table_is_what_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grouped: tuple[str, ...]
) -> None:
    """All types, two parts of which one lacks a column; with filters and projections."""
    rng = random.Random(4)
    columns = {
        f"c{i}": pa.array([value(kind, rng) for _ in range(300)], kind)
        for i, kind in enumerate(KINDS)
    }
    groups = [tables.ColumnGroup("g", grouped, (MEMBER.recipient,))] if grouped else []
    limits = tables.RowGroups(rows=120)
    for part in (pa.table(columns), pa.table(columns).drop_columns(["c2", "c7"])):
        write(tmp_path / "a.pqv", part, groups=groups, mode="append", row_groups=limits)
    data = tables.dataset(tmp_path / "a.pqv", "runs", identities=[KEY, MEMBER])
    asked = [
        {}, {"columns": ["c3", "c1"]}, {"filter": pc.field("c0") < 7},
        {"filter": pc.field("c1") > "zzz", "columns": ["c2", "c5", "c11"]},
        {"filter": pc.field("c0") > 99}, {"columns": [], "filter": pc.field("c3")},
    ]  # fmt: skip
    whole = [data.to_table(**options) for options in asked]
    monkeypatch.setattr(unpacked, "_WHOLE", 0)
    for most in (1, 10_000, 50_000):
        monkeypatch.setattr(unpacked, "PIECE", most)
        for options, wanted in zip(asked, whole, strict=True):
            assert data.to_table(**options).equals(wanted)
            assert data.count_rows(options.get("filter")) == len(wanted)
    with pqvault.open(tmp_path / "a.pqv", identities=[KEY, MEMBER]) as archive:
        assert not archive.unseal(tmp_path / "out").failed
        rows = TableRows(archive.find_table("runs"))
        steps = [PartRows(e, rows.whole).at_once(0, rows.schema.names) for e in rows.entries]
    assert max(steps) < 120, "it was read in pieces"
    assert pa.parquet.read_table(tmp_path / "out" / "runs.parquet").equals(whole[0])
    assert pa.parquet.read_metadata(tmp_path / "out" / "runs.parquet").num_row_groups == 6


def test_headers_that_make_no_sense_are_refused() -> None:
    """Cut off, nested for ever, numbers without an end: one error, at once."""
    assert parse(bytes.fromhex("1506 1580 01 00 ff")) == ({1: 3, 2: 64}, 6)
    wrong = ("15", "1c" * 40, "15" + "ff" * 40, "19ff", "1d00", "19" * 5000, "1911", "191c" * 20)
    for data in map(bytes.fromhex, wrong):
        with pytest.raises(ValueError, match=r"metadata|number"):
            parse(data)


def test_what_an_honest_row_group_unpacks_to_is_read_in_one(tmp_path: Path) -> None:
    """As fast as before: constants, and a dictionary of texts that the table has as one."""
    rows = 300_000
    table = pa.table(
        {
            "system": pa.repeat("You are a helpful assistant. " * 10, rows),
            "model": constant(rows, "m" * 100_000),
            "n": pa.array(range(rows)),
        }
    )
    write(tmp_path / "a.pqv", table, row_groups=tables.RowGroups(rows=rows, size=2**40))
    with pqvault.open(tmp_path / "a.pqv", identities=[KEY]) as archive:
        (entry,) = archive.find_table("runs")
        assert PartRows(entry, entry.schema).at_once(0, table.column_names) == rows
    assert tables.read_table(tmp_path / "a.pqv", "runs", identities=[KEY]).equals(table)


def test_a_damaged_header_of_a_page_is_named(tmp_path: Path) -> None:
    part = write(tmp_path / "a.pqv", pa.table({"t": ["a", "b"] * 5000}))
    (file,) = (tmp_path / "a.pqv" / "parts" / part / "tables").iterdir()
    content = bytearray(file.read_bytes())
    content[30] ^= 1
    file.write_bytes(content)
    with pytest.raises(PQVaultError, match=f"{file.name} failed authentication"):
        tables.read_table(tmp_path / "a.pqv", "runs", identities=[KEY])
