"""Seal one object: the unit of work, for a thread here and for a task elsewhere.

Repeatable but not deterministic: each try draws its own salt and writes under a name of its
own, so that a try that lost is garbage and never a clash.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from pqvault.archive.deal import DigestJob, ObjectJob, Piece
from pqvault.archive.layout import part_file
from pqvault.archive.sourcefile import facts_of, open_regular, wait_for_tick
from pqvault.archive.turns import Turns
from pqvault.crypto import digest as digests
from pqvault.format.commit import PartFile
from pqvault.sealed import SealedWriter
from pqvault.storage import Sink, Storage

__all__ = [
    "SealOptions",
    "Sealed",
    "hash_file",
    "seal_file",
    "seal_object",
    "take_digest",
]

_ZEROS: Final = memoryview(bytes(1024 * 1024))
# Bytes read at once: what was read is still in the processor's cache when its digest is taken.
_READ: Final = 512 * 1024
_SMALL: Final = 64 * 1024  # bytes; reading such files is mostly system calls
_TELL: Final = 64 * 1024  # bytes between two reports of progress, at least


@dataclass(frozen=True, slots=True)
class SealOptions:
    """How objects are written. ``digest``: its name in the commit."""

    level: int
    frame_size: int
    digest: str = digests.DEFAULT


@dataclass(slots=True)
class Sealed:
    """What came of one job. Rows are those of the part."""

    file: PartFile | None = None
    extents: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    """(row, start in the file, object number, offset in the object, length)"""
    digests: list[tuple[int, bytes]] = field(default_factory=list)
    ends: list[tuple[int, int]] = field(default_factory=list)
    """(row, size found) of files that were cut while they were read"""
    undigested: list[int] = field(default_factory=list)
    """rows of files that changed between the reading of their pieces: no digest is theirs"""
    changed: list[tuple[int, str]] = field(default_factory=list)
    failed: list[tuple[int, str]] = field(default_factory=list)
    tables: list[tuple[int, bytes]] = field(default_factory=list)
    """(row, what the catalog says of the table)"""
    table_files: list[PartFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class DigestingSink:
    """Passes bytes on to storage and takes the digest that the commit will list."""

    def __init__(self, sink: Sink, digest: str) -> None:
        self._sink = sink
        self._hasher = digests.new(digest)

    def write(self, data: memoryview) -> None:
        """Take all of ``data``."""
        self._hasher.update(data)
        self._sink.write(data)

    def listing(self, name: str) -> PartFile:
        """The line of the commit."""
        return PartFile(name, self._sink.written, self._hasher.digest().hex())


def seal_object(
    job: ObjectJob,
    name: str,
    key: bytes,
    context: bytes,
    storage: Storage,
    part: str,
    options: SealOptions,
    on_bytes: Callable[[int], object],
    turns: Turns | None = None,
) -> Sealed:
    """Read the files of ``job`` and seal them into the object ``name`` of ``part``.

    ``turns``: of the threads of this process that do so side by side. A file that cannot be read
    is named in the result, and the rest goes on. Raises PQVaultError when the object cannot be
    written; nothing is left of it then.
    """
    result = Sealed()
    untold = 0

    def tell(count: int) -> None:
        nonlocal untold
        untold += count
        if untold >= _TELL:
            on_bytes(untold)
            untold = 0

    def fill(writer: SealedWriter) -> None:
        for small, pieces in groupby(job.pieces, lambda piece: piece.expected.size <= _SMALL):
            with turns.turn() if small and turns else nullcontext():
                for piece in pieces:
                    _seal_piece(writer, piece, job.number, options.digest, result, tell)
        on_bytes(untold)

    result.file = seal_file(
        name, key, context, storage, part, options, fill, turns.aside if turns else nullcontext
    )
    return result


def seal_file(
    name: str,
    key: bytes,
    context: bytes,
    storage: Storage,
    part: str,
    options: SealOptions,
    fill: Callable[[SealedWriter], None],
    aside: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> PartFile:
    """One sealed file of a part, made of what ``fill`` writes; ``aside``: see SealedWriter."""
    with storage.create(part_file(part, name)) as sink:
        digesting = DigestingSink(sink, options.digest)
        with SealedWriter(
            digesting,
            key,
            context,
            level=options.level,
            frame_size=options.frame_size,
            aside=aside,
        ) as writer:
            fill(writer)
        return digesting.listing(name)


def _seal_piece(
    writer: SealedWriter,
    piece: Piece,
    number: int,
    digest: str,
    result: Sealed,
    on_bytes: Callable[[int], object],
) -> None:
    # Corpora have files by the hundred thousand: what is done once a file here, counts.
    expected, data = piece.expected, piece.data()
    size = data[0][1] if len(data) == 1 else sum(length for _, length in data)
    hasher = digests.new(digest) if piece.whole else None
    extents = []
    # The end of what was read; what lies before a later piece is for the earlier ones to say.
    reached = 0 if piece.whole else data[0][0]
    taken = 0
    try:
        fd, before = open_regular(piece.source)
        try:
            wait_for_tick(before[2])
            writer.begin_file(size)
            at = 0  # where in the file the digest stands
            for start, length in data:
                if hasher is not None and start > at:
                    _hash_zeros(hasher, start - at)
                offset = writer.tell()
                done = _copy(fd, start, length, writer, hasher, on_bytes)
                if done:
                    reached = start + done
                    taken += done
                    extents.append((piece.row, start, number, offset, done))
                at = start + done
                if done < length:
                    break
            after = facts_of(os.fstat(fd))
        finally:
            os.close(fd)
    except OSError as error:
        result.failed.append((piece.row, f"cannot be read: {error.strerror}"))
        return
    cut = taken < size
    # A file that got shorter ends where it ends now, or where reading it ended before that.
    end = max(reached, min(at if cut else expected.size, after[0]))
    if hasher is not None:
        if end > at:
            _hash_zeros(hasher, end - at)
        result.digests.append((piece.row, hasher.digest()))
    result.extents += extents
    if end < expected.size:
        result.ends.append((piece.row, end))
    if cut or before != expected or after != before:
        result.changed.append((piece.row, "changed while it was read"))
        if hasher is None:
            result.undigested.append(piece.row)


def _copy(
    fd: int,
    start: int,
    length: int,
    writer: SealedWriter,
    hasher: digests.Hasher | None,
    on_bytes: Callable[[int], object],
) -> int:
    """Read straight into the writer's frame; fewer than ``length`` bytes when the file is cut."""
    done = 0
    while done < length:
        view = writer.reserve()[: min(length - done, _READ)]
        count = os.preadv(fd, [view], start + done)
        if not count:
            break
        if hasher is not None:
            hasher.update(view if count == len(view) else view[:count])
        writer.advance(count)
        done += count
        on_bytes(count)
    return done


