"""Read a table: as a dataset, whole, its first rows, its schema."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from pqvault.archive.archive import Archive
from pqvault.arguments import Identities, to_identities
from pqvault.tables.dataset import TableDataset
from pqvault.tables.places import StrPath, storage_of

__all__ = ["count_rows", "dataset", "head", "opened", "read_table", "schema"]


@contextmanager
def opened(archive: Archive | StrPath, identities: Identities) -> Iterator[Archive]:
    """The archive that is open already, or one opened for the block."""
    if isinstance(archive, Archive):
        yield archive
    else:
        with Archive(storage_of(archive), to_identities(identities)) as found:
            yield found


def dataset(
    archive: Archive | StrPath, name: str | bytes, *, identities: Identities = ()
) -> TableDataset:
    """All parts of a table as a `pyarrow.dataset.Dataset`, with projection and filter pushdown.

    ``archive``: an open one, or its folder, which ``identities`` open. ``name``: its path, or
    the last component of it without its ending. The dataset needs the archive's files and not
    the open archive. Raises NotFound, NoKeyFits, IntegrityError; UsageError when the types of
    a column in two parts have nothing in common.
    """
    with opened(archive, identities) as found:
        return TableDataset(found.find_table(name))


def read_table(
    archive: Archive | StrPath,
    name: str | bytes,
    *,
    identities: Identities = (),
    columns: list[str] | None = None,
    filter: Any = None,
) -> pa.Table:
    """The rows of a table, or of it the columns and the rows that match ``filter``.

    Types and metadata are those it was written with. Raises as :func:`dataset` does.
    """
    return dataset(archive, name, identities=identities).to_table(columns, filter)


def schema(
    archive: Archive | StrPath, name: str | bytes, *, identities: Identities = ()
) -> pa.Schema:
    """The columns that the keys at hand open."""
    return dataset(archive, name, identities=identities).schema


def head(
    archive: Archive | StrPath,
    name: str | bytes,
    rows: int = 10,
    *,
    identities: Identities = (),
    columns: list[str] | None = None,
) -> pa.Table:
    """The first rows."""
    return dataset(archive, name, identities=identities).head(rows, columns=columns)


def count_rows(
    archive: Archive | StrPath, name: str | bytes, *, identities: Identities = ()
) -> int:
    """How many rows there are. Reads no rows."""
    return dataset(archive, name, identities=identities).count_rows()
