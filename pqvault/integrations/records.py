"""Records of files: where a corpus is cut into units of work, and how a unit gives its records.

A unit is what one worker reads at a time: whole frames, so that no other worker decodes them.
Lines belong to the unit in which they begin; row groups to the unit in which their pages begin;
samples of a tar file to its one unit.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import tarfile
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pqvault.archive.archive import Archive
from pqvault.archive.entryfile import EntryFile
from pqvault.errors import FormatError, UsageError
from pqvault.format.entries import HOLE
from pqvault.integrations.samples import FileIndex
from pqvault.names import printable, quiet

__all__ = ["KINDS", "Piece", "Records", "Unit", "kind_of", "plan_units", "records_of"]

# Bytes of content a unit has at least: less in a small corpus, so that all workers have some.
MAX_UNIT: Final = 4 * 1024 * 1024
LEAST_UNIT: Final = 64 * 1024
_UNITS: Final = 256
_PARQUET_SPLIT: Final = 32 * 1024 * 1024  # bytes of a Parquet file a unit
_MOST_PIECES: Final = 65_536  # of a file: a hole makes it as large as a stranger likes
_TAIL: Final = 16 * 1024  # bytes first looked at for the end of a line in the next frame
_TAR_BUFFER: Final = 1024 * 1024  # bytes
MAX_LINE: Final = 256 * 1024 * 1024  # bytes
_NO_SAMPLE: Final = re.compile("__[^/]*__(/|$)")  # webdataset's own notes in a shard
_SCAN: Final = json.JSONDecoder().raw_decode

# What a record is, by the ending of the file's name.
KINDS: Final = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".tar": "tar",
    ".txt": "lines",
    ".csv": "lines",
}


class Piece(NamedTuple):
    """Bytes ``begin`` to ``end`` of file ``number``."""

    number: int
    begin: int
    end: int


class Unit(NamedTuple):
    """What is read at once, by one worker. ``size``: bytes of content."""

    kind: str
    size: int
    pieces: tuple[Piece, ...]


# What a piece gives: (records, bytes that they take), the records as a list or a table of rows.
Records = Iterator[tuple[list[Any] | pa.Table, int]]


def kind_of(path: bytes, kind: str | None) -> str:
    """``jsonl``, ``lines``, ``parquet`` or ``tar``. Raises UsageError naming the file."""
    if kind is not None:
        if kind not in KINDS.values():
            raise UsageError(
                f"there are no records of the kind {kind!r}",
                hint=f"choose one of {', '.join(sorted(set(KINDS.values())))}",
            )
        return kind
    name = os.fsdecode(path)
    for ending, found in KINDS.items():
        if name.lower().endswith(ending):
            return found
    raise UsageError(
        f"{printable(path)} has records of no known kind",
        hint=f"choose files with globs=…, or say kind=…; known endings: {', '.join(KINDS)}",
    )


def plan_units(archive: Archive, index: FileIndex, kind: str | None) -> list[Unit]:
    """The units of all files of ``index``, in the order in which they lie."""
    total = sum(index.size(number) for number in range(len(index)))
    least = max(LEAST_UNIT, min(MAX_UNIT, total // _UNITS))
    by_kind: dict[str, list[int]] = {}
    for number in sorted(range(len(index)), key=index.where):
        by_kind.setdefault(kind_of(index.path(number), kind), []).append(number)
    units: list[Unit] = []
    for found, numbers in by_kind.items():
        if found in ("jsonl", "lines"):
            units += _line_units(found, archive, index, numbers, least)
        else:
            units += _file_units(found, index, numbers, least)
    return units


def _file_units(kind: str, index: FileIndex, numbers: Sequence[int], least: int) -> Iterator[Unit]:
    """Files as they are; small ones of Parquet together, large ones cut."""
    pieces: list[Piece] = []
    size = 0
    for number in numbers:
        total = index.size(number)
        split = max(_PARQUET_SPLIT, -(-total // _MOST_PIECES))
        step = split if kind == "parquet" else max(1, total)
        for begin in range(0, total, step):
            end = min(total, begin + step)
            pieces.append(Piece(number, begin, end))
            size += end - begin
            if size >= least or kind == "tar":
                yield Unit(kind, size, tuple(pieces))
                pieces, size = [], 0
    if pieces:
        yield Unit(kind, size, tuple(pieces))


def _line_units(
    kind: str, archive: Archive, index: FileIndex, numbers: Sequence[int], least: int
) -> Iterator[Unit]:
    """Cut where frames begin, so that a unit is whole frames, some MiB of them."""
    cuts: dict[tuple[int, int], array[int]] = {}
    pieces: list[Piece] = []
    size, at_cut = 0, None
    for number in numbers:
        at = 0
        for part, number_of_object, offset, length in index.extents(archive, number):
            where = (part, number_of_object)
            if where not in cuts:
                cuts[where] = _cuts(archive, *where, least)
            edges = cuts[where]
            first = bisect_right(edges, offset) - 1
            done = 0
            for cut in range(first, max(first + 1, bisect_left(edges, offset + length))):
                edge = edges[cut + 1] if cut + 1 < len(edges) else offset + length
                stop = min(length, edge - offset)
                if at_cut != (where, cut) and pieces:
                    yield Unit(kind, size, tuple(pieces))
                    pieces, size = [], 0
                at_cut = (where, cut)
                pieces.append(Piece(number, at + done, at + stop))
                size += stop - done
                done = stop
            at += length
    if pieces:
        yield Unit(kind, size, tuple(pieces))


def _cuts(archive: Archive, part: int, number: int, least: int) -> array[int]:
    """Offsets in an object at which units begin: frames, thinned out where they are small."""
    if number == HOLE:
        return array("q", [0])
    content = archive.parts[part].reader(number).table.content
    kept = array("q", [0])
    for start, end in itertools.pairwise(content):
        if start - kept[-1] >= least or (start > kept[-1] and end - kept[-1] > 2 * least):
            kept.append(start)
    return kept


def records_of(archive: Archive, index: FileIndex, kind: str, piece: Piece) -> Records:
    """The records of one piece. Raises IntegrityError, FormatError that name the file."""
    file = index.file(archive, piece.number)
    if kind == "parquet":
        yield from _rows(file, piece)
    elif kind == "tar":
        yield from _members(file)
    else:
        lines = _lines(file, piece)
        records = _parsed(lines, file.name, piece) if kind == "jsonl" else lines
        yield records, piece.end - piece.begin


def _lines(file: EntryFile, piece: Piece) -> list[bytes]:
    """The lines that begin after ``begin``, or at 0, and not after ``end``; without their ends.

    A line that begins at a cut belongs to the unit before it, so none has to look behind.
    """
    data = bytes(file.pread(piece.begin, piece.end - piece.begin))
    if piece.begin:
        newline = data.find(b"\n")
        if newline < 0:
            return []  # the middle of a line that began before
        data = data[newline + 1 :]
    if piece.end < file.size:
        data += _rest_of_line(file, piece.end)
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


def _rest_of_line(file: EntryFile, at: int) -> bytes:
    """From ``at`` to the end of the line there; of the next frame no more is decoded than that."""
    found = bytearray()
    size = _TAIL
    begin = at
    while at < file.size:
        data = file.prefix(at, size)
        newline = data.find(b"\n")
        if newline >= 0:
            return bytes(found) + data[: newline + 1]
        if at + len(data) - begin > MAX_LINE:
            raise FormatError(f"{file.name} has a line of more than {MAX_LINE} bytes")
        if len(data) < size or size >= MAX_UNIT:  # to the end of that frame
            found += data
            at += len(data)
            size = _TAIL
        else:
            size *= 16
    return bytes(found)


def _parsed(lines: list[bytes], name: str, piece: Piece) -> list[Any]:
    records = []
    try:
        for line in lines:
            if line and not line.isspace():
                records.append(_value(line))
    except (ValueError, RecursionError):
        raise UsageError(
            f"line {len(records) + 1} after byte {piece.begin} of {name} is not JSON",
            hint="mend the file and seal it again, or read it with kind='lines'",
        ) from None
    return records


def _value(line: bytes) -> Any:
    """What `json.loads` says, by its scanner alone where that takes all of the line: a third less
    time. Raises ValueError, RecursionError."""
    try:
        text = line.decode("utf-8", "surrogatepass")
        value, end = _SCAN(text)
        if end == len(text):
            return value
    except ValueError:
        pass
    return json.loads(line)  # spaces around it, a mark of the order of bytes, or not JSON


def _rows(file: EntryFile, piece: Piece) -> Records:
    """The row groups whose first page lies in the piece."""
    try:
        source = pq.ParquetFile(pa.PythonFile(file, mode="r"), pre_buffer=False)
        for group in range(source.num_row_groups):
            if piece.begin <= _begin_of(source.metadata.row_group(group)) < piece.end:
                table = source.read_row_group(group, use_threads=False)
                yield table, table.nbytes
    except (pa.ArrowException, OSError, ValueError) as error:
        text = str(error).splitlines()
        raise UsageError(
            f"{file.name} cannot be read as Parquet: {text[0] if text else type(error).__name__}"
        ) from None


def _begin_of(group: Any) -> int:
    if not group.num_columns:
        return 0  # rows of nothing lie nowhere
    column = group.column(0)
    pages = [column.data_page_offset]
    if column.has_dictionary_page and column.dictionary_page_offset:
        pages.append(column.dictionary_page_offset)
    return int(min(pages))


def _key_of(name: str) -> tuple[str, str]:
    """The key of a member's sample, and the ending that it has there. No key: what is no part of a
    sample, as what archivers add (``._0001.jpg``), which would part the members of one."""
    folder, slash, last = name.rpartition("/")
    stem, dot, ending = last.partition(".")
    if not (stem and dot) or _NO_SAMPLE.match(name):
        return "", ""
    return f"{folder}{slash}{stem}", ending.lower()


def _check_end(file: EntryFile, at: int) -> None:
    # tarfile ends in silence at a header that it does not understand: samples would be missing.
    block = file.pread(at, tarfile.BLOCKSIZE)
    if len(block) % tarfile.BLOCKSIZE or any(block):
        raise UsageError(
            f"{file.name} is cut or damaged: no member of a tar file begins at byte {at:,}",
            hint="make the shard again, and seal it",
        )


def _members(file: EntryFile) -> Records:
    """Samples of a tar shard: members that follow each other under one name, by their endings.

    ``{"__key__": "dir/0001", "jpg": b"…", "cls": b"…"}``, as webdataset has them.
    """
    sample: dict[str, Any] = {}
    size = 0
    file.seek(0)
    try:
        buffered = io.BufferedReader(file, _TAR_BUFFER)
        with tarfile.open(fileobj=buffered, mode="r:") as shard:
            for member in shard:
                if not member.isfile():
                    continue
                key, ending = _key_of(member.name)
                if not key:
                    continue
                if sample and sample["__key__"] != key:
                    yield [sample], size
                    sample, size = {}, 0
                content = shard.extractfile(member)
                assert content is not None  # of a regular file
                data = content.read()
                sample["__key__"] = key
                if ending in sample:
                    raise UsageError(
                        f"{file.name} has {quiet(member.name)} twice in one sample",
                        hint="endings are told apart without regard to capitals",
                    )
                sample[ending] = data
                size += len(data)
                shard.members = []  # type: ignore[attr-defined]  # it would keep all it has read
            _check_end(file, shard.offset)
    except tarfile.TarError as error:
        raise UsageError(f"{file.name} cannot be read as a tar file: {error}") from None
    if sample:
        yield [sample], size
