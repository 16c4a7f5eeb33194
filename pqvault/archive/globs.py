"""Globs over whole paths: ``*`` and ``?`` stay within a component, ``**`` crosses ``/``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

__all__ = ["Globs"]

_MAGIC = re.compile(rb"[*?\[]")


class Globs:
    """A set of globs. One without ``*?[`` names a path and, if that is a folder, all in it.

    ``Globs([])`` is false and matches nothing: what no glob means is for the caller to say.
    """

    def __init__(self, globs: Iterable[str | bytes]) -> None:
        names = [os.fsencode(glob).rstrip(b"/") for glob in globs]
        self._any = bool(names)
        self._regex = re.compile(b"|".join(_translate(name) for name in names), re.DOTALL)

    def __bool__(self) -> bool:
        return self._any

    def match(self, path: bytes) -> bool:
        """Whether one of them matches the whole path."""
        return self._any and self._regex.fullmatch(path) is not None


def _translate(glob: bytes) -> bytes:
    if not _MAGIC.search(glob):
        return re.escape(glob) + b"(?:/.*)?"
    out, at = [], 0
    while at < len(glob):
        if glob.startswith(b"**/", at):
            out.append(b"(?:.*/)?")
            at += 3
        elif glob.startswith(b"**", at):
            out.append(b".*")
            at += 2
        else:
            piece, at = _single(glob, at)
            out.append(piece)
    return b"(?:" + b"".join(out) + b")"


def _single(glob: bytes, at: int) -> tuple[bytes, int]:
    char = glob[at : at + 1]
    if char == b"*":
        return b"[^/]*", at + 1
    if char == b"?":
        return b"[^/]", at + 1
    if char == b"[":
        end = glob.find(b"]", at + 2 + glob.startswith((b"[!", b"[^"), at))
        if end > 0:
            negate = glob[at + 1 : at + 2] in (b"!", b"^")
            body = glob[at + 1 + negate : end].replace(b"\\", b"\\\\").replace(b"[", b"\\[")
            return (b"(?!/)[^" if negate else b"(?!/)[") + body + b"]", end + 1
    return re.escape(char), at + 1
