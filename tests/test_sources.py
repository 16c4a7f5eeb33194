"""Files on their way into tables: the same values come out, or a sentence says why not."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pqvault.errors import NotFound, PQVaultError, UsageError
from pqvault.sources import BadLines, SourceRefused, csvfile, kind_of, lines, open_source
from pqvault.sources import jsonlines as jl
from pqvault.sources.jsontypes import Types
from pqvault.sources.lines import Block
from pqvault.sources.strictjson import BadLine, parse_line


def rows_of(path: Path, **options: Any) -> list[dict[str, Any]]:
    """All rows, after the count and the schema were compared with them."""
    with open_source(path, **options) as source:
        batches = list(source.batches())
        assert all(batch.schema.equals(source.schema) for batch in batches)
        assert sum(batch.num_rows for batch in batches) == source.rows
        return [row for batch in batches for row in batch.to_pylist()]


def read(folder: Path, name: str, data: bytes, **options: Any) -> list[dict[str, Any]]:
    path = folder / name
    path.write_bytes(data)
    return rows_of(path, **options)


def refused(folder: Path, name: str, data: bytes) -> str:
    with pytest.raises(SourceRefused) as caught:
        read(folder, name, data)
    assert caught.value.hint
    return caught.value.message.removeprefix(str(folder) + "/")


# -- names


def test_kinds() -> None:
    """A name says what a file is, whatever its case."""
    names = ["a.parquet", "b.jsonl", "b.jsonl.gz", "B.JSONL.ZST", "x/c.csv", "d.arrow", "e.feather"]
    assert [kind_of(n) for n in names] == ["parquet", *["jsonl"] * 3, "csv", "arrow", "arrow"]
    assert [kind_of(n) for n in ("a.json", "b.csv.gz", "jsonl", "c.parquet.tmp")] == [None] * 4


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    """A Linux name is any bytes; pyarrow's paths are UTF-8."""
    table = pa.table({"a": [1, 2]})
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    pq.write_table(table, tmp_path / "t.parquet")
    with pa.ipc.new_file(str(tmp_path / "t.arrow"), table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "t.csv").write_text("a\n1\n2\n")
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress((tmp_path / "t.jsonl").read_bytes()))
    for file in tmp_path.glob("t.*"):
        os.rename(file, folder / file.name)
        assert rows_of(folder / file.name) == table.to_pylist(), file


def test_other_files(tmp_path: Path) -> None:
    """No such file, no such kind, no regular file."""
    with pytest.raises(NotFound, match="cannot be read: No such file"):
        open_source(tmp_path / "a.csv")
    with pytest.raises(SourceRefused, match="no name of a table"):
        open_source(tmp_path / "a.txt")
    (tmp_path / "d.jsonl").mkdir()
    with pytest.raises(SourceRefused, match="not a regular file"):
        open_source(tmp_path / "d.jsonl")


# -- JSON lines


