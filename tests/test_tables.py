"""Tables: what is written comes back value for value and type for type, whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tables_kit import KEY, read, write

import pqvault
from pqvault import tables
from pqvault.errors import IntegrityError, NotFound, PolicyRefused, PQVaultError, UsageError
from pqvault.policy import Policy
from pqvault.signing import SigningKey
from pqvault.tablefile import RowGroups
from pqvault.tablefile.union import promote


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "a.pqv"


def numbers(rows: int = 1000, start: int = 0, kind: pa.DataType | None = None) -> pa.Table:
    values = pa.array(range(start, start + rows), kind or pa.int64())
    return pa.table({"x": values, "s": [f"row {i}" for i in range(rows)]})


def test_a_table_comes_back_from_an_archive_written_with_public_keys(archive: Path) -> None:
    """write_table, then read_table, schema, head, count_rows; the file is encrypted Parquet."""
    table = numbers()
    part = write(archive, table, "metrics/runs", row_groups=tables.RowGroups(rows=300))
    assert read(archive, "metrics/runs").equals(table)
    assert read(archive, "runs").equals(table)  # by its last component
    assert tables.schema(archive, "runs", identities=[KEY]) == table.schema
    assert tables.head(archive, "runs", 3, identities=[KEY]).equals(table.slice(0, 3))
    assert tables.count_rows(archive, "runs", identities=[KEY]) == 1000
    (file,) = (archive / "parts" / part / "tables").iterdir()
    data = file.read_bytes()
    assert data[:4] == data[-4:] == b"PARE" and b"row 7" not in data
    with pytest.raises(NotFound, match="no table other"):
        read(archive, "other")


def test_tables_below_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    """pyarrow's paths are UTF-8; a Linux name is any bytes."""
    archive = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9/a.pqv"))
    table = numbers()
    write(archive, table, row_groups=tables.RowGroups(rows=100))
    assert read(archive).equals(table)
    data = tables.dataset(archive, "runs", identities=[KEY])
    found = data.to_table(["s"], filter=(pc.field("x") >= 995))
    assert found.column("s").to_pylist() == [f"row {i}" for i in range(995, 1000)]
    assert not pqvault.verify(archive, identities=[KEY]).problems
    select = "select count(*) as n from "
    with tables.query(archive, select + "runs", identities=[KEY]) as reader:
        assert reader.read_all().to_pylist() == [{"n": 1000}]
    odd, refused = select + os.fsdecode(b'"caf\xe9"'), pytest.raises(UsageError, match="UTF-8")
    with refused, tables.query(archive, odd, identities=[KEY]):
        pass


def test_projection_and_filters_are_pushed_down(archive: Path) -> None:
    """A dataset is one of pyarrow's: columns, filters, row groups left out by statistics."""
    write(archive, numbers(), row_groups=tables.RowGroups(rows=100))
    data = tables.dataset(archive, "runs", identities=[KEY])
    found = data.to_table(["s"], filter=(pc.field("x") >= 995))
    assert found.column("s").to_pylist() == [f"row {i}" for i in range(995, 1000)]
    (fragment,) = data.get_fragments()
    assert len(fragment.split_by_row_group(pc.field("x") >= 995)) == 1
    with pytest.raises(NotFound, match="no column 'nothing'"):
        data.to_table(["nothing"])


def test_parts_accumulate_in_append_mode_and_give_way_in_replace_mode(archive: Path) -> None:
    """format 10.4, with types promoted where nothing is lost."""
    write(archive, numbers(10))
    write(archive, numbers(10, 10, pa.int16()), mode="append")
    more = pa.table({"x": pa.array([99], pa.int32()), "new": ["n"]})
    write(archive, more, mode="append")
    found = read(archive)
    assert found.column("x").to_pylist() == [*range(20), 99]
    assert found.schema.names == ["x", "new", "s"] and found.schema.field("x").type == pa.int64()
    assert found.column("new").to_pylist() == [None] * 20 + ["n"]
    write(archive, numbers(5))
    assert read(archive).num_rows == 5


def test_a_table_can_be_read_as_of_a_part(archive: Path) -> None:
    """History: what a later part replaced is still there."""
    first = write(archive, numbers(10))
    write(archive, numbers(5))
    with pqvault.open(archive, identities=[KEY], as_of=first) as opened:
        assert tables.read_table(opened, "runs").num_rows == 10


def test_types_with_nothing_in_common_name_both_parts(archive: Path) -> None:
    """Bad input: columns that do not match between parts."""
    one = write(archive, pa.table({"x": [1]}))
    two = write(archive, pa.table({"x": ["one"]}), mode="append")
    with pytest.raises(UsageError) as caught:
        read(archive)
    assert one in caught.value.message and two in caught.value.message
    assert "'x'" in caught.value.message


