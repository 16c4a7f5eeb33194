"""A reader written from docs/format.md alone reads the tables, write-ahead files and keysets that
pqvault wrote, and refuses what the vectors say is to be refused."""

from __future__ import annotations

import base64
import importlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import testkit  # noqa: F401  (puts vectors/ on the path)
from independent_documents import ENVELOPE, parse_document
from independent_keys import Damaged, load_identity
from independent_reader import Opened, open_archive, open_envelope
from independent_tables import Keyset, Table, Wal, read_table
from tables_kit import GROUP, KEY, MEMBER, read, talk, write
from test_logs_vectors import NAMES as WALS
from test_logs_vectors import load
from test_tables_vectors import NAMES as TABLES

import pqvault
from pqvault import keyset, tables
from pqvault.logs import InferenceLog

vectors: Any = importlib.import_module("vectors.tables")


@pytest.mark.parametrize("name", TABLES)
def test_vectors_of_tables(name: str) -> None:
    """The rows that are said, or a refusal."""
    value = json.loads((vectors.FOLDER / f"{name}.json").read_text())
    archive, part = (bytes.fromhex(value[key]) for key in ("archive", "part"))
    root, own = (
        Opened(archive, part, bytes.fromhex(value[key]), "standard")
        for key in ("root_key", "group_key")
    )
    files = {key: base64.b64decode(data) for key, data in value["files"].items()}

    def rows() -> pa.Table:
        groups = {one["group"] for one in json.loads(value["table"])["files"]}
        table = Table(value["table"].encode(), {g: own if g else root for g in groups})
        return table.read({key: (data, len(data)) for key, data in files.items()})

    if value["rows"] is None:
        with pytest.raises(Damaged):
            rows()
        return
    assert rows().to_pydict() == value["rows"]


@pytest.mark.parametrize("name", WALS)
def test_vectors_of_write_ahead_files(name: str) -> None:
    """The rows, the torn tail, the damage and the end that are said, or a refusal."""
    vector = load(name)
    ids = (bytes.fromhex(vector[key]) for key in ("archive", "part", "root_key"))
    wal = Wal(*ids, vector["name"], base64.b64decode(vector["file"]))

    def rows() -> list[int]:
        return [n for _, batch in wal.batches() for n in batch.column("n").to_pylist()]

    if "error" in vector:
        with pytest.raises(Damaged):
            rows()
        return
    assert rows() == vector["rows"]
    assert (wal.torn, wal.damaged) == (vector["torn"], vector["damaged"])
    assert list(wal.end or ()) == (vector["end"] or [])


def test_a_table_of_several_parts_and_groups(tmp_path: Path) -> None:
    """Rows in the order of the parts, as each key sees them; the archive lists it too."""
    archive = tmp_path / "a.pqv"
    write(archive, talk(10), groups=[GROUP])
    write(archive, talk(300), groups=[GROUP])  # in place of it
    write(archive, talk(50, start=300), groups=[GROUP], mode="append")
    # GROUP's members open the part too; the others see the columns that are in no group.
    for key, names in ((KEY, ["n", "model"]), (MEMBER, talk(1).schema.names)):
        found = read_table(archive, key.text, b"runs")
        assert found.to_pydict() == talk(350).select(names).to_pydict()
        assert found.schema == read(archive, key=key).schema
    assert open_archive(archive, KEY.text)[b"runs"].kind == "t"


def test_rows_before_the_end_of_their_folder_are_gone(tmp_path: Path) -> None:
    """Sections 10.4 and 5.3: a file in the place of the folder ends the table in it for good."""
    archive, file = tmp_path / "a.pqv", tmp_path / "d"
    file.write_text("no folder")
    write(archive, talk(10), name="d/t")
    pqvault.seal(file, archive, recipients=[KEY.recipient], append=True)
    write(archive, talk(3), name="d/t", mode="append")
    write(archive, talk(4, start=3), name="d/t", mode="append")
    found = read_table(archive, KEY.text, b"d/t")
    assert found.to_pydict() == talk(7).to_pydict()
    assert found.equals(tables.read_table(archive, "d/t", identities=[KEY]))


def test_types_come_back(tmp_path: Path) -> None:
    """Those that Parquet keeps as others."""
    table = pa.table(
        {
            "date": pa.array([0, 86_400_000, None], pa.int64()).cast(pa.date64()),
            "time": pa.array([1, 2, None], pa.timestamp("s", "UTC")),
            "number": pa.array([5, 6, 5]).dictionary_encode(),
            "word": pa.array(["a", "b", None]).dictionary_encode(),
            "nested": [[{"x": 1}], [], None],
        }
    )
    write(tmp_path / "a.pqv", table)
    found = read_table(tmp_path / "a.pqv", KEY.text, b"runs")
    assert found.schema == table.schema and found.to_pylist() == table.to_pylist()


def test_a_log_that_is_open_and_one_that_is_closed(tmp_path: Path) -> None:
    """The same records from the write-ahead file and from the table that it becomes."""
    archive = tmp_path / "log.pqv"
    names = [f"r{number}" for number in range(20)]
    with InferenceLog(archive, recipients=[KEY.recipient]) as log:
        for name in names:
            log.log({"request_id": name, "model": "llama"})
        log.flush()
        (path,) = archive.glob("parts/*/wal")
        opened = root_of(archive, path.parent.name)
        wal = Wal(opened.archive, opened.part, opened.root, "wal", path.read_bytes())
        found = [row for _, batch in wal.batches() for row in batch.to_pylist()]
        assert [row["request_id"] for row in found] == names
        assert (wal.end, wal.torn, wal.damaged) == (None, 0, 0)
    (table,) = (path for path, item in open_archive(archive, KEY.text).items() if item.kind == "t")
    rows = read_table(archive, KEY.text, table).to_pylist()
    assert [row["request_id"] for row in rows] == names


def root_of(archive: Path, part: str) -> Opened:
    """A part that has no commit yet."""
    data = (archive / "envelopes" / part).read_bytes()
    envelope = parse_document(data, "pqvault.dev/envelope@v1", ENVELOPE)
    return open_envelope(envelope, load_identity(KEY.text))


def test_a_keyset(tmp_path: Path) -> None:
    """References unwrap to the same data key; after a new version the old ones still do."""
    path, data_key = tmp_path / "lake.keyset", bytes(range(32))
    keyset.Keyset.create(path, [KEY.recipient], ["lake"])
    made = keyset.Keyset.open(path, [KEY])
    references = [made.wrap(data_key, "lake")]
    made.renew("lake")
    references.append(made.wrap(data_key, "lake"))
    found = Keyset.open(path, KEY.text)
    assert found.id.hex() == made.id and references[0][:39] != references[1][:39] != ""
    assert [found.unwrap(reference, "lake") for reference in references] == [data_key] * 2
    for reference, name in ((references[0], "other"), (references[0][:-4] + "AAAA", "lake")):
        with pytest.raises(Damaged):
            found.unwrap(reference, name)
