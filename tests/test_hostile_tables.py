"""Tables under attack: whatever is done to their files, nothing is read wrong in silence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest
from click.testing import CliRunner
from test_cli import shell  # noqa: F401  (a fixture)

import pqvault
from pqvault import tables
from pqvault.errors import IntegrityError, NoKeyFits, PQVaultError, UsageError
from pqvault.rootkey import RootKey
from pqvault_cli.main import cli

KEY, OTHER = pqvault.Identity.generate(), pqvault.Identity.generate()
GROUPS = tables.RowGroups(rows=4)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "a.pqv"


def rows(shift: int = 0) -> pa.Table:
    """Twelve rows in three row groups: flat, dictionary, list, struct, text."""
    numbers = [i + shift for i in range(12)]
    return pa.table(
        {
            "n": pa.array(numbers, pa.int64()),
            "d": pa.array([f"k{i % 3}" for i in numbers]).dictionary_encode(),
            "l": [[i, i] for i in numbers],
            "s": [{"f": i / 2} for i in numbers],
            "t": [f"text {i:04}" for i in numbers],
        }
    )


def write(archive: Path, table: pa.Table, name: str = "runs", **options: Any) -> str:
    options = {"row_groups": GROUPS, **options}
    return tables.write_table(archive, name, table, recipients=[KEY.recipient], **options)


def files_of(archive: Path, part: str) -> list[Path]:
    return sorted((archive / "parts" / part / "tables").iterdir())


def reads(archive: Path, name: str = "runs") -> dict[str, Callable[[], Any]]:
    """All ways to the rows."""

    def data() -> tables.TableDataset:
        return tables.dataset(archive, name, identities=[KEY])

    return {
        "read_table": lambda: tables.read_table(archive, name, identities=[KEY]),
        "filtered": lambda: data().to_table(["n", "t"], filter=pc.field("n") >= 6),
        "one column": lambda: data().to_table(["s"]),
        "head": lambda: tables.head(archive, name, 5, identities=[KEY]),
        "count": lambda: data().count_rows(),
        "count by filter": lambda: data().count_rows(filter=pc.field("d") == "k1"),
        "batches": lambda: pa.Table.from_batches(data().to_batches()),
        "schema": lambda: data().schema,
    }


def agree(
    archive: Path, right: dict[str, Any], name: str = "runs", ways: Sequence[str] = ()
) -> set[str]:
    """Read in all ways, or those named: the ways that gave the right answer; the others raised
    IntegrityError."""
    good = set()
    for way, read in reads(archive, name).items():
        if ways and way not in ways:
            continue
        try:
            found = read()
        except IntegrityError as error:
            assert error.message
            continue
        assert found == right[way], f"{way} gave other rows"
        good.add(way)
    return good


def answers(archive: Path, name: str = "runs") -> dict[str, Any]:
    return {way: read() for way, read in reads(archive, name).items()}


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 331])
def test_flipped_bytes(archive: Path, step: int) -> None:
    """attack 10: each byte of a table's file, in every way to read it; `verify` sees each."""
    part = write(archive, rows())
    right = answers(archive)
    (file,) = files_of(archive, part)
    whole = file.read_bytes()
    ways, spellings = () if step > 1 else ("read_table", "filtered"), list[int]()
    for at in range(0, len(whole), step):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
        if "read_table" in agree(archive, right, ways=ways):
            spellings.append(at)
            assert pqvault.verify(archive).problems
        if at % 2317 == 0:
            assert pqvault.verify(archive, identities=[KEY]).problems
            assert pqvault.verify(archive).problems
    # Three bytes that end Thrift structures, in what Parquet says of the encryption itself, can be
    # written in other ways that mean the same.
    assert len(spellings) <= 3
    file.write_bytes(whole)
    assert agree(archive, right) == set(right)


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 701])
def test_cut_files(archive: Path, step: int) -> None:
    """attack 10: cut anywhere, or made longer, a file is not opened at all."""
    part = write(archive, rows())
    right = answers(archive)
    (file,) = files_of(archive, part)
    whole = file.read_bytes()
    for size in (*range(0, len(whole), step), len(whole) - 1, len(whole) + 1):
        file.write_bytes((whole + b"E")[:size])
        assert agree(archive, right, ways=() if step > 1 else ("read_table",)) == set()
    file.unlink()
    assert agree(archive, right) == set()
    with pytest.raises(IntegrityError, match="is missing"):
        tables.read_table(archive, "runs", identities=[KEY])


