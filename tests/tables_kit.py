"""What the tests of tables share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

import pqvault
from pqvault import tables

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
