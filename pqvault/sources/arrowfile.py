"""Arrow IPC: the file format (`.arrow`, Feather version 2) and the stream format."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any, Final

import pyarrow as pa

from pqvault.sources.base import (
    FileState,
    Source,
    SourceRefused,
    arrow_errors,
    check_names,
    checked,
    in_pieces,
)

__all__ = ["ArrowSource"]

_MAGIC: Final = b"ARROW1\0\0"


class ArrowSource(Source):
    """Types and metadata are those of the file; its batches are not kept as row groups, because
    they are made for memory and not for storage."""

    kind = "arrow"

    def __init__(self, path: str, name: str) -> None:
        self.name = name
        self._path = path
        self._state = FileState.of(path, name)
        with arrow_errors(name), open(path, "rb") as file:
            self._is_file = file.read(len(_MAGIC)) == _MAGIC
        self.rows = 0
        with closing(self._read()) as read:
            self.schema = check_names(next(read), name)
            for batch in read:
                self.rows += batch.num_rows

    def _read(self) -> Generator[Any, None, None]:
        """The schema, then every batch."""
        with arrow_errors(self.name), pa.OSFile(os.fsencode(self._path)) as file:
            if self._is_file:
                reader = pa.ipc.open_file(file)
                yield reader.schema
                for index in range(reader.num_record_batches):
                    yield reader.get_batch(index)
            else:
                stream = pa.ipc.open_stream(file)
                yield stream.schema
                yield from stream

    def batches(self) -> Iterator[pa.RecordBatch]:
        with closing(self._read()) as read:
            next(read)
            done = 0
            for batch in read:
                done += batch.num_rows
                yield from in_pieces(checked(batch, self.name))
        self._state.check(self._path, self.name)
        if done != self.rows:
            raise SourceRefused(f"{self.name} was changed while it was read")