def test_types_are_of_all_lines(tmp_path: Path) -> None:
    """A key, a type or a float that comes in the last of 20,000 lines is in the schema."""
    objects = [{"a": i, "n": None, "o": {"x": 1}, "l": []} for i in range(20_000)]
    objects.append({"a": 0.5, "n": "t", "o": {"y": [{"z": True}]}, "l": [[1]], "new": 7})
    found = read(tmp_path, "a.jsonl", b"\n".join(json.dumps(x).encode() for x in objects))
    assert found[-1] == {**objects[-1], "o": {"x": None, "y": [{"z": True}]}}
    assert found[5] == {"a": 5, "n": None, "o": {"x": 1, "y": None}, "l": [], "new": None}
    assert isinstance(found[5]["a"], float)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"a":1}\n{"a":', "line 2: column 6: it is not JSON (expecting value)"),
        (b'{"a":1}\n\n{"a":1}{"a":2}', "line 3: column 8: it is not JSON (extra data)"),
        (b'{"a":\n1}', "line 1: column 6: it is not JSON (expecting value)"),
        (b"[1]", "line 1: column 1: it is no JSON object"),
        (b'{"a":1}\n{"a":"x"}', "line 2: the column 'a' is text, and in line 1 it is an integer"),
        (b'{"a":[{"b":1},{"b":[]}]}', "line 1: the column 'a[].b' is a list, and in line 1 it is"),
        (b'{"a":true}\n{"a":1}', "line 2: the column 'a' is an integer, and in line 1 it is true"),
        (b'{"a":1,"a":1}', "line 1: the key 'a' is there twice in one object"),
        (b'{"a":1,"\\u0061":1}', "line 1: the key 'a' is there twice in one object"),
        (b'{"o":[{"x":1,"x":null}]}', "line 1: the column 'o[]': the key 'x' is there twice in"),
        (
            b'{"a":9223372036854775808}',
            "the column 'a': the integer 9223372036854775808 is beyond 64 bits",
        ),
        (b'{"a":' + b"9" * 5000 + b"}", "is beyond 64 bits"),
        (b'{"a":1.5}\n{"a":9007199254740993}', "line 2: the column 'a' has floats, and the"),
        (b'{"a":9007199254740993}\n{"a":1.5}', "line 1: the column 'a' has floats, and the"),
        (b'{"a":NaN}', "line 1: the column 'a': NaN is no JSON number"),
        (b'{"a":1.5}\n{"a":NaN}', "line 2: the column 'a': NaN is no JSON number"),
        (b'{"a":1.5}\n{"a":-Infinity}', "line 2: the column 'a': -Infinity is no JSON number"),
        (b'{"a":1.5}\n{"a":Inf}', "line 2: column 6: it is not JSON"),
        (b'{"a":1e400}', "line 1: the column 'a': the number 1e400 is beyond a 64-bit float"),
        (b'{"a":1.5}\n{"a":1e-400}', "line 2: the column 'a': the number 1e-400 is too small"),
        (b'{"a":0.' + b"0" * 400 + b"1}", "is too small for a 64-bit float"),
        (b'{"a":"\xff"}', "line 1: column 7: it is not UTF-8"),
        (b'{"a":"x"}\n{"a":"\xed\xa0\x80"}', "line 2: column 7: it is not UTF-8"),
        (b'\xff\xfe{\0"\0', "line 1: column 1: it is not UTF-8"),
        (b'{"a":"\\ud800"}', "has half a surrogate pair, which is no character"),
        (b'{"\\udc00":1}', "has half a surrogate pair, which is no character"),
        (b'{"a":"\t"}', "line 1: column 7: it is not JSON (invalid control character at)"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "line 1: it is nested deeper than 32 levels"),
        (b'{"a":' * 10**6 + b"1" + b"}" * 10**6, "line 1: it is nested deeper than 32 levels"),
        (b'{"a":' + b"[" * 10**6, "line 1: it is nested deeper than 32 levels"),
        (b'{"a":NaN,', "line 1: NaN is no JSON number"),
        (b'{"o":{"p":[1,-Infinity]}}', "line 1: the column 'o.p[]': -Infinity is no JSON number"),
        (b"{}\n{}", "x.jsonl has 2 lines of {} and so no column"),
        (b'{"a":1,"m":{}}', "line 1: the column 'm' is {} in all of the lines"),
        (b'{"a":[[{}]]}', "line 1: the column 'a[][]' is {} in all of the lines"),
    ],
)
def test_what_would_not_come_back_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    """attack 43: the line is named, and the column; deep nesting ends no process."""
    assert words in refused(tmp_path, "x.jsonl", data)


