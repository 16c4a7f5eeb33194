"""Random tables, projections, filters and slices: a sealed table answers as the plain one does.

The answer to compare with is Arrow's own on rows in memory, and DuckDB's on the same rows. Texts
are as long as statistics are cut, numbers are at both ends, zeros have signs.
"""

from __future__ import annotations

import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tables_kit import KEY, MEMBER

import pqvault
from pqvault import tables
from pqvault.tablefile import unpacked

duckdb = pytest.importorskip("duckdb")

BERLIN = pa.timestamp("us", "Europe/Berlin")
LONG = ["", "a", "a" * 63 + "b", "a" * 64 + "c", "z" * 300, "é" * 80, "😀" * 30, "\x00", "ÿ" * 70]
VALUES: dict[pa.DataType, list[Any]] = {
    pa.int8(): [-128, 0, 127],
    pa.int64(): [-(2**63), -1, 0, 1, 2**63 - 1],
    pa.uint64(): [0, 1, 2**63, 2**64 - 1],
    pa.float64(): [-0.0, 0.0, 1.5, float("-inf"), float("inf"), float("nan")],
    pa.float32(): [-0.0, 0.0, 1.5, -1.5, float("nan")],
    pa.bool_(): [True, False],
    pa.string(): LONG,
    pa.large_string(): LONG,
    pa.binary(): [text.encode() for text in LONG] + [b"\xff" * 64 + b"\0", b"\xff" * 70],
    pa.decimal128(20, 3): [Decimal(n).scaleb(-3) for n in (-(10**19), -1, 0, 1, 10**19)],
    pa.decimal128(9, 2): [Decimal(n).scaleb(-2) for n in (-100, 0, 1)],
    pa.date32(): [-20_000, 0, 1, 20_000],
    pa.timestamp("s"): [-1, 0, 9 * 10**9],
    pa.timestamp("ns"): [-1, 0, 10**18 + 1],
    BERLIN: [-(10**15), 0, 1, 10**15],
    pa.time32("s"): [0, 86_399],
    pa.dictionary(pa.int16(), pa.string()): ["x", "y" * 90],
}
# What no filter here asks about, and is given out beside the rest.
BESIDE: dict[pa.DataType, list[Any]] = {
    pa.list_(pa.string()): [[], [None], ["a", "b"]],
    pa.list_(pa.float32(), 2): [[1.0, None]],
    pa.struct({"x": pa.list_(pa.struct({"y": pa.int8()}))}): [{"x": [{"y": 1}, None]}, {"x": None}],
    pa.map_(pa.string(), pa.int32()): [[("k", None)], []],
    pa.null(): [None],
}
NAMES = ["a", "B", "c.d", "e/f", "g\nh", 'i"j', "k ", "ü", "x y", "_"]
COMPARED = {
    "=": pc.equal, "<>": pc.not_equal, "<": pc.less, "<=": pc.less_equal, ">": pc.greater,
    ">=": pc.greater_equal,
}  # fmt: skip


def array(kind: pa.DataType, values: list[Any]) -> pa.Array:
    if pa.types.is_temporal(kind):
        return pa.array(values, f"int{kind.bit_width}").cast(kind)
    return pa.array(values, kind)


@st.composite
def made(draw: Any) -> pa.Table:
    kinds = draw(st.lists(st.sampled_from([*VALUES, *BESIDE]), min_size=1, max_size=5))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=5, max_size=5, unique=True))
    rows = draw(st.sampled_from([0, 1, 5, 40]))
    return pa.table(
        {
            name: array(kind, [draw(st.none() | st.sampled_from(values)) for _ in range(rows)])
            for name, kind in zip(names, kinds, strict=False)
            for values in [VALUES.get(kind) or BESIDE[kind]]
        }
    )


def compared(table: pa.Table, data: Any) -> tuple[Any, str] | None:
    """A filter, and the same as SQL; None where no column can be asked."""
    names = [field.name for field in table.schema if field.type in VALUES]
    if not names:
        return None
    found, sql = None, ""
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(names))
        kind = table.schema.field(name).type
        value = array(kind, [data.draw(st.sampled_from(VALUES[kind]))])
        sign = data.draw(st.sampled_from(["is null", "is not null", *COMPARED]))
        column = f'"{name.replace(chr(34), chr(34) * 2)}"'
        if sign.startswith("is"):
            one, text = pc.field(name).is_null(), f"{column} is null"
            if sign == "is not null":
                one, text = ~one, f"{column} is not null"
        else:
            plain = value.dictionary_decode() if pa.types.is_dictionary(kind) else value
            one = COMPARED[sign](pc.field(name), plain[0])
            text = f"{column} {sign} {literal(plain)}"
        both = data.draw(st.booleans())
        found = one if found is None else found & one if both else found | one
        sql = text if not sql else f"({sql}) {'and' if both else 'or'} ({text})"
    return found, sql


