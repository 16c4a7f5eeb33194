"""query: SQL over the tables of an archive, in DuckDB, which reads them through Arrow datasets.

DuckDB runs in memory and may not touch files, extensions or the network: what is not in the
archive is not there.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa

from pqvault.archive.archive import Archive
from pqvault.archive.tableentry import short_name
from pqvault.arguments import Identities
from pqvault.errors import IntegrityError, NoKeyFits, PQVaultError, UsageError
from pqvault.tables.dataset import TableDataset
from pqvault.tables.places import StrPath
from pqvault.tables.reading import opened

__all__ = ["query"]

_SETTINGS: Final = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
}
_BATCH: Final = 64 * 1024  # rows


class _Known(TableDataset):
    """A table without the columns that DuckDB has no type for."""

    @property
    def schema(self) -> pa.Schema:
        """The columns that DuckDB is told of."""
        whole = super().schema
        return pa.schema([f for f in whole if _unknown(f.type) is None], whole.metadata)

    def scanner(self, columns: Any = None, *more: Any, **options: Any) -> Any:
        """Of those columns, unless told which."""
        chosen = self.schema.names if columns is None else columns
        return super().scanner(chosen, *more, **options)

    def check_unknown(self, sql: str, name: str) -> None:
        """Raise UsageError when a column that DuckDB is not told of is named in ``sql``."""
        for field in set(super().schema).difference(self.schema):
            if re.search(rf"\b{re.escape(field.name.lower())}\b", sql.lower()):
                raise UsageError(
                    f"the column {field.name!r} of {name} holds {_unknown(field.type)}, which"
                    " DuckDB does not know",
                    hint="read it with `pqvault table export`, or with pqvault.tables.dataset",
                )


def _unknown(kind: pa.DataType) -> str | None:
    """What DuckDB has no type for, anywhere in a type."""
    if isinstance(kind, pa.BaseExtensionType):
        return _unknown(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _unknown(kind.value_type)
    if kind == pa.float16():
        return "floats of 16 bits"
    if pa.types.is_decimal256(kind):
        return "decimals of 256 bits"
    inner = (_unknown(kind.field(i).type) for i in range(kind.num_fields))
    return next(filter(None, inner), None)


@contextmanager
def query(
    archive: Archive | StrPath, sql: str, *, identities: Identities = ()
) -> Iterator[pa.RecordBatchReader]:
    """The rows of a SELECT, as a stream to be read within the ``with`` block.

    Each table is there under its path, in double quotes, and under the last component of it
    without its ending where only one table has that. Raises UsageError for what DuckDB does not
    take, NoKeyFits for a column that no identity opens, IntegrityError for a damaged table.
    """
    duckdb = _duckdb()
    try:
        sql.encode()
    except UnicodeEncodeError:
        raise UsageError(
            "the query is not UTF-8, and DuckDB takes no other",
            hint="name a table by the last component of its path",
        ) from None
    with opened(archive, identities) as found:
        tables = {name: _Known(found.find_table(path)) for name, path in _named(found, sql)}
    connection = duckdb.connect(":memory:", config=_SETTINGS)
    try:
        for name, dataset in tables.items():
            connection.register(name, dataset)
        connection.execute("SET lock_configuration = true")
        with _explained(duckdb, tables, sql):
            statements = connection.extract_statements(sql)
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                raise UsageError("this is not one SELECT, and nothing else is answered")
            relation = connection.sql(sql)
            reader = relation.to_arrow_reader(_BATCH)
        yield pa.RecordBatchReader.from_batches(
            reader.schema, _checked(reader, duckdb, tables, sql)
        )
    finally:
        connection.close()


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError:
        raise UsageError(
            "queries need DuckDB, which is not installed",
            hint="pip install 'pqvault[duckdb]'",
        ) from None
    return duckdb


def _named(archive: Archive, sql: str) -> list[tuple[str, bytes]]:
    """The tables whose names are somewhere in the query, under each of their names."""
    text = sql.lower()
    paths = list(archive.table_paths())
    count = Counter(short_name(path).lower() for path in paths)
    found: dict[str, tuple[str, bytes]] = {}
    for path in paths:
        short = short_name(path)
        for name in (path, short) if count[short.lower()] == 1 else (path,):
            # As DuckDB sees it: names that differ only in case are one.
            decoded = os.fsdecode(name)
            if decoded.lower().replace('"', '""') not in text:
                continue
            known = found.setdefault(decoded.lower(), (decoded, path))
            if known[1] != path and name == path:
                if os.fsencode(known[0]) == known[1]:
                    raise UsageError(f"two tables are named {decoded!r} but for upper case")
                found[decoded.lower()] = (decoded, path)
    return list(found.values())


def _checked(
    reader: Any, duckdb: Any, tables: dict[str, _Known], sql: str
) -> Iterator[pa.RecordBatch]:
    with _explained(duckdb, tables, sql):
        yield from reader


@contextmanager
def _explained(duckdb: Any, tables: dict[str, _Known], sql: str) -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError, RuntimeError) as error:
        for name, dataset in tables.items():
            dataset.check_hidden(sql)
            dataset.check_unknown(sql, name)
        raise _in_words(error, duckdb, tables) from None


def _in_words(error: Exception, duckdb: Any, tables: dict[str, _Known]) -> PQVaultError:
    words = " ".join(str(error).split("\n\nLINE")[0].split())
    refused = (duckdb.ProgrammingError, duckdb.PermissionException, duckdb.NotSupportedError)
    scan = any(mark in words for mark in ("Python exception", "IOError", "decrypt", "arrow_scan"))
    if isinstance(error, refused) and not scan:
        return UsageError(
            f"DuckDB does not take the query: {words}",
            hint="`pqvault table ls` lists tables, `pqvault table schema` their columns;"
            ' a name with a dot or a slash needs "quotes"',
        )
    for kind in (NoKeyFits, IntegrityError):
        if kind.__name__ in words:
            return kind(words.partition(f"{kind.__name__}: ")[2] or words)
    if scan:
        return IntegrityError(f"{', '.join(tables)} cannot be read: {words}")
    return PQVaultError(f"DuckDB: {words}")