def test_the_fast_way_takes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the first lines of a file of one kind go by Arrow, each time it is read."""
    strict: list[int] = []
    parse = jl.parse_line
    monkeypatch.setattr(jl, "parse_line", lambda line: strict.append(1) or parse(line))
    objects = [{"a": i, "t": "x" * 50, "f": i / 7 + 1, "l": [{"k": "v"}]} for i in range(30_000)]
    data = b"\r\n".join(json.dumps(x).encode() for x in objects)
    assert read(tmp_path, "a.jsonl", data) == objects
    assert 0 < len(strict) < 2_000


def test_a_small_file_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of up to 32 MiB are kept from the first reading, unless a column came late; what is
    given out is the same."""
    readings: list[int] = []
    blocks = jl.read_blocks
    monkeypatch.setattr(jl, "read_blocks", lambda text: readings.append(1) or blocks(text))
    objects = [{"a": i, "t": "x" * 90} for i in range(5_000)]
    data = b"\n".join(json.dumps(x).encode() for x in objects)
    late = data + b'\n{"b":1}'
    for text, often in ((data, 1), (late, 2)):
        readings.clear()
        wanted = read(tmp_path, "a.jsonl", text)
        assert len(readings) == often
        with monkeypatch.context() as patch:
            patch.setattr(jl, "_KEPT", 0)
            assert read(tmp_path, "a.jsonl", text) == wanted
    path = tmp_path / "b.jsonl"
    path.write_bytes(data)
    with open_source(path) as source:
        assert len(list(source.batches())) == len(list(source.batches())) > 0
        path.write_bytes(late)
        with pytest.raises(SourceRefused, match="changed while it was read"):
            list(source.batches())


def test_blank_lines_ends_and_marks(tmp_path: Path) -> None:
    """CRLF, blank lines, a byte order mark and a missing last newline change nothing."""
    data = b'\xef\xbb\xbf\r\n{"a":1}\r\n \t\r\n {"a":2} \r\n\n{"a":3}'
    assert read(tmp_path, "a.jsonl", data) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert read(tmp_path, "b.jsonl", b"") == read(tmp_path, "b.jsonl", b"\n\n") == []


def test_a_string_of_100_mb(tmp_path: Path) -> None:
    """It works, in both readings."""
    long = b"x" * 100_000_000
    (found, last) = read(tmp_path, "a.jsonl", b'{"t":"' + long + b'"}\n{"t":"y"}\n')
    assert found["t"] == long.decode() and last == {"t": "y"}


def test_a_line_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over 128 MiB it is refused with a sentence, or goes aside; here the limit is 4 MiB."""
    assert lines.MAX_LINE == 128 * 2**20
    monkeypatch.setattr(lines, "MAX_LINE", 4 * 2**20)
    data = b'{"t":"z"}\n{"t":"' + b"x" * 20_000_000 + b'"}\n{"t":"y"}\n'
    message = refused(tmp_path, "a.jsonl", data)
    assert message == "a.jsonl, line 2: it is longer than 134,217,728 bytes"
    with BadLines(tmp_path / "bad") as bad:
        assert read(tmp_path, "a.jsonl", data, bad_lines=bad) == [{"t": "z"}, {"t": "y"}]
    monkeypatch.setattr(csvfile, "MAX_LINE", 4 * 2**20)
    long = b'a\n"' + b"x" * 20_000_000 + b'"\n'
    assert "line 2: it is longer than" in refused(tmp_path, "a.csv", long)


def test_keys_that_are_data(tmp_path: Path) -> None:
    """Ten thousand columns are the most; a line of objects that asks for too much is refused."""
    data = b"\n".join(b'{"k%d":1}' % i for i in range(10_001))
    assert "line 10001: there are over 10,000 columns" in refused(tmp_path, "a.jsonl", data)
    wide = json.dumps({"l": [{f"k{i}": 1 for i in range(5_000)}]}).encode()
    bomb = wide + b'\n{"l":[' + b"{}," * 100_000 + b"{}]}"
    assert "line 2: it has 100,002 objects, too many" in refused(tmp_path, "b.jsonl", bomb)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_packed(tmp_path: Path, pack: Any) -> None:
    """Several members or frames in a row; a cut or damaged one is an error, as is a bomb."""
    name = "a.jsonl.gz" if pack is gzip.compress else "a.jsonl.zst"
    objects = [{"i": i, "t": str(i**5)} for i in range(5_000)]
    data = b"\n".join(json.dumps(x).encode() for x in objects)
    packed = pack(data[:70_000]) + pack(data[70_000:])
    assert read(tmp_path, name, packed) == objects
    for cut in (1, 4, 8, 12, len(packed) // 2):
        assert "Truncated" in refused(tmp_path, name, packed[:-cut])
    assert "cannot be read as a table" in refused(tmp_path, name, packed + b"more")
    assert read(tmp_path, name, b"") == []


def test_a_bomb_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """attack 30: no more is unpacked than any real file holds."""
    monkeypatch.setattr(lines, "_ALWAYS", 1024 * 1024)
    space = zstandard.compress(b"\n" * 40_000_000)
    assert "unpacks to over 1,200 times its size" in refused(tmp_path, "a.jsonl.zst", space)


def test_bad_lines_go_aside(tmp_path: Path) -> None:
    """Each with its number and reason, once, in a file that nobody else may read."""
    data = b'{"a":1}\n{"a":\n\n{"a":NaN}\n{"a":2.5}\xff\n{"a":3.5}'
    with BadLines(tmp_path / "bad") as bad:
        assert read(tmp_path, "a.jsonl", data, bad_lines=bad) == [{"a": 1.0}, {"a": 3.5}]
        assert bad.count == 3
    notes = [json.loads(line) for line in (tmp_path / "bad").read_text().splitlines()]
    assert [(n["line"], n["reason"]) for n in notes] == [
        (2, "column 6: it is not JSON (expecting value)"),
        (4, "the column 'a': NaN is no JSON number"),
        (5, "column 10: it is not UTF-8"),
    ]
    assert notes[2]["text"].encode("utf-8", "surrogateescape") == b'{"a":2.5}\xff'
    assert os.stat(tmp_path / "bad").st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="exists"):
        BadLines(tmp_path / "bad")
    with pytest.raises(UsageError, match="none is not a folder"):
        BadLines(tmp_path / "none/bad")


def test_bad_lines_that_cannot_be_kept_are_no_fault_of_their_file() -> None:
    """attack 47: the error names the place, and ends what would go on without the line."""
    bad = BadLines("/dev/full", force=True)
    for use in (lambda: bad.add("a.jsonl", 1, "no reason", b"{"), bad.close):
        with pytest.raises(PQVaultError, match="written to /dev/full: No space left") as caught:
            use()
        assert not isinstance(caught.value, UsageError)  # which are the file's


def test_a_file_that_changes_is_refused(tmp_path: Path) -> None:
    """Between the two readings, too."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a":1}\n')
    source = open_source(path)
    path.write_bytes(b'{"a":1}\n{"a":2}\n')
    with pytest.raises(SourceRefused, match="changed while it was read"):
        list(source.batches())