def test_files_that_change_places(tmp_path: Path, archive: Path) -> None:
    """attack 13: of one size and one schema, two tables of a part, of two parts, of two archives:
    none is read as another."""
    with tables.TableWriter(
        archive, "one", rows().schema, recipients=[KEY.recipient], row_groups=GROUPS, level=0
    ) as writer:
        writer.write(rows(3000))
    parts = [
        writer.part,
        write(archive, rows(4500), "two", level=0),
        write(archive, rows(6000), "two", level=0),
    ]
    elsewhere = tmp_path / "b.pqv"
    parts_there = [write(elsewhere, rows(3000), "one", level=0)]
    places = [files_of(archive, part)[0] for part in parts]
    places += [files_of(elsewhere, part)[0] for part in parts_there]
    contents = [place.read_bytes() for place in places]
    assert len({len(content) for content in contents}) == 1
    right = {name: answers(archive, name) for name in ("one", "two")}
    for into, name in ((0, "one"), (2, "two")):
        for other in contents[:into] + contents[into + 1 :]:
            places[into].write_bytes(other)
            assert agree(archive, right[name], name) == set()
        places[into].write_bytes(contents[into])
        assert agree(archive, right[name], name) == set(right[name])


def test_a_renamed_file(archive: Path) -> None:
    """attack 13: the name is in the key, so a file under another name is missing there."""
    part = write(archive, rows())
    (file,) = files_of(archive, part)
    file.rename(file.with_name("0" * 16 + ".parquet"))
    assert agree(archive, {}) == set()


def test_pages_that_change_places(archive: Path) -> None:
    """attack 12: pages of one length, exchanged within a column and between two columns."""
    table = pa.table(
        {"a": pa.array(range(3000), pa.int64()), "b": pa.array(range(3000), pa.int64())}
    )
    part = write(archive, table, level=0, row_groups=tables.RowGroups(rows=1000))
    (file,) = files_of(archive, part)
    with pqvault.open(archive, identities=[KEY]) as opened:
        (entry,) = opened.find_table("runs")
        metadata = entry.files[""].fragment.metadata
        places = [
            (chunk.dictionary_page_offset or chunk.data_page_offset, chunk.total_compressed_size)
            for chunk in (metadata.row_group(g).column(c) for g in range(3) for c in range(2))
        ]
    whole = file.read_bytes()
    same = {size for _, size in places}
    assert len(same) == 1
    for one, two in ((0, 1), (0, 2), (1, 5)):
        (at, size), (to, _) = places[one], places[two]
        swapped = bytearray(whole)
        swapped[at : at + size], swapped[to : to + size] = (
            whole[to : to + size],
            whole[at : at + size],
        )
        file.write_bytes(swapped)
        with pytest.raises(IntegrityError):
            tables.read_table(archive, "runs", identities=[KEY])


def padded(data: bytes, size: int) -> bytes:
    """A Parquet file with zeros before its footer, which no reader minds."""
    footer = int.from_bytes(data[-8:-4], "little") + 8
    return data[:-footer] + bytes(size - len(data)) + data[-footer:]


def test_plaintext_in_the_place_of_a_table(tmp_path: Path, archive: Path) -> None:
    """Landmine 3: a plaintext file of the very size and schema is refused, also with the magic of
    an encrypted one put at either end or both, and one with a plaintext footer."""
    part = write(archive, rows())
    right = answers(archive)
    (file,) = files_of(archive, part)
    size = file.stat().st_size

    pq.write_table(rows(7), tmp_path / "p", compression="zstd")
    data = padded((tmp_path / "p").read_bytes(), size)
    (tmp_path / "p").write_bytes(data)
    assert pq.read_table(tmp_path / "p") == rows(7) and len(data) == size
    for head in (b"PAR1", b"PARE"):
        for foot in (b"PAR1", b"PARE"):
            file.write_bytes(head + data[4:-4] + foot)
            assert agree(archive, right) == set()
    with pytest.raises(IntegrityError, match="not an encrypted Parquet file"):
        file.write_bytes(data)
        tables.read_table(archive, "runs", identities=[KEY])