def hash_file(source: bytes, digest: str, check: Callable[[], object] = lambda: None) -> str:
    """Hex of the digest of a file. Raises OSError, and what ``check`` does."""
    hasher = digests.new(digest)
    buffer = memoryview(bytearray(_READ))
    fd, _ = open_regular(source)
    try:
        while count := os.readv(fd, [buffer]):
            check()
            hasher.update(buffer[:count])
    finally:
        os.close(fd)
    return hasher.digest().hex()


def take_digest(job: DigestJob, digest: str, check: Callable[[], object]) -> Sealed:
    """The digest of a file whose data goes to several objects. ``check`` may raise to end it."""
    piece, result = job.piece, Sealed()
    hasher = digests.new(digest)
    buffer = memoryview(bytearray(_READ))
    try:
        fd, _ = open_regular(piece.source)
        try:
            at = 0
            for start, length in piece.data():
                _hash_zeros(hasher, start - at, check)
                at, end = start, start + length
                while at < end:
                    check()
                    count = os.preadv(fd, [buffer[: end - at]], at)
                    if not count:
                        break
                    hasher.update(buffer[:count])
                    at += count
            _hash_zeros(hasher, piece.expected.size - at, check)
            facts = facts_of(os.fstat(fd))
        finally:
            os.close(fd)
    except OSError as error:
        result.failed.append((piece.row, f"cannot be read: {error.strerror}"))
        return result
    if facts == piece.expected:
        result.digests.append((piece.row, hasher.digest()))
    else:
        result.undigested.append(piece.row)  # what was hashed may not be what was sealed
        if facts[0] < piece.expected.size and not piece.data():  # else its pieces say so
            result.ends.append((piece.row, facts[0]))
        result.changed.append((piece.row, "changed while it was read"))
    return result


def _hash_zeros(
    hasher: digests.Hasher, count: int, check: Callable[[], object] = lambda: None
) -> None:
    while count > 0:
        check()
        take = min(count, len(_ZEROS))
        hasher.update(_ZEROS[:take])
        count -= take