def filled(value: Any, like: Any) -> Any:
    """``value`` with null for each key that another line has."""
    if isinstance(value, dict) and pa.types.is_struct(like):
        return {f.name: filled(value.get(f.name), f.type) for f in like}
    if isinstance(value, list):
        return [filled(item, like.value_type) for item in value]
    return value


KEYS = st.text(min_size=0, max_size=4)
LEAVES = {
    "bool": st.booleans(),
    "int": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "mixed": st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False),
    "text": st.text(),
}


def values(depth: int = 3) -> st.SearchStrategy[st.SearchStrategy[Any]]:
    """Strategies for the values of one column: all of one type, or null."""
    leaf = st.sampled_from([one | st.none() for one in LEAVES.values()])
    if not depth:
        return leaf
    below = values(depth - 1)
    lists = below.map(lambda item: st.lists(item, max_size=3) | st.none())
    objects = st.dictionaries(KEYS, below, min_size=1, max_size=3).map(
        lambda fields: st.fixed_dictionaries({}, optional=fields) | st.none()
    )
    return leaf | lists | objects


OBJECTS = st.dictionaries(KEYS, values(), min_size=1, max_size=4).flatmap(
    lambda fields: st.lists(st.fixed_dictionaries({}, optional=fields), max_size=8)
)


