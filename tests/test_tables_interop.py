"""Tables and other libraries: pyarrow, Polars, DuckDB; every type that Arrow and Parquet share."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest
from tables_kit import GROUP, KEY, MEMBER, read, talk, write

import pqvault
from pqvault import tables
from pqvault.errors import IntegrityError, NoKeyFits, UsageError
from pqvault.tablefile import RowGroups
from pqvault.tablefile.union import promote
from pqvault.tables.facts import file_keys
from pqvault.tables.rows import plain, write_rows

polars = pytest.importorskip("polars")
duckdb = pytest.importorskip("duckdb")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    write(tmp_path / "a.pqv", talk(1000), "logs/runs", row_groups=RowGroups(rows=100))
    return tmp_path / "a.pqv"


def test_a_tables_file_opens_in_plain_pyarrow_and_in_polars(archive: Path) -> None:
    """With the key and the AAD prefix that are handed out; without the prefix it is refused."""
    with pqvault.open(archive, identities=[KEY]) as opened:
        (facts,) = file_keys(opened, "runs")
    file, key = archive / facts.file, bytes.fromhex(facts.key)
    prefix = bytes.fromhex(facts.aad_prefix)
    properties = pe.create_decryption_properties(key, aad_prefix=prefix)
    assert pq.read_table(file, decryption_properties=properties).equals(talk(1000))
    with _quiet():  # Polars marks this as unstable
        theirs = polars.ParquetDecryptionProperties(footer_key=key, aad_prefix=prefix)
        found = polars.read_parquet(file, decryption=theirs)
    assert found.equals(polars.from_arrow(talk(1000)))
    for wrong in (pe.create_decryption_properties(key), None):
        with pytest.raises((OSError, pa.ArrowException)):
            pq.read_table(file, decryption_properties=wrong)
    assert facts.key not in repr(facts)


def test_polars_and_duckdb_read_the_dataset_with_pushdown(archive: Path) -> None:
    """The Arrow dataset is what they take; DuckDB's plan shows that the filter went down."""
    data = tables.dataset(archive, "runs", identities=[KEY])
    lazy = polars.scan_pyarrow_dataset(data)
    found = lazy.filter(polars.col("n") >= 998).select("prompt").collect()
    assert found["prompt"].to_list() == ["ask 998", "ask 999"]
    with duckdb.connect() as connection:
        relation = connection.from_arrow(data).filter("n >= 998").project("prompt")
        assert relation.fetchall() == [("ask 998",), ("ask 999",)]
        assert re.search(r'Filters: "?n"? ?>= ?998', relation.explain())


def test_polars_and_duckdb_read_the_columns_of_groups(tmp_path: Path) -> None:
    """A dataset whose columns are in two files is one to them as well."""
    archive = tmp_path / "a.pqv"
    write(archive, talk(300), groups=[GROUP], row_groups=RowGroups(rows=100))
    data = tables.dataset(archive, "runs", identities=[MEMBER])
    lazy = polars.scan_pyarrow_dataset(data)
    found = lazy.filter(polars.col("answer") == 3).select("n").collect()
    assert found["n"].to_list() == [n for n in range(300) if n % 7 == 3]
    with duckdb.connect() as connection:
        relation = connection.from_arrow(data).filter("prompt = 'ask 7'").project("n, answer")
        assert relation.fetchall() == [(7, 0)]
        assert connection.from_arrow(data).count("*").fetchall() == [(300,)]


