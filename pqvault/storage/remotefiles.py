"""One file of an archive at a URL: read by ranges, or written from begin to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fsspec.spec import AbstractBufferedFile

from pqvault.closing import Closing, Finishing
from pqvault.errors import IntegrityError, PQVaultError, UsageError
from pqvault.storage.ahead import Ahead
from pqvault.storage.base import Buffer, WritableBuffer
from pqvault.storage.retry import explain_remote

if TYPE_CHECKING:
    from pqvault.storage.remote import RemoteStorage

__all__ = ["RemoteReader", "RemoteSink"]

_BLOCK: Final = 16 * 1024 * 1024  # bytes of a part of an upload

Result = TypeVar("Result")


class RemoteReader(Closing):
    """A `ReadAt` over ranges of an object. Thread-safe; what is read in order is fetched ahead."""

    def __init__(self, storage: RemoteStorage, name: str, size: int) -> None:
        self._storage = storage
        self._name = name
        self.size = size
        self.where = storage.where(name)
        self._ahead = Ahead(self._range, size)

    def pread_into(self, buffer: WritableBuffer, offset: int) -> None:
        """Fill all of `buffer` from `offset`; see `ReadAt.pread_into`."""
        if offset < 0:
            raise UsageError(f"cannot read {self.where} at the negative offset {offset}")
        view = memoryview(buffer).cast("B")
        if offset + len(view) > self.size:
            raise self._ends_early(self.size)
        self._ahead.read_into(view, offset)

    def _range(self, start: int, end: int) -> bytes:
        def call(fs: Any, path: str) -> bytes:
            data: bytes = fs.cat_file(path, start=start, end=end)
            return data

        data = self._storage._do("read", self._name, call)
        if len(data) != end - start:
            raise self._ends_early(start + len(data))
        return data

    def _ends_early(self, offset: int) -> IntegrityError:
        return IntegrityError(f"{self.where} ends early: nothing is there at byte {offset:,}")

    def close(self) -> None:
        """Drop what was fetched ahead."""
        self._ahead.close()


class RemoteSink(Finishing):
    """A `Sink` over fsspec's own writer of a file, for stores that `s3` does not know."""

    def __init__(self, storage: RemoteStorage, name: str) -> None:
        self._storage = storage
        self._name = name
        self.written = 0
        self._file: Any = storage._do(
            "create", name, lambda fs, path: fs.open(path, "wb", block_size=_BLOCK)
        )
        self._open = True

    def write(self, buffer: Buffer) -> int:
        """Write all of `buffer`. What went to the library is not tried again here."""
        if not self._open:
            where = self._storage.where(self._name)
            raise UsageError(f"{where} is closed and takes no more bytes")
        count = self._do(lambda: self._file.write(buffer))
        self.written += len(memoryview(buffer).cast("B"))
        return int(count)

    def finish(self) -> None:
        """Close; the object appears then."""
        self._do(lambda: self._file.close())
        self._open = False

    def abort(self) -> None:
        """Drop what was uploaded; does nothing after `finish`."""
        if not self._open:
            return
        self._open = False
        file = self._file
        try:
            if isinstance(file, AbstractBufferedFile):
                file.closed = True  # its `close`, and its end, would upload what is there
            if hasattr(file, "discard"):
                file.discard()
        except Exception as error:
            # Called while another error is on its way, which must stay the one reported; a store
            # removes uploads that were not completed by its own rules.
            if isinstance(error, PQVaultError):
                raise
        self._storage.remove(self._name)

    def _do(self, call: Callable[[], Result]) -> Result:
        try:
            return call()
        except Exception as error:
            self.abort()
            raise explain_remote(error, "write", self._storage.where(self._name)) from error
