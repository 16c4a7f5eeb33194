"""Content of several parts into objects of one: frames that are needed whole are copied as they
are, of others what is needed is compressed anew, so that nothing is kept that no entry names."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pqvault.archive import layout
from pqvault.archive.objects import SealOptions, seal_file
from pqvault.archive.part import OpenPart
from pqvault.archive.sealedfiles import sealed_pieces
from pqvault.errors import FormatError
from pqvault.format.commit import PartFile
from pqvault.format.entries import HOLE
from pqvault.rootkey import RootKey
from pqvault.sealed import SealedWriter
from pqvault.storage import Storage

__all__ = ["Job", "Needed", "Packed", "Places", "jobs_of", "pack"]

_STEP: Final = 1024 * 1024  # bytes of content written at once
Extents = Sequence[tuple[int, int, int]]  # object, offset, length


@dataclass(frozen=True, slots=True)
class Needed:
    """What is needed of one object: ranges of its content, ascending, none touching another."""

    part: OpenPart
    number: int
    ranges: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        """Bytes of content."""
        return sum(end - start for start, end in self.ranges)


@dataclass(frozen=True, slots=True)
class Job:
    """One new object and what goes into it."""

    number: int
    needed: tuple[Needed, ...]


@dataclass(slots=True)
class Packed:
    """``moved``: (part, object, start, end of a range of its content, where that is now)."""

    number: int
    file: PartFile | None = None
    moved: list[tuple[str, int, int, int, int]] = field(default_factory=list)
    copied: int = 0
    recompressed: int = 0


def needed_of(
    part: OpenPart, extents: Iterable[tuple[int, int, int]], what: str
) -> Iterator[Needed]:
    """What extents of a part reach, object by object. ``what``: for errors."""
    by_object: dict[int, list[tuple[int, int]]] = {}
    for number, offset, length in extents:
        if number != HOLE:
            by_object.setdefault(number, []).append((offset, offset + length))
    for number, ranges in sorted(by_object.items()):
        merged: list[tuple[int, int]] = []
        for start, end in sorted(ranges):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        if merged[-1][1] > part.reader(number).size:
            raise FormatError(f"{what} names content that its object does not have")
        yield Needed(part, number, tuple(merged))


def jobs_of(needed: Iterable[Needed], most: int) -> Iterator[Job]:
    """New objects of at most about ``most`` bytes of content."""
    number, batch, size = 0, list[Needed](), 0
    for one in needed:
        if batch and size + one.size > most:
            yield Job(number, tuple(batch))
            number, batch, size = number + 1, [], 0
        batch.append(one)
        size += one.size
    if batch:
        yield Job(number, tuple(batch))


def pack(
    job: Job,
    key: RootKey,
    storage: Storage,
    options: SealOptions,
    tell: Callable[[int], object],
) -> Packed:
    """Write one object. Raises IntegrityError when an old one is not what its commit says."""
    result = Packed(job.number)

    def fill(writer: SealedWriter) -> None:
        for needed in job.needed:
            _check_digest(storage, needed)
            _copy(writer, needed, result, tell)

    name = layout.new_object_name(job.number)
    result.file = seal_file(name, *key.object(name), storage, key.part, options, fill)
    return result


def _check_digest(storage: Storage, needed: Needed) -> None:
    """Whoever knows the old root key could have exchanged the object: its commit tells."""
    commit = needed.part.commit
    file = needed.part.file(needed.number)
    for _ in sealed_pieces(storage, layout.part_file(commit.part, file.name), file, commit.digest):
        pass


def _copy(
    writer: SealedWriter, needed: Needed, result: Packed, tell: Callable[[int], object]
) -> None:
    reader = needed.part.reader(needed.number)
    table = reader.table

    def note(start: int, end: int) -> None:
        at = writer.tell() - (end - start)
        result.moved.append((needed.part.id, needed.number, start, end, at))
        tell(end - start)

    for start, end in needed.ranges:
        at = start
        while at < end:
            frame = table.frame_at(at)
            first, last = table.content[frame], table.content[frame + 1]
            if at == first and last <= end:
                writer.put_frame(reader.sealed_frame(frame), last - first)
                result.copied += last - first
                note(first, last)
                at = last
                continue
            stop = min(end, last, at + _STEP)
            writer.write(reader.pread(at, stop - at))
            result.recompressed += stop - at
            note(at, stop)
            at = stop


class Places:
    """Where content is after it was packed."""

    def __init__(self, packed: Iterable[Packed]) -> None:
        found: dict[tuple[str, int], list[tuple[int, int, int, int]]] = {}
        for one in packed:
            for part, number, start, end, at in one.moved:
                found.setdefault((part, number), []).append((start, end, one.number, at))
        self._moved: Mapping[tuple[str, int], list[tuple[int, int, int, int]]] = {
            key: sorted(moves) for key, moves in found.items()
        }

    def extents(self, part: str, extents: Extents) -> list[tuple[int, int, int]]:
        """The same content, in new objects; what touches is one extent."""
        out: list[tuple[int, int, int]] = []
        for number, offset, length in extents:
            if number == HOLE:
                out.append((HOLE, 0, length))
                continue
            for piece in self._pieces(part, number, offset, offset + length):
                last = out[-1] if out else (HOLE, 0, 0)
                if last[0] == piece[0] and last[1] + last[2] == piece[1]:
                    out[-1] = (last[0], last[1], last[2] + piece[2])
                else:
                    out.append(piece)
        return out

    def _pieces(
        self, part: str, number: int, start: int, end: int
    ) -> Iterator[tuple[int, int, int]]:
        moves = self._moved[part, number]
        index = bisect_right(moves, start, key=lambda move: move[0]) - 1
        while start < end:
            first, last, new, at = moves[index]
            stop = min(end, last)
            yield new, at + start - first, stop - start
            start = stop
            index += 1
