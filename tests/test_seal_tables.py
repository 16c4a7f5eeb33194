"""seal --tables: files of a source become tables; what cannot is named and the rest goes on."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tables_kit import KEY, MEMBER, read, talk

import pqvault
from pqvault import tables
from pqvault.errors import Incomplete, NoKeyFits, UsageError
from pqvault.sources import BadLines

ROWS = [{"n": n, "prompt": f"p{n}"} for n in range(20)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of one table of each kind, and a file."""
    folder = tmp_path / "src"
    (folder / "deep").mkdir(parents=True)
    (folder / "lines.jsonl").write_text(LINES)
    (folder / "deep/packed.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))
    (folder / "comma.csv").write_text(
        "n,prompt\n" + "".join(f"{r['n']},{r['prompt']}\n" for r in ROWS)
    )
    with pa.ipc.new_file(folder / "ipc.arrow", talk(5).schema) as out:
        out.write_table(talk(5))
    pq.write_table(talk(50), folder / "parquet.parquet", row_group_size=7)
    (folder / "plain.txt").write_text("not a table\n")
    return folder


def seal(source: Path, **options: Any) -> Any:
    options = {"tables": True, "recipients": [KEY.recipient], **options}
    return pqvault.seal(source, source.parent / "a.pqv", **options)


def kinds(source: Path) -> dict[str, str]:
    with pqvault.open(source.parent / "a.pqv", identities=[KEY]) as opened:
        return {os.fsdecode(e.path): e.kind.letter for e in opened.entries()}


def test_every_kind_of_file_becomes_a_table(source: Path) -> None:
    """Others stay files; without the flag all do."""
    report = seal(source)
    assert (report.tables, report.files) == (5, 1)
    assert kinds(source) == {
        "src": "d", "src/comma.csv": "t", "src/deep": "d", "src/deep/packed.jsonl.gz": "t",
        "src/ipc.arrow": "t", "src/lines.jsonl": "t", "src/parquet.parquet": "t",
        "src/plain.txt": "f",
    }  # fmt: skip
    archive = source.parent / "a.pqv"
    for name in ("lines", "packed", "comma"):
        assert read(archive, name).to_pylist() == ROWS
    assert read(archive, "src/parquet.parquet").equals(talk(50))
    assert read(archive, "ipc").equals(talk(5))
    assert pqvault.verify(archive, identities=[KEY]).problems == []
    with pqvault.open(archive, identities=[KEY]) as opened:
        done = opened.unseal(source.parent / "out")
        with pytest.raises(UsageError, match="is a table"):
            opened.open_file("src/lines.jsonl")
    assert done.tables == 5 and not done.failed
    assert sorted(p.name for p in (source.parent / "out/src").iterdir()) == [
        "comma.csv.parquet", "deep", "ipc.arrow.parquet", "lines.jsonl.parquet",
        "parquet.parquet", "plain.txt",
    ]  # fmt: skip
    metadata = pq.read_metadata(source.parent / "out/src/parquet.parquet")
    assert metadata.num_row_groups == 8


def test_only_what_changed_is_sealed_again(source: Path) -> None:
    """By the journal; and by size, time and digest of the source on a host that has none."""
    seal(source)
    assert seal(source).parts == []
    (source / "lines.jsonl").write_text(LINES + '{"n": 20, "prompt": "new"}\n')
    report = seal(source)
    assert (report.tables, report.files) == (1, 0)
    archive = source.parent / "a.pqv"
    assert read(archive, "lines").num_rows == 21
    for journal in (Path(os.environ["PQVAULT_HOME"]) / "journals").iterdir():
        journal.unlink()
    assert seal(source, identities=[KEY]).parts == []
    info = (source / "comma.csv").stat()
    text = (source / "comma.csv").read_text()
    (source / "comma.csv").write_text(text.replace("p7", "q7"))
    os.utime(source / "comma.csv", ns=(info.st_atime_ns, info.st_mtime_ns))
    assert seal(source, identities=[KEY], checksum=True).tables == 1
    (source / "comma.csv").unlink()
    seal(source, identities=[KEY], delete=True)
    assert "src/comma.csv" not in kinds(source)


def test_kept_files_are_there_byte_for_byte(source: Path) -> None:
    """--keep-files: one entry that is both; `unseal` and `cat` give the file, queries the table."""
    seal(source, keep_files=True)
    archive = source.parent / "a.pqv"
    with pqvault.open(archive, identities=[KEY]) as opened:
        assert opened.open_file("src/lines.jsonl").read() == LINES.encode()
        report = opened.unseal(source.parent / "out")
    assert report.tables == 0 and report.files == 6
    for path in ("lines.jsonl", "deep/packed.jsonl.gz", "comma.csv", "parquet.parquet"):
        assert (source.parent / "out/src" / path).read_bytes() == (source / path).read_bytes()
    assert read(archive, "lines").to_pylist() == ROWS
    assert pqvault.verify(archive, identities=[KEY]).problems == []


@pytest.mark.parametrize("know", [False, True])
@pytest.mark.parametrize("journal", [False, True])
def test_files_that_were_not_kept_are_kept_when_that_is_asked_for(
    source: Path, know: bool, journal: bool
) -> None:
    """The tables have not changed, but who is told that there is nothing to seal takes the bytes of
    the files for sealed. What is kept stays so, and is not sealed again."""
    identities = {"identities": [KEY]} if know or not journal else {}

    def again(**options: Any) -> Any:
        if not journal:
            shutil.rmtree(Path(os.environ["PQVAULT_HOME"]) / "journals")
        return seal(source, **identities, **options)

    seal(source)
    assert again(keep_files=True).tables == 5
    assert again(keep_files=True).parts == []
    assert again().parts == []
    assert again(keep_files=True).parts == []
    with pqvault.open(source.parent / "a.pqv", identities=[KEY]) as opened:
        assert opened.open_file("src/lines.jsonl").read() == LINES.encode()


@pytest.mark.parametrize("know", [False, True])
def test_tables_that_were_sealed_without_a_group_get_it(source: Path, know: bool) -> None:
    """They have not changed, but their columns would stay open to those whom the group leaves out.
    What the older parts go on to show is told."""
    group = tables.ColumnGroup("pii", ("prompt",), (MEMBER.recipient,))
    identities = {"identities": [KEY]} if know else {}
    first = seal(source)
    report = seal(source, groups=[group], **identities)
    assert report.tables == 5
    (warning,) = (text for text in report.warnings if "without the column groups" in text)
    assert first.parts[0] in warning and "pqvault prune" in warning
    with pytest.raises(NoKeyFits):
        read(source.parent / "a.pqv", "lines", columns=["prompt"])
    assert seal(source, groups=[group], **identities).parts == []


def test_tables_land_where_files_do_without_a_target(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that has the archive's own name is what is made, for tables as for files."""
    pqvault.seal(source, source.parent / "src.pqv", recipients=[KEY.recipient], tables=True)
    (source.parent / "here").mkdir()
    monkeypatch.chdir(source.parent / "here")
    with pqvault.open(source.parent / "src.pqv", identities=[KEY]) as opened:
        done = opened.unseal()
    assert done.tables == 5 and not done.failed
    assert sorted(os.listdir("src")) == [
        "comma.csv.parquet", "deep", "ipc.arrow.parquet", "lines.jsonl.parquet",
        "parquet.parquet", "plain.txt",
    ]  # fmt: skip


@pytest.mark.parametrize("force", [False, True])
def test_a_table_takes_no_name_of_another_entry(source: Path, force: bool) -> None:
    """Both would be lines.jsonl.parquet: the other entry is there, and the table is named."""
    pq.write_table(talk(3), source / "lines.jsonl.parquet")
    (source / "comma.csv.parquet").write_text("no Parquet, so it stays a file\n")
    with pytest.raises(Incomplete):
        seal(source)
    (source / "comma.csv.parquet").unlink()
    (source / "comma.csv.parquet").mkdir()
    seal(source)
    with pqvault.open(source.parent / "a.pqv", identities=[KEY]) as opened:
        done = opened.unseal(source.parent / "out", force=force)
        alone = opened.unseal(source.parent / "alone", "src/lines.jsonl")
    assert [error.message.split(" cannot")[0] for error in done.failed] == [
        "src/comma.csv", "src/lines.jsonl",
    ]  # fmt: skip
    assert all("table export" in error.hint for error in done.failed)
    assert pq.read_table(source.parent / "out/src/lines.jsonl.parquet").equals(talk(3))
    assert not alone.failed and alone.tables == 1


def test_a_table_that_is_damaged_is_named_by_its_path(source: Path) -> None:
    """Promise 1: not by the names of its files alone, which say nothing to who looks for it."""
    seal(source)
    for file in source.parent.glob("a.pqv/parts/*/tables/*"):
        file.unlink()
    with pqvault.open(source.parent / "a.pqv", identities=[KEY]) as opened:
        failed = opened.unseal(source.parent / "out").failed
    assert sorted(error.message.split(": ")[0] for error in failed) == [
        "src/comma.csv.parquet", "src/deep/packed.jsonl.gz.parquet", "src/ipc.arrow.parquet",
        "src/lines.jsonl.parquet", "src/parquet.parquet",
    ]  # fmt: skip


def test_files_that_would_not_come_back_are_named_and_the_rest_goes_on(source: Path) -> None:
    """Duplicate keys, integers beyond 64 bits, NaN, a line that is cut: exit 3."""
    for name, line in (
        ("twice", '{"a": 1, "a": 2}'), ("large", '{"a": 18446744073709551616}'),
        ("nan", '{"a": NaN}'), ("cut", '{"a": 1'),
    ):  # fmt: skip
        (source / f"{name}.jsonl").write_text(LINES + line + "\n")
    with pytest.raises(Incomplete) as caught:
        seal(source)
    assert caught.value.message.startswith("4 of 10 files could not be sealed")
    assert "line 21" in caught.value.message
    assert len([kind for kind in kinds(source).values() if kind == "t"]) == 5
    assert pqvault.verify(source.parent / "a.pqv", identities=[KEY]).problems == []


def test_bad_lines_go_aside(source: Path) -> None:
    """--bad-lines: the other lines are the table; the file says which were not."""
    (source / "lines.jsonl").write_text(LINES + "{torn\n" + '{"n": 21, "prompt": "x"}\n')
    with BadLines(source.parent / "bad") as bad:
        seal(source, bad_lines=bad)
    assert read(source.parent / "a.pqv", "lines").num_rows == 21
    record = json.loads((source.parent / "bad").read_text())
    assert (record["line"], record["text"]) == (21, "{torn")
    assert (source.parent / "bad").stat().st_mode & 0o777 == 0o600


def test_groups_apply_to_the_tables_that_have_their_columns(source: Path) -> None:
    """A column that no table has is refused before anything is committed."""
    slip = tables.ColumnGroup("pii", ("prompt", "promt"), (MEMBER.recipient,))
    with pytest.raises(UsageError, match="'promt'"):
        seal(source, groups=[slip])
    assert list((source.parent / "a.pqv/commits").iterdir()) == []
    group = tables.ColumnGroup("pii", ("prompt", "answer"), (MEMBER.recipient,))
    seal(source, groups=[group])
    archive = source.parent / "a.pqv"
    for name, columns in (("lines", ["n"]), ("parquet", ["n", "model"])):
        assert read(archive, name).schema.names == columns
        with pytest.raises(NoKeyFits):
            read(archive, name, columns=["prompt"])
    assert read(archive, "lines", key=MEMBER).to_pylist() == ROWS
    assert read(archive, "parquet", key=MEMBER).equals(talk(50))
    (source / "more.csv").write_text("n\n1\n")
    report = seal(source, groups=[group])
    assert any("no table of this run has a column" in warning for warning in report.warnings)


def test_options_of_tables_need_tables(source: Path) -> None:
    for options in ({"keep_files": True}, {"groups": [1]}, {"bad_lines": 1}):
        with pytest.raises(UsageError, match="are for tables"):
            seal(source, tables=False, **options)


def test_files_of_grouped_columns_are_not_kept(source: Path) -> None:
    """A kept file goes to all recipients of the archive, and would show them what a group keeps
    from them."""
    group = tables.ColumnGroup("pii", ("prompt",), (MEMBER.recipient,))
    with pytest.raises(UsageError, match="hold the columns of groups too"):
        seal(source, groups=[group], keep_files=True)
    assert not (source.parent / "a.pqv").exists()


def test_a_file_that_changes_meanwhile_is_not_committed(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read to its end, and then it was another: nothing of it is there."""
    from pqvault.archive import sealtable

    def then_change(path: bytes, digest: str) -> str:
        if path.endswith(b"lines.jsonl"):
            os.utime(path, ns=(1, 1))
        return real(path, digest)

    real = sealtable.hash_file
    monkeypatch.setattr(sealtable, "hash_file", then_change)
    with pytest.raises(Incomplete, match="changed while it was read"):
        seal(source)
    assert list((source.parent / "a.pqv/commits").iterdir()) == []


def test_memory_is_bounded_by_row_groups(tmp_path: Path) -> None:
    """A batch far larger than a row group is cut; one row group is held, not the table."""
    limits = tables.RowGroups(rows=1000, size=200_000)
    rows = pa.table({"s": ["x" * 1000] * 5000, "n": range(5000)})
    tables.write_table(tmp_path / "a.pqv", "t", rows, recipients=[KEY.recipient], row_groups=limits)
    with pqvault.open(tmp_path / "a.pqv", identities=[KEY]) as opened:
        (entry,) = opened.find_table("t")
        groups = entry.files[""].row_groups()
    assert sum(groups) == 5000 and max(groups) * 1012 <= 200_000 * 1.2 and min(groups[:-1]) > 100
    assert read(tmp_path / "a.pqv", "t").equals(rows)


def test_row_groups_never_run_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Landmine 9: an encrypted file has at most 32,767; they grow before that."""
    from pqvault.tablefile import writer

    monkeypatch.setattr(writer, "MAX_ROW_GROUPS", 16)
    monkeypatch.setattr(writer, "_CROWDED", 8)
    limits = tables.RowGroups(rows=10**6, size=1000)
    rows = pa.table({"n": range(4000)})
    with tables.TableWriter(
        tmp_path / "a.pqv", "t", rows.schema, recipients=[KEY.recipient], row_groups=limits
    ) as out:
        for batch in rows.to_batches(max_chunksize=50):
            out.write(batch)
    with pqvault.open(tmp_path / "a.pqv", identities=[KEY]) as opened:
        (entry,) = opened.find_table("t")
        assert len(entry.files[""].row_groups()) <= 16
    assert read(tmp_path / "a.pqv", "t").equals(rows)


def test_an_empty_table_is_a_table(tmp_path: Path) -> None:
    """No rows, all columns; also with a group."""
    archive = tmp_path / "a.pqv"
    group = tables.ColumnGroup("g", ("answer",), (MEMBER.recipient,))
    tables.write_table(archive, "e", talk(0), recipients=[KEY.recipient], groups=[group])
    assert read(archive, "e", key=MEMBER).equals(talk(0)) and read(archive, "e").num_rows == 0
    with pqvault.open(archive, identities=[MEMBER]) as opened:
        assert opened.unseal(tmp_path / "out").tables == 1
    assert pq.read_table(tmp_path / "out/e.parquet").equals(talk(0))


def test_nulls_where_none_may_be_are_named_and_the_rest_goes_on(source: Path) -> None:
    """Arrow keeps such rows, and its cast raises an error of no kind of its own."""
    schema = pa.schema([pa.field("n", pa.int64(), nullable=False)])
    rows = pa.RecordBatch.from_arrays([pa.array([1, None])], schema=schema)
    with pa.ipc.new_file(source / "nulls.arrow", schema) as out:
        out.write_batch(rows)
    with pytest.raises(
        Incomplete, match=r"src/nulls\.arrow cannot hold these rows: .* null values"
    ):
        seal(source)
    assert read(source.parent / "a.pqv", "ipc").equals(talk(5))
