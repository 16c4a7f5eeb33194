"""What every kind of file that becomes a table gives, and what is refused of all of them."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from pqvault.closing import Closing
from pqvault.errors import NotFound, PQVaultError

__all__ = [
    "BATCH_BYTES",
    "FileState",
    "Source",
    "SourceRefused",
    "arrow_errors",
    "arrow_path",
    "check_names",
    "checked",
    "in_pieces",
]

BATCH_BYTES: Final = 8 * 1024 * 1024  # bytes of values in a batch, about, where rows allow it


class SourceRefused(PQVaultError):
    """A file that cannot become a table without losing something. Names the line and the column."""

    default_hint = "seal it as a file, without --tables, which keeps it byte for byte"


class Source(Closing, ABC):
    """A file as rows and columns. Read as often as wanted; close it after use.

    ``name``: for messages. ``kind``: ``parquet``, ``arrow``, ``jsonl`` or ``csv``. ``schema``: of
    every batch, with metadata. ``rows``: how many there are.
    ``row_groups``: the rows of each row group, to be kept; None where the writer may choose.
    ``sorting``: as `pyarrow.parquet.ParquetWriter` takes it. ``notes``: sentences for the user
    about values that have another form in the table.
    """

    name: str
    kind: str
    schema: pa.Schema
    rows: int
    row_groups: tuple[int, ...] | None = None
    sorting: tuple[pq.SortingColumn, ...] = ()
    notes: tuple[str, ...] = ()

    @abstractmethod
    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows in order. No batch spans two row groups; the memory taken is bounded.

        Raises SourceRefused, also when the file was changed since it was opened.
        """

    def close(self) -> None:
        """Let go of the file."""


@dataclass(frozen=True, slots=True)
class FileState:
    """Which file it was, and in which state: two readings of a file must see the same."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: str, name: str) -> FileState:
        """Of the file that has this name now. Raises NotFound, SourceRefused."""
        try:
            info = os.stat(path)
        except OSError as error:
            raise NotFound(
                f"{name} cannot be read: {error.strerror}", hint="check the path"
            ) from None
        if not stat.S_ISREG(info.st_mode):
            raise SourceRefused(f"{name} is not a regular file")
        return cls(info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)

    def check(self, path: str, name: str) -> None:
        """Raise SourceRefused unless the file of this name is that one, unchanged."""
        try:
            same = FileState.of(path, name) == self
        except NotFound:
            same = False
        if not same:
            raise SourceRefused(
                f"{name} was changed while it was read", hint="seal it again when nothing writes it"
            )


def arrow_path(path: str) -> Any:
    """What pyarrow opens: ``path``, or the open file where it is not UTF-8, as pyarrow wants it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return pa.OSFile(os.fsencode(path))
    return path


@contextmanager
def arrow_errors(name: str) -> Iterator[None]:
    """What Arrow says of a bad file, as one sentence that names the file."""
    try:
        yield
    except MemoryError:
        raise SourceRefused(f"{name} asks for more memory than there is") from None
    except (pa.ArrowException, OSError, ValueError, NotImplementedError) as error:
        if isinstance(error, PQVaultError):
            raise
        words = " ".join(str(error).split())
        raise SourceRefused(f"{name} cannot be read as a table: {words[:300]}") from None


def check_names(schema: pa.Schema, name: str) -> pa.Schema:
    """The schema. Raises SourceRefused for two columns of one name, or names that are no UTF-8."""
    with arrow_errors(name):
        for field in schema:
            _read_names(field)
        names = schema.names
    twice = [column for column, count in Counter(names).items() if count > 1]
    if twice:
        raise SourceRefused(f"{name} has several columns of the name {min(twice)!r}")
    return schema


def _read_names(field: pa.Field) -> str:
    """The name, after those of all levels below it: bytes that are not UTF-8 raise ValueError."""
    kind = field.type
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    for index in range(kind.num_fields):
        _read_names(kind.field(index))
    return str(field.name)


def checked(batch: pa.RecordBatch, name: str) -> pa.RecordBatch:
    """A batch whose offsets and UTF-8 hold. Raises SourceRefused (ATTACKS row 32)."""
    with arrow_errors(name):
        batch.validate(full=True)
    return batch


def in_pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of about BATCH_BYTES."""
    if not batch.num_rows:
        return
    each = max(1, batch.nbytes // batch.num_rows)
    step = max(1, BATCH_BYTES // each)
    for start in range(0, batch.num_rows, step):
        yield batch.slice(start, step)