def test_an_exception_leaves_nothing(archive: Path) -> None:
    """DESIGN promise 3: a table is finished by success, never by clean-up."""
    table = numbers()
    with (
        pytest.raises(RuntimeError),
        tables.TableWriter(archive, "runs", table.schema, recipients=[KEY.recipient]) as writer,
    ):
        writer.write(table)
        raise RuntimeError
    assert list((archive / "parts").iterdir()) == [] and list((archive / "commits").iterdir()) == []


def test_an_error_that_was_caught_is_no_shorter_table(archive: Path) -> None:
    """An error takes rows with it that were taken before, so who caught it and goes on is told so,
    by the end of the block above all. Rows of other columns are refused before any is taken."""
    schema = pa.schema([pa.field("n", pa.int64(), nullable=False)])
    rows = pa.record_batch([pa.array([1, 2, 3], pa.int64())], schema=schema)
    nulls = pa.record_batch([pa.array([4, None], pa.int64())], schema=schema)
    writing = {"recipients": [KEY.recipient], "row_groups": RowGroups(rows=5)}
    with pytest.raises(PQVaultError, match="lost rows to an earlier error"):  # noqa: SIM117
        with tables.TableWriter(archive, "short", schema, **writing) as writer:
            writer.write(rows)
            with pytest.raises(UsageError, match="cannot hold these rows"):
                writer.write(nulls)
            with pytest.raises(PQVaultError, match="lost rows"):
                writer.write(rows)
    with tables.TableWriter(archive, "whole", schema, **writing) as writer:
        writer.write(rows)
        with pytest.raises(UsageError, match="other columns"):
            writer.write(pa.record_batch({"m": [1]}))
        writer.write(rows)
    assert read(archive, "whole")["n"].to_pylist() == [1, 2, 3, 1, 2, 3]
    with pytest.raises(NotFound):
        read(archive, "short")


def test_a_writer_is_finished_once(archive: Path) -> None:
    """Within its block too, where an error would have its rows written again; and what comes after
    is no row that nobody finds."""
    with tables.TableWriter(archive, "t", numbers(3).schema, recipients=[KEY.recipient]) as writer:
        writer.write(numbers(3))
        assert writer.finish() == writer.part
        for late in (lambda: writer.write(numbers(3)), writer.finish):
            with pytest.raises(PQVaultError, match="is finished"):
                late()
    with tables.TableWriter(archive, "u", numbers(3).schema, recipients=[KEY.recipient]) as writer:
        writer.abort()
    assert len(os.listdir(archive / "commits")) == len(os.listdir(archive / "parts")) == 1
    assert read(archive, "t").num_rows == 3


def test_rows_that_are_no_batches_and_levels_that_are_none(archive: Path) -> None:
    for rows, kind in (([{"n": 1}], "dict"), ({"n": [1]}, "str")):
        with pytest.raises(UsageError, match=f"rows were given as {kind}, one of several"):
            write(archive, rows)
    with pytest.raises(UsageError, match="no level 23"):
        write(archive, numbers(3), level=23)
    assert not archive.exists()


def test_unseal_writes_parquet_and_verify_reads_tables(archive: Path, tmp_path: Path) -> None:
    """A table is values: unseal gives `NAME.parquet`; verify reads every page."""
    table = numbers()
    write(archive, table, "data/runs", row_groups=tables.RowGroups(rows=300))
    write(archive, table, "data/runs", mode="append")
    with pqvault.open(archive, identities=[KEY]) as opened:
        report = opened.unseal(tmp_path / "out")
    assert not report.failed and report.tables == 1
    target = tmp_path / "out/data/runs.parquet"
    assert pq.read_table(target).equals(pa.concat_tables([table, table]))
    assert pq.read_metadata(target).num_row_groups == 5
    checked = pqvault.verify(archive, identities=[KEY])
    assert checked.problems == [] and checked.tables == 2 and checked.size > 0
    assert pqvault.verify(archive).problems == []


def test_every_flipped_byte_of_a_table_file_is_found(archive: Path) -> None:
    """attack 1: one flipped bit in the magic, a page, a dictionary or the footer is exit 13."""
    part = write(archive, pa.table({"x": [1, 2], "s": ["a", "a"]}))
    (file,) = (archive / "parts" / part / "tables").iterdir()
    whole = file.read_bytes()
    for at in range(0, len(whole), 7):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(IntegrityError):
            read(archive)
    file.write_bytes(whole)
    assert read(archive).num_rows == 2


def test_a_scan_leaves_the_interpreter_in_peace(archive: Path) -> None:
    """Landmine 6: nothing calls back into Python from Arrow's threads at the end."""
    write(archive, numbers(), row_groups=tables.RowGroups(rows=10))
    (archive.parent / "key.txt").write_text(KEY.text + "\n")
    (archive.parent / "key.txt").chmod(0o600)
    code = (
        "import pqvault; from pqvault import tables;"
        "key = pqvault.Identity.load_file('key.txt');"
        "print(tables.dataset('a.pqv', 'runs', identities=key).head(1).num_rows)"
    )
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=archive.parent, capture_output=True, timeout=60
        )
        assert (done.returncode, done.stdout.split(), done.stderr) == (0, [b"1"], b"")


