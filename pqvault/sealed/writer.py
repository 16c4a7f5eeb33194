"""SealedWriter: bytes in, one sealed object out, frame by frame."""

from __future__ import annotations

import os
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from types import TracebackType
from typing import Final, Protocol

import zstandard

from pqvault.crypto.cobblestone import MessageWriter
from pqvault.errors import PQVaultError, UsageError
from pqvault.format import zstdseek
from pqvault.format.zstdseek import MAX_FRAME, MIN_FRAME, SeekTable

__all__ = [
    "DEFAULT_FRAME",
    "DEFAULT_LEVEL",
    "RANDOM_FRAME",
    "STORE",
    "SealedWriter",
    "Sink",
    "check_options",
]

DEFAULT_FRAME: Final = 4 * 1024 * 1024  # bytes of content
# `--access random`. A mixed corpus is 7 % larger than with the default, text alone up to a half;
# shuffled small files train at 0.36 to 0.50 of the speed of plain ones. Twice as much: 5.6 % and
# two fifths, 0.28 to 0.33.
RANDOM_FRAME: Final = 64 * 1024
DEFAULT_LEVEL: Final = 3
STORE: Final = 0  # level: every frame stored as it is
# Content of a stored frame, at most: a reader checks the block headers before the one it wants,
# so few blocks a frame keep a read from a cold disk to one place (1 ms and not 2).
STORED_FRAME: Final = 256 * 1024

_PIECE: Final = 256 * 1024  # bytes sealed at once
_PROBE_PIECE: Final = 8 * 1024
_PROBE_PIECES: Final = 16
# A frame whose sample does not shrink by an eighth (so does ZFS) is stored. fp16 weights shrink to
# 0.92, zstd Parquet to 0.97, Snappy Parquet of text to 0.88, at three times the cost of sealing
# them stored; and stored frames are read chunk by chunk, at memory speed.
_WORTH_IT: Final = 0.875
# A frame whose sample does not shrink to this share has little that repeats: level 1 finds as
# much of it as level 3 does, in a third of the time (Snappy Parquet: 1.0 ms a MB and not 3.2, for
# 1 % more).
_QUICKLY: Final = 0.75
_QUICK_LEVEL: Final = 1
_LEAST_WINDOW_LOG: Final = 10  # zstd's own least
_QUICK_UP_TO: Final = 4  # who asks for a higher level wants the size


class Sink(Protocol):
    """Where sealed bytes go; all of ``data`` is taken or an error raised."""

    def write(self, data: memoryview, /) -> object: ...


