"""Bad table files: wrong keys, swapped, renamed, cut, flipped, plaintext. Exit 13, never rows."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest
from tables_kit import KEY, files, read, talk, write

import pqvault
from pqvault import tables
from pqvault.errors import FormatError, IntegrityError, NoKeyFits, PQVaultError, UsageError
from pqvault.format.catalog import Kind
from pqvault.format.table import TableDoc, TableFileDoc
from pqvault.tablefile import RowGroups, TableFile, encryption, writer
from pqvault.tables.facts import FileKey, file_keys


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    write(tmp_path / "a.pqv", talk(200), "one", row_groups=RowGroups(rows=100))
    write(tmp_path / "a.pqv", talk(200, 500), "two", row_groups=RowGroups(rows=100))
    return tmp_path / "a.pqv"


def keys(archive: Path, name: str) -> tuple[Path, FileKey]:
    with pqvault.open(archive, identities=[KEY]) as opened:
        (found,) = file_keys(opened, name)
    return archive / found.file, found


def test_a_wrong_key_opens_nothing(archive: Path) -> None:
    """Exit 12: says nothing about damage."""
    with pytest.raises(NoKeyFits):
        read(archive, "one", key=pqvault.Identity.generate())


def test_swapped_files_are_refused(archive: Path) -> None:
    """attack 14: each file is bound to its name by key and AAD prefix."""
    one, two = keys(archive, "one")[0], keys(archive, "two")[0]
    kept = one.read_bytes()
    size = len(kept)
    other = two.read_bytes()
    one.write_bytes(other)
    with pytest.raises(IntegrityError):
        read(archive, "one")
    # Of the same size, so that the size does not give it away.
    part = write(archive, talk(200, 500), "three", row_groups=RowGroups(rows=100))
    (third,) = files(archive, part)
    assert third.stat().st_size == two.stat().st_size
    two.write_bytes(third.read_bytes())
    with pytest.raises(IntegrityError, match="authentication"):
        read(archive, "two")
    one.write_bytes(kept)
    assert len(kept) == size and read(archive, "one").equals(talk(200))


def test_a_renamed_file_is_missing(archive: Path) -> None:
    one, _ = keys(archive, "one")
    one.rename(one.with_name("0" * 32 + ".parquet"))
    with pytest.raises(IntegrityError, match="is missing"):
        read(archive, "one")


def test_a_link_in_a_table_files_place_is_refused(archive: Path, tmp_path: Path) -> None:
    """attack 27: files of an archive are regular files."""
    one, _ = keys(archive, "one")
    one.rename(tmp_path / "elsewhere")
    one.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError):
        read(archive, "one")


@pytest.mark.parametrize("cut", [0, 3, 8, 100, -1, -9])
def test_a_truncated_file_is_refused(archive: Path, cut: int) -> None:
    one, _ = keys(archive, "one")
    one.write_bytes(one.read_bytes()[:cut])
    with pytest.raises(IntegrityError, match="bytes, its commit says"):
        read(archive, "one")


def test_plaintext_in_a_tables_place_is_refused_and_never_read(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Landmine 3: also with the size that the commit says, and before pyarrow sees it."""
    one, _ = keys(archive, "one")
    size = one.stat().st_size
    for options in ({}, {"plain": "footer"}):
        sink = pa.BufferOutputStream()
        properties = None
        if options:
            properties = pe.create_encryption_properties(
                bytes(32), aad_prefix=b"x", plaintext_footer=True
            )
        pq.write_table(talk(200), sink, encryption_properties=properties)
        data = sink.getvalue().to_pybytes()
        assert data[-4:] == b"PAR1"
        monkeypatch.setattr(TableFile, "size", size, raising=False)
        one_end = (b"PARE" + data[4:], data[:-4] + b"PARE")  # of which pyarrow looks at the last
        for content in (data, data[:4] + bytes(size - 8) + data[-4:], *one_end):
            one.write_bytes(content)
            with pytest.raises(FormatError, match="is not an encrypted Parquet file"):
                TableFile(_storage(archive), _name(one), len(content), bytes(32), b"x")
            with pytest.raises(IntegrityError):
                read(archive, "one")


