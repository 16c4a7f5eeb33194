"""An entry of a catalog as an object. docs/format.md section 6. Without pyarrow, which takes longer
to import than a worker process takes for the rest."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final

__all__ = [
    "HOLE",
    "MAX_NAME",
    "MAX_PATH",
    "MAX_SIZE",
    "Entry",
    "Extent",
    "Kind",
    "above",
    "is_path",
]

MAX_PATH: Final = 65535  # bytes of an entry's path
MAX_NAME: Final = 255  # bytes of one component
MAX_SIZE: Final = 2**63 - 1
HOLE: Final = -1  # the object of an extent that no object holds


def is_path(path: bytes) -> bool:
    """Whether an entry may have this path: plain names with one / between them."""
    return (
        len(path) <= MAX_PATH
        and b"\0" not in path
        and all(0 < len(n) <= MAX_NAME and n not in (b".", b"..") for n in path.split(b"/"))
    )


def above(path: bytes) -> list[bytes]:
    """The paths of the folders around ``path``, the outermost first."""
    return [path[:i] for i, byte in enumerate(path) if byte == ord("/")]


class Kind(enum.IntEnum):
    """What an entry is; in the file one byte, an ASCII letter."""

    FILE = ord("f")
    FOLDER = ord("d")
    SYMLINK = ord("l")
    HARDLINK = ord("h")
    TOMBSTONE = ord("x")
    TABLE = ord("t")

    @property
    def letter(self) -> str:
        """``f``, ``d``, ``l``, ``h``, ``x`` or ``t``."""
        return chr(self)


@dataclass(frozen=True, slots=True)
class Extent:
    """``length`` bytes at ``offset`` of the content of object number ``object``; -1: a hole."""

    object: int
    offset: int
    length: int

    # A dataclass with slots looks its fields up, in Python, each time that one is pickled.
    def __reduce__(self) -> tuple[type[Extent], tuple[int, int, int]]:
        return Extent, (self.object, self.offset, self.length)


@dataclass(frozen=True, slots=True)
class Entry:
    """One row. ``path``: raw bytes with ``/`` between components; ``size``: bytes of content;

    ``mode``: permission bits 0 to 0o7777; ``link``: the target of a symbolic link, or the path
    of the first name of a hard link; ``digest``: of the content, None when it has none.
    ``table``: of a table, what `pqvault.format.table.TableDoc` parses. The content of a table
    entry is the file that it was made from, when that is kept too.
    """

    path: bytes
    kind: Kind
    size: int = 0
    mode: int = 0
    mtime_ns: int = 0
    link: bytes | None = None
    digest: bytes | None = None
    extents: tuple[Extent, ...] = ()
    table: bytes | None = None

    def __reduce__(self) -> tuple[type[Entry], tuple[Any, ...]]:
        numbers = (self.size, self.mode, self.mtime_ns)
        rest = (self.link, self.digest, self.extents, self.table)
        return Entry, (self.path, self.kind, *numbers, *rest)
