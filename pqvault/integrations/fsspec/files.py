"""Files as host libraries want them: buffered for small reads, past the buffer for large ones."""

from __future__ import annotations

import atexit
import io
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Iterable
from functools import cache
from types import TracebackType
from typing import Any, Final, NoReturn, Protocol

import pyarrow as pa

from pqvault.errors import NotFound, PQVaultError, UsageError
from pqvault.sealed import RangeFile

__all__ = [
    "IsFolder",
    "IsNoFolder",
    "MissingFile",
    "Part",
    "Unchangeable",
    "VaultFile",
    "VaultText",
    "VaultWriter",
    "Window",
]

_BUFFER: Final = 128 * 1024  # bytes; a line or a header costs one trip through Python
_PATIENCE: Final = 0.2  # seconds at the end of the process
_LITTLE: Final = 0.01  # the same


class MissingFile(NotFound, FileNotFoundError):
    """A path that is not there, as both pqvault and the callers of file systems know it."""


class IsFolder(UsageError, IsADirectoryError):
    """A folder where a file belongs, as both pqvault and the callers of file systems know it."""


class IsNoFolder(UsageError, NotADirectoryError):
    """A file or link where a folder belongs, the same."""


class Unchangeable(UsageError, NotImplementedError):
    """What a sealed file system does not do, as both pqvault and the callers know it."""


class Window(RangeFile):
    """A file over a reader that several files share; closing it leaves the reader open."""

    def __init__(self, reader: RangeFile, name: str, owner: object) -> None:
        super().__init__()
        self._reader = reader
        self._owner = owner  # closes the reader when nobody has it any more
        self.name = name
        self.size = reader.size

    def pread_into(self, out: memoryview, offset: int) -> None:
        """Fill ``out`` from ``offset``. Thread-safe."""
        self._check()
        self._reader.pread_into(out, offset)