@settings(max_examples=100, deadline=None)
@given(
    rows=OBJECTS,
    ascii_only=st.booleans(),
    often=st.sampled_from([1, 40]),
    kept=st.sampled_from([0, 2**25]),
)
def test_json_values_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Any],
    ascii_only: bool,
    often: int,
    kept: int,
) -> None:
    """Any objects of one type a column: what is read, and what Parquet keeps of it, equals them."""
    rows = rows * often
    folder = tmp_path_factory.mktemp("values")
    text = "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    path = folder / "a.jsonl"
    path.write_text(text, encoding="utf-8")
    try:
        source = open_source(path)
    except SourceRefused as error:
        assert "no column" in error.message or "is {} in all" in error.message
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jl, "_KEPT", kept)
        source = open_source(path)
    table = pa.Table.from_batches(source.batches(), source.schema)
    like = pa.struct(list(source.schema))
    wanted = [filled(row, like) for row in rows]
    assert table.to_pylist() == wanted and source.rows == len(rows)
    pq.write_table(table, folder / "a.parquet")
    back = pq.read_table(folder / "a.parquet")
    assert back.to_pylist() == wanted and back.schema.equals(source.schema)


PIECES = st.sampled_from(
    [b'{"a":1}', b'{"a":1.5}', b'{"b":"x"}', b"{", b"}", b'"', b'"a"', b":", b",", b"1", b"-", b"0",
     b"e", b"e-400", b".", b"\n", b"\r", b" ", b"[", b"]", b"null", b"true", b"NaN", b"Infinity",
     b"\\", b"\\u", b"d800", b"dc00", b"0061", b"\xff", b"\xc3\xa9", b"\x00", b"\t", b"/*",
     b"\xef\xbb\xbf",
     b'{"a":9007199254740993}', b'{"l":[{"x":1}]}', b'{"a":Inf}', b"'"]
)  # fmt: skip
SCHEMA = pa.schema(
    [
        ("a", pa.float64()),
        ("b", pa.string()),
        ("l", pa.list_(pa.struct([("x", pa.int64())]))),
        ("n", pa.null()),
        ("t", pa.bool_()),
    ]
)


def fast(data: bytes) -> pa.Table | None:
    """As `JsonLinesSource` does: what Arrow reads, when that is believed."""
    table = jl._by_arrow(Block.of(data), SCHEMA)
    return table if table is not None and jl._trusted(table, data) else None


@settings(max_examples=1000, deadline=None)
@given(st.lists(PIECES | st.binary(max_size=2), max_size=14).map(b"".join))
def test_the_fast_way_reads_nothing_else_than_the_strict_way(data: bytes) -> None:
    """What Arrow's parser is believed is what the strict parser reads, value for value."""
    table = fast(data)
    if table is None:
        return
    rows = [parse_line(line) for _, line in Block.of(data).lines()]
    types = Types("x")
    for row in rows:
        types.learn(row, 1)
    strict = pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
    assert table.combine_chunks().equals(pa.Table.from_batches([strict]))


@pytest.mark.parametrize(
    "data",
    [b'{"a":NaN}', b'{"a":1e-400}', b'{"a":9007199254740993}', b'{"b":"\xff"}', b'{"a":1}{"a":1}',
     b'{"a":\n1}', b'{"a":1}{"a":\n1}', b'{"a":1,"a":2}', b'{"a":1}x', b'{"a":01}',
     b'{"l":[{"x":1,"x":2}]}', b'{"b":"\\ud800"}', b'{"c":1}', b'{"a":"1"}', b"[]"],
)  # fmt: skip
def test_the_fast_way_declines(data: bytes) -> None:
    """Each thing that Arrow's parser takes for something, or that is looked for behind it."""
    assert fast(data) is None
    if data not in (b'{"a":9007199254740993}', b'{"c":1}', b'{"a":"1"}'):
        with pytest.raises(BadLine):
            [parse_line(line) for _, line in Block.of(data).lines()]


# -- CSV


