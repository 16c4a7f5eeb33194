"""What the tests of tables share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pqvault
from pqvault import tables
from pqvault.tablefile.encryption import encryption

KEY = pqvault.Identity.generate()
MEMBER = pqvault.Identity.generate()
GROUP = tables.ColumnGroup("pii", ("prompt", "answer"), (MEMBER.recipient,))


def write(archive: Path, table: pa.Table, name: str = "runs", **options: Any) -> str:
    """Write a table, sealed to KEY."""
    return tables.write_table(archive, name, table, recipients=[KEY.recipient], **options)


def read(archive: Path, name: str = "runs", *, key: Any = KEY, **options: Any) -> pa.Table:
    """Read a table."""
    return tables.read_table(archive, name, identities=[key], **options)


def talk(rows: int = 1000, start: int = 0) -> pa.Table:
    """Rows with columns that a group is for."""
    numbers = range(start, start + rows)
    return pa.table(
        {
            "n": pa.array(numbers, pa.int64()),
            "prompt": [f"ask {n}" for n in numbers],
            "model": ["a" if n % 2 else "b" for n in numbers],
            "answer": pa.array([n % 7 for n in numbers], pa.int32()),
        }
    )


def files(archive: Path, part: str) -> list[Path]:
    """The table files of a part, the largest first."""
    found = (archive / "parts" / part / "tables").iterdir()
    return sorted(found, key=lambda path: -path.stat().st_size)


def forge(archive: Path, rows: pa.Table, schema: pa.Schema, monkeypatch: pytest.MonkeyPatch) -> str:
    """A table of ``schema`` whose one file holds ``rows`` in one row group, as its maker likes."""

    def finish(file: Any) -> Any:
        out = pa.PythonFile(file._file, mode="w")
        properties = encryption(*file._keys)
        with pq.ParquetWriter(
            out, rows.schema, encryption_properties=properties, store_schema=False
        ) as forged:
            forged.write_table(rows, row_group_size=len(rows))
        return file._file.finish(file._name)

    monkeypatch.setattr("pqvault.tablefile.writer._File.finish", finish)
    writer = tables.TableWriter(archive, "runs", schema, recipients=[KEY.recipient])
    monkeypatch.setattr(writer._sink, "rows", len(rows))
    return writer.finish()