class VaultFile(io.BufferedReader):
    """A file of an archive, or a sealed stream, open for reading.

    ``size``: bytes of content. Reads larger than the buffer go straight into the caller's
    memory; large ones are decoded on several threads.
    """

    mode = "rb"

    def __init__(self, raw: RangeFile) -> None:
        super().__init__(raw, _BUFFER)
        self.size = raw.size
        _wait_at_exit()
        _files.add(self)

    def read_buffer(self, size: int = -1, /) -> pa.Buffer:
        """Up to ``size`` bytes in memory that pyarrow owns: no copy is made of it."""
        left = max(0, self.size - self.tell())
        length = left if size < 0 else min(size, left)
        buffer = pa.allocate_buffer(length)
        with memoryview(buffer) as view:
            self.readinto(view)
        return buffer

    def readinto(self, buffer: Any, /) -> int:
        """Fill ``buffer`` as far as there is content; returns the number of bytes."""
        with memoryview(buffer).cast("B") as view:
            if len(view) <= _BUFFER:
                return super().readinto(view)
            position = self.tell()
            length = max(0, min(len(view), self.size - position))
            if length:
                raw: RangeFile = self.raw  # type: ignore[assignment]
                raw.pread_into(view[:length], position)
            self.seek(position + length)
        return length

    readinto1 = readinto

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to ``size`` bytes, all that is left when it is negative or None."""
        left = max(0, self.size - self.tell())
        length = left if size is None or size < 0 else min(size, left)
        if length <= _BUFFER:
            return super().read(length)
        out = bytearray(length)
        self.readinto(out)
        return bytes(out)


_files: weakref.WeakSet[VaultFile] = weakref.WeakSet()


def _wait_for_arrow() -> None:
    """Until nobody reads any more, and a little longer. A thread of Arrow that lets go of a file of
    Python's while the interpreter ends takes the process down with it (apache/arrow issue 34314);
    nothing tells when it has."""
    end = time.monotonic() + _PATIENCE
    while _are_open() and time.monotonic() < end:
        time.sleep(_LITTLE)
    time.sleep(_LITTLE)


def _are_open() -> bool:
    try:
        return any(not file.closed for file in list(_files))
    except (RuntimeError, ValueError):  # others open files still; one was detached
        return True


@cache
def _wait_at_exit() -> None:
    """From the first file on: who only imports this waits for nothing."""
    atexit.register(_wait_for_arrow)


class Part(Protocol):
    """What is written to: one file, kept or dropped."""

    def write(self, data: Any, /) -> int: ...

    def finish(self) -> None: ...

    def abort(self) -> None: ...


class VaultWriter:
    """A file being written. Kept by a clean `close`, dropped by an error or when it is lost.

    No ``io`` class: those finish when they are collected. ``then`` is called once it is kept.
    """

    mode = "wb"

    def __init__(self, part: Part, name: str, then: Callable[[], object] = lambda: None) -> None:
        self._part: Part | None = part
        self._then = then
        self._position = 0
        self._around = sys.exc_info()[1]  # what was being handled when the file was opened
        self.name = name
        self.kept = False

    def change(self, wrap: Callable[[Part], Part]) -> None:
        """Put another part around the one that takes what is written."""
        assert self._part is not None
        self._part = wrap(self._part)

    @property
    def closed(self) -> bool:
        """Whether it takes no more."""
        return self._part is None

    def write(self, data: Any) -> int:
        """Take all of ``data``; returns its length in bytes."""
        if self._part is None:
            raise ValueError("the file is closed")
        view = memoryview(data).cast("B")
        try:
            self._part.write(view)
        except BaseException:
            self.discard()
            raise
        self._position += len(view)
        return len(view)

    def writelines(self, lines: Iterable[Any]) -> None:
        """Take all of them."""
        for line in lines:
            self.write(line)

    def tell(self) -> int:
        """Bytes taken so far."""
        return self._position

    def flush(self) -> None:
        """Nothing: what is not finished is not there for anybody."""

    def readable(self) -> bool:
        """Never."""
        return False

    def writable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Never."""
        return False

    def _only_onward(self, *_: object) -> NoReturn:
        """Raises what hosts know such files by; some ask whether there is a `read` to see that it
        is a file (`numpy.savez`)."""
        raise io.UnsupportedOperation(
            f"{self.name} is written from its beginning to its end, and not read or moved in:"
            " write to io.BytesIO first, and that to the file"
        )

    read = seek = truncate = fileno = _only_onward

    def close(self) -> None:
        """Keep the file, unless an exception is on its way through the block that wrote it.

        fsspec's own ``with`` calls this without saying whether its block failed.
        """
        if self._part is None:
            return
        error = sys.exc_info()[1]
        if error is not None and error is not self._around:
            self.discard()
            # Perhaps that error is over, and the file whole: it cannot be told from here.
            warnings.warn(
                f"{self.name} is not kept: it was closed while {type(error).__name__} was handled;"
                " close it outside of `except`, or write it in a `with` block",
                RuntimeWarning,
                stacklevel=2,
            )
        else:
            self._keep()

    def _keep(self) -> None:
        assert self._part is not None
        part, self._part = self._part, None
        try:
            part.finish()
        except BaseException:
            part.abort()
            raise
        self.kept = True
        self._then()

    def commit(self) -> None:
        """For fsspec's transactions. Raises PQVaultError when the file was not closed."""
        if not self.kept:
            raise PQVaultError(
                f"{self.name} was not written to its end",
                hint="close each file before the transaction ends",
            )

    def discard(self) -> None:
        """Drop what was written."""
        part, self._part = self._part, None
        if part is not None:
            part.abort()

    def __enter__(self) -> VaultWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.discard()
        elif self._part is not None:  # its block ended well, whatever is handled around it
            self._keep()

    def lose(self) -> None:
        """Drop what was written to a file that nobody has any more, which is no quiet matter: files
        of other file systems would be there."""
        if self._part is not None:
            self.discard()
            warnings.warn(
                f"{self.name} is not kept: nobody closed it; write it in a `with` block",
                RuntimeWarning,
                stacklevel=3,
            )

    def __del__(self) -> None:
        if hasattr(self, "_part"):
            self.lose()


class VaultText(io.TextIOWrapper):
    """Text over a `VaultWriter`: dropped, not kept, by an error or when it is lost."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.buffer.discard()  # type: ignore[attr-defined]
        elif not self.closed:
            self.flush()
            self.buffer.__exit__(None, None, None)  # type: ignore[attr-defined]
        super().__exit__(kind, error, trace)

    def __del__(self) -> None:
        if not self.closed:
            self.buffer.lose()  # type: ignore[attr-defined]