def test_csv_types_are_of_all_rows(tmp_path: Path) -> None:
    """Numbers, truth and text; null for an empty field, and text for what no number stands for."""
    head = "int,float,bool,text,zip,big,long,none,quoted"
    row = '-3,1e3,true,x,007,99999999999999999999,0.12345678901234567890,,""'
    last = '4,0.30000000000000004,False,"y, ""z""\nw",1,1,1,,a'
    data = "\n".join([head, *[row] * 30_000, last]).encode()
    found = read(tmp_path, "a.csv", data)
    assert found[0] == {
        "int": -3, "float": 1000.0, "bool": True, "text": "x", "zip": "007", "none": None,
        "big": "99999999999999999999", "long": "0.12345678901234567890", "quoted": "",
    }  # fmt: skip
    assert found[-1]["float"] == 0.30000000000000004 and found[-1]["text"] == 'y, "z"\nw'
    assert found[-1]["bool"] is False and found[-1]["quoted"] == "a"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "x.csv has no header: it is empty"),
        (b"\n\r\n", "x.csv has no header: its lines are blank"),
        (b"a,b,a\n1,2,3", "line 1: the header names the column 'a' twice"),
        (b'a,b\n"x\ny",1\n\n3\n', "line 5: it has 1 fields, not 2"),
        (b"a,b\n1,2\n1,2,3", "line 3: it has 3 fields, not 2"),
        (b'a,b\n1,2\n"x"y,1\n', "line 3: its quotes do not match RFC 4180"),
        (b'a,b\nx"y,1\n', "line 2: its quotes do not match RFC 4180"),
        (b'a,b\n1,"', "line 2: its quotes do not match RFC 4180"),
        (b"a,b\n1,2\rx,y\n", "line 2: its quotes do not match RFC 4180"),
        (b"a,b\n1,\xff\n", "line 2: column 3: it is not UTF-8"),
        (b"a\xff,b\n1,1\n", "line 1: the header is not UTF-8"),
    ],
)
def test_bad_csv(tmp_path: Path, data: bytes, words: str) -> None:
    """The line is named, as an editor counts it."""
    assert words in refused(tmp_path, "x.csv", data)


def test_bad_rows_of_csv_go_aside(tmp_path: Path) -> None:
    """Ragged rows, quotes that do not match, bytes that are not UTF-8: the others stay."""
    data = b'a,b\n1,2\n3\n\xff,1\n"x"y,1\n5,6\n"open,1\n7,8\n'
    with BadLines(tmp_path / "bad") as bad:
        found = read(tmp_path, "a.csv", data, bad_lines=bad)
    assert found == [{"a": 1, "b": 2}, {"a": 5, "b": 6}, {"a": 7, "b": 8}]
    notes = [json.loads(line) for line in (tmp_path / "bad").read_text().splitlines()]
    assert [n["line"] for n in notes] == [3, 4, 5, 7]


CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=6))
def test_csv_text_comes_back(tmp_path_factory: pytest.TempPathFactory, rows: Any) -> None:
    """Quoted texts of any characters are read as they are."""

    def quoted(cell: str) -> str:
        return '"' + cell.replace('"', '""') + '"'

    wide = [["not a number", "nor this"], *rows]
    text = "\r\n".join(",".join(map(quoted, row)) for row in [["x", "y"], *wide])
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_text(text, encoding="utf-8", newline="")
    assert [list(row.values()) for row in rows_of(path)] == wide


# -- Parquet