def test_a_frame_of_polars_is_written_and_filtered(tmp_path: Path) -> None:
    """Its texts are views, which Arrow filters nowhere and writes in no struct."""
    talks = [[{"role": "user", "content": "hi"}], None, [{"role": "tool", "content": None}]]
    texts = {"text": ["a", None, "b" * 30], "blob": [b"a", b"b", b"c"], "n": [1, 2, 3]}
    frame = polars.DataFrame({**texts, "talk": talks, "kind": ["x", "y", None]})
    frame = frame.with_columns(polars.col("kind").cast(polars.Categorical))
    for groups in ([], [tables.ColumnGroup("pii", ("text", "talk"), (KEY.recipient,))]):
        archive = tmp_path / f"{len(groups)}.pqv"
        write(archive, frame, groups=groups, row_groups=RowGroups(rows=2))
        data = tables.dataset(archive, "runs", identities=[KEY])
        assert data.schema.field("text").type == pa.string_view()
        assert polars.from_arrow(data.to_table()).equals(frame)
        field = pc.field
        for wanted, left in (
            (field("text") == "a", [1]),
            (field("text") > "a", [3]),
            (field("text").is_null(), [2]),
            (field("blob") >= b"b", [2, 3]),
            (field("n") > 1, [2, 3]),
        ):
            found = data.to_table(filter=wanted)
            assert found["n"].to_pylist() == left and found.schema == data.schema
            assert polars.from_arrow(found).equals(frame.filter(polars.col("n").is_in(left)))
        upper = data.to_table(columns={"text": pc.utf8_upper(field("text"))})
        assert upper["text"].to_pylist() == ["A", None, "B" * 30]
        lazy = polars.scan_pyarrow_dataset(data).filter(polars.col("n") > 1)
        assert lazy.collect().equals(frame[1:])


@pytest.mark.parametrize("first", [pa.null(), pa.large_string(), pa.string_view()], ids=str)
def test_views_that_only_some_parts_have(tmp_path: Path, first: Any) -> None:
    """Arrow filters columns that nobody names too, and compares statistics of each part."""
    archive = tmp_path / "a.pqv"
    for kind in (first, pa.string_view()):
        texts = pa.nulls(2) if kind == pa.null() else pa.array(["a", None], kind)
        write(archive, pa.table({"text": texts, "n": [1, 2]}), mode="append")
    assert read(archive, columns=["n"], filter=pc.field("n") > 1)["n"].to_pylist() == [2, 2]
    found = read(archive, filter=pc.field("text") == "a")
    assert found["n"].to_pylist() == ([1] if first == pa.null() else [1, 1])
    with tables.query(archive, "select n from runs where n > 1", identities=[KEY]) as rows:
        assert rows.read_all().num_rows == 2


def test_columns_of_extension_types_are_asked_whether_they_have_values(tmp_path: Path) -> None:
    """Arrow compares no UUIDs, so their statistics rule nothing out."""
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16, None], pa.binary(16)))
    write(tmp_path / "a.pqv", pa.table({"id": ids, "n": [1, 2]}))
    found = read(tmp_path / "a.pqv", filter=pc.field("id").is_valid())
    assert found["n"].to_pylist() == [1]


def test_sql_over_the_tables_of_an_archive(archive: Path, tmp_path: Path) -> None:
    """query: by path and by short name, joins, and nothing but the archive."""
    write(archive, pa.table({"n": [1, 2], "label": ["x", "y"]}), "labels")
    for sql, rows in (
        ("select count(*) as c from runs", [{"c": 1000}]),
        ('select max(n) as m from "logs/runs" where answer = 3', [{"m": 997}]),
        ("select r.n, label from RUNS r join labels using (n) order by 1",
         [{"n": 1, "label": "x"}, {"n": 2, "label": "y"}]),
        ("select 1 as one", [{"one": 1}]),
    ):  # fmt: skip
        with tables.query(archive, sql, identities=[KEY]) as reader:
            assert reader.read_all().to_pylist() == rows
    (tmp_path / "secret.csv").write_text("a\n1\n")
    for sql in (
        f"select * from '{tmp_path}/secret.csv'",
        f"select * from read_csv('{tmp_path}/secret.csv')",
        f"copy (select 1) to '{tmp_path}/out.csv'",
        "install httpfs",
        "set enable_external_access = true",
        "select nothing from runs",
        "select from",
        "create table x (i int)",
        "select 1; select 2",
    ):
        with pytest.raises(UsageError), tables.query(archive, sql, identities=[KEY]) as reader:
            reader.read_all()
    assert not (tmp_path / "out.csv").exists()


def test_rows_with_two_columns_of_one_name(archive: Path) -> None:
    """A join has them easily: JSON lines would keep one of them, CSV keeps both."""
    sql = "select a.n, b.n from runs a join runs b on a.n = b.n + 1 where a.n = 5"
    with tables.query(archive, sql, identities=[KEY]) as reader:
        with pytest.raises(UsageError, match="two columns are named 'n'"):
            write_rows(reader, "jsonl", io.BytesIO())
        out = io.BytesIO()
        assert write_rows(reader, "csv", out) == 1
    assert out.getvalue() == b"n,n\n5,4\n"


