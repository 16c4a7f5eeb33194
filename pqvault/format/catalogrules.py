"""The rules that rows of a catalog must keep. docs/format.md section 6 numbers them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from pqvault.errors import FormatError, PQVaultError
from pqvault.format.entries import HOLE, MAX_PATH, Kind
from pqvault.format.table import MAX_TABLE_DOC
from pqvault.lazy import LazyModule
from pqvault.names import printable

__all__ = ["any_of", "check_ancestors", "check_batch"]

pc = LazyModule("pyarrow.compute")

# Plain numbers: there are rows by the million, and an Enum's name takes longer than the comparison.
_FOLDER, _TOMBSTONE = int(Kind.FOLDER), int(Kind.TOMBSTONE)

Bad = Callable[[str], PQVaultError]  # an error about the catalog, from what it does


def check_ancestors(
    batches: Iterator[pa.RecordBatch], what: str, around: Sequence[bytes] = ()
) -> Iterator[pa.RecordBatch]:
    """Pass batches of a whole catalog on; raise unless each folder of a path is an entry before.

    A tombstone needs none. So a part is a forest by itself, and no file has children.
    ``around``: folders, outermost first, that are known to be entries before the first row.
    """
    folders = list(around)  # the folders around the current path, outermost first
    last = b""
    for batch in batches:
        kinds = batch.column(1).to_pylist()
        for path, kind in zip(batch.column(0).to_pylist(), kinds, strict=True):
            if kind == _TOMBSTONE:
                continue
            parent = path.rpartition(b"/")[0]
            if parent != last:
                # Between a folder and what is in it stand only names that extend its own
                # with a byte below "/", so what is past the folder's range never comes back.
                while folders and not path.startswith(folders[-1] + b"/"):
                    if path < folders[-1] + b"0":
                        break
                    folders.pop()
                if parent and parent not in folders:
                    raise FormatError(f"{what} has {printable(path)}, but not the folder it is in")
                last = parent
            if kind == _FOLDER:
                folders.append(path)
        yield batch


_BAD_PATH: Final = r"(?s)(^|/)\.{0,2}(/|$)|\x00|[^/]{256}"


def check_batch(batch: pa.RecordBatch, objects: pa.Array, bad: Bad) -> None:
    """The rules of one row group, column by column. docs/format.md section 6 numbers them."""
    path, kind, size, mode, _, link, digest, extents, table = batch.columns
    if any(column.null_count for column in (path, kind, size, mode, batch.column(4), extents)):
        raise bad("has a row with a value missing")
    # (1) paths: relative, no empty, `.` or `..` component, no NUL, lengths; strictly ascending
    lengths = pc.binary_length(path)
    if pc.max(lengths).as_py() > MAX_PATH or any_of(_matches(path)):
        raise bad("has a path that no entry may have")
    if len(batch) > 1 and not pc.all(pc.less(path[:-1], path[1:])).as_py():
        raise bad("is not sorted by path, or has a path twice")
    # (2) kinds, sizes, modes
    kinds = pa.array([int(k) for k in Kind], pa.uint8())
    if not pc.all(pc.is_in(kind, kinds)).as_py():
        raise bad("has an entry of an unknown kind")
    if pc.min(size).as_py() < 0 or pc.max(mode).as_py() > 0o7777:
        raise bad("has a negative size, or a mode beyond permission bits")
    # (3) a link has a target and nothing else has
    links = pc.is_in(kind, pa.array([int(Kind.SYMLINK), int(Kind.HARDLINK)], pa.uint8()))
    if not pc.all(pc.equal(links, pc.is_valid(link))).as_py():
        raise bad("has a link without a target, or a target without a link")
    if any_of(pc.less(pc.binary_length(link), 1)) or any_of(
        pc.greater(pc.binary_length(link), MAX_PATH)
    ):
        raise bad("has a link target of no bytes or too many")
    if any_of(pc.match_substring_regex(link, r"\x00")):
        raise bad("has a link target with a NUL")
    hard = pc.filter(link, pc.equal(kind, int(Kind.HARDLINK)))
    if any_of(_matches(hard)):
        raise bad("has a hard link to a path that no entry may have")
    # (4) only files have content, and the extents add up to it
    with_content = [int(Kind.FILE), int(Kind.HARDLINK), int(Kind.TABLE)]
    content = pc.is_in(kind, pa.array(with_content, pa.uint8()))
    if any_of(pc.and_(pc.invert(content), pc.not_equal(size, 0))):
        raise bad("has a folder or a link with content")
    if any_of(pc.and_(pc.invert(content), pc.is_valid(digest))):
        raise bad("has a digest of something that has no content")
    _check_extents(extents, size, objects, bad)
    # (8) a table says what it is and nothing else does
    if not pc.all(pc.equal(pc.equal(kind, int(Kind.TABLE)), pc.is_valid(table))).as_py():
        raise bad("has a table that is not described, or a description of no table")
    if any_of(pc.greater(pc.binary_length(table), MAX_TABLE_DOC)):
        raise bad("has a table that is described in too many bytes")


def _check_extents(extents: Any, size: Any, objects: Any, bad: Bad) -> None:
    flat = extents.flatten()
    if flat.null_count or any(flat.field(i).null_count for i in range(3)):
        raise bad("has an extent with a value missing")
    number, offset, length = (flat.field(i) for i in range(3))
    if len(flat):
        if not pc.all(pc.is_in(number, objects)).as_py():
            raise bad("names an object that the part does not have")
        if pc.min(offset).as_py() < 0 or pc.min(length).as_py() < 1:
            raise bad("has an extent of no length or below its object")
        hole = pc.equal(number, HOLE)
        if any_of(pc.and_(hole, pc.not_equal(offset, 0))):
            raise bad("has a hole with an offset")
    try:
        if len(flat):
            pc.add_checked(offset, length)
        # Sums of every list: differences of the running sum at the lists' ends.
        running = pc.cumulative_sum_checked(length)
    except pa.ArrowInvalid:
        raise bad("has extents longer than a file can be") from None
    running = pa.concat_arrays([pa.array([0], pa.int64()), running])
    offsets = pc.subtract(extents.offsets, extents.offsets[0])
    at_end = running.take(offsets)
    if not pc.all(pc.equal(pc.subtract(at_end[1:], at_end[:-1]), size)).as_py():
        raise bad("has extents that do not add up to the size of their entry")


def _matches(paths: Any) -> Any:
    return pc.match_substring_regex(paths, _BAD_PATH)


def any_of(mask: Any) -> bool:
    return bool(pc.any(mask, min_count=0).as_py())