def test_a_file_with_a_prefix_of_its_own_is_refused(archive: Path) -> None:
    """Decision 1: a stored AAD prefix would open where none is given; one is always given."""
    one, facts = keys(archive, "one")
    properties = pe.create_encryption_properties(
        bytes.fromhex(facts.key), aad_prefix=b"their own", store_aad_prefix=True
    )
    pq.write_table(talk(200), one, encryption_properties=properties)
    file = TableFile(
        _storage(archive), _name(one), one.stat().st_size, bytes.fromhex(facts.key),
        bytes.fromhex(facts.aad_prefix),
    )  # fmt: skip
    with pytest.raises(IntegrityError):
        file.check(talk(1).schema, 200)
    # The guard is the prefix: without it pyarrow reads the file.
    bare = pe.create_decryption_properties(bytes.fromhex(facts.key))
    assert pq.read_table(one, decryption_properties=bare).num_rows == 200


def test_every_file_has_a_key_and_properties_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Landmine 4: with one object for two files, a chunk pasted from one is read in the other."""
    made: list[Any] = []
    real = encryption.encryption

    def note(key: bytes, aad_prefix: bytes) -> Any:
        made.append((key, aad_prefix, real(key, aad_prefix)))
        return made[-1][2]

    monkeypatch.setattr(writer, "encryption", note)
    for _ in range(2):
        write(tmp_path / "a.pqv", talk(10), mode="append")
    assert len({id(properties) for _, _, properties in made}) == 2
    assert len({key for key, _, _ in made}) == len({prefix for _, prefix, _ in made}) == 2
    assert all(len(key) == 32 for key, _, _ in made)


def test_a_pasted_column_chunk_is_refused(archive: Path) -> None:
    """The pages of one file in another, at the same place and of the same length."""
    part = write(archive, talk(200), "again", row_groups=RowGroups(rows=100))
    one, (again,) = keys(archive, "one")[0], files(archive, part)
    ours, theirs = bytearray(one.read_bytes()), again.read_bytes()
    assert len(ours) == len(theirs)
    ours[100:900] = theirs[100:900]
    one.write_bytes(ours)
    with pytest.raises(IntegrityError):
        read(archive, "one")


def test_a_footer_that_says_other_than_the_catalog_is_refused(archive: Path) -> None:
    """What who sealed it could do: rows and columns that the catalog does not list."""
    one, facts = keys(archive, "one")
    key, prefix = bytes.fromhex(facts.key), bytes.fromhex(facts.aad_prefix)
    for rows, words in (
        (talk(7), "7 rows, its catalog says 200"),
        (talk(200).drop(["n"]), "columns"),
    ):
        pq.write_table(rows, one, encryption_properties=encryption.encryption(key, prefix))
        file = TableFile(_storage(archive), _name(one), one.stat().st_size, key, prefix)
        with pytest.raises(FormatError, match=words):
            file.check(talk(1).schema, 200)


def _storage(archive: Path) -> Any:
    from pqvault.storage import LocalStorage

    return LocalStorage(archive)


def _name(file: Path) -> str:
    return "/".join(file.parts[-4:])


DOC = TableDoc(
    "append", 7, b"schema",
    (TableFileDoc("", "0" * 64, f"tables/{'0' * 32}.parquet", (0, 2)),
     TableFileDoc("pii", "1" * 64, f"tables/{'1' * 32}.parquet", (1,))),
    (12, "2" * 64),
)  # fmt: skip
LINE = DOC.marshal().decode()
WRONG = {
    "mode": LINE.replace("append", "merge"),
    "no file": LINE[: LINE.index('"files"')] + '"files":[],"source":[]}',
    "groups out of order": LINE.replace('"group":""', '"group":"zz"'),
    "a group twice": LINE.replace("pii", ""),
    "a group of another name": LINE.replace("pii", "p/i"),
    "a file twice": LINE.replace("1" * 32 + ".parquet", "0" * 32 + ".parquet"),
    "a file elsewhere": LINE.replace("tables/1", "objects/1"),
    "a path": LINE.replace("tables/1", "tables/../1"),
    "a column in two files": LINE.replace('"columns":[1]', '"columns":[2]'),
    "a column in no file": LINE.replace('"columns":[0,2]', '"columns":[0,3]'),
    "columns out of order": LINE.replace('"columns":[0,2]', '"columns":[2,0]'),
    "no columns": LINE.replace('"columns":[1]', '"columns":[]'),
    "a column that is no number": LINE.replace('"columns":[1]', '"columns":[true]'),
    "a negative number of rows": LINE.replace('"rows":7', '"rows":-7'),
    "half a root": LINE.replace("1" * 64, "1" * 32),
    "half a source": LINE.replace(f'[12,"{"2" * 64}"]', "[12]"),
    "a key more": LINE.replace('"mode"', '"more":1,"mode"'),
    "a space": LINE.replace('"mode":', '"mode": '),
    "no base64": LINE.replace('"schema":"c2NoZW1h"', '"schema":"c2NoZW1"'),
}


@pytest.mark.parametrize("fault", WRONG)
def test_descriptions_of_tables_that_are_refused(fault: str) -> None:
    """docs/format.md 10.1, one fault each."""
    assert TableDoc.parse(LINE.encode(), "it") == DOC
    assert WRONG[fault] != LINE
    with pytest.raises(FormatError):
        TableDoc.parse(WRONG[fault].encode(), "it")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": b"x"}, "schema that is damaged"),
        ({"schema": pa.schema([("a", pa.int8())] * 4).serialize().to_pybytes()}, "one name"),
        (
            {"schema": pa.schema([("a", pa.int8())]).serialize().to_pybytes()},
            "in no file, or in two",
        ),
        ({"file": f"tables/{'9' * 32}.parquet"}, "its commit does not"),
        ({"root": "9" * 64}, "does not belong to its table"),
        ({"rows": 3}, "its catalog says 3"),
    ],
)
def test_catalogs_that_lie_about_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    """What somebody who knows the public keys could write: refused, in one sentence."""
    from dataclasses import replace

    def finish(self: Any, mode: str, source: Any = None) -> Any:
        doc, listed = real(self, mode, source)
        own = {key: value for key, value in change.items() if key in ("file", "root")}
        if own:
            return replace(doc, files=(replace(doc.files[0], **own),)), listed
        return replace(doc, **change), listed

    real = writer.TableSink.finish
    monkeypatch.setattr(writer.TableSink, "finish", finish)
    write(tmp_path / "a.pqv", talk(5))
    with pytest.raises(IntegrityError, match=words):
        read(tmp_path / "a.pqv")
    assert pqvault.verify(tmp_path / "a.pqv", identities=[KEY]).problems


def test_files_that_no_table_names_are_told_by_verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each table file of a commit is named once."""
    from pqvault.archive import tablepart

    def catalog(found: dict[bytes, bytes]) -> Any:
        return real({b"other": found[b"runs"], b"runs": found[b"runs"]})

    real = tablepart._catalog
    monkeypatch.setattr(tablepart, "_catalog", catalog)
    write(tmp_path / "a.pqv", talk(5))
    (problem,) = pqvault.verify(tmp_path / "a.pqv", identities=[KEY]).problems
    assert "which two tables name" in problem.message


