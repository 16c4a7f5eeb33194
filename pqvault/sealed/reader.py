"""SealedReader: one sealed object as a seekable, readable binary file."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any, Final

import zstandard

from pqvault.crypto.cobblestone import CHUNK_SIZE, RandomReader, Source
from pqvault.errors import FormatError
from pqvault.format import zstdseek
from pqvault.format.zstdseek import (
    BLOCK_SIZE,
    FOOTER_SIZE,
    STORED_HEADER_SIZE,
    SeekTable,
)
from pqvault.sealed.decode import decode_frame, decode_frame_into, new_decompressor
from pqvault.sealed.framecache import FrameCache
from pqvault.sealed.rangefile import RangeFile

__all__ = ["SealedReader"]

_local = threading.local()
_numbers = itertools.count()  # a name for each reader in a shared cache
_WINDOW: Final = 1024 * 1024  # bytes of a stored frame fetched in one go
_PREFIX_READ: Final = 32 * 1024  # sealed bytes fetched at once for the beginning of a frame
_LEAST_ROOM: Final = 320 * 1024  # bytes: a stored frame as we write it
_FAN_OUT: Final = 8 * 1024 * 1024  # a read of this many bytes goes over several threads


class SealedReader(RangeFile):
    """Reads a sealed object anywhere; not a byte that is not authenticated.

    ``source`` gives sealed bytes at any offset and is not closed by this class unless
    ``close_source`` is given. ``what`` names the object in errors. ``cache``: where decoded
    frames are kept, by default 32 MiB of its own. Raises IntegrityError at once when key,
    name, end or seek table do not fit.
    """

    def __init__(
        self,
        source: Source,
        key: bytes,
        context: bytes,
        what: str,
        *,
        cache: FrameCache | None = None,
        close_source: Callable[[], object] | None = None,
    ) -> None:
        super().__init__()
        self._what = what
        # First what `close` needs: a reader that is refused below is closed when it is collected.
        self._cache = cache or FrameCache()
        self._number = next(_numbers)
        self._close_source: Callable[[], object] | None = None
        self._random = RandomReader(source, key, context, what)
        self.table = self._read_table()
        self.size = self.table.size
        # frame -> how many of its blocks are known to be raw; -1: not a stored frame
        self._stored: dict[int, int] = {}
        self._close_source = close_source

    def close(self) -> None:
        """Drop the cache, close the source if this reader owns it."""
        if not self.closed:
            self._cache.forget(self._number)
            if self._close_source is not None:
                self._close_source()
        super().close()

    def _read_table(self) -> SeekTable:
        total = self._random.size
        if total < FOOTER_SIZE:
            raise FormatError(f"{self._what} is too short to have a seek table")
        footer = bytes(self._random.pread(total - FOOTER_SIZE, FOOTER_SIZE))
        size = SeekTable.size_from_footer(footer, total, self._what)
        return SeekTable.parse(self._random.pread(total - size, size), total, self._what)

    # -- reading ---------------------------------------------------------------------------

    def pread_into(self, out: memoryview, offset: int) -> None:
        """Fill ``out`` with content from ``offset``; IntegrityError names what is damaged."""
        self._check()
        end = offset + len(out)
        if offset < 0 or end > self.size:
            raise ValueError("the range is outside the object")
        if not len(out):
            return
        first, last = self.table.frame_at(offset), self.table.frame_at(end - 1)
        jobs = []
        for frame in range(first, last + 1):
            start = max(offset, self.table.content[frame])
            stop = min(end, self.table.content[frame + 1])
            jobs.append((frame, start, out[start - offset : stop - offset]))
        if len(out) < _FAN_OUT or len(jobs) <= 2:
            self._read_frames(jobs)
            return
        # As many runs of frames as there are threads, one of them for this thread.
        share = -(-len(jobs) // _threads())
        others = [
            _fan_out_pool().submit(self._read_frames, jobs[at : at + share])
            for at in range(share, len(jobs), share)
        ]
        try:
            self._read_frames(jobs[:share])
        finally:
            wait(others)  # they write to the caller's buffer
        for other in others:
            other.result()

    def _read_frames(self, jobs: list[tuple[int, int, memoryview]]) -> None:
        for job in jobs:
            self._read_frame(*job)

    def stop(self, offset: int, step: int) -> int:
        """Where a read of about ``step`` bytes from ``offset`` ends best: where a frame does, so
        that none is decoded for two reads. A frame longer than a step is read whole."""
        starts = self.table.content
        end = min(offset + step, self.size)
        frame = self.table.frame_at(end - 1)
        if starts[frame + 1] == end or starts[frame] <= offset:
            return starts[frame + 1]
        return starts[frame]

    def view(self, offset: int, length: int) -> memoryview | None:
        """Content that lies in one frame, as a view of the decoded frame; None when it does not.

        No copy is made; the view keeps the frame alive.
        """
        if not length or offset < 0 or offset + length > self.size:
            return None
        found = self.frame(offset)
        if found is None or offset + length > found[0] + len(found[1]):
            return None
        skip = offset - found[0]
        return found[1][skip : skip + length]

    def stored(self, offset: int, length: int) -> bytes | None:
        """Content that lies in one stored frame or two, copied once; None when it does not."""
        self._check()
        if not length or offset < 0 or offset + length > self.size:
            return None
        starts = self.table.content
        frame = self.table.frame_at(offset)
        left = offset + length - starts[frame + 1]
        if left <= 0:
            pieces = self._stored_pieces(frame, offset - starts[frame], length)
            return None if pieces is None else b"".join(pieces)
        if left > starts[frame + 2] - starts[frame + 1]:
            return None
        skip = offset - starts[frame]
        if self._is_raw(frame, skip + length - left) and self._is_raw(frame + 1, left):
            between = self.table.sealed[frame + 1] - self.table.sealed[frame]
            end = between + zstdseek.stored_place(left - 1) + 1
            fetch = self._window(self.table.sealed[frame], zstdseek.stored_place(skip), end)
            head = _blocks(fetch, 0, skip, length - left)
            return b"".join([*head, *_blocks(fetch, between, 0, left)])
        pieces = self._stored_pieces(frame, skip, length - left)
        if pieces is None:
            return None
        first = b"".join(pieces)  # now: the next read is to the same memory
        pieces = self._stored_pieces(frame + 1, 0, left)
        return None if pieces is None else b"".join((first, *pieces))

    def frame(self, offset: int) -> tuple[int, memoryview] | None:
        """The frame with the content at ``offset``, decoded, and where it begins; None for one
        that seems to be stored."""
        self._check()
        frame = self.table.frame_at(offset)
        if self._may_be_stored(frame):
            return None
        content = self._cache.get(self._number, frame)
        if content is None:
            content = self._decode(frame)
            self._cache.put(self._number, frame, content)
        return self.table.content[frame], memoryview(content)

    def prefix(self, offset: int, length: int) -> bytes:
        """At most ``length`` bytes from ``offset``, none past the end of the frame there; at the
        beginning of a frame no more of it is decoded than that.

        For who needs the end of a line from a frame that another reader decodes.
        """
        self._check()
        if not 0 <= offset < self.size:
            return b""
        frame = self.table.frame_at(offset)
        start, end = self.table.content[frame], self.table.content[frame + 1]
        length = min(length, end - offset)
        known = self._cache.get(self._number, frame) is not None
        if offset > start or known or length == end - start or self._may_be_stored(frame):
            return bytes(self.pread(offset, length))
        return self._decode_prefix(frame, length)

    def _decode_prefix(self, frame: int, length: int) -> bytes:
        what = self._name_of(frame)
        start, end = self.table.sealed[frame], self.table.sealed[frame + 1]
        head = self._random.pread(start, min(end - start, zstdseek.HEAD_SIZE))
        _, size = zstdseek.parse_frame_header(head, what)
        if size != self._content_size(frame):
            raise FormatError(f"{what} does not have the size that the seek table says")
        source: Any = _Sealed(self._random, start, end)
        decompressor = new_decompressor()
        try:
            content: bytes = decompressor.stream_reader(source, read_size=_PREFIX_READ).read(length)
        except zstandard.ZstdError:
            content = b""
        if len(content) != length:
            raise FormatError(f"{what} does not decompress to what the seek table says")
        return content

    def check_frames(
        self, done: Sequence[tuple[int, int]] = (), check: Callable[[], object] = lambda: None
    ) -> None:
        """Decode every frame that does not lie within ``done``, sorted ranges of content that were
        read already. Raises IntegrityError for the first that is bad; ``check`` may end it.
        """
        at = reach = 0
        for frame in range(self.table.frames):
            check()
            start, end = self.table.content[frame], self.table.content[frame + 1]
            while at < len(done) and done[at][0] <= max(reach, start):
                reach = max(reach, done[at][1])
                at += 1
            if reach < end:
                self._decode(frame)

    def _may_be_stored(self, frame: int) -> bool:
        content = self._content_size(frame)
        sealed = self.table.sealed[frame + 1] - self.table.sealed[frame]
        return sealed == zstdseek.stored_size(content) and self._stored.get(frame, 0) >= 0

    def _read_frame(self, frame: int, start: int, out: memoryview) -> None:
        skip = start - self.table.content[frame]
        content = self._cache.get(self._number, frame)
        if content is None:
            pieces = self._stored_pieces(frame, skip, len(out))
            if pieces is not None:
                for piece in pieces:
                    out[: len(piece)] = piece
                    out = out[len(piece) :]
                return
            if len(out) == self._content_size(frame):  # it is not likely to be asked for again
                self._decode_into(frame, out)
                return
            content = self._decode(frame)
            self._cache.put(self._number, frame, content)
        out[:] = memoryview(content)[skip : skip + len(out)]

    def _content_size(self, frame: int) -> int:
        return self.table.content[frame + 1] - self.table.content[frame]

    def _decode(self, frame: int) -> bytes:
        size = self._content_size(frame)
        self._cache.decoded += size
        return decode_frame(self._fetch(frame), size, self._name_of(frame))

    def _decode_into(self, frame: int, out: memoryview) -> None:
        self._cache.decoded += len(out)
        decode_frame_into(self._fetch(frame), out, self._name_of(frame))

    def _name_of(self, frame: int) -> str:
        return f"frame {frame} of {self._what}"

    def sealed_frame(self, frame: int) -> bytes:
        """One zstd frame as it is, authenticated and not looked at."""
        return bytes(self._fetch(frame))

    def _fetch(self, frame: int) -> memoryview:
        """The same in memory of this thread, until it reads again."""
        start, end = self.table.sealed[frame], self.table.sealed[frame + 1]
        if end - start > zstdseek.MAX_SEALED_FRAME:
            raise FormatError(f"{self._name_of(frame)} is longer than a frame can be")
        return self._read_into_room(start, end - start)

    def _read_into_room(self, start: int, size: int) -> memoryview:
        # This thread's own memory, used again: fresh memory costs more than AES does. Not shared
        # with a reader that is the source of this one.
        room, _local.room = getattr(_local, "room", None), None
        if room is None or len(room) < size:
            room = memoryview(bytearray(max(size, _LEAST_ROOM)))
        try:
            self._random.pread_into(room[:size], start)
        finally:
            _local.room = room
        return room[:size]

    # -- stored frames ---------------------------------------------------------------------

    def _stored_pieces(self, frame: int, skip: int, length: int) -> list[memoryview] | None:
        """Content of a stored frame, chunk by chunk; None when the frame is not stored.

        The pieces are this thread's memory, until it reads again. Block headers are checked from
        the first to the last one touched, so that this is what a reader that goes through the
        frame in order would see.
        """
        known = self._stored.get(frame, 0)
        if known <= 0 and (known < 0 or not self._may_be_stored(frame)):
            return None
        last = (skip + length - 1) // BLOCK_SIZE
        # From the first header not yet checked, or the first byte wanted, to the last one.
        begin = zstdseek.stored_place(skip)
        if known <= last:
            begin = min(begin, zstdseek.stored_block_offset(known) if known else 0)
        end = zstdseek.stored_place(skip + length - 1) + 1
        fetch = self._window(self.table.sealed[frame], begin, end)
        if known <= last and not self._check_headers(frame, known, last, fetch):
            self._stored[frame] = -1
            return None
        return _blocks(fetch, 0, skip, length)

    def _is_raw(self, frame: int, end: int) -> bool:
        """Whether the frame is known to be stored, up to ``end`` bytes of its content."""
        return self._stored.get(frame, 0) > (end - 1) // BLOCK_SIZE

    def _check_headers(
        self, frame: int, known: int, last: int, fetch: Callable[[int, int], memoryview]
    ) -> bool:
        """Whether the headers of a stored frame are what they must be, from that of block ``known``
        on, the frame's own before the first, to block ``last``."""
        content = self._content_size(frame)
        if known == 0 and fetch(0, STORED_HEADER_SIZE) != zstdseek.stored_header(content):
            return False
        for block in range(known, last + 1):
            header = fetch(zstdseek.stored_block_offset(block), 3)
            if header != zstdseek.stored_block_header(content, block):
                return False
        self._stored[frame] = last + 1
        return True

    def _window(self, base: int, begin: int, end: int) -> Callable[[int, int], memoryview]:
        """A way to get ``(offset, length)`` of a frame at ``base``: out of one read where the range
        is small, for a disk or a store answers one request sooner than ten.

        The read is of whole chunks, which are decrypted to where they stay."""
        if end - begin > _WINDOW:
            return lambda offset, length: memoryview(self._random.pread(base + offset, length))
        at = (base + begin) // CHUNK_SIZE * CHUNK_SIZE
        size = min(-(-(base + end) // CHUNK_SIZE) * CHUNK_SIZE, self._random.size) - at
        data = self._read_into_room(at, size)
        shift = base - at
        return lambda offset, length: data[shift + offset : shift + offset + length]


def _blocks(
    fetch: Callable[[int, int], memoryview], base: int, skip: int, length: int
) -> list[memoryview]:
    """Content of a stored frame at ``base``, a piece for each of its blocks."""
    pieces = []
    while length:
        take = min(BLOCK_SIZE - skip % BLOCK_SIZE, length)
        pieces.append(fetch(base + zstdseek.stored_place(skip), take))
        skip, length = skip + take, length - take
    return pieces


class _Sealed:
    """The sealed bytes of one frame, in order."""

    def __init__(self, random: RandomReader, start: int, end: int) -> None:
        self._random, self._at, self._end = random, start, end

    def read(self, size: int) -> bytes:
        data = bytes(self._random.pread(self._at, min(size, self._end - self._at)))
        self._at += len(data)
        return data


def _threads() -> int:
    return min(8, os.cpu_count() or 1)


@cache
def _fan_out_pool() -> ThreadPoolExecutor:
    # One for the process: readers come and go by the thousand, threads must not.
    return ThreadPoolExecutor(_threads(), "pqvault-read")


# A child of fork has the pool object but none of its threads.
os.register_at_fork(after_in_child=_fan_out_pool.cache_clear)
