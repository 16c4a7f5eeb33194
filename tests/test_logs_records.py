"""What becomes of a record: columns, `extra`, and everything that is no JSON or of no column."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import tracemalloc
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pqvault.errors import UsageError
from pqvault.logs import json_lines
from pqvault.logs.encoder import ESCAPED, Encoder
from pqvault.logs.held import Held, hold
from pqvault.logs.jsontext import DEPTH, to_json
from pqvault.logs.schema import ALIASES, CONTENT, DEFAULT

ENCODER = Encoder()


def row(record: dict[str, Any], encoder: Encoder = ENCODER) -> dict[str, Any]:
    """The columns that a record fills, but for its time; `extra` parsed."""
    values, size, _ = encoder.encode(record)
    assert size >= sum(len(v) for v in values if isinstance(v, str))
    found = {k: v for k, v in encoder.batch([values]).to_pylist()[0].items() if v is not None}
    if "time" not in record:
        found.pop("time")
    if "extra" in found:
        found["extra"] = json.loads(found["extra"])
    return found


def test_short_names_and_those_of_opentelemetry_are_the_same() -> None:
    short = row({"model": "m", "input_tokens": 3, "input_messages": [{"role": "user"}]})
    long = row(
        {
            "gen_ai.request.model": "m",
            "gen_ai.usage.input_tokens": 3,
            "gen_ai.input.messages": [{"role": "user"}],
        }
    )
    assert short == long == {"model": "m", "input_tokens": 3, "input_messages": '[{"role":"user"}]'}


def test_the_schema_is_that_of_the_page() -> None:
    """docs/logs.md lists every column, and which hold content."""
    from pathlib import Path

    page = (Path(__file__).parent.parent / "docs" / "logs.md").read_text()
    for field in DEFAULT:
        assert f"| `{field.name}` |" in page, field.name
    for alias in ALIASES:
        if alias.startswith("gen_ai."):
            assert f"`{alias}`" in page, alias
    assert set(CONTENT) <= set(DEFAULT.names)


def test_what_has_no_column_is_extra() -> None:
    assert row({"temperature": 0.7, "extra": {"a": [1, None]}, "user": {"id": 1}}) == {
        "extra": {"temperature": 0.7, "a": [1, None], "user": {"id": 1}}
    }
    assert row({"extra": "text"}) == {"extra": {"extra": "text"}}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", 7),
        ("model", {"name": "m"}),
        ("input_tokens", "3"),
        ("input_tokens", 2**63),
        ("input_tokens", True),
        ("input_tokens", 3.5),
        ("duration_s", "1.5"),
        ("duration_s", 2**60 + 1),
        ("time", "yesterday"),
        ("time", 1e300),
    ],
)
def test_a_schema_that_changes_loses_nothing(name: str, value: Any) -> None:
    """A value that does not fit its column is in `extra` under its name, and the column is null."""
    found = row({name: value, "request_id": "r"})
    if name == "time":
        assert abs(found.pop("time") - datetime.now(UTC)) < timedelta(minutes=1)
    assert found == {"request_id": "r", "extra": {name: value}}


def test_two_names_of_one_column() -> None:
    """The first has it; the other is not lost."""
    assert row({"model": "a", "gen_ai.request.model": "b"}) == {
        "model": "a",
        "extra": {"gen_ai.request.model": "b"},
    }


def test_non_finite_floats() -> None:
    """In a column of numbers they are what they are; in JSON, which has none, strings."""
    found = row({"duration_s": math.inf, "x": [math.nan, -math.inf, {"y": math.inf}]})
    assert found == {
        "duration_s": math.inf,
        "extra": {"x": ["NaN", "-Infinity", {"y": "Infinity"}]},
    }
    assert math.isnan(row({"duration_s": math.nan})["duration_s"])


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_deep_nesting() -> None:
    """Python's encoder has a limit; beyond it what is below level 200 is replaced, and said so."""
    found = row({"input_messages": nested(150), "request_id": "r"})
    assert json.loads(found["input_messages"]) == nested(150) and "extra" not in found
    found = row({"input_messages": nested(100_000), "x": nested(100_000), "request_id": "r"})
    text = found["input_messages"]
    assert text == "[" * DEPTH + '"(nested too deep)"' + "]" * DEPTH
    assert found["extra"]["pqvault.trimmed"] == ["input_messages", "extra"]
    assert ENCODER.encode({"x": nested(100_000)})[2] is False


def test_what_holds_itself() -> None:
    """A cycle is only very deep, and ends."""
    loop: list[Any] = []
    loop += [loop, loop]
    text, whole = to_json(loop)
    assert not whole and len(text) < 50_000_000
    json.dumps(text)


def test_a_string_of_100_mb() -> None:
    big = "x" * 100_000_000
    values, size, whole = ENCODER.encode({"prompt": big})
    assert whole and size > 100_000_000
    batch = ENCODER.batch([values])
    assert batch.column("input_messages")[0].as_py() == f'"{big}"'