def all_types() -> pa.Table:
    """One column of each type that Parquet has a form for."""
    day = dt.datetime(2026, 11, 26, 1, 2, 3, 456789)
    columns: dict[str, pa.Array] = {
        "null": pa.nulls(3),
        "bool": pa.array([True, None, False]),
        "f16": pa.array([1.5, None, -2], pa.float16()),
        "f32": pa.array([1.5, float("nan"), float("-inf")], pa.float32()),
        "decimal": pa.array([Decimal("1.23"), None, Decimal("-9.99")], pa.decimal128(5, 2)),
        "decimal256": pa.array([Decimal(10) ** 50, None, Decimal(1)], pa.decimal256(60, 0)),
        "zoned": pa.array([day, None, day], pa.timestamp("us", "Europe/Berlin")),
        "ns": pa.array([day, None, day], pa.timestamp("ns")),
        "ms utc": pa.array([day, None, day], pa.timestamp("ms", "UTC")),
        "date": pa.array([day.date(), None, day.date()]),
        "time": pa.array([day.time(), None, day.time()], pa.time64("us")),
        "duration": pa.array([dt.timedelta(1), None, dt.timedelta(2)], pa.duration("us")),
        "binary": pa.array([b"\0\xff", None, b""]),
        "fixed": pa.array([b"abcd", None, b"efgh"], pa.binary(4)),
        "large": pa.array(["x", None, "é"], pa.large_string()),
        "large binary": pa.array([b"x", None, b""], pa.large_binary()),
        "large list": pa.array([[1], None, []], pa.large_list(pa.int16())),
        "view": pa.array(["x", None, "long enough not to be inlined"], pa.string_view()),
        "fixed list": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.float32(), 2)),
        "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int32())),
        "dictionary": pa.array(["a", None, "b"]).dictionary_encode(),
        "ordered": pa.array(["a", None, "b"]).dictionary_encode().cast(
            pa.dictionary(pa.int8(), pa.string(), ordered=True)
        ),
        "nested": pa.array([[{"a": [1], "b": {"c": "x"}}], None, [None]]),
        "uuid": pa.array([b"0" * 16, None, b"1" * 16], pa.uuid()),
        "json": pa.array(["{}", None, "1"], pa.json_()),
        "tensor": pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.int8(), [1, 2]),
            pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int8(), 2)),
        ),
        "opaque": pa.ExtensionArray.from_storage(
            pa.opaque(pa.binary(), "point", "gis"), pa.array([b"x", None, b"y"])
        ),
    }  # fmt: skip
    fields = [
        pa.field(name, array.type, metadata={"unit": f"of {name}"})
        for name, array in columns.items()
    ]
    fields.append(pa.field("required", pa.uint64(), nullable=False, metadata={"": "é"}))
    columns["required"] = pa.array([1, 2, 2**64 - 1], pa.uint64())
    schema = pa.schema(fields, metadata={"source": "test", b"raw": b"\0\xff"})
    return pa.table(list(columns.values()), schema=schema)


def test_parquet_is_kept_type_for_type(tmp_path: Path) -> None:
    """Row groups, order, key-value and field metadata, and every type, equal the file's."""
    table = pa.concat_tables([all_types()] * 5)
    path = tmp_path / "a.parquet"
    sorting = [pq.SortingColumn(2, descending=True)]
    pq.write_table(table, path, row_group_size=4, sorting_columns=sorting)
    whole = pq.read_table(path)
    with open_source(path) as source:
        assert source.rows == 15 and source.row_groups == (4, 4, 4, 3)
        assert source.sorting == tuple(sorting) and source.notes == ()
        assert source.schema.equals(whole.schema, check_metadata=True)
        batches = list(source.batches())
    assert [b.num_rows for b in batches] == [4, 4, 4, 3]
    back = pa.Table.from_batches(batches, source.schema)
    assert back.schema.equals(whole.schema, check_metadata=True)
    for name in whole.column_names:
        left, right = back[name], whole[name]
        if name == "f32":
            left, right = left.fill_null(0).cast(pa.float64()), right.cast(pa.float64())
            assert str(left.to_pylist()) == str(right.to_pylist())
        else:
            assert left.equals(right), name


def test_big_row_groups_come_in_batches(tmp_path: Path) -> None:
    """A batch has about 8 MiB at most, and none goes over the end of a row group."""
    table = pa.table({"t": ["x" * 10_000] * 5_000})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2_500)
    with open_source(tmp_path / "a.parquet") as source:
        sizes = [(b.num_rows, b.nbytes) for b in source.batches()]
    assert len(sizes) == 8 and max(size for _, size in sizes) < 9 * 2**20
    counts = [sum(n for n, _ in sizes[:i]) for i in range(len(sizes) + 1)]
    assert 2_500 in counts and counts[-1] == 5_000


