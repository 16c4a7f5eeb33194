"""``dataset.write_datasink(SealedDatasink("out.pqv", recipients="@key.pub"))``

One new part, with public keys only. Each task writes objects under names of its own and hands
back what is in them; the driver, which alone has the root key, commits once. A task that is
killed changes nothing: Ray runs it again, and what it had written is removed.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from typing import Any, Final

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from ray.data.block import BlockAccessor
from ray.data.datasource import Datasink

from pqvault.archive.append import OBJECT_SIZE, AppendFile, AppendPart, Written
from pqvault.archive.handed import HandedObject
from pqvault.archive.objects import SealOptions
from pqvault.errors import UsageError
from pqvault.integrations import places, references
from pqvault.integrations.ray.keydesk import KeyDesk, ask
from pqvault.keys import one_profile
from pqvault.sealed.writer import DEFAULT_FRAME, DEFAULT_LEVEL
from pqvault.storage import Storage

__all__ = ["SealedDatasink"]

_FORMATS: Final = ("parquet", "jsonl", "files")
_ROWS: Final = 1024  # made into JSON at once


class SealedDatasink(Datasink):
    """Writes a dataset as one new part of an archive, which is made when there is none.

    ``archive``: a path or URL that all workers reach. ``recipients``: who may open the part, as
    public keys or references to them. ``format``: ``parquet`` or ``jsonl``, files of rows named
    ``PREFIX/TOKEN-TASK-NUMBER``, the token new for each write; or ``files``: rows of ``path`` and
    ``bytes``, each a file. ``sign``: references to signing keys, used on the driver only.
    :attr:`part` is the id of the part once it is written, None when the dataset had no rows. A
    sink is for one write.

    Raises UsageError, PolicyRefused, RolledBack; a write that fails leaves nothing.
    """

    def __init__(
        self,
        archive: str | os.PathLike[str],
        recipients: references.References,
        *,
        format: str = "parquet",
        prefix: str = "",
        level: int = DEFAULT_LEVEL,
        frame_size: int = DEFAULT_FRAME,
        sign: references.References | None = None,
    ) -> None:
        super().__init__()
        if format not in _FORMATS:
            raise UsageError(
                f"rows are not written as {format!r}", hint=f"choose one of {', '.join(_FORMATS)}"
            )
        place = os.fspath(archive)
        place = place if "://" in place else os.path.abspath(place)
        fs, path = fsspec.core.url_to_fs(place)
        self._storage: Storage = places.storage_at(fs, path, None)
        self._recipients = references.recipients(recipients)
        self._profile = one_profile(self._recipients)
        self._options = SealOptions(level, frame_size, self._profile.digest)
        self._sign = references.normal(sign)
        self._format = format
        self._prefix = prefix.strip("/")
        self._desk_name = KeyDesk.new_name()
        self._token = secrets.token_hex(4)
        self._append: AppendPart | None = None
        self._desk: KeyDesk | None = None
        self.part: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        # The root key is the driver's.
        return self.__dict__ | {"_append": None, "_desk": None}

    def get_name(self) -> str:
        """What Ray calls its tasks."""
        return "Sealed"

    # -- on the driver ---------------------------------------------------------------------

    def on_write_start(self, schema: Any = None) -> None:
        """Begin the part, and a desk for its keys."""
        # Its files have names by now: a second write would put others of the same names over them.
        if self._desk is not None or self.part is not None:
            raise UsageError(
                "this sink is being written, or was, already", hint="make one for each write"
            )
        self._append = AppendPart(
            self._storage,
            self._recipients,
            level=self._options.level,
            frame_size=self._options.frame_size,
            sign=references.signing_keys(self._sign),
        )
        self._desk = KeyDesk(self._desk_name, self._profile.name, self._append.hand_over)

    def on_write_complete(self, write_result: Any) -> None:
        """Commit what the tasks hand back."""
        part = self._end()
        if part is None:
            return
        for written in write_result.write_returns:
            for one in written or ():
                part.take(one)
        self.part = part.commit()
        self._append = None

    def on_write_failed(self, error: Exception) -> None:
        """Leave nothing."""
        part = self._end()
        if part is not None:
            part.discard()
            self._append = None

    def _end(self) -> AppendPart | None:
        if self._desk is not None:
            self._desk.close()
            self._desk = None
        return self._append

    # -- in a task -------------------------------------------------------------------------

    def write(self, blocks: Iterable[Any], ctx: Any) -> list[Written]:
        """Write blocks into objects of this task's own."""
        folder = f"{self._prefix}/" if self._prefix else ""
        names = f"{folder}{self._token}-{ctx.task_idx:06d}"
        writing = _Writing(self._storage, self._desk_name, self._profile.name, self._options)
        rows = {"parquet": _parquet, "jsonl": _json_lines, "files": _files}[self._format]
        try:
            tables = (BlockAccessor.for_block(block).to_arrow() for block in blocks)
            rows(writing, (table for table in tables if len(table)), names)
            return writing.finish()
        except BaseException:
            writing.abort()
            raise