def test_sql_over_types_that_duckdb_does_not_have(tmp_path: Path) -> None:
    """What it lacks is not there, and said to be; durations come as intervals."""
    wide = pa.array([None, decimal.Decimal(10) ** 60], pa.decimal256(70, 0))
    rows = {
        "wide": wide,
        "wides": wide.dictionary_encode(),
        "point": pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.float16(), (1,)),
            pa.array([[1.5], None], pa.list_(pa.float16(), 1)),
        ),
        "half": pa.array([1.5, 2.5], pa.float16()),
        "halves": pa.array([[1.5], None], pa.list_(pa.float16())),
        "took": pa.array([1_500_000_000, None], pa.duration("ns")),
        "n": [1, 2],
    }
    path = tmp_path / "a.pqv"
    tables.write_table(path, "runs", pa.table(rows), recipients=[KEY.recipient])
    with tables.query(path, "select * from runs", identities=[KEY]) as reader:
        found = reader.read_all()
    assert found.column_names == ["took", "n"] and found["n"].to_pylist() == [1, 2]
    assert plain(found["took"].combine_chunks()) == ["P0M0DT1.5S", None]
    with tables.query(path, "select count(*) c from runs", identities=[KEY]) as reader:
        assert reader.read_all().to_pylist() == [{"c": 2}]
    for sql, said in (
        ("select half from runs", "floats of 16 bits"),
        ("select n from runs where halves is null", "floats of 16 bits"),
        ("select wide from runs", "decimals of 256 bits"),
    ):
        with (
            pytest.raises(UsageError, match=said),
            tables.query(path, sql, identities=[KEY]) as reader,
        ):
            reader.read_all()


def test_sql_says_which_key_is_missing_and_what_is_damaged(tmp_path: Path) -> None:
    """Not "no such column", and not a message of DuckDB's about decryption."""
    archive = tmp_path / "a.pqv"
    part = write(archive, talk(1000), groups=[GROUP])
    hidden = tables.query(archive, "select prompt from runs", identities=[KEY])
    with pytest.raises(NoKeyFits, match=MEMBER.key_id), hidden:
        pass
    for file in (archive / "parts" / part / "tables").iterdir():
        data = bytearray(file.read_bytes())
        data[len(data) // 3] ^= 1
        file.write_bytes(data)
    for sql, key in (("select sum(n) from runs", KEY), ("select max(prompt) from runs", MEMBER)):
        with (
            pytest.raises(IntegrityError),
            tables.query(archive, sql, identities=[key]) as reader,
        ):
            reader.read_all()


def kinds() -> pa.Table:
    """One column of every type that a Parquet file can hold, with nulls."""
    now = datetime.datetime(2026, 11, 26, 1, 2, 3, 456789)
    values: list[tuple[pa.DataType, Any]] = [
        *((pa.type_for_alias(n), 7) for n in ("int8", "uint8", "int16", "uint16", "int32",
                                              "uint32", "int64", "uint64")),
        *((t, 1.5) for t in (pa.float16(), pa.float32(), pa.float64())),
        (pa.bool_(), True), (pa.null(), None),
        *((t, "text") for t in (pa.string(), pa.large_string(), pa.string_view())),
        *((t, b"bytes") for t in (pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(5))),
        (pa.decimal32(5, 2), decimal.Decimal("1.25")),
        (pa.decimal64(12, 2), decimal.Decimal("1.25")),
        (pa.decimal128(30, 3), decimal.Decimal("1.250")),
        (pa.decimal256(60, 3), decimal.Decimal("1.250")),
        *((pa.timestamp(u), now.replace(microsecond=0)) for u in ("s", "ms", "us", "ns")),
        (pa.timestamp("us", "Europe/Berlin"), now), (pa.timestamp("ns", "UTC"), now),
        (pa.date32(), now.date()), (pa.date64(), now.date()),
        (pa.time32("s"), now.time().replace(microsecond=0)), (pa.time64("us"), now.time()),
        *((pa.duration(u), datetime.timedelta(seconds=5)) for u in ("s", "ms", "us", "ns")),
        (pa.list_(pa.int32()), [1, None]), (pa.large_list(pa.string()), ["a"]),
        (pa.list_view(pa.int8()), [1, 2]), (pa.list_(pa.int8(), 2), [1, 2]),
        (pa.struct([("a", pa.int8()), ("b", pa.list_(pa.string()))]), {"a": 1, "b": ["x"]}),
        (pa.map_(pa.string(), pa.int32()), [("k", 1)]),
        (pa.dictionary(pa.int8(), pa.string()), "text"),
        (pa.list_(pa.struct([("deep", pa.map_(pa.string(), pa.list_(pa.int8())))])),
         [{"deep": [("k", [1])]}]),
    ]  # fmt: skip
    fields, columns = [], []
    for number, (kind, value) in enumerate(values):
        fields.append(pa.field(f"c{number}", kind, metadata={"unit": str(kind)}))
        columns.append(pa.array([value, None], kind))
    square = pa.fixed_shape_tensor(pa.int8(), (2, 2))
    for kind, storage in (
        (pa.uuid(), pa.array([b"0" * 16, None], pa.binary(16))),
        (pa.json_(), pa.array(['{"a": 1}', None])),
        (square, pa.array([[1, 2, 3, 4], None], pa.list_(pa.int8(), 4))),
        (pa.opaque(pa.int8(), "a", "b"), pa.array([1, None], pa.int8())),
    ):
        fields.append(pa.field(f"c{len(fields)}", kind))
        columns.append(pa.ExtensionArray.from_storage(kind, storage))
    fields.append(pa.field("never null", pa.int8(), nullable=False))
    columns.append(pa.array([1, 2], pa.int8()))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, {"about": "all of them"}))