def literal(value: pa.Array) -> str:
    kind, it = value.type, value[0].as_py() if value.type != pa.timestamp("ns") else None
    if pa.types.is_timestamp(kind):
        count = value.cast("int64")[0].as_py() * {"s": 10**9, "us": 1000, "ns": 1}[kind.unit]
        stamp = f"make_timestamp_ns({count})"
        return f"{stamp}::timestamp at time zone 'UTC'" if kind.tz else stamp
    if pa.types.is_binary(kind):
        return "'" + "".join(f"\\x{byte:02x}" for byte in it) + "'::blob"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return " || chr(0) || ".join(f"'{piece}'" for piece in it.split("\0"))
    if pa.types.is_temporal(kind):
        return f"{'date' if pa.types.is_date(kind) else 'time'} '{it}'"
    return f"'{it}'::double" if pa.types.is_floating(kind) else str(it)


def shown(table: pa.Table) -> str:
    """All of it, with the signs of zeros."""
    if not table.num_columns:
        return f"{table.num_rows} rows"
    times = [pa.types.is_temporal(kind) for kind in table.schema.types]
    columns = [
        column.cast(f"int{column.type.bit_width}") if time else column
        for time, column in zip(times, table.columns, strict=True)
    ]
    return repr((table.schema.to_string(), [column.to_pylist() for column in columns]))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(made(), st.data())
def test_a_sealed_table_answers_as_the_plain_one(table: pa.Table, data: Any) -> None:
    """Row groups of any length, read whole or in pieces, columns in groups or in none."""
    grouped = data.draw(st.lists(st.sampled_from(table.column_names), unique=True))
    grouped = grouped if len(grouped) < table.num_columns else []
    groups = [tables.ColumnGroup("g", tuple(grouped), (MEMBER.recipient,))] if grouped else []
    limits = tables.RowGroups(rows=data.draw(st.sampled_from([1, 3, 1000])))
    names = st.none() | st.lists(st.sampled_from(table.column_names), unique=True)
    with tempfile.TemporaryDirectory() as where, pytest.MonkeyPatch.context() as patched:
        patched.setattr(unpacked, "_WHOLE", data.draw(st.sampled_from([0, 2**30])))
        patched.setattr(unpacked, "PIECE", data.draw(st.sampled_from([100, 2**27])))
        tables.write_table(
            Path(where) / "a.pqv", "t", table, recipients=[KEY.recipient], groups=groups,
            row_groups=limits,
        )  # fmt: skip
        with pqvault.open(Path(where) / "a.pqv", identities=[KEY, MEMBER]) as archive:
            sealed = tables.dataset(archive, "t")
            assert shown(sealed.to_table()) == shown(table)
            for _ in range(4):
                chosen, asked = data.draw(names), compared(table, data)
                filter, sql = asked or (None, "true")
                wanted = table if filter is None else table.filter(filter)
                assert sealed.count_rows(filter) == len(wanted)
                with tables.query(archive, f"select count(*) c from t where {sql}") as answer:
                    found = answer.read_all()["c"][0].as_py()
                assert found == duckdb.from_arrow(table).filter(sql).count("*").fetchall()[0][0]
                wanted = wanted if chosen is None else wanted.select(chosen)
                assert shown(sealed.to_table(chosen, filter)) == shown(wanted)
                most = data.draw(st.integers(0, 9))
                head = sealed.head(most, columns=chosen, filter=filter)
                assert shown(head) == shown(wanted.slice(0, min(most, len(wanted))))


def test_rows_with_nan_are_not_left_out_by_statistics(tmp_path: Path) -> None:
    """These are 1 and 1 at both ends of a row group, and tell nothing of a NaN between them."""
    nan = float("nan")
    table = pa.table({"x": [1.0, nan, 1.0, 2.0, 0.0, -0.0], "n": [0, 0, 1, 1, 2, 3]})
    limits = tables.RowGroups(rows=2)
    tables.write_table(
        tmp_path / "a.pqv", "t", table, recipients=[KEY.recipient], row_groups=limits
    )
    sealed = tables.dataset(tmp_path / "a.pqv", "t", identities=[KEY])
    x, n = pc.field("x"), pc.field("n")
    for filter in (x != 1, ~(x <= 1), x.is_nan(), x.is_null(nan_is_null=True), x.isin([0.0]),
                   (n == 0) & (x != 1), x.is_valid() & (x > 1)):  # fmt: skip
        assert shown(sealed.to_table(filter=filter)) == shown(table.filter(filter)), filter
        assert sealed.count_rows(filter) == len(table.filter(filter))
    assert list(sealed.scanner(filter=x > 1)._candidates(sealed._rows.entries[0])) == [1]


def test_filters_by_many_long_texts(tmp_path: Path) -> None:
    """Arrow writes an expression cut off within a character, which Python does not read."""
    texts = ["😀" * 30 + str(number) for number in range(30)]
    table = pa.table({"t": [*texts, "a"]})
    tables.write_table(tmp_path / "a.pqv", "t", table, recipients=[KEY.recipient])
    sealed = tables.dataset(tmp_path / "a.pqv", "t", identities=[KEY])
    assert sealed.to_table(filter=pc.field("t").isin(pa.array(texts))).num_rows == 30