FLIPS = """
import resource, sys
from pathlib import Path
from pqvault.sources import open_source, SourceRefused
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
good = Path(sys.argv[1])
bad, data, refused = good.with_name("bad" + good.suffix), good.read_bytes(), 0
for at in range(0, len(data), int(sys.argv[2])):
    for mask in (0xFF, 0x80):
        flipped = bytearray(data)
        flipped[at] ^= mask
        bad.write_bytes(flipped)
        try:
            with open_source(bad) as source:
                sum(len(batch.to_pylist()) for batch in source.batches())
        except SourceRefused:
            refused += 1
print(refused, 2 * len(data) // int(sys.argv[2]))
"""


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 17])
@pytest.mark.parametrize("form", ["parquet", "file", "stream"])
def test_hostile_bytes(tmp_path: Path, form: str, step: int) -> None:
    """attack 32: every byte of a file is flipped; it is refused, or reads as rows that are whole,
    in a process that ends well and takes no more than 4 GB."""
    table = pa.table(
        {"a": list(range(50)), "t": [f"x{i % 7}" for i in range(50)], "l": [[1], []] * 25,
         "d": pa.array(["a", "b"] * 25).dictionary_encode(), "s": [{"q": 1}] * 50}
    )  # fmt: skip
    path = tmp_path / ("a.parquet" if form == "parquet" else "a.arrow")
    if form == "parquet":
        pq.write_table(table, path, compression="zstd")
    else:
        maker = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
        options = pa.ipc.IpcWriteOptions(compression="zstd" if form == "file" else None)
        with maker(path, table.schema, options=options) as writer:
            writer.write_table(table)
    command = [sys.executable, "-c", FLIPS, str(path), str(step)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    count, all_of = map(int, done.stdout.split())
    assert all_of / 4 < count < all_of


def test_parquet_that_is_none(tmp_path: Path) -> None:
    """Encrypted files, cut ones, columns of one name."""
    assert "encrypted Parquet" in refused(tmp_path, "a.parquet", b"PARE" + bytes(100) + b"PARE")
    assert "cannot be read as a table" in refused(tmp_path, "a.parquet", b"PAR1")
    schema = pa.schema([("a", pa.int8()), ("a", pa.int8())])
    pq.write_table(pa.Table.from_arrays([pa.array([1], pa.int8())] * 2, schema=schema),
                   tmp_path / "b.parquet")  # fmt: skip
    with pytest.raises(SourceRefused, match="several columns of the name 'a'"):
        open_source(tmp_path / "b.parquet")


def test_extension_types_run_nothing(tmp_path: Path) -> None:
    """attack 32: a type that pyarrow once unpickled comes as its storage."""
    field = pa.field(
        "x", pa.int8(),
        metadata={"ARROW:extension:name": "arrow.py_extension_type",
                  "ARROW:extension:metadata": b"cos\nsystem\n(S'touch pwned'\ntR."},
    )  # fmt: skip
    table = pa.table([pa.array([1], pa.int8())], schema=pa.schema([field]))
    pq.write_table(table, tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet") == [{"x": 1}]
    assert not (tmp_path / "pwned").exists() and not Path("pwned").exists()


# -- Arrow


@pytest.mark.parametrize("form", ["file", "stream", "feather"])
def test_arrow(tmp_path: Path, form: str) -> None:
    """The file and the stream format, by what is in the file."""
    table = all_types().append_column("s", pa.array([1, None, 3], pa.timestamp("s")))
    path = tmp_path / ("a.feather" if form == "feather" else "a.arrow")
    if form == "feather":
        from pyarrow import feather

        feather.write_feather(table, path, compression="zstd")
    else:
        maker = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
        with maker(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    with open_source(path) as source:
        assert source.row_groups is None and source.rows == 3
        assert source.schema.equals(table.schema, check_metadata=True)
        back = pa.Table.from_batches(source.batches(), source.schema)
    assert str(back.to_pydict()) == str(table.to_pydict())


def test_arrow_that_is_cut(tmp_path: Path) -> None:
    """A stream that ends in a batch, and no file at all; columns of one name."""
    with pa.ipc.new_stream(tmp_path / "b.arrow", pa.schema([("a", pa.int64())])) as writer:
        writer.write_table(pa.table({"a": range(1000)}))
    data = (tmp_path / "b.arrow").read_bytes()
    assert "cannot be read as a table" in refused(tmp_path, "c.arrow", data[:-4000])
    assert "cannot be read as a table" in refused(tmp_path, "c.arrow", b"")
    with pa.ipc.new_file(tmp_path / "d.arrow", pa.schema([("a", pa.int8())] * 2)):
        pass
    with pytest.raises(SourceRefused, match="several columns of the name 'a'"):
        open_source(tmp_path / "d.arrow")