def test_a_file_that_stores_its_aad_prefix(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file under the right key with a prefix of its own opens for who passes none: not for us."""
    import pqvault.tablefile.writer as writer

    def storing(key: bytes, aad_prefix: bytes) -> Any:
        return pe.create_encryption_properties(
            key, aad_prefix=b"an other", store_aad_prefix=True, encryption_algorithm="AES_GCM_V1"
        )

    monkeypatch.setattr(writer, "encryption", storing)
    with pytest.raises(IntegrityError):
        write(archive, rows())  # it is read back before it is committed


def test_files_of_groups_change_places(archive: Path) -> None:
    """Two tables with a column group each: their files, and the envelopes of two parts."""
    group = tables.ColumnGroup("pii", ("t",), (KEY.recipient,))
    one = write(archive, rows(3000), "one", groups=[group], level=0)
    two = write(archive, rows(4500), "two", groups=[group], level=0)
    right = answers(archive, "one")
    assert right["read_table"] == rows(3000)

    def of(part: str) -> list[Path]:
        return sorted(files_of(archive, part), key=lambda path: path.stat().st_size)

    for mine, other in zip(of(one), of(two), strict=True):
        kept = mine.read_bytes()
        assert len(kept) == other.stat().st_size
        mine.write_bytes(other.read_bytes())
        good = agree(archive, right, "one")
        assert "read_table" not in good and "filtered" not in good
        mine.write_bytes(kept)
    envelope = archive / "envelopes" / f"{one}.pii"
    kept = envelope.read_bytes()
    for data in (
        (archive / "envelopes" / f"{two}.pii").read_bytes(),
        (archive / "envelopes" / one).read_bytes(),
        b"",
    ):
        envelope.write_bytes(data)
        with pytest.raises(PQVaultError) as caught:
            tables.read_table(archive, "one", identities=[KEY])
        assert isinstance(caught.value, IntegrityError)
    envelope.write_bytes(kept)
    assert agree(archive, right, "one") == set(right)


def test_a_group_forged_with_public_keys(archive: Path) -> None:
    """attack 7: an envelope of a group with a root key of somebody's own is not the table's."""
    group = tables.ColumnGroup("pii", ("t",), (KEY.recipient,))
    part = write(archive, rows(), groups=[group])
    archive_id = json.loads((archive / "pqvault.json").read_text())["archive"]
    forged = RootKey.generate(archive_id, part).envelope([KEY.recipient], created=1, group="pii")
    (archive / "envelopes" / f"{part}.pii").write_bytes(forged.marshal())
    with pytest.raises(IntegrityError):
        tables.read_table(archive, "runs", identities=[KEY])
    forged = RootKey.generate(archive_id, part).envelope([OTHER.recipient], created=1, group="pii")
    (archive / "envelopes" / f"{part}.pii").write_bytes(forged.marshal())
    # Whoever can write there can take a group away, as they can delete it; the sentence says so.
    assert tables.read_table(archive, "runs", identities=[KEY]).schema.names == ["n", "d", "l", "s"]
    with pytest.raises(NoKeyFits, match="column group 'pii'"):
        tables.read_table(archive, "runs", identities=[KEY], columns=["t"])


# -- rows that are bad themselves


def test_numbers_that_are_not_finite(archive: Path) -> None:
    """They are values of Arrow, and come back; a filter leaves no row group out for them."""
    special = [float("nan"), float("inf"), float("-inf"), -0.0, None, 1.0, 2.0, float("nan")]
    for kind in (pa.float16(), pa.float32(), pa.float64()):
        write(archive, pa.table({"x": pa.array(special, kind)}))
        found = tables.read_table(archive, "runs", identities=[KEY])
        assert str(found["x"].to_pylist()) == str(special)
        data = tables.dataset(archive, "runs", identities=[KEY])
        assert data.count_rows(filter=pc.is_nan(pc.field("x"))) == 2
        if kind != pa.float16():  # which Arrow compares with nothing
            assert data.count_rows(filter=pc.field("x") > 0) == 3


def test_nested_deeply(archive: Path) -> None:
    """Forty lists in each other come back; a hundred are refused with a sentence."""
    kind = pa.int8()
    for _ in range(40):
        kind = pa.list_(kind)
    table = pa.table({"x": pa.nulls(1, kind)})
    write(archive, table)
    assert tables.read_table(archive, "runs", identities=[KEY]).equals(table)
    for _ in range(60):
        kind = pa.list_(kind)
    with pytest.raises(UsageError, match=r"the column 'x' .* too deeply nested"):
        write(archive, pa.table({"x": pa.nulls(1, kind)}))
    with pytest.raises(UsageError, match="has no columns"):
        write(archive, pa.table({}))


def test_a_text_of_100_mb(archive: Path) -> None:
    """It comes back."""
    text = "x" * 100_000_000
    write(archive, pa.table({"t": [text, "y"]}))
    found = tables.read_table(archive, "runs", identities=[KEY])
    assert found["t"][0].as_py() == text and found["t"][1].as_py() == "y"


def test_columns_with_the_names_of_paths(archive: Path) -> None:
    """`a.b` is a column, and so is `b` of the struct `a`: neither is given out for the other."""
    table = pa.table({"a.b": [1], "a": [{"b": 2}], "": ["x"], "é,:; ": [1.5]})
    for groups in ([], [tables.ColumnGroup("g", ("a.b",), (KEY.recipient,))]):
        write(archive, table, groups=groups)
        for name in table.column_names:
            found = tables.read_table(archive, "runs", identities=[KEY], columns=[name])
            assert found.equals(table.select([name])), name


# -- parts that do not match


def test_times_that_do_not_fit_the_other_part(archive: Path) -> None:
    """Milliseconds and nanoseconds have nanoseconds in common, but not for the year 100000."""
    far = pa.table({"x": pa.array([2**60], pa.timestamp("ms"))})
    write(archive, far)
    write(archive, pa.table({"x": pa.array([1], pa.timestamp("ns"))}), mode="append")
    with pytest.raises(UsageError, match="the type for all of its parts does not hold"):
        tables.read_table(archive, "runs", identities=[KEY])


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (pa.array([2**60 + 1]), pa.array([1.5])),
        (pa.array(["x"]), pa.array([1])),
        (pa.array([{"a": 1}]), pa.array([{"a": "x"}])),
        (pa.array([[1]]), pa.array([1])),
        (pa.array([True]), pa.array([1])),
        (pa.array([1], pa.timestamp("s", "UTC")), pa.array([1], pa.timestamp("s"))),
        (pa.array([b"x"]), pa.array(["x"])),
    ],
)
def test_types_that_lose_something_are_not_mixed(
    archive: Path, one: pa.Array, two: pa.Array
) -> None:
    """The sentence names both parts and the column."""
    parts = [
        write(archive, pa.table({"x": one})),
        write(archive, pa.table({"x": two}), mode="append"),
    ]
    with pytest.raises(UsageError, match="no type holds both") as caught:
        tables.read_table(archive, "runs", identities=[KEY])
    assert all(part in caught.value.message for part in parts) and "'x'" in caught.value.message
    assert "table runs" in caught.value.message


def test_a_table_that_cannot_be_listed_keeps_no_other_from_it(archive: Path) -> None:
    """Its parts have no types in common; the others are listed, and the end is exit 3."""
    write(archive, pa.table({"x": ["text"]}), "mixed")
    write(archive, pa.table({"x": [1]}), "mixed", mode="append")
    write(archive, pa.table({"x": [1, 2]}), "whole")
    key = archive.parent / "key.txt"
    KEY.save_file(key)
    shown = CliRunner().invoke(cli, ["table", "ls", str(archive), "-i", str(key)])
    assert shown.exit_code == 3 and "whole" in shown.stdout and "2 rows" in shown.stdout
    assert "the column 'x' of table mixed is " in shown.stderr


# -- seal --tables


FOLDER = {
    "good.jsonl": b'{"a":1}\n{"a":2}\n',
    "twice.jsonl": b'{"a":1,"a":2}\n',
    "big.jsonl": b'{"a":1}\n{"a":99999999999999999999}\n',
    "nan.jsonl": b'{"a":NaN}\n',
    "torn.jsonl": b'{"a":1}\n{"a":',
    "mixed.jsonl": b'{"a":1}\n{"a":"x"}\n',
    "deep.jsonl": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "utf.jsonl": b'{"a":"\xff"}\n',
    "cut.jsonl.gz": b"\x1f\x8b\x08\x00",
    "ragged.csv": b"a,b\n1,2\n3\n",
    "none.parquet": b"PAR1PAR1",
    "secret.parquet": b"PARE" + bytes(40) + b"PARE",
    "none.arrow": b"ARROW1\0\0",
    "note.txt": b"a file",
}


def test_bad_files_are_named_and_the_rest_is_sealed(
    tmp_path: Path,
    shell: dict[str, str],  # noqa: F811
) -> None:
    """seal --tables: each file that is no table in a sentence of its own, exit 3, no traceback."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, data in FOLDER.items():
        (folder / name).write_bytes(data)

    def run(line: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", "-ec", line]
        return subprocess.run(command, cwd=tmp_path, env=shell, capture_output=True, text=True)

    assert run("pqvault keygen -o key.txt > key.pub").returncode == 0
    done = run("pqvault seal data --tables -r @key.pub -o a.pqv")
    assert done.returncode == 3, done.stderr
    for name in FOLDER:
        assert (f"data/{name} " in done.stderr) == (name not in ("good.jsonl", "note.txt")), name
    assert "Traceback" not in done.stderr and "line 2" in done.stderr
    listed = run("pqvault table ls a.pqv -i key.txt").stdout
    assert "data/good.jsonl" in listed and listed.count("\n") == 1
    assert "data/note.txt" in run("pqvault ls a.pqv -i key.txt").stdout
    done = run("pqvault seal data --tables -r @key.pub -o b.pqv --bad-lines bad.jsonl")
    assert done.returncode == 3
    aside = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert {note["file"] for note in aside} == {
        *(f"data/{name}.jsonl" for name in ("twice", "big", "nan", "torn", "deep", "utf")),
        "data/ragged.csv",
    }
    assert run("pqvault table head b.pqv torn -i key.txt --format jsonl").stdout == '{"a": 1}\n'


def test_a_tables_process_ends_well_on_garbage(tmp_path: Path, archive: Path) -> None:
    """Garbage in the place of a table's file ends no process: a hundred tries in one."""
    write(archive, rows())
    shutil.copytree(archive, tmp_path / "kept.pqv")
    key = tmp_path / "key.txt"
    key.write_text(KEY.text + "\n")
    key.chmod(0o600)
    code = (
        "import random, pqvault, sys\n"
        "from pathlib import Path\n"
        "from pqvault import tables\n"
        "from pqvault.errors import IntegrityError\n"
        "key = pqvault.Identity.load_file('key.txt')\n"
        "(file,) = Path('a.pqv').glob('parts/*/tables/*')\n"
        "whole, rng = file.read_bytes(), random.Random(1)\n"
        "for _ in range(100):\n"
        "    data = bytearray(whole)\n"
        "    at = rng.randrange(4, len(data) - 4)\n"
        "    data[at : at + 8] = rng.randbytes(8)[: len(data) - 4 - at]\n"
        "    file.write_bytes(data)\n"
        "    try:\n"
        "        tables.read_table('a.pqv', 'runs', identities=key)\n"
        "        sys.exit('read')\n"
        "    except IntegrityError:\n"
        "        pass\n"
        "print('ok')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr[-500:]