def test_every_type_comes_back_as_it_was(tmp_path: Path) -> None:
    """Types, values, nullability, metadata of columns and of the table; by row group too."""
    archive, table = tmp_path / "a.pqv", kinds()
    write(archive, table)
    found = read(archive)
    for ours, theirs in zip(found.schema, table.schema, strict=True):
        assert ours.equals(theirs, check_metadata=True), theirs
    assert found.schema.equals(table.schema, check_metadata=True)
    assert found.equals(table)
    grouped = [tables.ColumnGroup("g", ("c3", "c20", "c40"), (MEMBER.recipient,))]
    other = tmp_path / "b.pqv"
    write(other, table, groups=grouped)
    again = read(other, key=MEMBER)
    assert again.equals(table) and again.schema.equals(table.schema, check_metadata=True)
    for column in found.columns:
        json.dumps(plain(column.combine_chunks()))
    with pqvault.open(archive, identities=[KEY]) as opened:
        opened.unseal(tmp_path / "out", ["runs"])
    # What Parquet itself gives back of these types.
    plainly = tmp_path / "plain.parquet"
    pq.write_table(table, plainly)
    assert pq.read_table(tmp_path / "out/runs.parquet").equals(pq.read_table(plainly))


def test_a_parquet_file_keeps_row_groups_sorting_and_metadata(tmp_path: Path) -> None:
    """seal --tables of an existing data set: read_table equals pq.read_table, type for type."""
    source = tmp_path / "src/x.parquet"
    source.parent.mkdir()
    table = talk(1000).replace_schema_metadata({"pandas": "{}", "own": "\u00fc"})
    sorting = [pq.SortingColumn(0), pq.SortingColumn(1, descending=True, nulls_first=True)]
    with pq.ParquetWriter(source, table.schema, sorting_columns=sorting) as out:
        for start, count in ((0, 7), (7, 500), (507, 1), (508, 492)):
            out.write_table(table.slice(start, count))
    pqvault.seal(source.parent, tmp_path / "a.pqv", recipients=[KEY.recipient], tables=True)
    found = read(tmp_path / "a.pqv", "x")
    wanted = pq.read_table(source)
    assert found.equals(wanted) and found.schema.equals(wanted.schema, check_metadata=True)
    with pqvault.open(tmp_path / "a.pqv", identities=[KEY]) as opened:
        opened.unseal(tmp_path / "out")
        (entry,) = opened.find_table("x")
    metadata = entry.files[""].fragment.metadata
    for one in (metadata, pq.read_metadata(tmp_path / "out/src/x.parquet")):
        groups = [one.row_group(i) for i in range(one.num_row_groups)]
        assert [group.num_rows for group in groups] == [7, 500, 1, 492]
        assert all(list(group.sorting_columns) == sorting for group in groups)