def test_lone_surrogates() -> None:
    """UTF-8 has none: escapes where there is JSON, the replacement character elsewhere."""
    found = row({"error_message": "a\ud800b", "input_messages": "c\udc00d", "k\ud800": "v"})
    assert found["error_message"] == "a�b"
    assert json.loads(found["input_messages"]) == "c\udc00d"
    assert found["extra"] == {"k\ud800": "v"}


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Part:
    text: str
    data: bytes


class Model:
    def model_dump(self) -> dict[str, int]:
        return {"a": 1}


class Rude:
    def __str__(self) -> str:
        raise RuntimeError("not now")


def test_objects_of_other_kinds() -> None:
    found = row(
        {
            "input_messages": [Part("hi", b"\x00\xff"), Model(), Color.RED, (1, 2), {3}],
            "at": datetime(2026, 1, 2, tzinfo=UTC),
            "id": uuid.UUID(int=1),
            "keys": {1: "a", None: "b", (1, 2): "c"},
        }
    )
    assert json.loads(found["input_messages"]) == [
        {"text": "hi", "data": "AP8="},
        {"a": 1},
        "red",
        [1, 2],
        [3],
    ]
    assert found["extra"] == {
        "at": "2026-01-02T00:00:00+00:00",
        "id": "00000000-0000-0000-0000-000000000001",
        "keys": {"1": "a", "None": "b", "(1, 2)": "c"},
    }
    with pytest.raises(RuntimeError):
        ENCODER.encode({"x": Rude()})


class Array:
    """As numpy and torch have them: any may be taken for a number, and raises then."""

    def __init__(self, held: Any, kind: str = "i") -> None:
        self.held = held
        self.dtype = type("dtype", (), {"kind": kind})

    def tolist(self) -> Any:
        return self.held

    def __index__(self) -> int:
        raise TypeError("only integer scalar arrays can be converted to a scalar index")

    def __float__(self) -> float:
        raise TypeError("only length-1 arrays can be converted to Python scalars")

    def __iter__(self) -> Any:
        raise TypeError("iteration over a 0-d array")

    def __str__(self) -> str:
        return "the text"


class Reason(str, enum.Enum):  # noqa: UP042  as many are declared
    STOP = "stop"


@pytest.mark.parametrize("column", ["input_tokens", "duration_s", "model", "status_code"])
@pytest.mark.parametrize(
    "value", [Array([1, 2]), Array(3), int, {"a"}, pytest.param(10**5000, id="huge")]
)
def test_whatever_does_not_fit_its_column_is_no_loss(column: str, value: Any) -> None:
    found = row({column: value})
    assert found.get(column) is None and list(found["extra"]) == [column]


def test_arrays_and_numbers_of_other_libraries_are_what_they_hold() -> None:
    found = row({"loss": Array(0.5), "ids": Array([Array(1), 2]), "at": Array(7, "M")})
    assert found["extra"] == {"loss": 0.5, "ids": [1, 2], "at": "the text"}


def test_numbers_that_python_does_not_print() -> None:
    assert row({"n": [10**5000, -(10**5000)]})["extra"] == {"n": [hex(10**5000), hex(-(10**5000))]}


def test_a_text_that_is_an_enum_is_what_it_holds() -> None:
    assert row({"finish_reason": Reason.STOP})["finish_reason"] == "stop"
    assert row({"finish_reason": [Reason.STOP, "length"]})["finish_reason"] == "stop,length"
    assert row({"finish_reason": []}).get("finish_reason") is None


def test_a_row_is_a_snapshot() -> None:
    """A chat loop appends to the list that it logged."""
    messages = [{"role": "user", "content": "hi"}]
    record: dict[str, Any] = {"input_messages": messages, "tags": messages}
    values, _, _ = ENCODER.encode(record)
    messages[0]["content"] = "changed"
    messages.append({"role": "assistant"})
    record.clear()
    found = ENCODER.batch([values]).to_pylist()[0]
    assert json.loads(found["input_messages"]) == [{"role": "user", "content": "hi"}]
    assert json.loads(found["extra"]) == {"tags": [{"role": "user", "content": "hi"}]}


def test_plain_values_are_texts_only_later() -> None:
    """The caller waits for copies of containers; the writer's thread makes JSON of them."""
    values, _, whole = ENCODER.encode({"prompt": [{"a": [1, 0.5, None, True]}], "x": {"y": "z"}})
    assert whole and [type(value) for value in values if value is not None][1:] == [Held, Held]
    ENCODER.settle([values])
    assert values[-1] == '{"x":{"y":"z"}}' and '[{"a":[1,0.5,null,true]}]' in values


class _Texts(str):
    __slots__ = ()


_loop: list[Any] = []
_loop += [_loop] * 1000


