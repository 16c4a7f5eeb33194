"""Properties of tables: whatever is written comes back, and every scan is the naive one."""

from __future__ import annotations

import itertools
import math
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tables_kit import KEY, MEMBER

from pqvault import tables
from pqvault.errors import FormatError
from pqvault.format.table import TableDoc, TableFileDoc
from pqvault.tablefile.union import promote

names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,9}", fullmatch=True)
hexes = st.binary(min_size=16, max_size=16).map(bytes.hex)
roots = st.binary(min_size=32, max_size=32).map(bytes.hex)


@st.composite
def docs(draw: Any) -> TableDoc:
    """A description that holds together."""
    groups = ["", *sorted(draw(st.sets(names, max_size=3)))]
    columns = draw(st.integers(len(groups), 12))
    owner = [draw(st.integers(0, len(groups) - 1)) for _ in range(columns)]
    owner[: len(groups)] = range(len(groups))
    ids = draw(st.lists(hexes, min_size=len(groups), max_size=len(groups), unique=True))
    files = tuple(
        TableFileDoc(
            group,
            draw(roots),
            f"tables/{ids[i]}.parquet",
            tuple(c for c in range(columns) if owner[c] == i),
        )
        for i, group in enumerate(groups)
    )
    source = draw(st.none() | st.tuples(st.integers(0, 2**53 - 1), roots))
    rows, mode = draw(st.integers(0, 2**53 - 1)), draw(st.sampled_from(["replace", "append"]))
    return TableDoc(mode, rows, draw(st.binary(max_size=50)), files, source)


@given(docs())
def test_a_description_is_read_as_it_was_written(doc: TableDoc) -> None:
    """parse(marshal) and marshal(parse) are identities."""
    data = doc.marshal()
    assert TableDoc.parse(data, "it") == doc and TableDoc.parse(data, "it").marshal() == data


@given(docs(), st.data())
def test_a_changed_description_is_refused_or_written_as_it_is(doc: TableDoc, data: Any) -> None:
    """There is one way to write a description: whatever is accepted marshals to the same bytes."""
    line = bytearray(doc.marshal())
    line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(32, 126))
    try:
        found = TableDoc.parse(bytes(line), "it")
    except FormatError:
        return
    assert found.marshal() == bytes(line)


filters = st.sampled_from(
    [
        None,
        pc.field("n") > 5,
        pc.field("n") == 3,
        pc.field("text") == "b",
        pc.field("text").is_null(),
        (pc.field("n") < 7) & (pc.field("text") != "a"),
        (pc.field("n") == 1) | (pc.field("text") == "c"),
        pc.field("f") > 0.5,
    ]
)
rows = st.lists(
    st.tuples(
        st.none() | st.integers(-9, 9),
        st.sampled_from(["a", "b", "c", None]),
        st.none() | st.sampled_from([0.0, 1.0, float("nan")]),
    ),
    max_size=40,
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
# Statistics know of no NaN; a table without columns has rows all the same.
@example([[(None, "a", 1.0), (None, "a", math.nan)]], 2, pc.field("f") > 0.5, [], set())
@example([[(None, None, None)]], 1, pc.field("text").is_null(), [], {"n", "text"})
@given(
    st.lists(rows, min_size=1, max_size=3), st.integers(1, 15), filters,
    st.lists(st.sampled_from(["n", "text", "f"]), unique=True),
    st.sets(st.sampled_from(["n", "text"])),
)  # fmt: skip
def test_every_scan_is_the_naive_one(
    parts: list[Any], size: int, filter: Any, columns: list[str], grouped: set[str]
) -> None:
    """However rows lie in parts, row groups and files of groups: what is found is what
    `Table.filter` finds in all of them."""
    schema = pa.schema([("n", pa.int64()), ("text", pa.string()), ("f", pa.float64())])
    groups = [tables.ColumnGroup("g", tuple(grouped), (MEMBER.recipient,))] if grouped else []
    whole = []
    with tempfile.TemporaryDirectory() as where:
        archive = Path(where) / "a.pqv"
        for part in parts:
            table = pa.Table.from_pylist(
                [dict(zip(schema.names, row, strict=True)) for row in part], schema
            )
            whole.append(table)
            tables.write_table(
                archive, "t", table, recipients=[KEY.recipient], groups=groups, mode="append",
                row_groups=tables.RowGroups(rows=size),
            )  # fmt: skip
        data = tables.dataset(archive, "t", identities=[KEY, MEMBER])
        wanted = pa.concat_tables(whole)
        wanted = wanted if filter is None else wanted.filter(filter)
        found = data.to_table(columns, filter)
        assert repr(found.to_pydict()) == repr(wanted.select(columns).to_pydict())
        assert found.num_rows == len(wanted) == data.count_rows(filter)
        assert data.head(3, columns=columns, filter=filter).num_rows == min(3, len(wanted))


KINDS = [
    pa.null(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(),
    pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.string(), pa.large_string(),
    pa.binary(), pa.decimal128(5, 2), pa.decimal128(9, 0), pa.timestamp("s"), pa.timestamp("us"),
    pa.date32(), pa.bool_(), pa.list_(pa.int8()), pa.list_(pa.float32()),
]  # fmt: skip


def test_promotion_is_a_join() -> None:
    """Whatever the order, the same type; and no more than a type that holds both already."""
    for one, other in itertools.product(KINDS, repeat=2):
        both = promote(one, other)
        assert both == promote(other, one), (one, other)
        if both is not None:
            assert promote(both, one) == promote(both, other) == both, (one, other)
            pa.nulls(1, one).cast(both)


@given(st.sampled_from(KINDS), st.sampled_from(KINDS), st.integers(-(2**63), 2**64 - 1))
def test_promotion_loses_no_integer(one: Any, other: Any, value: int) -> None:
    """A value that fits a type is the same in every type that it is promoted to."""
    both = promote(one, other)
    try:
        array = pa.array([value], one)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return
    if both is not None and pa.types.is_integer(one):
        assert int(array.cast(both)[0].as_py()) == value