def test_a_table_hides_what_was_a_folder(tmp_path: Path) -> None:
    """format 10.4 and 5.3: a path that is no folder any more ends the tables below it."""
    archive = tmp_path / "a.pqv"
    write(archive, talk(5), "a/b", mode="append")
    write(archive, talk(5), "a")
    write(archive, talk(7), "a/b", mode="append")
    assert read(archive, "a/b").num_rows == 7
    with pqvault.open(archive, identities=[KEY]) as opened:
        assert [e.kind for e in opened.entries()] == [Kind.FOLDER, Kind.TABLE]


def test_types_that_no_table_can_hold_are_refused_by_name(tmp_path: Path) -> None:
    """Before anything is written."""
    odd = pa.table({"ok": [1], "odd": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})
    with pytest.raises(UsageError, match="'odd'"):
        write(tmp_path / "a.pqv", odd)
    twice = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(UsageError, match="two columns named 'a'"):
        write(tmp_path / "a.pqv", twice)
    with pytest.raises(UsageError, match="no columns"):
        write(tmp_path / "a.pqv", pa.table({}))
    for kind in (pa.list_(pa.int8(), 0), pa.list_(pa.struct({"it": pa.list_(pa.int8(), 0)}))):
        with pytest.raises(UsageError, match=r"'none' of table runs .* does not come back"):
            write(tmp_path / "a.pqv", pa.table({"none": pa.nulls(2, kind), "n": [1, 2]}))
    for name in ("", "/", "a//b", "../x", "a/./b", "x" * 300):
        with pytest.raises(UsageError, match="no name for a table"):
            write(tmp_path / "a.pqv", talk(1), name)


def test_rows_of_other_columns_are_refused_while_writing(tmp_path: Path) -> None:
    """Schemas that change: the writer says so, and nothing is committed."""
    with (
        pytest.raises(UsageError, match="other columns or types"),
        tables.TableWriter(
            tmp_path / "a.pqv", "runs", talk(1).schema, recipients=[KEY.recipient]
        ) as out,
    ):
        out.write(talk(3))
        out.write(talk(3).drop(["n"]))
    with pytest.raises(PQVaultError):
        read(tmp_path / "a.pqv")
    assert os.listdir(tmp_path / "a.pqv/parts") == []
    shutil.rmtree(tmp_path / "a.pqv")
