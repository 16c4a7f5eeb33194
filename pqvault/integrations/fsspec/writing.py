"""Writing: a transaction that is one part, and sealed streams that appear whole."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from fsspec.asyn import AsyncFileSystem
from fsspec.compression import compr
from fsspec.implementations.local import LocalFileSystem
from fsspec.transaction import Transaction

from pqvault.archive.append import AppendPart
from pqvault.errors import UsageError
from pqvault.ids import new_id, now
from pqvault.integrations.fsspec.files import Part
from pqvault.keys import Recipient, one_profile
from pqvault.rootkey import STREAM_ARCHIVE, STREAM_OBJECT, RootKey
from pqvault.sealed import SealedWriter
from pqvault.wholefile import whole_file

__all__ = ["CompressedPart", "PartTransaction", "SinglePart", "StreamPart"]


class PartTransaction(Transaction):
    """All files written in one ``with fs.transaction`` become one part, or none of them do."""

    fs: Any
    files: Any

    def start(self) -> None:
        """Begin. Raises UsageError within another transaction, whose files would be kept or dropped
        at the end of this one."""
        if self.fs is None or self.fs._intrans:
            raise UsageError(
                "a transaction is not begun within another, nor a second time",
                hint="end the one under way; fs.transaction is a new one after that",
            )
        super().start()

    def complete(self, commit: bool = True) -> None:
        """Commit the part, or discard it when the block failed or a file was not closed."""
        fs = self.fs
        part, fs.part = fs.part, None
        try:
            if commit:
                for file in self.files:
                    file.commit()  # raises for one that is not whole
                if part is not None:
                    part.commit()
        except BaseException:
            commit = False
            raise
        finally:
            if not commit:
                for file in self.files:
                    file.discard()
                if part is not None:
                    part.discard()
            self.files.clear()
            fs._intrans, fs._transaction = False, None
            fs._written()
            self.fs = None


class SinglePart:
    """A part of one file, committed when the file is finished."""

    def __init__(self, part: AppendPart, name: str) -> None:
        self._part = part
        self._file = part.create(os.fsencode(name))

    def write(self, data: memoryview) -> int:
        """Take all of ``data``."""
        return self._file.write(data)

    def finish(self) -> None:
        """Commit."""
        self._file.finish()
        self._part.commit()

    def abort(self) -> None:
        """Leave nothing."""
        self._file.abort()
        self._part.discard()


class StreamPart:
    """A sealed stream in a file that appears, whole, when it is finished."""

    def __init__(
        self, fs: Any, path: str, recipients: Sequence[Recipient], level: int, frame_size: int
    ) -> None:
        key = RootKey.generate(STREAM_ARCHIVE, new_id(), one_profile(recipients))
        envelope = key.envelope(recipients, created=now())
        self._place = _place(fs, path)
        self._file = self._place.__enter__()
        self._file.write(envelope.marshal())
        self._writer = SealedWriter(
            _All(self._file), *key.object(STREAM_OBJECT), level=level, frame_size=frame_size
        )

    def write(self, data: memoryview) -> int:
        """Take all of ``data``."""
        return self._writer.write(data)

    def finish(self) -> None:
        """Give the file its name."""
        self._writer.finish()
        self._place.__exit__(None, None, None)

    def abort(self) -> None:
        """Leave nothing."""
        self._writer.close()
        error = _Dropped()
        try:
            self._place.__exit__(_Dropped, error, None)
        except _Dropped:
            pass


class CompressedPart:
    """What is written goes through one of fsspec's compressions: their files leave the one below
    open when they are closed, and what nobody closes is not kept."""

    def __init__(self, part: Part, compression: str) -> None:
        self._part = part
        self._sink = _Sink(part)
        self._file = compr[compression](self._sink, mode="w")

    def write(self, data: memoryview) -> int:
        """Take all of ``data``."""
        self._file.write(data)
        return len(data)

    def finish(self) -> None:
        """Write the end of the compressed data, then keep it."""
        self._file.close()
        self._part.finish()

    def abort(self) -> None:
        """Leave nothing."""
        self._sink.part = None
        with suppress(Exception):  # it is for the sink alone to know that this is no end
            self._file.close()
        self._part.abort()


class _Sink:
    """What a compression writes to; nothing, once the part is dropped."""

    def __init__(self, part: Part) -> None:
        self.part: Part | None = part

    def write(self, data: Any) -> int:
        """Take all of ``data``."""
        view = memoryview(data).cast("B")
        if self.part is not None:
            self.part.write(view)
        return len(view)

    def flush(self) -> None:
        """Nothing is buffered here."""


class _Dropped(Exception):
    """What tells a place that its file is not wanted."""


def _place(fs: Any, path: str) -> AbstractContextManager[Any]:
    """A binary file that gets its name when the block ends without an error."""
    if isinstance(fs, LocalFileSystem):
        return whole_file(path, force=True)
    return _store(fs, path) if isinstance(fs, AsyncFileSystem) else _beside(fs, path)


@contextmanager
def _store(fs: Any, path: str) -> Iterator[Any]:
    """An object of a store: there when its upload is completed."""
    file = fs.open(path, "wb", autocommit=False)
    try:
        yield file
        file.close()
        file.commit()
    except BaseException:
        file.discard()
        raise


@contextmanager
def _beside(fs: Any, path: str) -> Iterator[Any]:
    """A file of another file system: renamed when it is whole."""
    beside = f"{path}.{secrets.token_hex(4)}.tmp"
    try:
        with fs.open(beside, "wb") as file:
            yield file
        fs.mv(beside, path)
    except BaseException:
        fs.rm(beside)
        raise


class _All:
    """A sink that goes on where an unbuffered file took only a part."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: memoryview) -> None:
        """Take all of ``data``."""
        while len(data):
            data = data[self._file.write(data) :]