class _Writing:
    """The objects of one task, one after the other."""

    def __init__(self, storage: Storage, desk: str, profile: str, options: SealOptions) -> None:
        self._storage = storage
        self._desk = desk
        self._profile = profile
        self._options = options
        self._object: HandedObject | None = None
        self._written: list[Written] = []

    @property
    def full(self) -> bool:
        """Whether the next file belongs into another object."""
        return self._object is not None and self._object.size >= OBJECT_SIZE

    def create(self, path: bytes) -> AppendFile:
        """Begin a file; the one before is finished."""
        if self.full:
            self._close()
        if self._object is None:
            handed = ask(self._desk, self._profile)
            self._object = HandedObject(self._storage, *handed, self._options)
        return self._object.create(path)

    def _close(self) -> None:
        if self._object is not None:
            self._written.append(self._object.finish())
            self._object = None

    def finish(self) -> list[Written]:
        """What the driver is to list."""
        self._close()
        return self._written

    def abort(self) -> None:
        """Leave nothing of the object at hand; of those before, the driver leaves nothing."""
        if self._object is not None:
            self._object.abort()


class _File:
    """A file for Parquet's writer, whose end is for us to say."""

    closed = False

    def __init__(self, file: AppendFile) -> None:
        self.write = file.write
        self._file = file

    def tell(self) -> int:
        """Bytes so far."""
        return self._file.size

    def flush(self) -> None:
        """Nothing is buffered here."""

    def close(self) -> None:
        """The file ends with `finish`."""


def _parquet(writing: _Writing, tables: Iterable[pa.Table], names: str) -> None:
    """A file for each run of blocks of one schema, in objects that are not cut."""
    file: AppendFile | None = None
    writer: pq.ParquetWriter | None = None
    number = 0

    def end() -> None:
        nonlocal file, writer
        if writer is not None and file is not None:
            writer.close()
            file.finish()
        file = writer = None

    for table in tables:
        if writer is not None and (writing.full or not table.schema.equals(writer.schema)):
            end()
        if writer is None:
            file = writing.create(f"{names}-{number:03d}.parquet".encode())
            number += 1
            # The object's frames are not compressed again where pages are.
            writer = pq.ParquetWriter(_File(file), table.schema, compression="zstd")
        writer.write_table(table)
    end()


def _json_lines(writing: _Writing, tables: Iterable[pa.Table], names: str) -> None:
    file: AppendFile | None = None
    number = 0
    for table in tables:
        if file is not None and writing.full:
            file.finish()
            file = None
        if file is None:
            file = writing.create(f"{names}-{number:03d}.jsonl".encode())
            number += 1
        for at in range(0, len(table), _ROWS):
            file.write(_as_lines(table.slice(at, _ROWS).to_pylist()))
    if file is not None:
        file.finish()


def _as_lines(rows: list[dict[str, Any]]) -> bytes:
    try:
        lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"the rows have values that JSON has not: {error}", hint='write format="parquet"'
        ) from None
    return "".join(f"{line}\n" for line in lines).encode()


def _files(writing: _Writing, tables: Iterable[pa.Table], names: str) -> None:
    for table in tables:
        if not {"path", "bytes"} <= set(table.column_names):
            raise UsageError(
                f"files are rows of path and bytes, and these have {', '.join(table.column_names)}",
                hint="name the columns so with rename_columns()",
            )
        for at in range(len(table)):
            path, data = table["path"][at].as_py(), table["bytes"][at].as_py()
            if not isinstance(path, str | bytes) or not isinstance(data, bytes):
                raise UsageError("a file has a path and bytes, and a row lacks one")
            file = writing.create(os.fsencode(path))
            file.write(data)
            file.finish()