def test_tables_in_an_object_store(tmp_path: Path) -> None:
    """Written to and read from a URL; no thread of Arrow's outlives a read of a Python file."""
    url = f"memory://{tmp_path.name}/a.pqv"
    table = numbers()
    write(url, table, row_groups=tables.RowGroups(rows=100))  # type: ignore[arg-type]
    data = tables.dataset(url, "runs", identities=[KEY])
    assert data.to_table().equals(table)
    found = data.to_table(["s"], filter=pc.field("x") >= 995)
    assert found.column("s").to_pylist() == [f"row {i}" for i in range(995, 1000)]
    assert type(data.scanner()).__name__ == "TableScanner"
    with pqvault.open(url, identities=[KEY]) as opened:
        assert opened.unseal(tmp_path / "out").tables == 1
    assert pqvault.verify(url, identities=[KEY]).problems == []
    with tables.query(url, "select sum(x) as s from runs", identities=[KEY]) as reader:
        assert reader.read_all().to_pylist() == [{"s": 499500}]


def test_unsigned_rows_are_not_added_to_a_signed_table(archive: Path) -> None:
    """format 9.4: a part without a signature neither replaces nor adds to what is signed."""
    signer = SigningKey.generate()
    allowed = Policy(allow_unsigned=True)
    write(archive, numbers(5), sign=[signer])
    with pytest.raises(PolicyRefused, match="signed parts"):
        write(archive, numbers(5), mode="append")
    write(archive, numbers(5), mode="append", sign=[signer])
    assert read(archive).num_rows == 10
    trusted = Policy((("us", signer.signer),), 1)
    with pqvault.open(archive, identities=[KEY], policy=trusted) as opened:
        assert tables.count_rows(opened, "runs") == 10
    write(archive, numbers(5), mode="append", policy=allowed)
    policy = Policy(trusted.signers, 1, allow_unsigned=True)
    with (
        pqvault.open(archive, identities=[KEY], policy=policy) as opened,
        pytest.raises(PolicyRefused, match="runs is hidden by part"),
    ):
        tables.count_rows(opened, "runs")


def test_tables_are_sealed_in_every_profile(archive: Path) -> None:
    """Digests and envelopes are those of the recipients' profile, groups' too."""
    for name in ("high", "cnsa2"):
        key, member = (pqvault.Identity.generate(profile=name) for _ in range(2))
        place = archive.with_name(f"{name}.pqv")
        group = tables.ColumnGroup("g", ("s",), (member.recipient,))
        tables.write_table(place, "t", numbers(9), recipients=[key.recipient], groups=[group])
        assert tables.read_table(place, "t", identities=[member]).equals(numbers(9))
        assert tables.read_table(place, "t", identities=[key]).schema.names == ["x"]
        assert pqvault.verify(place, identities=[member]).problems == []


def test_a_full_disk_while_writing_is_one_error_and_leaves_nothing(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """attack 47: also in the thread that writes what pyarrow has encoded."""
    from pqvault.storage import localfiles

    real, taken = localfiles.write_all, 0

    def full(fd: int, buffer: Any) -> int:
        nonlocal taken
        taken += len(buffer)
        if taken > 3_000_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, buffer)

    monkeypatch.setattr(localfiles, "write_all", full)
    rows = pa.table({"blob": [os.urandom(1_000_000) for _ in range(8)]})
    with pytest.raises(PQVaultError, match="no space left"):
        write(archive, rows, row_groups=tables.RowGroups(rows=1))
    assert list((archive / "parts").iterdir()) == [] and list((archive / "commits").iterdir()) == []
    monkeypatch.setattr(localfiles, "write_all", real)
    write(archive, rows, row_groups=tables.RowGroups(rows=1))
    assert read(archive).equals(rows)


@pytest.mark.timeout(60)
def test_time_grows_with_the_number_of_columns_and_not_with_its_square(tmp_path: Path) -> None:
    """12,000 of them took two minutes and more: written, asked, and unsealed."""
    table = pa.table({f"c{number}": [number, 1] for number in range(12_000)})
    write(tmp_path / "a.pqv", table)
    assert read(tmp_path / "a.pqv", columns=["c3"], filter=pc.field("c7") > 1)["c3"][0].as_py() == 3
    with pqvault.open(tmp_path / "a.pqv", identities=[KEY]) as archive:
        assert not archive.unseal(tmp_path / "out").failed


def test_types_nested_deeply_are_matched_in_no_time() -> None:
    """Whoever knows the public key can add a part whose columns are of such types."""
    one, other = pa.int8(), pa.string()
    for _ in range(10):
        one, other = (pa.struct([pa.field("x", pa.list_(kind))]) for kind in (one, other))
    began = time.monotonic()
    assert promote(one, other) is None
    assert promote(one, pa.dictionary(pa.int8(), other)) is None
    assert time.monotonic() - began < 1