def test_types_are_promoted_only_where_nothing_is_lost() -> None:
    """format 10.4: the least type that holds every value of both."""
    i8, i64, u8, u64, f32, f64 = (
        pa.int8(), pa.int64(), pa.uint8(), pa.uint64(), pa.float32(), pa.float64(),
    )  # fmt: skip
    for one, other, wanted in (
        (pa.null(), i8, i8), (i8, i64, i64), (u8, i8, pa.int16()), (u64, i64, None),
        (u64, i8, None),
        (pa.int16(), f32, f32), (pa.int32(), f32, f64), (pa.int32(), f64, f64), (i64, f64, None),
        (f32, f64, f64), (pa.string(), pa.large_string(), pa.large_string()),
        (pa.string(), pa.binary(), None), (pa.string(), i64, None), (pa.bool_(), i8, None),
        (pa.decimal128(5, 2), pa.decimal128(6, 4), pa.decimal128(7, 4)),
        (pa.timestamp("s"), pa.timestamp("us"), pa.timestamp("us")),
        (pa.timestamp("s", "UTC"), pa.timestamp("s"), None),
        (pa.dictionary(pa.int8(), pa.string()), pa.string(), pa.string()),
        (pa.list_(i8), pa.list_(i64), pa.list_(i64)), (pa.list_(i8), i8, None),
        (pa.struct([("a", i8)]), pa.struct([("a", i64)]), pa.struct([("a", i64)])),
        (pa.struct([("a", i8)]), pa.struct([("b", i8)]), None),
    ):  # fmt: skip
        assert promote(one, other) == promote(other, one) == wanted, (one, other)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (pa.array([1, None], pa.int8()), pa.array([2**40], pa.int64())),
        (pa.array([1, 2], pa.uint8()), pa.array([-1], pa.int8())),
        (pa.array([1.5], pa.float32()), pa.array([2**20], pa.int32())),
        (pa.array([None], pa.null()), pa.array(["x"])),
        (pa.array(["a"]).dictionary_encode(), pa.array(["b"])),
        (pa.array([[1]], pa.list_(pa.int8())), pa.array([[2**40]], pa.list_(pa.int64()))),
        (pa.array([{"a": 1}], pa.struct([("a", pa.int8())])),
         pa.array([{"a": 2**40}], pa.struct([("a", pa.int64())]))),
        (pa.array([0], pa.timestamp("s")), pa.array([1], pa.timestamp("us"))),
    ],
)  # fmt: skip
def test_parts_of_other_types_are_read_as_one(tmp_path: Path, old: Any, new: Any) -> None:
    """Both orders, by pyarrow's scan and by ours, with a filter over the column."""
    for number, (first, second) in enumerate(((old, new), (new, old))):
        name = f"t{number}"
        archive = tmp_path / "a.pqv"
        write(archive, pa.table({"x": first, "n": range(len(first))}), name)
        write(archive, pa.table({"x": second, "n": range(len(second))}), name, mode="append")
        found = read(archive, name)
        kind = promote(old.type, new.type)
        wanted = [*first.cast(kind).to_pylist(), *second.cast(kind).to_pylist()]
        assert found.schema.field("x").type == kind and found.column("x").to_pylist() == wanted
        valid = read(archive, name, columns=["n"], filter=pc.field("x").is_valid())
        assert len(valid) == sum(value is not None for value in wanted)
        with pqvault.open(archive, identities=[KEY]) as opened:
            rows = tables.dataset(opened, name)._rows
            ours = pa.concat_tables(rows.row_groups())
        assert ours.equals(found)


def _quiet() -> Any:
    import warnings

    return warnings.catch_warnings(action="ignore")
