"""Sealed streams: one file, an envelope followed by one object. docs/format.md section 8."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from pqvault.arguments import Identities, Recipients, to_identities, to_recipients
from pqvault.crypto.cobblestone import Source
from pqvault.errors import FormatError, IntegrityError, NotFound, UsageError
from pqvault.format import envelope as envelope_format
from pqvault.format.envelope import Envelope
from pqvault.format.textdoc import MAX_SIZE
from pqvault.ids import new_id, now
from pqvault.keys import Identity, one_profile
from pqvault.progress import Progress, Report, ignore
from pqvault.rootkey import STREAM_ARCHIVE, STREAM_OBJECT, RootKey, keyring
from pqvault.sealed import FrameCache, InOrderReader, SealedReader, SealedWriter
from pqvault.sealed.writer import DEFAULT_FRAME, DEFAULT_LEVEL

__all__ = [
    "FileSource",
    "decrypt",
    "encrypt",
    "open_stream",
    "open_stream_at",
    "read_stream_envelope",
]

_STEP: Final = 16 * 1024 * 1024  # bytes decrypted at once, over several threads
_HEAD: Final = 64 * 1024  # bytes read at once while the end of the envelope is looked for


class Readable(Protocol):
    """A binary file that can be read in order."""

    def read(self, size: int, /) -> bytes | None: ...


class Writable(Protocol):
    """A binary file that can be written in order."""

    def write(self, data: bytes | memoryview, /) -> int | None: ...


class _WriteAll:
    """A sink that goes on where an unbuffered file took only a part."""

    def __init__(self, output: Writable) -> None:
        self._output = output
        self.written = 0

    def write(self, data: memoryview | bytes) -> None:
        view = memoryview(data)
        while len(view):
            count = self._output.write(view)
            if count is None:
                raise BlockingIOError("the output is not ready, and pqvault does not poll")
            self.written += count
            view = view[count:]


def encrypt(
    source: Readable,
    output: Writable,
    recipients: Recipients,
    *,
    level: int = DEFAULT_LEVEL,
    frame_size: int = DEFAULT_FRAME,
    jobs: int | None = None,
    progress: Progress = ignore,
) -> int:
    """Seal all of ``source`` into ``output`` as one sealed stream; returns its size in bytes.

    ``level``: zstd 0 (store) to 22. ``frame_size``: bytes, 64 KiB to 8 MiB. An exception leaves
    an output that reads as truncated. Raises UsageError for bad recipients or options.
    """
    sealed_to = to_recipients(recipients)
    key = RootKey.generate(STREAM_ARCHIVE, new_id(), one_profile(sealed_to))
    sink = _WriteAll(output)
    threads = jobs or min(4, os.cpu_count() or 1)
    envelope = key.envelope(sealed_to, created=now())
    with SealedWriter(
        sink, *key.object(STREAM_OBJECT), level=level, frame_size=frame_size, threads=threads
    ) as writer:
        sink.write(envelope.marshal())
        total = 0
        while count := _read_some(source, writer):
            total += count
            progress(Report("encrypt", done=total))
    return sink.written


def _read_some(source: Readable, writer: SealedWriter) -> int:
    readinto = getattr(source, "readinto", None)
    with writer.reserve() as room:
        if readinto is not None:
            count = readinto(room)
        else:
            data = source.read(len(room))
            count = None if data is None else len(data)
            room[:count] = data or b""
        if count is None:  # not the end: taking it for one would seal a short stream
            raise _not_ready()
    writer.advance(count)
    return int(count)


def _not_ready() -> BlockingIOError:
    return BlockingIOError("the input is not ready, and pqvault does not poll")


def _read(source: Readable, size: int) -> bytes:
    data = source.read(size)
    if data is None:  # not the end: a stream that is slow is not damaged
        raise _not_ready()
    return data


def decrypt(
    source: Readable,
    output: Writable,
    identities: Identities,
    *,
    raw: bool = False,
    progress: Progress = ignore,
    what: str = "the sealed stream",
) -> int:
    """Open a sealed stream; returns the bytes written. Only authenticated bytes are written.

    An error after some output means that what was written is authentic but not all: write to
    a temporary file and rename it when this returns. ``raw``: zstd frames, as ``zstd -d`` takes
    them. A regular file is decoded on several threads, a pipe in order. Raises NoKeyFits,
    IntegrityError.
    """
    envelope, rest = _read_envelope(source, what)
    key = _stream_key(envelope, to_identities(identities), what)
    sink = _WriteAll(output)
    for piece in _pieces(source, rest, key, raw, what):
        sink.write(piece)
        progress(Report("decrypt", done=sink.written))
    return sink.written


def _pieces(
    source: Readable, rest: bytes, key: RootKey, raw: bool, what: str
) -> Iterator[bytes | memoryview]:
    file = None if raw else FileSource.of(source, len(rest))
    if file is not None:
        reader = SealedReader(file, *key.object(STREAM_OBJECT), what)
        buffer = memoryview(bytearray(min(_STEP, reader.size)))
        while count := reader.readinto(buffer):
            yield buffer[:count]
        return
    in_order = InOrderReader(_Joined(rest, source), *key.object(STREAM_OBJECT), what)
    yield from in_order.raw() if raw else in_order.frames()


def open_stream(path: str | os.PathLike[str], identities: Identities) -> SealedReader:
    """A sealed stream in a file as a seekable, readable binary file; close it after use.

    Raises NotFound, NoKeyFits, IntegrityError.
    """
    what = os.fspath(path)
    try:
        file = open(path, "rb", buffering=0)
    except OSError as error:
        raise NotFound(
            f"{what} cannot be opened: {error.strerror}", hint="check the path"
        ) from None
    try:
        envelope, rest = _read_envelope(file, what)
        key = _stream_key(envelope, to_identities(identities), what)
        source = FileSource.of(file, len(rest))
        if source is None:
            raise UsageError(f"{what} is no regular file, so it cannot be read at random")
        return SealedReader(source, *key.object(STREAM_OBJECT), what, close_source=file.close)
    except BaseException:
        file.close()
        raise


def open_stream_at(
    source: Source,
    identities: Iterable[Identity],
    what: str,
    *,
    cache: FrameCache | None = None,
    close_source: Callable[[], object] | None = None,
) -> SealedReader:
    """A sealed stream anywhere that can be read at ranges, as :func:`open_stream` does of a file.

    ``what`` names it in errors. Raises NoKeyFits, IntegrityError.
    """
    head = _Head(source)
    envelope, rest = _read_envelope(head, what)
    key = _stream_key(envelope, identities, what)
    start = head.position - len(rest)
    behind = _Behind(source, start, source.size - start)
    return SealedReader(
        behind, *key.object(STREAM_OBJECT), what, cache=cache, close_source=close_source
    )


@dataclass(slots=True)
class _Head:
    """The first bytes of a source, in order."""

    source: Source
    position: int = 0

    def read(self, size: int, /) -> bytes:
        data = bytearray(max(0, min(size, self.source.size - self.position)))
        if data:
            self.source.pread_into(memoryview(data), self.position)
        self.position += len(data)
        return bytes(data)


@dataclass(frozen=True, slots=True)
class _Behind:
    """A source from ``start`` on."""

    source: Source
    start: int
    size: int

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        self.source.pread_into(buffer, self.start + offset)


def read_stream_envelope(source: Readable, what: str) -> Envelope:
    """The envelope at the head of a sealed stream: what can be seen without a key."""
    return _read_envelope(source, what)[0]


def _read_envelope(source: Readable, what: str) -> tuple[Envelope, bytes]:
    head = bytearray()
    label = envelope_format.LABEL.encode("ascii")
    while True:
        data = _read(source, _HEAD)
        head += data
        if not data and len(head) < len(label):
            end = "ends before its envelope does" if head else "is empty"
            raise FormatError(
                f"{what} {end}, and is no sealed stream",
                hint="did what should have written it fail? else restore it from a copy",
            )
        if not head.startswith(label[: len(head)]):
            raise FormatError(
                f"{what} is not a sealed stream",
                hint="`pqvault encrypt` makes sealed streams; an archive is a folder NAME.pqv/",
            )
        # Three lines; the object behind them may hold newlines too, but not before them.
        if head.count(b"\n", 0, MAX_SIZE) >= 3 or not data or len(head) > MAX_SIZE:
            break
    envelope, used = Envelope.parse_prefix(bytes(head), f"the envelope of {what}")
    if (envelope.archive, envelope.group) != (STREAM_ARCHIVE, ""):
        raise IntegrityError(
            f"{what} begins with the envelope of an archive, which was copied here"
        )
    return envelope, bytes(head[used:])


def _stream_key(envelope: Envelope, identities: Iterable[Identity], what: str) -> RootKey:
    return RootKey.unwrap(envelope, keyring(identities), f"the envelope of {what}")


@dataclass(slots=True)
class _Joined:
    """What was read already, then the rest."""

    first: bytes
    then: Readable

    def read(self, size: int, /) -> bytes:
        if self.first:
            data, self.first = self.first[:size], self.first[size:]
            return data
        return _read(self.then, size)


@dataclass(frozen=True, slots=True)
class FileSource:
    """The object in a regular file, behind the envelope: ``size`` bytes from ``start`` on."""

    fd: int
    start: int
    size: int

    @classmethod
    def of(cls, source: Readable, ahead: int) -> FileSource | None:
        """``ahead``: bytes already read behind the envelope. None for what is no regular file."""
        raw = source.raw if isinstance(source, io.BufferedReader) else source
        if not isinstance(raw, io.FileIO):  # a gzip file's fileno() is that of other bytes
            return None
        try:
            fd = raw.fileno()
            info = os.fstat(fd)
            position = source.tell() - ahead  # type: ignore[attr-defined]
        except OSError:
            return None
        if not stat.S_ISREG(info.st_mode):
            return None
        return cls(fd, position, info.st_size - position)

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        done = 0
        while done < len(buffer):
            count = os.preadv(self.fd, [buffer[done:]], self.start + offset + done)
            if not count:
                raise IntegrityError("the sealed stream got shorter while it was read")
            done += count
