"""write_table and TableWriter: rows into an archive, with public keys only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from pqvault.archive.columngroups import ColumnGroup
from pqvault.archive.tablepart import TablePart
from pqvault.arguments import Recipients, to_recipients
from pqvault.closing import Finishing
from pqvault.errors import PQVaultError, UsageError
from pqvault.memory import Memory
from pqvault.policy import ANYBODY, Policy
from pqvault.sealed.writer import DEFAULT_FRAME, check_options
from pqvault.signing import SigningKey
from pqvault.sources import Source
from pqvault.storage import Storage
from pqvault.tablefile import RowGroups
from pqvault.tablefile.schemas import Sorting
from pqvault.tablefile.writer import LEVEL
from pqvault.tables.places import StrPath, storage_of

__all__ = ["Rows", "TableWriter", "batches_of", "write_table"]

Rows: TypeAlias = Any  # a pyarrow Table, RecordBatch or reader, an iterable of batches, or
# whatever has `__arrow_c_stream__`: a frame of pandas or Polars


class TableWriter(Finishing):
    """Writes one table as one part of an archive.

    A ``with`` block that ends well commits it, unless :meth:`finish` did; after an exception
    nothing of it is there.
    ``archive``: a folder, made when it is not there. ``name``: the path of the table in it.
    ``mode``: `replace` the rows that the archive has of that table, or `append` to them.
    ``groups``: columns for other recipients. ``level``: zstd 1 to 22, 0 for none. Memory is
    bounded by ``row_groups``. Raises UsageError, PolicyRefused, RolledBack.
    """

    def __init__(
        self,
        archive: StrPath | Storage,
        name: str | bytes,
        schema: pa.Schema,
        *,
        recipients: Recipients,
        groups: Sequence[ColumnGroup] = (),
        mode: str = "replace",
        level: int = LEVEL,
        row_groups: RowGroups | None = None,
        sorting: Sorting = (),
        sign: Sequence[SigningKey] = (),
        policy: Policy = ANYBODY,
        allow_retired: bool = False,
        memory: Memory | None = None,
    ) -> None:
        check_options(level, DEFAULT_FRAME)
        storage = storage_of(archive)
        sealed_to = to_recipients(recipients)
        self._open = True
        self._part = TablePart(
            storage, sealed_to, groups, sign=sign, policy=policy,
            allow_retired=allow_retired, memory=memory,
        )  # fmt: skip
        try:
            self._sink = self._part.table(
                name, schema, mode=mode, level=level, row_groups=row_groups, sorting=sorting
            )
        except BaseException:
            self._part.close()
            raise
        self.part: str = self._part.part
        """The part id."""

    @property
    def rows(self) -> int:
        """Rows in row groups that are written."""
        return self._sink.rows

    def write(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Take rows of the schema, any number of them."""
        self._check_open()
        self._sink.write(rows)

    def write_source(self, source: Source) -> None:
        """Take all rows of a file, with row groups as it has them."""
        self._check_open()
        self._sink.write_source(source)

    def finish(self) -> str:
        """Commit; the part id. When that fails nothing of it is there."""
        self._check_open()
        try:
            return self._part.commit()
        finally:
            self.abort()

    def abort(self) -> None:
        """Discard what was written; nothing after :meth:`finish`."""
        self._open = False
        self._part.close()

    def _check_open(self) -> None:
        if not self._open:
            raise PQVaultError(
                f"this writer of part {self.part} is finished: nothing can be written to it",
                hint="open another one; mode='append' adds its rows to the table",
            )


def write_table(
    archive: StrPath | Storage,
    name: str | bytes,
    data: Rows,
    *,
    recipients: Recipients,
    schema: pa.Schema | None = None,
    **options: Any,
) -> str:
    """Write a table as one part of an archive; the part id.

    ``data``: a pyarrow Table, RecordBatch or RecordBatchReader, an iterable of batches, or a
    frame of another library. ``options``: those of :class:`TableWriter`.
    """
    found, batches = batches_of(data, schema)
    with TableWriter(archive, name, found, recipients=recipients, **options) as writer:
        for batch in batches:
            writer.write(batch)
    return writer.part


def batches_of(data: Rows, schema: pa.Schema | None) -> tuple[pa.Schema, Iterable[Any]]:
    """The schema and the batches of whatever holds rows."""
    if isinstance(data, pa.Table | pa.RecordBatch):
        return schema or data.schema, [data]
    if isinstance(data, pa.RecordBatchReader):
        return schema or data.schema, data
    if hasattr(data, "__arrow_c_stream__"):
        reader = pa.RecordBatchReader.from_stream(data, schema)
        return reader.schema, reader
    batches = iter(data)
    if schema is not None:
        return schema, batches
    first = next(batches, None)
    if first is None:
        raise UsageError("there are no rows, so the columns are not known", hint="pass schema=")
    if not isinstance(first, pa.Table | pa.RecordBatch):
        raise UsageError(
            f"rows were given as {type(first).__name__}, one of several",
            hint="give record batches; pyarrow.Table.from_pylist makes a table of a list of dicts",
        )
    return first.schema, _chain(first, batches)


def _chain(first: Any, rest: Iterable[Any]) -> Iterable[Any]:
    yield first
    yield from rest