class SealedWriter:
    """Seals one object into ``sink``.

    The last chunk is written by :meth:`finish` and by nothing else: an exception, a signal,
    a lost process leave something that reads as truncated. After an error of ``sink`` the writer
    takes nothing more, and :meth:`finish` raises. As a context manager it finishes
    on a clean exit only. It is no ``io`` class, because those finish when they are collected.

    ``frame_size``: bytes of content a frame, 64 KiB to 8 MiB. ``level``: zstd's 1 to 22, or
    0 to store. ``threads``: how many compress at once; their frames keep their order.
    ``aside``: a context for the time in which a frame is compressed and written.
    Memory: about ``(threads + 1) * (3 * frame_size)`` and zstd's own tables.
    """

    def __init__(
        self,
        sink: Sink,
        key: bytes,
        context: bytes,
        *,
        level: int = DEFAULT_LEVEL,
        frame_size: int = DEFAULT_FRAME,
        threads: int = 1,
        aside: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        check_options(level, frame_size)
        self._sink = sink
        self._message = MessageWriter(key, context)
        self._level = level
        self._frame_size = frame_size
        self._limit = frame_size  # content the current frame may take
        self._buffer = self._new_buffer()
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._total = 0
        self._sealed_sizes = array("I")
        self._content_sizes = array("I")
        self._out = bytearray(2 * MessageWriter.room(_PIECE))
        self._pool = ThreadPoolExecutor(threads, "pqvault-zstd") if threads > 1 else None
        self._pending: deque[tuple[Future[bytes | None], bytearray, int]] = deque()
        self._depth = threads + 1
        self._spare: list[bytearray] = []
        self._local = threading.local()  # of a thread that compresses
        self._aside = aside
        self._pid = os.getpid()
        self._state = "open"

    # -- writing ---------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take all of ``data``; returns its length in bytes."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            room = self.reserve()
            take = min(len(room), len(view) - done)
            room[:take] = view[done : done + take]
            self.advance(take)
            done += take
        return done

    def reserve(self) -> memoryview:
        """Room in the current frame, at least one byte, to read a file straight into.

        Say with :meth:`advance` how much of it was filled.
        """
        self._check_open()
        if self._filled >= self._limit:
            self._close_frame()
        return self._view[self._filled : self._limit]

    def advance(self, count: int) -> None:
        """``count`` bytes of what :meth:`reserve` gave hold content now."""
        self._filled += count
        self._total += count

    def begin_file(self, size: int) -> None:
        """A file of ``size`` bytes comes next: keep one smaller than a frame within one frame.

        When it does not fit, the frame is closed if it is a quarter full, else it may grow by
        that quarter: no frame gets tiny, and no small file costs two frames to read.
        """
        self._check_open()
        if self._filled == 0 or self._filled + size <= self._limit:
            return
        quarter = self._frame_size // 4
        grown = self._filled + size
        if self._filled >= quarter or grown > min(self._frame_size + quarter, MAX_FRAME):
            self._close_frame()
        else:
            self._limit = grown

    def put_frame(self, frame: bytes | bytearray, size: int) -> None:
        """A whole frame of ``size`` bytes of content, as another object has it. Raises FormatError.

        What was written before is closed into frames of its own.
        """
        self._check_open()
        zstdseek.check_frame(frame, size, "a frame that is copied")
        if self._filled:
            self._close_frame()
        with self._whole():
            while self._pending:
                self._drain_one()
            self._sealed_sizes.append(len(frame))
            self._content_sizes.append(size)
            self._total += size
            self._emit([memoryview(frame)])

    def flush(self) -> None:
        """Nothing: frames are written when they are full. For zipfile and others who call it."""

    def tell(self) -> int:
        """Bytes of content taken so far."""
        return self._total

    @property
    def is_open(self) -> bool:
        """Whether it takes more: not after its end, nor after an error."""
        return self._state == "open"

    # -- ending ----------------------------------------------------------------------------

    def finish(self) -> None:
        """Write the rest, the seek table and the last chunk. Nothing else ever does."""
        self._check_open()
        try:
            if self._filled:
                self._close_frame()
            while self._pending:
                self._drain_one()
            table = SeekTable.of(self._sealed_sizes, self._content_sizes).marshal()
            self._emit([table])
            self._sink.write(memoryview(self._message.finalize()))
            self._state = "finished"
        finally:
            self.close()

    def close(self) -> None:
        """Give the threads back. Without :meth:`finish` before, the object stays truncated."""
        if self._state == "open":
            self._state = "aborted"
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
        self._pending.clear()
        self._spare.clear()

    def __enter__(self) -> SealedWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._state not in ("finished", "aborted"):
                self.finish()
        finally:
            self.close()

    def _check_open(self) -> None:
        if self._state != "open":
            raise PQVaultError(f"this writer is {self._state}: nothing can be written to it")
        # A child shares salt and counter with its parent; both writing is nonce reuse
        # (ATTACKS row 16).
        if os.getpid() != self._pid:
            raise PQVaultError(
                "this writer belongs to another process",
                hint="open a writer after the fork, in the process that writes",
            )

    # -- frames ----------------------------------------------------------------------------

    def _new_buffer(self) -> bytearray:
        return bytearray(min(self._frame_size + self._frame_size // 4, MAX_FRAME))

    def _close_frame(self) -> None:
        buffer, size = self._buffer, self._filled
        self._filled = 0
        self._limit = self._frame_size
        with self._whole():
            if self._pool is None:
                with self._aside():
                    self._put_frame(self._compress(buffer, size), buffer, size)
                return
            self._pending.append((self._pool.submit(self._compress, buffer, size), buffer, size))
            while len(self._pending) >= self._depth:
                self._drain_one()
        self._buffer = self._spare.pop() if self._spare else self._new_buffer()
        self._view = memoryview(self._buffer)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """A frame is written in the block, all of it: after an error within it no reader would open
        what follows, so nothing may follow, whoever caught the error."""
        self._state = "broken by an earlier error"
        yield
        self._state = "open"

    def _drain_one(self) -> None:
        future, buffer, size = self._pending.popleft()
        self._put_frame(future.result(), buffer, size)
        self._spare.append(buffer)

    def _compress(self, buffer: bytearray, size: int) -> bytes | None:
        """The frame, or None when it is to be stored."""
        if self._level == STORE:
            return None
        with memoryview(buffer)[:size] as view:
            # After a frame that shrank well the next is not probed: files are mostly longer than
            # frames, and where that is wrong, one frame takes longer and is stored all the same.
            share = 0.0 if getattr(self._local, "shrank", False) else _sample(view)
            if share >= _WORTH_IT:
                return None
            frame: bytes = self._compressor(quick=share >= _QUICKLY).compress(view)
        self._local.shrank = len(frame) < size * _QUICKLY
        return frame if len(frame) < size * _WORTH_IT else None

    def _compressor(self, *, quick: bool) -> zstandard.ZstdCompressor:
        """This thread's compressor: its tables are used again for each frame."""
        quick = quick and self._level <= _QUICK_UP_TO
        name = "quick" if quick else "compressor"
        compressor: zstandard.ZstdCompressor | None = getattr(self._local, name, None)
        if compressor is None:
            compressor = _compressor(_QUICK_LEVEL if quick else self._level, self._frame_size)
            setattr(self._local, name, compressor)
        return compressor

    def _put_frame(self, frame: bytes | None, buffer: bytearray, size: int) -> None:
        if frame is not None:
            self._sealed_sizes.append(len(frame))
            self._content_sizes.append(size)
            self._emit([frame])
            return
        pieces: list[bytes | memoryview] = []
        with memoryview(buffer) as view:
            for start in range(0, size, STORED_FRAME):
                content = view[start : min(start + STORED_FRAME, size)]
                self._sealed_sizes.append(zstdseek.stored_size(len(content)))
                self._content_sizes.append(len(content))
                pieces += zstdseek.stored_pieces(content)
            self._emit(pieces)

    def _emit(self, pieces: list[bytes | memoryview]) -> None:
        # Little at a time, so that it is still in the processor's cache when the sink takes it.
        at = 0
        with memoryview(self._out) as out:
            for piece in chain.from_iterable(map(_cut, pieces)):
                if at + MessageWriter.room(len(piece)) > len(out):
                    self._sink.write(out[:at])
                    at = 0
                at += self._message.update_into(piece, out[at:])
            self._sink.write(out[:at])


def check_options(level: int, frame_size: int) -> None:
    """Raise UsageError for a level or a frame size, in bytes, that no writer takes."""
    if not MIN_FRAME <= frame_size <= MAX_FRAME:
        raise UsageError(
            f"a frame of {frame_size} bytes is not possible",
            hint=f"choose {MIN_FRAME} to {MAX_FRAME} bytes",
        )
    if not 0 <= level <= 22:
        raise UsageError(f"there is no level {level}", hint="choose 0 (store) to 22")


def _cut(piece: bytes | memoryview) -> Iterator[memoryview]:
    with memoryview(piece) as view:
        for start in range(0, len(view), _PIECE):
            yield view[start : start + _PIECE]


def _compressor(level: int, frame_size: int) -> zstandard.ZstdCompressor:
    """zstd with tables for a frame, and a window of all of it: within the 8 MiB readers accept."""
    whole = {"window_log": max(_LEAST_WINDOW_LOG, (frame_size - 1).bit_length())}
    of_level = zstandard.ZstdCompressionParameters.from_level
    parameters = of_level(level, source_size=frame_size, **whole)
    if parameters.strategy == zstandard.STRATEGY_DFAST:
        # Levels 3 and 4 look for matches from 5 bytes on. From 6 on they are found sooner: 2 %
        # less time, text of many repetitions 1 % smaller, source code 1 % larger.
        tuned = {"min_match": 6}
        if level == DEFAULT_LEVEL and frame_size >= DEFAULT_FRAME:
            # More room for long matches, and for short ones a table that stays in the nearest
            # cache: chat takes 6 % less time and space, source code as much time, 0.9 % more space.
            tuned |= {"hash_log": 19, "chain_log": 12}
        parameters = of_level(level, source_size=frame_size, **whole, **tuned)
    return zstandard.ZstdCompressor(compression_params=parameters)


def _sample(view: memoryview) -> float:
    """To what share 16 samples of 8 KiB shrink with level 1: 0.1 ms for a frame that takes 4 or
    more. 0 for a frame too short to tell."""
    size = len(view)
    if size < _PROBE_PIECE * _PROBE_PIECES:
        return 0.0
    step = (size - _PROBE_PIECE) // (_PROBE_PIECES - 1)
    sample = b"".join(view[at : at + _PROBE_PIECE] for at in range(0, step * _PROBE_PIECES, step))
    return len(zstandard.ZstdCompressor(level=1).compress(sample)) / len(sample)
