"""Globs over whole paths: ``*`` and ``?`` stay within a component, ``**`` crosses ``/``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Any

import pyarrow as pa

from pqvault.errors import NotFound
from pqvault.lazy import LazyModule
from pqvault.names import printable, spellings

__all__ = ["Globs", "nothing_matches", "several"]

pc = LazyModule("pyarrow.compute")

_MAGIC = re.compile(rb"[*?\[]")
# One of UTF-8, or one byte of what is none.
_CHARACTER = r"(?:[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}|[^/])"


class Globs:
    """A set of globs. One without ``*?[`` names a path and, if that is a folder, all in it.

    ``Globs([])`` is false and matches nothing: what no glob means is for the caller to say.
    ``listed``: paths are matched as `pqvault ls` prints them, too. ``unmatched``: those that
    nothing was like in what :meth:`look` has seen.
    """

    def __init__(self, globs: Iterable[str | bytes], *, listed: bool = False) -> None:
        names = [os.fsencode(glob) for glob in globs]
        self._any = bool(names)
        # RE2, which pyarrow carries: its time is linear in the path, whatever the glob. Python's
        # own `re` backtracks, and a path may come from an archive's maker.
        patterns = [_either(name.rstrip(b"/") or name, listed) for name in names]
        self._pattern = _whole("|".join(patterns))
        self._left = list(zip(names, map(_whole, patterns), strict=True))

    @property
    def unmatched(self) -> list[bytes]:
        """In the order in which they were given."""
        return [glob for glob, _ in self._left]

    def look(self, paths: Any) -> None:
        """Note which of them match some of ``paths``, an Arrow array of binaries."""
        self._left = [
            (glob, pattern)
            for glob, pattern in self._left
            if not pc.any(pc.match_substring_regex(paths, pattern)).as_py()
        ]

    def __bool__(self) -> bool:
        return self._any

    def match(self, path: bytes) -> bool:
        """Whether one of them matches the whole path."""
        return self._any and bool(self.mask(pa.scalar(path, pa.binary())).as_py())

    def select(self, batch: Any, where: list[int]) -> tuple[Any, list[int]]:
        """The rows of a batch of a catalog that one of them matches, and what belongs to each row.
        Notes which of them match, as :meth:`look` does. All rows when there are no globs."""
        if not self._any:
            return batch, where
        mask = self.mask(batch.column(0))
        kept = list(compress(where, mask.to_pylist()))
        if kept and self._left:  # each by itself, only where there is something to find
            self.look(batch.column(0))
        return batch.filter(mask), kept

    def match_each(self, paths: Sequence[bytes]) -> list[bool]:
        """:meth:`match` of each of them: 50 µs for the call, and less than one for a path."""
        return list(self.mask(pa.array(paths, pa.large_binary())).to_pylist())

    def mask(self, paths: Any) -> Any:
        """:meth:`match` of each of ``paths``, an Arrow array of binaries, as one of booleans."""
        return pc.match_substring_regex(paths, self._pattern)


def several(globs: str | Iterable[str] | None) -> tuple[str, ...]:
    """What callers give: one glob, several, or none."""
    return (globs,) if isinstance(globs, str) else tuple(globs or ())


def nothing_matches(globs: Iterable[str | bytes]) -> NotFound:
    """The error of who asked for what is not there."""
    asked = " ".join(printable(os.fsencode(glob)) for glob in globs)
    return NotFound(
        f"nothing in the archive matches {asked}",
        hint="globs match whole paths, as `pqvault ls` prints them; `**` crosses `/`",
    )


def _either(glob: bytes, listed: bool) -> str:
    return "|".join(map(_translate, spellings(glob) if listed else [glob]))


def _translate(glob: bytes) -> str:
    if not _MAGIC.search(glob):
        return _literal(glob) + "(?:/.*)?"
    out, at = [], 0
    while at < len(glob):
        if glob.startswith(b"**/", at):
            out.append("(?:.*/)?")
            at += 3
        elif glob.startswith(b"**", at):
            out.append(".*")
            at += 2
        else:
            piece, at = _single(glob, at)
            out.append(piece)
    return "".join(out)


def _whole(pattern: str) -> str:
    return rf"(?s)\A(?:{pattern})\z"


def _single(glob: bytes, at: int) -> tuple[str, int]:
    char = glob[at : at + 1]
    if char == b"*":
        return "[^/]*", at + 1
    if char == b"?":
        return _CHARACTER, at + 1
    if char == b"[":
        negate = glob[at + 1 : at + 2] in (b"!", b"^")
        end = glob.find(b"]", at + 2 + negate)
        if end > 0:
            return _set(glob[at + 1 + negate : end], negate), end + 1
    return _literal(char), at + 1


def _set(body: bytes, negate: bool) -> str:
    """What is in brackets, byte by byte; a range that runs backwards is empty, ``/`` never in."""
    wanted: set[int] = set()
    at = 0
    while at < len(body):
        if body[at + 1 : at + 2] == b"-" and at + 2 < len(body):
            wanted |= set(range(body[at], body[at + 2] + 1))
            at += 3
        else:
            wanted.add(body[at])
            at += 1
    chosen = (set(range(256)) - wanted if negate else wanted) - {ord("/")}
    if not chosen:
        return r"[^\x00-\xff]"  # matches nothing
    return "[" + "".join(rf"\x{byte:02x}" for byte in sorted(chosen)) + "]"


def _literal(text: bytes) -> str:
    return "".join(rf"\x{byte:02x}" for byte in text)
