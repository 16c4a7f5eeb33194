"""TableFile: one encrypted Parquet file, checked before pyarrow is given it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import pyarrow as pa

from pqvault.errors import FormatError, IntegrityError, UsageError
from pqvault.lazy import LazyModule
from pqvault.sealed.listed import open_listed
from pqvault.storage import Storage
from pqvault.tablefile.encryption import MAGIC, MAX_ROW_GROUPS, decryption
from pqvault.tablefile.filesystem import HeldFile, arrow_place, on_disk
from pqvault.tablefile.schemas import as_stored, first_line, same_types
from pqvault.tablefile.unpacked import Leaf, leaves

__all__ = ["TableFile", "trouble"]

pds = LazyModule("pyarrow.dataset")


@contextmanager
def trouble(what: str) -> Iterator[None]:
    """Raise IntegrityError naming ``what`` in place of what pyarrow says of a bad file."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowException, OSError) as error:
        words = first_line(error)
        if words.startswith("Casting from "):  # milliseconds of the year 100000 as nanoseconds
            raise UsageError(
                f"{what} has values that the type for all of its parts does not hold: {words}",
                hint="read the parts one by one with --as-of, or write the table anew",
            ) from None
        raise IntegrityError(f"{what} failed authentication or is damaged: {words}") from None


class TableFile:
    """One file: ``path`` in the storage, ``size`` in bytes as its commit says.

    Raises IntegrityError unless the file is there with that size and begins and ends as an
    encrypted Parquet file: a plaintext one is never handed to pyarrow at all.
    """

    def __init__(
        self, storage: Storage, path: str, size: int, key: bytes, aad_prefix: bytes
    ) -> None:
        self.path = path
        self.size = size
        self._check_ends(storage)
        self._filesystem, self._place = arrow_place(storage, path)
        # Of this file alone, and the AAD prefix always: a file with one of its own would open
        # without it.
        options = pds.ParquetFragmentScanOptions(decryption_properties=decryption(key, aad_prefix))
        self.format = pds.ParquetFileFormat(default_fragment_scan_options=options)
        self.fragment: Any = self.format.make_fragment(self._place, self._filesystem)
        self._storage = storage
        self.keys = (key, aad_prefix)

    def __repr__(self) -> str:
        return f"TableFile({self.path!r})"

    def _check_ends(self, storage: Storage) -> None:
        with open_listed(storage, self.path, self.size) as source:
            if self.size < 2 * len(MAGIC):
                raise FormatError(f"{self.path} is too short for a table")
            for at in (0, self.size - len(MAGIC)):
                ends = bytearray(len(MAGIC))
                source.pread_into(ends, at)
                if ends != MAGIC:
                    raise FormatError(f"{self.path} is not an encrypted Parquet file")

    def check(self, schema: pa.Schema, rows: int) -> None:
        """Raise unless the footer opens and has what the catalog says."""
        with trouble(self.path):
            found: pa.Schema = self.fragment.physical_schema
            metadata = self.fragment.metadata
        if metadata.num_rows != rows:
            raise FormatError(f"{self.path} has {metadata.num_rows} rows, its catalog says {rows}")
        if metadata.num_row_groups > MAX_ROW_GROUPS:
            raise FormatError(f"{self.path} has more than {MAX_ROW_GROUPS} row groups")
        if not same_types(found, schema) and not same_types(found, _stored(schema, self.path)):
            raise FormatError(f"{self.path} does not have the columns that its catalog says")

    @cached_property
    def leaves(self) -> list[Leaf]:
        """Its columns as Parquet has them. Raises FormatError."""
        with trouble(self.path):
            found = leaves(self.fragment.physical_schema)
            if len(found) != self.fragment.metadata.num_columns:
                raise FormatError(f"{self.path} has other columns in Parquet than in Arrow")
            return found

    def row_groups(self) -> list[int]:
        """The rows of each row group."""
        with trouble(self.path):
            metadata = self.fragment.metadata
            return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]

    def opened(self) -> tuple[Any, HeldFile | None]:
        """The file as pyarrow reads it, and where it is not on a local disk what it reads from."""
        with trouble(self.path):
            if on_disk(self._storage):
                return self._filesystem.open_input_file(self._place), None
            held = HeldFile(self._storage.open(self.path))
            return pa.PythonFile(held, mode="r"), held


def _stored(schema: pa.Schema, what: str) -> pa.Schema:
    try:
        return as_stored(schema)
    except (pa.ArrowException, ValueError):
        raise FormatError(f"{what} is said to have columns that no table can have") from None