@pytest.mark.parametrize(
    "value",
    [
        {1: "a"}, (1, 2), {"a": {1}}, b"a", _Texts("a"), nested(9), 10**5000, [2**64], _loop,
        "x" * 2**21, [0] * 2**17, enum.Enum("E", "A"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_not_plain_is_looked_at_before_the_call_returns(value: Any) -> None:
    """What it raises, or loses, the caller is told; and what belongs to it may change later."""
    assert hold(value) is None


_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec=None)), inner),
)


@given(_plain)
def test_what_is_held_has_the_same_text(value: Any) -> None:
    """Nothing depends on when the text is made, and it is no longer than was said."""
    held = hold(value)
    if held is not None:
        assert (held.text(), True) == to_json(value)
        assert len(held.text()) <= ESCAPED * held.size


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 11, 26, 1, 2, 3, 456789, UTC),
        datetime(2026, 11, 26, 2, 2, 3, 456789, timezone(timedelta(hours=1))),
        datetime(2026, 11, 26, 1, 2, 3, 456789),
        "2026-11-26T01:02:03.456789Z",
        1795654923.456789,
        1795654923456789,
        1795654923456789123,
    ],
)
def test_every_way_to_write_a_time(value: Any) -> None:
    found = row({"time": value})["time"]
    assert abs(found - datetime(2026, 11, 26, 1, 2, 3, 456789, UTC)) < timedelta(microseconds=2)


def test_whole_seconds_and_milliseconds() -> None:
    for value in (1795654923, 1795654923000):
        assert row({"time": value})["time"] == datetime(2026, 11, 26, 1, 2, 3, tzinfo=UTC)


def test_schemas_of_ones_own() -> None:
    """Any plain types; time, dropped and extra are added; nested values are copied at once."""
    schema = pa.schema(
        [
            ("score", pa.float64()),
            ("ok", pa.bool_()),
            ("tags", pa.list_(pa.string())),
            ("raw", pa.binary()),
            ("where", pa.struct([("x", pa.int32())])),
        ]
    )
    encoder = Encoder(schema)
    assert encoder.schema.names == [*schema.names, "time", "dropped", "extra"]
    tags = ["a"]
    values, _, _ = encoder.encode({"tags": tags, "score": 1, "ok": True, "raw": b"\0"})
    tags.append("b")
    found = encoder.batch([values]).to_pylist()[0]
    assert (found["tags"], found["score"], found["ok"], found["raw"]) == (["a"], 1.0, True, b"\0")
    assert row({"where": {"x": "no"}, "ok": 1}, encoder) == {
        "extra": {"where": {"x": "no"}, "ok": 1}
    }


@pytest.mark.parametrize(
    "schema",
    [
        pa.schema([("d", pa.dictionary(pa.int8(), pa.string()))]),
        pa.schema([("d", pa.list_(pa.dictionary(pa.int8(), pa.string())))]),
        pa.schema([("time", pa.string())]),
        pa.schema([("a", pa.string()), ("a", pa.string())]),
        pa.schema([("a", pa.month_day_nano_interval())]),  # no table has it
        pa.schema([("a", pa.sparse_union([pa.field("b", pa.int8())]))]),
    ],
)
def test_schemas_that_no_log_has(schema: pa.Schema) -> None:
    with pytest.raises(UsageError):
        Encoder(schema)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
NAMES = st.sampled_from([*DEFAULT.names, *ALIASES]) | st.text()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(NAMES, ANYTHING, max_size=6), min_size=1, max_size=4))
def test_any_record_becomes_a_row_and_lines(records: list[dict[str, Any]]) -> None:
    """Whatever is logged: the columns have their types, JSON is JSON, and nothing raises."""
    rows = [ENCODER.encode(record)[0] for record in records]
    batch = ENCODER.batch(rows)
    batch.validate(full=True)
    for values in batch.to_pylist():
        for name in ("input_messages", "output_messages", "extra"):
            if values[name] is not None:
                json.loads(values[name], parse_constant=pytest.fail)
    lines = list(json_lines(pa.Table.from_batches([batch])))
    assert len(lines) == len(records)
    for line in lines:
        json.loads(line, parse_constant=pytest.fail)


def test_lines_do_not_drive_the_terminal() -> None:
    """attack 28"""
    hostile = "\x1b[31m \u202e \x9b \u2028 \x7f"
    values, _, _ = ENCODER.encode({"model": hostile, "x": hostile})
    (line,) = json_lines(pa.Table.from_batches([ENCODER.batch([values])]))
    assert all(c.isprintable() for c in line)
    assert json.loads(line)["model"] == hostile


def test_lines_of_millions_of_rows_in_few_bytes_take_no_memory() -> None:
    table = pa.table({"n": pa.nulls(20_000_000)})
    tracemalloc.start()
    try:
        lines = json_lines(table)
        assert [next(lines) for _ in range(3)] == ["{}"] * 3
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
